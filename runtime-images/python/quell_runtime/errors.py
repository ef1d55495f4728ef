"""The exceptions user code meets, and the one the framework keeps to itself."""

CANCELED_ERROR_CODE = "4208"
"""FunctionGraph's code for a cancelled invocation, also seen as `FSS.4208`."""


class InvocationCanceled(BaseException):
    """Raised inside a sync handler when its request is cancelled.

    Not an `Exception`, so that `except Exception` in user code lets it pass.
    Clean up in `finally`, or catch it by name; swallowing it does not undo the
    cancellation. `reason` is "cancel", "deadline" or "disconnect".
    """

    def __init__(self, reason="cancel"):
        super().__init__("the invocation was cancelled: " + reason)
        self.reason = reason


class SubInvocationError(Exception):
    """The node refused a sub-invocation, or the invoked function failed.

    `status` is the HTTP status, `error_code` and `error_msg` are those of the
    answer ("" where it had none).
    """

    def __init__(self, status, error_code, error_msg):
        super().__init__("%s %s: %s" % (status, error_code or "-", error_msg))
        self.status = status
        self.error_code = error_code
        self.error_msg = error_msg

    @property
    def canceled(self):
        """Whether the answer says that a cancellation is the cause."""
        return self.error_code.rpartition(".")[2] == CANCELED_ERROR_CODE

    @property
    def refused(self):
        """Whether this request may start no more children (it is being stopped)."""
        return self.canceled or self.status in (401, 403)


class NodeGone(Exception):
    """The node refused or closed a connection: this instance has to end."""


def let_go(error):
    """Frees what the frames of an exception hold (sockets, files), as if the handler had returned.

    An exception and the frames it passed refer to each other; without this, only
    the collector would free them, at some later time. Destructors run here, so
    before the answer: what they do still counts as code of the request.
    """
    seen = set()
    todo = [error]
    while todo:
        link = todo.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        link.__traceback__ = None
        todo += (link.__cause__, link.__context__, *getattr(link, "exceptions", ()))
