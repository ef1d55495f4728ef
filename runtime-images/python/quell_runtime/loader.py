"""From "folder/index.handler" to a callable."""

import importlib
import importlib.util
import os
import sys

CO_COROUTINE = 0x80
"""The flag of `async def`; `inspect` would tell the same but takes 10 ms to import."""


class LoadError(Exception):
    """A handler cannot be found; the message names it."""


def load(code_root, spec):
    """The callable that `spec` names. Raises LoadError, or what the import raises."""
    path, _, name = spec.rpartition(".")
    if not path or not name:
        raise LoadError("handler %r is not of the form file.function" % spec)
    module_name = path.strip("/").replace("/", ".")
    module = _import(code_root, module_name, spec)
    found = getattr(module, name, None)
    if found is None:
        raise LoadError("module %r has no %r (handler %r)" % (module_name, name, spec))
    if not callable(found):
        raise LoadError("%r in module %r cannot be called (handler %r)" % (name, module_name, spec))
    return found


def _import(code_root, module_name, spec):
    taken = sys.modules.get(module_name)
    own_file = os.path.join(code_root, module_name.replace(".", os.sep) + ".py")
    if taken is not None and getattr(taken, "__file__", None) != own_file and os.path.exists(own_file):
        # The user's file has the name of a library module already in use here.
        return _execute(module_name, own_file)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise LoadError("no module %r in the code (handler %r)" % (module_name, spec)) from error
        raise


def _execute(module_name, path):
    found = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def is_async(handler):
    """Whether calling `handler` gives a coroutine (`async def`, also behind partial or __call__)."""
    while hasattr(handler, "func") and not hasattr(handler, "__code__"):
        handler = handler.func
    code = getattr(handler, "__code__", None)
    if code is None:
        code = getattr(getattr(type(handler), "__call__", None), "__code__", None)
    return code is not None and bool(code.co_flags & CO_COROUTINE)
