import signal
import threading


def start(number, frame):
    threading.Thread(target=threading.Event().wait, daemon=True).start()


signal.signal(signal.SIGUSR2, start)


def handler(event, context):
    return event
