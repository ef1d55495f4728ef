"""The parent's side of its workers: forking, handing out, cancelling, burying."""

import mmap
import os
import selectors
import signal
import socket
import sys
import time

from quell_runtime import descendants, wire
from quell_runtime.cancellation import RESEND_S
from quell_runtime.worker import DONE, SLOT_WORDS, Slot, encode_assignment, work

PREFORKED = 16
"""Workers forked at the start; more only when as many requests really run at once."""

GRACE_SHARE = 0.8
"""Of the node's grace, after which a worker that does not end is killed: before the
node gives up on the instance, and with it on the neighbours."""


class Worker:
    """One forked process and the request it has, if any."""

    __slots__ = ("index", "pid", "pidfd", "channel", "slot", "sequence", "invocation", "reason", "kill_at")

    def __init__(self, index, pid, channel, slot):
        self.index = index
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.channel = channel
        self.slot = slot
        self.sequence = 0
        self.free()

    def free(self):
        """It has no request any more."""
        self.invocation = None
        self.reason = None
        self.kill_at = None


class TooManyDeaths(Exception):
    """Worker after worker dies without a request served: this instance is broken."""


class WorkerPool:
    """At most `settings.concurrency` workers of one single-threaded parent."""

    def __init__(self, settings, handler, selector, close_in_child, post_error):
        self._settings = settings
        self._handler = handler
        self._selector = selector
        self._close_in_child = close_in_child
        self._post_error = post_error
        self._pid = os.getpid()
        self._words = memoryview(mmap.mmap(-1, settings.concurrency * SLOT_WORDS * 8)).cast("Q")
        self._initial = descendants.baseline()  # what the initializer started
        self._workers = {}
        self._idle = []
        self._busy = 0
        self._sequence = 0
        self._deaths = 0
        # Ignored until a worker has its own handler, lest an early signal kills it;
        # what is missed is sent again.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        for _ in range(min(settings.concurrency, PREFORKED)):
            self._idle.append(self._fork())

    def has_capacity(self):
        """Whether one more request can run at once."""
        return self._busy < self._settings.concurrency

    def is_idle(self):
        """Whether no worker has a request."""
        return self._busy == 0

    def assign(self, invocation):
        """Hands a request to an idle worker; a dead one's channel is found out by its pidfd."""
        worker = self._idle.pop() if self._idle else self._fork()
        self._sequence += 1
        worker.sequence = self._sequence
        worker.invocation = invocation
        self._busy += 1
        try:
            worker.channel.setblocking(True)
            worker.channel.sendall(encode_assignment(worker.sequence, invocation))
        except OSError:
            pass  # it died idle: its end is reported next, and then the request fails
        finally:
            worker.channel.setblocking(False)

    def cancel(self, notice):
        """Signals the worker that has the request; False if none has it."""
        for worker in self._workers.values():
            if worker.invocation is not None and worker.invocation.invocation_id == notice.invocation_id:
                if worker.reason is None:
                    worker.reason = notice.reason
                    worker.kill_at = time.monotonic() + notice.grace_ms / 1000 * GRACE_SHARE
                    worker.slot.cancel(worker.sequence, notice.reason)
                    os.kill(worker.pid, signal.SIGUSR1)  # our unreaped child: the number is its own
                return True
        return False

    def wait_s(self):
        """How long the event loop may sleep: for ever unless a cancelled request still runs."""
        return RESEND_S if any(w.reason is not None for w in self._workers.values()) else None

    def tick(self):
        """Signals again who has not been hit, kills who does not end."""
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.reason is None:
                continue
            if now >= worker.kill_at:
                os.kill(worker.pid, signal.SIGKILL)
            elif not worker.slot.has_fired(worker.sequence):
                os.kill(worker.pid, signal.SIGUSR1)

    def _fork(self):
        index = next(i for i in range(self._settings.concurrency) if i not in self._workers)
        slot = Slot(self._words, index)
        slot.clear()
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            for worker in self._workers.values():
                worker.channel.close()
                os.close(worker.pidfd)
            self._close_in_child()
            work(self._settings, self._handler, theirs, slot, self._pid)
            os._exit(1)
        theirs.close()
        ours.setblocking(False)
        worker = Worker(index, pid, ours, slot)
        self._workers[index] = worker
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_message(worker))
        self._selector.register(worker.pidfd, selectors.EVENT_READ, lambda: self._on_death(worker))
        return worker

    def _on_message(self, worker):
        if self._workers.get(worker.index) is not worker:
            return  # buried in the same round of events
        try:
            message = worker.channel.recv(DONE.size)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if len(message) < DONE.size:
            self._selector.unregister(worker.channel)  # its end comes by its pidfd
            return
        self._deaths = 0
        worker.free()
        self._busy -= 1
        self._idle.append(worker)

    def _on_death(self, worker):
        """Buries a worker with all it started, answers for its request, forks another."""
        self._read_last_words(worker)
        _, status = os.waitpid(worker.pid, 0)
        self._bury(worker)
        spared = {(w.pid, descendants.start_time(w.pid)) for w in self._workers.values()}
        descendants.kill_all_but(spared | self._initial)
        if worker.reason is None:
            self._deaths += 1
        if worker.invocation is not None:
            self._busy -= 1
            self._post_error(worker.invocation, _obituary(worker, status))
        if self._deaths > self._settings.concurrency:
            raise TooManyDeaths("%d workers ended without having served a request" % self._deaths)
        self._idle.append(self._fork())

    def _read_last_words(self, worker):
        try:
            self._selector.get_key(worker.channel)
        except KeyError:
            return
        self._on_message(worker)

    def _bury(self, worker):
        del self._workers[worker.index]
        if worker in self._idle:
            self._idle.remove(worker)
        for handle in (worker.channel, worker.pidfd):
            try:
                self._selector.unregister(handle)
            except KeyError:
                pass
        worker.channel.close()
        os.close(worker.pidfd)


def _obituary(worker, status):
    """The error body for the request of a dead worker: acknowledged if it was cancelled."""
    if worker.reason is not None:
        return wire.canceled_body(worker.reason)
    if os.WIFSIGNALED(status):
        how = "was killed by signal %d" % os.WTERMSIG(status)
    else:
        how = "exited with status %d" % os.WEXITSTATUS(status)
    return wire.error_body("RuntimeExited", "the worker process " + how)
