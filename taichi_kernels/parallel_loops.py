"""Kernels whose outermost loops are parallelized as the CPU or as CUDA needs it.

A kernel is written with a plain loop, which Taichi splits over the threads of a CPU:

    for i in range(n): ...

For CUDA Taichi would make two CUDA kernels of it, because n is known only at run time: one that stores n in memory that
Taichi allocates, and one that loops. There the kernel is compiled as if it were written as a grid-stride loop,

    for thread in range(N_THREADS):
        i = thread
        while i < n:
            ...
            i += N_THREADS

which becomes one CUDA kernel that reads nothing but its arguments. A CUDA thread takes every so many of the N_THREADS
as the launch has threads, so that a launch of any size computes all of it.
"""

import ast
import inspect
import itertools
import linecache
import textwrap
from collections.abc import Callable
from types import FunctionType
from typing import Any

from taichi_kernels.runtime import taichi

N_THREADS = 2**18
"""On CUDA: about as many as the largest cards have at a time."""

_numbers = itertools.count()


def parallel_kernel(on_cuda: bool) -> Callable[[Callable[..., Any]], Any]:
    """Like `ti.kernel`, with the outermost loops parallelized for CUDA or for the CPU.

    The outermost loops have the form ``for i in range(n)``, and no ``continue`` in them.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        return taichi().kernel(_with_strides(function) if on_cuda else function)

    return decorate


class _StrideOutermostLoops(ast.NodeTransformer):
    def visit_For(self, loop: ast.For) -> ast.stmt:  # does not visit the loops inside
        if any(isinstance(node, ast.Continue) for node in ast.walk(loop)):
            raise SyntaxError("parallel_kernel: expected a loop without `continue`, which would skip its increment")
        index = ast.unparse(loop.target)
        assert isinstance(loop.iter, ast.Call)
        (bound,) = loop.iter.args
        (strided,) = ast.parse(
            f"for _thread in range({N_THREADS}):\n"
            f"    _bound = {ast.unparse(bound)}\n"
            f"    {index} = _thread\n"
            f"    while {index} < _bound:\n"
            f"        {index} += {N_THREADS}\n"
        ).body
        assert isinstance(strided, ast.For) and isinstance(strided.body[-1], ast.While)
        strided.body[-1].body[:0] = loop.body
        return strided


def _with_strides(function: Any) -> FunctionType:
    """`function` with its outermost loops as in the description of this module, for Taichi to read."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    source = ast.unparse(_StrideOutermostLoops().visit(tree))
    # Taichi reads the source of a kernel by the name of its file, and never runs its code.
    file = f"<{function.__module__}.{function.__name__} for CUDA, {next(_numbers)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    code = function.__code__.replace(co_filename=file, co_firstlineno=1)
    strided = FunctionType(code, function.__globals__, function.__name__, closure=function.__closure__)
    strided.__annotations__ = function.__annotations__
    return strided
