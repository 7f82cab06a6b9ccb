"""How functions that are torch alone are called: plainly, or as whoever binds a field decides."""

from collections.abc import Callable
from typing import Any

Call = Callable[..., Any]
"""`call(function, *tensors, **flags)` returns what `function(*tensors, **flags)` does. Its results
depend on its arguments alone and, if it is a module or a method of one, on the module's parameters. So they can also
come from a recording of the call, such as a CUDA graph."""


def whole_call(call: Call) -> Call:
    """How functions are called that launch kernels too, where these can be recorded: through the method `whole` of
    `call`, as :meth:`ernerf_ti.process.graphs.Graphs.whole`; plainly if it has none."""
    return getattr(call, "whole", call_plainly)


def call_plainly(function: Callable[..., Any], *tensors: Any, **flags: Any) -> Any:
    """Call a function."""
    return function(*tensors, **flags)
