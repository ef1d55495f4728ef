"""What a cancelled handler gets, and what its client reports of it."""


class InvocationCanceled(BaseException):
    """Raised in the handler. No `Exception`: `except Exception` does not swallow it."""


Reported = type("InvocationCanceled", (Exception,), {"__doc__": "The same outside of the function's code."})
"""awslambdaric catches an `Exception` and reports its name; of any other its process would end."""


def let_go(error):
    """Frees what the frames of a cancellation hold (sockets, files), as if the handler had returned.

    Exceptions and frames may refer to each other in a ring, which the collector of garbage frees at some
    later time: then the code's connections would outlive the acknowledgement.
    """
    seen = set()
    todo = [error]
    while todo:
        link = todo.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            todo += (link.__cause__, link.__context__)
