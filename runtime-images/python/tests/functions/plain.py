import os
import sys

from report import report

INITIALIZED = []


def initializer(context):
    INITIALIZED.append(context.getFunctionName())


def broken_initializer(context):
    raise ValueError("no database")


def echo(event, context):
    return event


def initialized(event, context):
    return INITIALIZED


def represent(event, context):
    return repr(event)


def fail(event, context):
    raise LookupError("nothing there")


def leave(event, context):
    sys.exit(3)


def pid(event, context):
    return os.getpid()


def describe(event, context):
    context.getLogger().info("%s of %d", "one", 2)
    print("printed by the function")
    return {
        "id": context.getRequestID(), "remaining": context.getRemainingTimeInMilliSeconds(),
        "timeout": context.getRunningTimeInSeconds(), "colour": context.getUserData("colour"),
        "missing": context.getUserData("shape", "round"), "name": context.getFunctionName(),
        "version": context.getVersion(), "memory": context.getMemorySize(), "cpu": context.getCPUNumber(),
        "project": context.getProjectID(), "package": context.getPackage(), "token": context.getToken(),
        "ak": context.getSecurityAccessKey(), "sk": context.getSecretKey(), "st": context.getSecurityToken(),
        "alias": context.getAlias(), "cancelled": context.cancelled, "cwd": os.getcwd(),
    }


def exit_or_pid(event, context):
    if event == "exit":
        report()
        os._exit(7)
    return os.getpid()


def exit_after_child(event, context):
    import subprocess

    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    report(child_pid=child.pid)
    os._exit(7)


def wrapped(event, context):
    async def inner():
        return "from a coroutine"

    return inner()


def left_behind(event, context):
    """A process meant to outlive its request."""
    import subprocess

    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    report(child_pid=child.pid)
    return child.pid
