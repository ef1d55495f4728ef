"""Handlers that hang in every way there is; `run` picks one by the event."""

import _thread
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from report import report
from quell_runtime import InvocationCanceled


def run(event, context):
    return HANDLERS[event["how"]](event, context)


def sleeping(event, context):
    report()
    time.sleep(300)


def looping(event, context):
    report()
    while True:
        pass


def shell(event, context):
    child = subprocess.Popen(["sh", "-c", "sleep 300 & echo $!; wait"], stdout=subprocess.PIPE)
    report(child_pid=int(child.stdout.readline()), shell_pid=child.pid)
    child.wait()


def subprocess_run(event, context):
    # The child itself reports, so that run() is known to wait for it.
    code = "import report, time; report.report(); time.sleep(300)"
    subprocess.run([sys.executable, "-c", code], check=True)


def holding(event, context):
    file = open(event["path"])
    report()
    if event.get("fail"):
        raise ValueError(file.name)
    time.sleep(300)


def receiving(event, context):
    ours, theirs = socket.socketpair()
    report()
    ours.recv(1)
    theirs.close()


def detached(event, context):
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    report(child_pid=child.pid)
    child.wait()


def double_forked(event, context):
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.setsid()
        last = os.fork()
        if last == 0:
            os.execvp("sleep", ["sleep", "300"])
        os.write(writer, str(last).encode())
        os._exit(0)
    os.waitpid(middle, 0)
    report(child_pid=int(os.read(reader, 32)))
    time.sleep(300)


def swallowing_exceptions(event, context):
    report()
    while True:
        try:
            time.sleep(300)
        except Exception:
            pass


def swallowing_all(event, context):
    try:
        report()  # inside: the cancellation may come before it returns
        time.sleep(300)
    except BaseException:
        pass
    return "as if nothing had happened"


def cleaning_up(event, context):
    try:
        report()  # inside: the cancellation may come before it returns
        time.sleep(300)
    except InvocationCanceled as canceled:
        report(at="except", reason=canceled.reason, cancelled=context.cancelled, told=context.cancel_reason)
        raise
    finally:
        report(at="finally")


class Careless:
    def __del__(self):
        report(at="destructor")
        time.sleep(300)


def destructor(event, context):
    Careless()
    time.sleep(300)


def thread(event, context):
    def loop():
        report()
        while True:
            pass

    worker = threading.Thread(target=loop)
    worker.start()
    worker.join()


def raw_thread(event, context):
    _thread.start_new_thread(lambda: report(at="thread"), ())
    time.sleep(300)


POOL = ThreadPoolExecutor(1)


def pool_job(event, context):
    """Of a pool whose thread an earlier request started."""
    POOL.submit(lambda: report(at="thread"))
    time.sleep(300)


def warm_pool(event, context):
    return POOL.submit(os.getpid).result()


def alarm(event, context):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 200, 200)
    report()
    time.sleep(300)


def alarm_left(event, context):
    return signal.getitimer(signal.ITIMER_REAL)[0]


def invoking(event, context):
    context.invoke("child", {"n": 1})


def invoking_in_threads(event, context):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: context.invoke("child", {"n": n}), range(3)))


def gated(event, context):
    report(name=event["name"])  # which the test answers when it likes
    return os.getpid()


def deaf(event, context):
    said = {}
    while True:
        try:
            report(**said)  # inside: the cancellation may come before it returns
            time.sleep(300)
        except BaseException:
            said = {"at": "deaf"}


def deaf_with_child(event, context):
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    said = {"child_pid": child.pid}
    while True:
        try:
            if said:
                report(**said)  # inside: the cancellation may come before it returns
            time.sleep(300)
        except BaseException:
            said = {}


def pid(event, context):
    return os.getpid()


HANDLERS = {name: value for name, value in list(globals().items()) if callable(value)}
