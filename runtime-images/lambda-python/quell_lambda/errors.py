"""What a cancelled handler gets, and what its client reports of it."""


class InvocationCanceled(BaseException):
    """Raised in the handler. No `Exception`: `except Exception` does not swallow it."""


Reported = type("InvocationCanceled", (Exception,), {"__doc__": "The same outside of the function's code."})
"""awslambdaric catches an `Exception` and reports its name; of any other its process would end."""
