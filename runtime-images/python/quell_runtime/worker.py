"""A forked worker: gets a request from its parent, runs it, answers the node itself."""

import json
import os
import struct
import sys

from quell_runtime.attempt import SyncRunner
from quell_runtime.cancellation import Guard
from quell_runtime.client import NodeConnection
from quell_runtime.errors import NodeGone
from quell_runtime.process import EXIT_NODE_GONE, become_subreaper, die_with
from quell_runtime.wire import Invocation

ASSIGNMENT = struct.Struct("=QII")
"""Parent to worker: sequence number, bytes of the headers as JSON, bytes of the event."""

DONE = struct.Struct("=Q")
"""Worker to parent: the sequence number whose answer has been posted."""

REASONS = ("cancel", "deadline", "disconnect")

SLOT_WORDS = 8
"""A cache line of shared memory a worker; the first three words are used."""

CANCELED_WORD, REASON_WORD, FIRED_WORD = range(3)


class Slot:
    """Shared memory through which the parent says which sequence number is cancelled.

    A signal carries no number. The parent writes it here before it signals, and
    the worker compares it with what it runs: a late signal meets another number.
    """

    def __init__(self, words, index):
        self._words = words
        self._first = index * SLOT_WORDS

    def clear(self):
        """For a new worker; sequence numbers start at 1."""
        for word in range(SLOT_WORDS):
            self._words[self._first + word] = 0

    def cancel(self, sequence, reason):
        """Says that `sequence` is cancelled; the reason first, the number makes it count."""
        known = REASONS.index(reason) if reason in REASONS else 0
        self._words[self._first + REASON_WORD] = known
        self._words[self._first + CANCELED_WORD] = sequence

    def reason_of(self, sequence):
        """Why `sequence` is cancelled; None if it is not."""
        if self._words[self._first + CANCELED_WORD] != sequence:
            return None
        return REASONS[self._words[self._first + REASON_WORD]]

    def set_fired(self, sequence, fired):
        """The worker: the exception was raised in user code, or got lost again."""
        self._words[self._first + FIRED_WORD] = sequence if fired else 0

    def has_fired(self, sequence):
        """The parent: whether there is no need to signal again."""
        return self._words[self._first + FIRED_WORD] == sequence


def encode_assignment(sequence, invocation):
    """What the parent sends for one request."""
    headers = json.dumps(invocation.headers).encode("ascii")
    return ASSIGNMENT.pack(sequence, len(headers), len(invocation.body)) + headers + invocation.body


def work(settings, handler, channel, slot, parent_pid):
    """The life of a worker; does not return. Its end is how the parent learns of trouble."""
    try:
        die_with(parent_pid)
        become_subreaper()
        guard = Guard(slot.reason_of, slot.set_fired)
        guard.install()
        connection = NodeConnection(settings.api_host, settings.api_port)
        runner = SyncRunner(settings, handler, guard, connection)
        while True:
            sequence, headers_size, body_size = ASSIGNMENT.unpack(_read(channel, ASSIGNMENT.size))
            headers = json.loads(_read(channel, headers_size))
            invocation = Invocation(headers, _read(channel, body_size))
            runner.run(invocation, sequence, slot.reason_of)
            channel.sendall(DONE.pack(sequence))
    except (NodeGone, OSError) as error:
        print("quell: a worker ends: %r" % (error,), file=sys.stderr)
        os._exit(EXIT_NODE_GONE)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(EXIT_NODE_GONE)


def _read(channel, size):
    data = bytearray()
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            raise ConnectionError("the parent closed the channel")
        data += part
    return bytes(data)
