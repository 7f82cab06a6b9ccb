"""Kernels as torch operators, with a shortcut for ordinary calls.

Each op is an operator of the namespace `taichi_kernels`, registered with `torch.library`: its Taichi implementation
for CPU and CUDA, a fake implementation that knows shapes and dtypes, autograd, and autocast. Tools that replace
tensors by something else (torch.compile, FakeTensor, meta tensors, dispatch modes, tensor subclasses) see
one opaque operator with a known contract.

The dispatcher enters Python once for autograd and once for the implementation, which costs as much as a launch
itself. An eager call on ordinary tensors therefore skips it and calls the same functions directly, through a
`torch.autograd.Function` where a gradient is needed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from taichi_kernels.checks import cast_under_autocast, dense
from taichi_kernels.runtime import start

_LIBRARY = torch.library.Library("taichi_kernels", "FRAGMENT")
_ORDINARY_TYPES = (Tensor, torch.nn.Parameter)
# In which torch.autograd.grad calls backward passes for is_grads_batched=True: the dispatcher takes the batch apart.
_LEGACY_VMAP = torch._C._dispatch_key_parse("VmapMode")
_AUTOCAST_KEYS = {"AutocastCPU": torch._C.DispatchKey.AutocastCPU, "AutocastCUDA": torch._C.DispatchKey.AutocastCUDA}


class Operator:
    """A torch operator `torch.ops.taichi_kernels.NAME`; call it like a function, with positional arguments.

    Args:
        schema: name, arguments and results in torch's schema language; arguments that are tensors come first.
        implementation: computes the results by launching kernels. Its tensors are contiguous and on the device
            where Taichi runs, but for arguments named grad_...: these are as autograd passes them, in any layout.
        fake: the same arguments -> empty tensors of the results' shapes, dtypes and strides.
        setup_context, backward: as for `torch.library.register_autograd`; backward calls operators and torch
            functions only, so that it can be traced, and differentiated in turn. Without it a gradient is an error.
        half_allowed: names of arguments that stay float16 under autocast.
    """

    def __init__(
        self,
        schema: str,
        implementation: Callable[..., Any],
        fake: Callable[..., Any],
        setup_context: Callable[..., None] | None = None,
        backward: Callable[..., Any] | None = None,
        half_allowed: Sequence[str] = (),
    ):
        name = schema.split("(")[0]
        qualified_name = f"taichi_kernels::{name}"
        _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        self.overload = getattr(torch.ops.taichi_kernels, name).default
        arguments = self.overload._schema.arguments
        self._implementation = implementation
        self._first_argument = arguments[0].name
        self._n_tensors = sum(isinstance(a.type, torch.TensorType) for a in arguments)
        self._is_mutated = [a.alias_info is not None and a.alias_info.is_write for a in arguments]
        self._any_layout = [a.name.startswith("grad_") for a in arguments]
        self._half_allowed = [a.name in half_allowed for a in arguments]
        self._function: type[torch.autograd.Function] | None = None
        for key in ("CPU", "CUDA"):
            _LIBRARY.impl(name, self._run_dispatched, key)
        for key, dispatch_key in _AUTOCAST_KEYS.items():
            _LIBRARY.impl(name, self._autocast(dispatch_key), key)
        torch.library.register_fake(qualified_name, fake, lib=_LIBRARY)
        if not any(self._is_mutated):  # torch derives no gradients for these; the public functions refuse to be asked
            complete = _complete(name, self._n_tensors, backward or _no_gradients)
            torch.library.register_autograd(qualified_name, complete, setup_context=setup_context, lib=_LIBRARY)
            self._function = _autograd_function(name, implementation, setup_context, complete)
            self._transformable = _transformable_function(name, implementation, setup_context, complete)

    def __call__(self, *args: Any) -> Any:
        # Dynamo evaluates the first condition while it traces, and looks no further.
        if (
            is_compiling()
            or torch._C._len_torch_dispatch_stack()  # FakeTensorMode, tracing, counting of operations
            or torch._C._get_tracing_state() is not None  # torch.jit.trace
            or torch._C._dispatch_tls_is_dispatch_key_included(_LEGACY_VMAP)
        ):
            return self.overload(*args)
        if torch._C._are_functorch_transforms_active():
            return self._transformed(*args)
        needs_gradient = False
        for a in args[: self._n_tensors]:
            if type(a) not in _ORDINARY_TYPES or a.is_meta:
                return self.overload(*args)
            if a.requires_grad:
                needs_gradient = True
        start(args[0].device, self._first_argument)
        if self._function is not None and ((needs_gradient and torch.is_grad_enabled()) or _in_forward_mode()):
            return self._function.apply(*args)
        return self._implementation(*args)

    def _transformed(self, *args: Any) -> Any:
        """A call inside of torch.func.vmap, grad, vjp or jvp, which wrap tensors."""
        if _in_forward_mode() and any(_has_tangent(a) for a in args[: self._n_tensors]):
            raise NotImplementedError(
                f"{self.overload}: expected no forward-mode derivative (torch.func.jvp, jacfwd, hessian), which it "
                "does not have; use torch.func.vjp or jacrev, or the op of taichi_kernels.reference"
            )
        if self._function is None:
            return self.overload(*args)
        start(args[0].device, self._first_argument)
        return self._transformable.apply(*args)

    def _run_dispatched(self, *args: Any) -> Any:
        """The implementation as the dispatcher calls it: nobody has checked layouts or started Taichi."""
        prepared = []
        for a, is_mutated, any_layout in zip(args, self._is_mutated, self._any_layout, strict=True):
            if isinstance(a, Tensor) and not any_layout:
                if is_mutated and not a.is_contiguous():
                    raise ValueError(
                        f"{self.overload}: expected contiguous tensors to write to, got strides {tuple(a.stride())} "
                        f"for shape {list(a.shape)}; call .contiguous() and copy the result back"
                    )
                a = dense(a)
            prepared.append(a)
        start(args[0].device, self._first_argument)
        return self._implementation(*prepared)

    def _autocast(self, key: torch._C.DispatchKey) -> Callable[..., Any]:
        def run_in_float32(*args: Any) -> Any:
            cast = [
                cast_under_autocast(a, half_allowed) if isinstance(a, Tensor) else a
                for a, half_allowed in zip(args, self._half_allowed, strict=True)
            ]
            with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
                return self.overload(*cast)

        return run_in_float32


def was_written(tensor: Tensor) -> None:
    """Tell autograd that a kernel wrote to a tensor, which it does not see."""
    if not tensor.is_inference():
        torch.autograd.graph.increment_version(tensor)


def not_differentiable(op: str) -> Callable[..., Any]:
    """The `backward` of an operator that computes the highest derivative of `op` that there is."""

    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            f"{op}: expected a loss that needs no higher derivative of this op, got one that differentiates its "
            f"gradient (create_graph=True); detach that gradient, or use taichi_kernels.reference.{op}"
        )

    return backward


def _no_gradients(ctx: Any, *grads: Tensor) -> list[None]:
    return [None] * len(ctx.needs_input_grad)


def _in_forward_mode() -> bool:
    # Forward-mode derivatives are not implemented; autograd.Function says so, where a direct call would drop them.
    return torch.autograd.forward_ad._current_level >= 0


def _has_tangent(argument: Any) -> bool:
    try:
        return isinstance(argument, Tensor) and torch.autograd.forward_ad.unpack_dual(argument).tangent is not None
    except RuntimeError:  # vmap inside of jvp hides it
        return True


def _complete(name: str, n_tensors: int, backward: Callable[..., Any]) -> Callable[..., Any]:
    """`backward`, which must not leave out a gradient that is asked for: None would read as zero."""

    def complete(ctx: Any, *grads: Tensor) -> Any:
        results = backward(ctx, *grads)
        for i, needed in enumerate(ctx.needs_input_grad[:n_tensors]):
            if needed and results[i] is None:
                raise RuntimeError(
                    f"taichi_kernels::{name}: expected argument {i} without requires_grad, because no gradient is "
                    "computed for it, got requires_grad=True; pass it with .detach()"
                )
        return results

    return complete


def _autograd_function(
    name: str,
    implementation: Callable[..., Any],
    setup_context: Callable[..., None] | None,
    backward: Callable[..., Any],
) -> type[torch.autograd.Function]:
    def forward(ctx: Any, *args: Any) -> Any:
        output = implementation(*args)
        if setup_context is not None:
            setup_context(ctx, args, output)
        return output

    return type(
        name, (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    )


def _transformable_function(
    name: str,
    implementation: Callable[..., Any],
    setup_context: Callable[..., None] | None,
    backward: Callable[..., Any],
) -> Any:
    """The same in the form that torch.func's transforms take. An ordinary call of it costs 100 us more."""
    function: Any

    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        """One call after the other: kernels have no batch dimension."""
        outputs = []
        for i in range(info.batch_size):
            slices = (
                a.select(d, i).contiguous() if isinstance(a, Tensor) and d is not None else a
                for a, d in zip(args, in_dims, strict=True)
            )
            outputs.append(function.apply(*slices))
        if isinstance(outputs[0], Tensor):
            return torch.stack(outputs), 0
        return tuple(torch.stack(values) for values in zip(*outputs, strict=True)), (0,) * len(outputs[0])

    def no_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    members = {
        "forward": implementation,
        "setup_context": setup_context or no_context,
        "backward": backward,
        "vmap": vmap,
    }
    function = type(name, (torch.autograd.Function,), {key: staticmethod(m) for key, m in members.items()})
    return function
