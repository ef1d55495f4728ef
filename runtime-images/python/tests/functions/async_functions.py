import asyncio
import contextvars
import os
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

from report import report

LOOPS = []


async def initializer(context):
    LOOPS.append(asyncio.get_running_loop())


async def run(event, context):
    return await HANDLERS[event["how"]](event, context)


async def pid(event, context):
    return os.getpid()


async def same_loop(event, context):
    return LOOPS == [asyncio.get_running_loop()]


async def fail(event, context):
    raise LookupError("nothing there")


async def leave(event, context):
    raise SystemExit(3)


async def sleeping(event, context):
    report()
    await asyncio.sleep(300)


async def swallowing(event, context):
    report()
    try:
        await asyncio.sleep(300)
    except asyncio.CancelledError:
        report(at="swallowed", reason=context.cancel_reason)
    return "as if nothing had happened"


async def cleaning_up(event, context):
    try:
        report()
        await asyncio.sleep(300)
    except asyncio.CancelledError:
        report(at="except", cancelled=context.cancelled, told=context.cancel_reason)
        raise
    finally:
        report(at="finally")


async def swallowing_first(event, context):
    report()
    try:
        await asyncio.sleep(300)
    except asyncio.CancelledError:
        pass
    await asyncio.sleep(300)


async def process(event, context):
    child = await asyncio.create_subprocess_exec("sleep", "300", start_new_session=True)
    report(child_pid=child.pid)
    await child.wait()


async def popen_orphan(event, context):
    """The process between it and us has gone, and it has its own session."""
    output = subprocess.run(["sh", "-c", "setsid sleep 300 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True)
    report(child_pid=int(output.stdout))
    await asyncio.sleep(300)


async def task_left(event, context):
    async def background():
        try:
            await asyncio.sleep(300)
        finally:
            report(at="background ended")

    task = asyncio.create_task(background())
    await asyncio.sleep(0)
    report()
    await asyncio.sleep(300)
    return task


async def thread_job(event, context):
    await asyncio.to_thread(report)  # which the test answers when it likes


async def invoking(event, context):
    return await context.ainvoke("child", {"n": 1})


async def accepted(event, context):
    return await context.ainvoke_async("child", {"n": 1}, detached=True)


async def own_thread(event, context):
    threading.Thread(target=lambda: report(at="thread")).start()
    await asyncio.sleep(300)


POOL = ThreadPoolExecutor(1)


async def own_pool(event, context):
    asyncio.get_running_loop().run_in_executor(POOL, lambda: report(at="thread"))
    await asyncio.sleep(300)


def tick():
    asyncio.get_running_loop().call_later(0.001, tick)


async def ticking(event, context):
    loop = asyncio.get_running_loop()
    loop.call_later(0.001, tick, context=contextvars.Context() if event["fresh"] else None)
    report()
    await asyncio.sleep(300)


async def forever():
    await asyncio.sleep(300)


async def stray_task(event, context):
    LOOPS.append(asyncio.create_task(forever(), context=contextvars.Context()))
    report()
    await asyncio.sleep(300)


async def watching(event, context):
    ours, theirs = socket.socketpair()
    LOOPS.append(theirs)
    asyncio.get_running_loop().add_reader(ours, tick)
    report()
    await asyncio.sleep(300)


async def what_is_left(event, context):
    loop = asyncio.get_running_loop()
    timers = [handle for handle in loop._scheduled if handle._callback is tick and not handle.cancelled()]
    watched = [key for key in loop._selector.get_map().values() if key.data[0]._callback is tick]
    tasks = [task for task in asyncio.all_tasks() if task.get_coro().__name__ == "forever"]
    return [len(timers), len(watched), len(tasks)]


async def forked(event, context):
    child = os.fork()
    if child == 0:
        os.execvpe("sleep", ["sleep", "300"], {})
    report(child_pid=child)
    await asyncio.sleep(300)


HANDLERS = {name: value for name, value in list(globals().items()) if callable(value)}
