"""The logger of `context.getLogger()`: one line a call, on standard output."""

import sys
import time


class RequestLogger:
    """Writes `<UTC time> <LEVEL> <request id> <message>`."""

    def __init__(self, request_id):
        self._request_id = request_id

    def debug(self, message, *args):
        """Writes at level DEBUG; `args` are put into `message` with %."""
        self._write("DEBUG", message, args)

    def info(self, message, *args):
        """Writes at level INFO."""
        self._write("INFO", message, args)

    def warning(self, message, *args):
        """Writes at level WARNING."""
        self._write("WARNING", message, args)

    warn = warning

    def error(self, message, *args):
        """Writes at level ERROR."""
        self._write("ERROR", message, args)

    def _write(self, level, message, args):
        text = str(message) % args if args else str(message)
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = "%s.%03dZ %s %s %s\n" % (stamp, now % 1 * 1000, level, self._request_id, text)
        # One write, so that lines of several processes do not mix.
        sys.stdout.write(line)
        sys.stdout.flush()
