"""The handler that awslambdaric is told: the function's own, which a cancellation can end.

Everything is in `bootstrap`: the client leaves the frames of files of that name out of the traces it
reports, so a function's errors look as they do without this.
"""

from quell_lambda.errors import InvocationCanceled
from quell_lambda.bootstrap import handler

__all__ = ["InvocationCanceled", "handler"]
