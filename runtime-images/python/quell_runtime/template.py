"""The fork server: imports the function once, and forks an instance whenever the node asks for one.

It never serves a request, has no address of the node and no credentials, and runs no initializer. What is
forked is a process that waits for the node to move it to where it belongs; there it forks the runtime, which
waits too, and executes the node's helper in its own place, which watches over the runtime and lets it go.
"""

import gc
import json
import os
import socket
import sys

from quell_runtime import namespaces

CONTROL_FD = 0
"""Where the node has put the socket."""

ORDER_BYTES = 256 * 1024
"""More than an environment may have: one order is one message."""

HANDED = 4
"""Descriptors with an order: the line, standard output and error, the helper's program."""

MOVED = b"m"
GO = b"g"

NEVER_WENT = 125
FAILED = 124

HARMLESS = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")
"""Files that a copy of this process may share with it."""


class Unfit(Exception):
    """What was imported cannot be copied; the message says why."""


def main():
    """The life of a fork server; does not return."""
    control = _take_control()
    open_before = _open_files()
    try:
        prepared = _prepare(open_before)
    except BaseException as error:
        _refuse(control, "the function cannot be imported once for all instances: " + _in_words(error))
        sys.exit(1)
    control.send(json.dumps("ready").encode())
    _serve(control, prepared)


def _in_words(error):
    try:
        return "%s: %s" % (type(error).__name__, error)
    except Exception:
        return type(error).__name__


def _take_control():
    """Our end of the socket, away from where user code would read it."""
    control = socket.socket(fileno=os.dup(CONTROL_FD))
    _open_over("/dev/null", os.O_RDONLY, 0)
    return control


def _open_over(path, flags, number):
    opened = os.open(path, flags)
    os.dup2(opened, number)
    os.close(opened)


def _prepare(open_before):
    """Everything an instance needs, up to what is its own."""
    from quell_runtime.settings import Settings
    from quell_runtime.start import import_function

    settings = Settings.of_template()
    prepared = import_function(settings)
    _warm(settings, prepared)
    unfit = why_unfit(open_before)
    if unfit:
        raise Unfit(unfit)
    gc.collect()
    gc.freeze()  # the collector then leaves the shared pages alone
    return prepared


def _warm(settings, prepared):
    """Imports what of ours an instance will use: once here, instead of in each."""
    import ctypes  # noqa: F401

    from quell_runtime import context, dispatch, single  # noqa: F401
    from quell_runtime.loader import is_async

    if is_async(prepared.handler):
        from quell_runtime import aio  # noqa: F401


def why_unfit(open_before):
    """Why a copy of this process would not be as good as a new one; None if it would be."""
    if len(os.listdir("/proc/self/task")) > 1:
        return "its import started a thread, which a copy would not have"
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return "its import started a process"
    except ChildProcessError:
        pass
    for path in sorted(set(_open_files().items()) - set(open_before.items())):
        if path[1] not in HARMLESS:
            return "its import opened %s, which all instances would share" % path[1]
    return None


def _open_files():
    """What is open, by its number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:
            pass  # the listing itself
    return found


def _refuse(control, why):
    # A bound on what the node reads; a traceback was not promised.
    control.send(json.dumps({"refused": why[:4096]}).encode())


def _serve(control, prepared):
    while True:
        order, handed, _, _ = socket.recv_fds(control, ORDER_BYTES, HANDED, socket.MSG_CMSG_CLOEXEC)
        if not order:
            os._exit(0)  # the node has closed it
        refused = _fork(control, prepared, json.loads(order), handed)
        for each in handed:
            os.close(each)
        if refused:
            _refuse(control, refused)
        else:
            control.send(json.dumps("forked").encode())


def _fork(control, prepared, order, handed):
    """Forks one instance, for whom another is the parent; why not, if it cannot."""
    if len(os.listdir("/proc/self/task")) > 1:
        return "code of its import has started a thread since, which a copy would not have"
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        between = os.fork()
    except OSError as error:
        return "it cannot fork: %s" % error
    if between == 0:
        _in_copy(_divide, control, prepared, order, handed)
    if os.waitpid(between, 0)[1]:
        return "a copy of it could not do its part"
    return None


def _in_copy(work, *arguments):
    """Does not return: a copy must never come to serve as another fork server."""
    try:
        work(*arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(FAILED)


def _divide(control, prepared, order, handed):
    """In the copy between: makes the namespaces, forks the instance into them, and ends."""
    control.close()
    inside = order["namespace"] if order["namespace"] and namespaces.make() else None
    if os.fork() == 0:
        _in_copy(_become_instance, prepared, order, handed, inside)
    os._exit(0)


def _become_instance(prepared, order, handed, inside):
    """Shows itself, waits to be moved, and divides into helper and runtime."""
    line, stdout, stderr, helper = handed
    os.setpgid(0, 0)
    for number, each in ((0, line), (1, stdout), (2, stderr)):
        os.dup2(each, number)
        os.close(each)
    pidfd = os.pidfd_open(os.getpid())
    with socket.socket(fileno=os.dup(0)) as shown:
        socket.send_fds(shown, [b"i"], [pidfd])
    os.close(pidfd)
    if os.read(0, 1) != MOVED:
        os._exit(NEVER_WENT)
    if inside is not None:
        namespaces.furnish(**inside)
    waits, lets_go = os.pipe()
    runtime = os.fork()
    if runtime == 0:
        os.close(lets_go)
        os.close(helper)
        _in_copy(_become_runtime, prepared, order["env"], waits, inside is not None)
    os.close(waits)
    _into_group(runtime)
    os.set_inheritable(lets_go, True)
    os.execve(helper, ["quell", *order["helper"], str(runtime), str(lets_go)], {})


def _into_group(pid):
    """Its own process group, by whoever comes first."""
    try:
        os.setpgid(pid, pid)
    except OSError:
        pass  # it has done so, or has ended


def _become_runtime(prepared, environment, waits, privileged):
    from quell_runtime import start

    os.setpgid(0, 0)
    # The helper's line is the helper's alone.
    _open_over("/dev/null", os.O_RDONLY, 0)
    if os.read(waits, 1) != GO:
        os._exit(NEVER_WENT)
    os.close(waits)
    if privileged:
        namespaces.give_up_privileges()
    os.environ.clear()
    os.environ.update(environment)
    renew_chance()
    start.run(prepared)


def renew_chance():
    """Has this copy draw other numbers than its siblings.

    `random` does so itself, and what asks the system (os.urandom, secrets, uuid4) needs nothing.
    """
    uuid = sys.modules.get("uuid")
    if uuid is not None:
        uuid._last_timestamp = None  # of uuid1, beside the clock sequence that it then draws anew
    random = sys.modules.get("random")
    if random is not None:
        random.seed()
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
