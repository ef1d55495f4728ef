"""What user code may import from the Python runtime of Quell."""

from quell_runtime.errors import InvocationCanceled, SubInvocationError

__all__ = ["InvocationCanceled", "SubInvocationError"]
