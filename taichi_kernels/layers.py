"""8-bit pictures of a layer over a background, and of pixels that move between them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck
from taichi_kernels.operators import Operator
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, scalar, taichi


def show_layers(layer: Tensor, background: Tensor, pixels: Tensor, rgb: Tensor, opacity: Tensor) -> Tensor:
    """Composite pixels over a layer over a background.

    Args:
        layer: [N, 4] uint8 color times opacity, and opacity.
        background: [N, 3] float32 or float64 in [0, 1].
        pixels: [D] int32 numbers of pixels in front of the layer, each at most once, from 0 to N - 1.
        rgb: [D, 3] their color times opacity, in the dtype of the background.
        opacity: [D] in [0, 1].

    Returns:
        [N, 3] uint8.

    Not differentiable. Deterministic. Raises ValueError if an argument is not as above; the numbers of pixels are not
    looked at.
    """
    check = ArgumentCheck()
    check.tensor("layer", layer, ("N", 4), torch.uint8)
    check.tensor("background", background, ("N", 3), FLOATS, differentiable=False)
    check.tensor("pixels", pixels, ("D",), torch.int32)
    check.tensor("rgb", rgb, ("D", 3), background.dtype, differentiable=False)
    check.tensor("opacity", opacity, ("D",), background.dtype, differentiable=False)
    picture: Tensor = _SHOW(layer, background, pixels, rgb, opacity)
    return picture


def _show(layer: Tensor, background: Tensor, pixels: Tensor, rgb: Tensor, opacity: Tensor) -> Tensor:
    picture = _empty(layer, background, pixels, rgb, opacity)
    kernels = _kernels(background.dtype, is_cuda())
    launch(kernels.behind, layer, background, len(layer), picture)
    launch(kernels.front, layer, background, pixels, rgb, opacity, len(pixels), picture)
    return picture


def _empty(layer: Tensor, background: Tensor, pixels: Tensor, rgb: Tensor, opacity: Tensor) -> Tensor:
    return layer.new_empty(layer.shape[0], 3)


class _Kernels(NamedTuple):
    behind: Any
    front: Any


@kernel_factory
def _kernels(dtype: torch.dtype, on_cuda: bool) -> _Kernels:
    ti = taichi()
    real, Reals, Ints, Bytes = scalar(dtype), array(dtype), array(torch.int32), array(torch.uint8)

    @ti.func
    def shown(layer: ti.template(), background: ti.template(), i, d):
        """What the layer and the background show, of 255."""
        left = real(255.0) - ti.cast(layer[4 * i + 3], real)
        return ti.cast(layer[4 * i + d], real) + left * background[3 * i + d]

    @ti.func
    def rounded(value):
        return ti.cast(ti.cast(ti.max(real(0.0), ti.min(real(255.0), value)) + real(0.5), ti.i32), ti.u8)

    @parallel_kernel(on_cuda)
    def behind(
        layer: Bytes,  # [N, 4]
        background: Reals,  # [N, 3]
        n: ti.i32,
        picture: Bytes,  # [N, 3]
    ):
        for i in range(n):
            for d in ti.static(range(3)):
                picture[3 * i + d] = rounded(shown(layer, background, i, d))

    @parallel_kernel(on_cuda)
    def front(
        layer: Bytes,  # [N, 4]
        background: Reals,  # [N, 3]
        pixels: Ints,  # [D]
        rgb: Reals,  # [D, 3]
        opacity: Reals,  # [D]
        n: ti.i32,
        picture: Bytes,  # [N, 3]
    ):
        for j in range(n):
            i = pixels[j]
            for d in ti.static(range(3)):
                light = (real(1.0) - opacity[j]) * shown(layer, background, i, d)
                picture[3 * i + d] = rounded(real(255.0) * rgb[3 * j + d] + light)

    return _Kernels(behind, front)


_SHOW = Operator(
    "show_layers(Tensor layer, Tensor background, Tensor pixels, Tensor rgb, Tensor opacity) -> Tensor", _show, _empty
)
