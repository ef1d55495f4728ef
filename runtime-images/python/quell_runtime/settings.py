"""What the node tells an instance through its environment."""

import json
import os


class Settings:
    """The environment of one instance, read once."""

    __slots__ = (
        "api_host", "api_port", "code_root", "handler", "initializer", "pre_stop", "timeout_s",
        "memory_mb", "cpu", "user_data", "project_id", "function", "version",
        "package", "concurrency", "endpoint", "instance_id",
    )

    def __init__(self, env=None):
        """Raises ValueError or KeyError, naming the variable, if one is unusable."""
        env = os.environ if env is None else env
        host, _, port = env["RUNTIME_API_ADDR"].rpartition(":")
        self.api_host = host.strip("[]")
        self.api_port = _number("RUNTIME_API_ADDR", port)
        self.code_root = os.path.abspath(env["RUNTIME_CODE_ROOT"])
        self.handler = env["RUNTIME_HANDLER"]
        self.initializer = env.get("RUNTIME_INITIALIZER_HANDLER", "")
        self.pre_stop = env.get("PRE_STOP_HANDLER", "")
        self.timeout_s = _number("RUNTIME_TIMEOUT", env.get("RUNTIME_TIMEOUT") or "60")
        self.memory_mb = _number("RUNTIME_MEMORY", env.get("RUNTIME_MEMORY") or "128")
        self.cpu = _number("RUNTIME_CPU", env.get("RUNTIME_CPU") or "0")
        self.user_data = json.loads(env.get("RUNTIME_USERDATA") or "{}")
        self.project_id = env.get("RUNTIME_PROJECT_ID", "")
        self.function = env.get("RUNTIME_FUNC_NAME", "")
        self.version = env.get("RUNTIME_FUNC_VERSION", "")
        self.package = env.get("RUNTIME_PACKAGE", "")
        self.concurrency = max(1, _number("QUELL_CONCURRENCY", env.get("QUELL_CONCURRENCY") or "1"))
        self.endpoint = env.get("QUELL_API_ENDPOINT", "")
        self.instance_id = env.get("QUELL_INSTANCE_ID", "")

    @classmethod
    def of_template(cls):
        """What a fork server is told: everything but what an instance has for itself."""
        return cls(dict(os.environ, RUNTIME_API_ADDR=":0"))


def _number(name, text):
    """An int where the text is whole ("0.3" CPUs are a float)."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError("%s is not a number: %r" % (name, text)) from None
    return int(value) if value == int(value) else value
