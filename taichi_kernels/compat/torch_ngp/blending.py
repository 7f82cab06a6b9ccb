"""All compositing variants of the torch-ngp family: they differ in which channels are summed, and how."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from taichi_kernels.checks import ArgumentCheck, expect, expect_integer
from taichi_kernels.compat.torch_ngp.arguments import FLOATING, Arguments
from taichi_kernels.compat.torch_ngp.depth_column import DepthColumn
from taichi_kernels.compat.torch_ngp.marching import alive_rays
from taichi_kernels.compositing import CompositedRays, accumulate_, composite

Channels = dict[str, Tensor]
"""Of each channel that a variant has besides color and depth: the name of the argument, and the values [M]."""


class BlendedRays(NamedTuple):
    """Sums over the samples of N rays."""

    weights_sum: Tensor
    """[N]"""
    depth: Tensor
    """[N], without gradient, as in the family."""
    image: Tensor
    """[N, 3]"""
    weighted: tuple[Tensor, ...]
    """[N] each."""
    summed: tuple[Tensor, ...]
    """[N] each."""


def blend_training_rays(
    depth: type[DepthColumn],
    sigmas: Tensor,
    rgbs: Tensor,
    deltas: Tensor,
    rays: Tensor,
    T_thresh: float,
    weighted: Channels | None = None,
    summed: Channels | None = None,
) -> BlendedRays:
    """Blend the samples of `march_rays_train`, with gradients; see :func:`taichi_kernels.composite`.

    Args:
        depth: what the second column of deltas holds.
        sigmas: [M] or [M, 1] densities; rgbs: [M, 3] colors; deltas: [M, 2] steps.
        rays: [N, 3] int32, ray, first sample, number of samples. Rows may be in any order. A ray whose samples
            end past M has none.
        T_thresh: a ray ends with the sample after which its transmittance is below this.
        weighted: channels that are summed with the weights, as colors are.
        summed: channels that are summed plainly over the samples that the ray visits.

    Differentiable once in densities, colors and channels, not through depth. Deterministic. Raises ValueError if an
    argument is not as above.
    """
    arguments = Arguments()
    sigmas = arguments.floats("sigmas", sigmas, ("M",))
    rgbs = arguments.floats("rgbs", rgbs, ("M", 3))
    weighted_values = [arguments.floats(name, x, ("M",)) for name, x in (weighted or {}).items()]
    summed_values = [arguments.floats(name, x, ("M",)) for name, x in (summed or {}).items()]
    deltas = arguments.floats("deltas", deltas, ("M", 2)).detach()
    packed_info = _by_ray(arguments.integers("rays", rays, ("N", 3)), len(sigmas))
    depths = depth.decode_rays(deltas[:, 1], packed_info)
    sums = composite(
        sigmas,
        deltas[:, 0].contiguous(),
        torch.cat((rgbs, torch.stack((depths, *weighted_values), 1)), 1),
        torch.stack(summed_values, 1) if summed_values else None,
        packed_info,
        T_thresh,
    )
    return BlendedRays(
        sums.opacity,
        sums.weighted[:, 3].detach().contiguous(),
        sums.weighted[:, :3].contiguous(),
        tuple(x.contiguous() for x in sums.weighted[:, 4:].unbind(1)),
        tuple(x.contiguous() for x in sums.summed.unbind(1)),
    )


def _by_ray(rays: Tensor, n_samples: int) -> Tensor:
    """[N, 3] rows in any order -> [N, 2] first sample and number of samples, row i of ray i."""
    ray_ids, begin, count = rays.unbind(1)
    count = torch.where(begin + count > n_samples, 0, count)
    packed_info = torch.empty_like(rays[:, 1:])
    packed_info[ray_ids.long()] = torch.stack((begin, count), 1)
    return packed_info.contiguous()


@torch.no_grad()
def blend_alive_rays_(
    depth: type[DepthColumn],
    n_alive: int,
    n_step: int,
    rays_alive: Tensor,
    rays_t: Tensor,
    sigmas: Tensor,
    rgbs: Tensor,
    deltas: Tensor,
    weights_sum: Tensor,
    depth_sum: Tensor,
    image: Tensor,
    T_thresh: float,
    weighted: tuple[Channels, Channels] = ({}, {}),
    summed: tuple[Channels, Channels] = ({}, {}),
) -> tuple[()]:
    """Add the samples of `march_rays` to rays in place; see :func:`taichi_kernels.accumulate_`.

    A ray that runs out of samples, or of whose light less than T_thresh was left before a sample, ends: its
    entry in rays_alive becomes -1. Of the others rays_t becomes the end of the last step.

    Args:
        depth: what the second column of deltas holds.
        n_alive, n_step, rays_alive: as for `march_rays`.
        rays_t: [N], changed.
        sigmas, rgbs, deltas: as for `blend_training_rays`, with the n_alive n_step rows of `march_rays` or more.
        weights_sum, depth_sum: [N], image: [N, 3]; sums so far, changed.
        T_thresh: see above.
        weighted, summed: further channels of either kind, [M] each, and their sums so far, [N] each, changed.

    Returns (), as the family's functions do. Deterministic. Raises ValueError if an argument is not as above.
    """
    arguments = Arguments()
    sigmas = arguments.floats("sigmas", sigmas, ("M",))
    rgbs = arguments.floats("rgbs", rgbs, ("M", 3))
    deltas = arguments.floats("deltas", deltas, ("M", 2))
    weighted_values = [arguments.floats(name, x, ("M",)) for name, x in weighted[0].items()]
    summed_values = [arguments.floats(name, x, ("M",)) for name, x in summed[0].items()]
    n_step = expect_integer("n_step", n_step, 1, None, "pass the samples of each ray in this round")
    n_rows = n_alive * n_step
    remedy = "pass the results for all rows of march_rays"
    expect(len(sigmas) >= n_rows, "sigmas", f"n_alive n_step = {n_rows} rows or more", len(sigmas), remedy)
    totals = {"rays_t": rays_t, "weights_sum": weights_sum, "depth": depth_sum, **weighted[1], **summed[1]}
    check = ArgumentCheck()
    for name, x in totals.items():
        check.tensor(name, x, ("N",), FLOATING)
    check.tensor("image", image, ("N", 3), FLOATING)

    alive = alive_rays(rays_alive, n_alive)
    dtype = sigmas.dtype
    t_before = rays_t[alive].to(dtype)
    steps, column = (x.contiguous() for x in deltas[:n_rows].unbind(1))
    ends = depth.decode_round(column.view(n_alive, n_step), t_before)
    weighted_sums = [image, depth_sum, *weighted[1].values()]
    summed_sums = list(summed[1].values())
    sums = CompositedRays(
        _rows(weighted_sums, alive, dtype),
        _rows(summed_sums, alive, dtype),
        weights_sum[alive].to(dtype),
    )
    # A row of zeros is where a ray ran out of samples.
    count = (steps.view(n_alive, n_step) != 0).int().cumprod(1).sum(1)
    ids = torch.arange(n_alive, dtype=torch.int32, device=alive.device)
    has_ended = accumulate_(
        *(sums, ids, sigmas[:n_rows], steps),
        torch.cat((rgbs[:n_rows], torch.stack([x[:n_rows] for x in (ends.reshape(-1), *weighted_values)], 1)), 1),
        torch.stack([x[:n_rows] for x in summed_values], 1) if summed_values else None,
        torch.stack((ids * n_step, count), 1).int(),
        T_thresh,
    )
    has_ended |= count < n_step
    _put_rows(weighted_sums, alive, sums.weighted)
    _put_rows(summed_sums, alive, sums.summed)
    weights_sum.index_copy_(0, alive, sums.opacity.to(weights_sum.dtype))
    rays_t.index_copy_(0, alive, torch.where(has_ended, t_before, ends[:, -1]).to(rays_t.dtype))
    rays_alive[:n_alive].masked_fill_(has_ended, -1)
    return ()


def _rows(tensors: list[Tensor], rows: Tensor, dtype: torch.dtype) -> Tensor:
    """These rows of [N] and [N, k] tensors side by side."""
    columns = [(x if x.dim() == 2 else x[:, None])[rows].to(dtype) for x in tensors]
    return torch.cat(columns, 1) if columns else torch.empty(len(rows), 0, dtype=dtype, device=rows.device)


def _put_rows(tensors: list[Tensor], rows: Tensor, values: Tensor) -> None:
    """The reverse of `_rows`."""
    for x in tensors:
        x = x if x.dim() == 2 else x[:, None]
        x.index_copy_(0, rows, values[:, : x.shape[1]].to(x.dtype))
        values = values[:, x.shape[1] :]


def plain_blending_function(depth_column: type[DepthColumn]) -> Callable:
    """`composite_rays` that reads `deltas` with this second column."""

    def composite_rays(
        n_alive: int,
        n_step: int,
        rays_alive: Tensor,
        rays_t: Tensor,
        sigmas: Tensor,
        rgbs: Tensor,
        deltas: Tensor,
        weights_sum: Tensor,
        depth: Tensor,
        image: Tensor,
        T_thresh: float = 1e-2,
    ) -> tuple[()]:
        """Adds to weights_sum, depth [N], image [N, 3]."""
        return blend_alive_rays_(
            *(depth_column, n_alive, n_step, rays_alive, rays_t, sigmas, rgbs, deltas),
            *(weights_sum, depth, image, T_thresh),
        )

    return composite_rays
