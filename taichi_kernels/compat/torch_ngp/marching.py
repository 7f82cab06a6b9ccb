"""`march_rays_train` and `march_rays` of the torch-ngp family, for either content of `deltas`."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from taichi_kernels import ray_marching
from taichi_kernels.checks import expect, expect_integer
from taichi_kernels.compat.torch_ngp.arguments import Arguments
from taichi_kernels.compat.torch_ngp.depth_column import DepthColumn
from taichi_kernels.compat.torch_ngp.ray_utilities import check_grid


def marching_functions(depth: type[DepthColumn]) -> tuple[Callable, Callable]:
    """`march_rays_train` and `march_rays` that write `deltas` with this second column."""

    def march_rays_train(
        rays_o: Tensor,
        rays_d: Tensor,
        bound: float,
        density_bitfield: Tensor,
        C: int,
        H: int,
        nears: Tensor,
        fars: Tensor,
        step_counter: Tensor | None = None,
        mean_count: int = -1,
        perturb: bool = False,
        align: int = -1,
        force_all_rays: bool = False,
        dt_gamma: float = 0,
        max_steps: int = 1024,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Samples of rays in occupied cells, see :func:`taichi_kernels.march_rays`.

        Args:
            rays_o, rays_d: [..., 3] origins and unit directions of N rays, world units.
            bound: half side of the cube.
            density_bitfield: [C H^3 / 8] uint8.
            C, H: cascades, 1 + ceil(log2(bound)) but at least 1, and cells along an axis.
            nears, fars: [N] where the rays begin and end.
            step_counter: [2] int32, to which the numbers of samples and rays are added.
            mean_count: if above 0, the number of samples that the results have room for, see below.
            perturb: move the start of each ray by a random part of its first step.
            align: number of which the rows are a multiple; always 1 to `align` rows are added. -1 for none.
            force_all_rays: make room for all samples, whatever mean_count says.
            dt_gamma: growth of the step with distance.
            max_steps: most samples of a ray; also sets the shortest step.

        Returns:
            xyzs, dirs: [M, 3], zeros in rows without a sample.
            deltas: [M, 2], length of the step, and the second column.
            rays: [N, 3] int32, ray, first sample, number of samples; row i is ray i.

        With room for mean_count samples, a ray whose samples end past the room has none of them, although
        its row in `rays` says which it would have: they are the last rays of the batch. The kernels of the
        family drop those of the threads that finish last.

        Differentiable once in rays_o and rays_d, with distances held fixed. Deterministic but for perturb.
        On CUDA the call waits for the number of samples. Raises ValueError if an argument is not as above.
        """
        arguments = Arguments()
        rays_o = arguments.floats("rays_o", rays_o, ("N", 3))
        rays_d = arguments.floats("rays_d", rays_d, ("N", 3))
        nears = arguments.floats("nears", nears, ("N",)).detach()
        fars = arguments.floats("fars", fars, ("N",)).detach()
        check_grid(density_bitfield, bound, C, H)
        noise = torch.rand_like(nears) if perturb else torch.zeros_like(nears)
        samples = ray_marching.march_rays(
            *(rays_o, rays_d, nears, fars, density_bitfield.contiguous(), bound),
            max_steps=max_steps,
            dt_gamma=dt_gamma,
            noise=noise,
        )
        n_rays, n_samples = len(rays_o), len(samples.ts)
        n_kept = n_samples
        if force_all_rays or mean_count <= 0:
            n_rows = min(_aligned(n_samples, align), n_rays * max_steps)
        else:
            n_rows = _aligned(int(mean_count), align)
            if n_samples > n_rows:
                ends = samples.packed_info.sum(1)
                n_kept = int(torch.where(ends <= n_rows, ends, 0).max())
        if step_counter is not None:
            arguments.tensor("step_counter", step_counter, (2,), torch.int32)
            step_counter += torch.tensor([n_samples, n_rays], dtype=torch.int32, device=step_counter.device)
        t_start = nears + _step_length(nears, C, H, dt_gamma, max_steps) * noise
        column = depth.encode(samples.ts + samples.deltas, t_start, samples.packed_info)
        deltas = torch.stack((samples.deltas, column), 1)
        ray_ids = torch.arange(n_rays, dtype=torch.int32, device=rays_o.device)
        rays = torch.cat((ray_ids[:, None], samples.packed_info), 1)
        xyzs, dirs, deltas = (
            F.pad(x[:n_kept], (0, 0, 0, n_rows - n_kept)) for x in (samples.positions, samples.directions, deltas)
        )
        return xyzs, dirs, deltas, rays

    @torch.no_grad()
    def march_rays(
        n_alive: int,
        n_step: int,
        rays_alive: Tensor,
        rays_t: Tensor,
        rays_o: Tensor,
        rays_d: Tensor,
        bound: float,
        density_bitfield: Tensor,
        C: int,
        H: int,
        near: Tensor,
        far: Tensor,
        align: int = -1,
        perturb: bool = False,
        dt_gamma: float = 0,
        max_steps: int = 1024,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next samples of rays that are alive, without gradients.

        Args:
            n_alive: how many rays are alive.
            n_step: samples for each.
            rays_alive: [n_alive] or longer, int32 rows of the tensors of N rays.
            rays_t: [N] how far each ray has come.
            rays_o, rays_d: [..., 3] origins and unit directions of N rays, world units.
            near: not used; the family passes it.
            far: [N] where rays end.
            bound, density_bitfield, C, H, align, perturb, dt_gamma, max_steps: as for `march_rays_train`.

        Returns:
            xyzs, dirs: [M, 3] and deltas: [M, 2] with M = n_alive n_step and the padding of `align`. Row
            i n_step + k is sample k of the ray rays_alive[i]; rows without a sample are zeros.

        Raises ValueError if an argument is not as above.
        """
        arguments = Arguments()
        rays_o = arguments.floats("rays_o", rays_o, ("N", 3))
        rays_d = arguments.floats("rays_d", rays_d, ("N", 3))
        rays_t = arguments.floats("rays_t", rays_t, ("N",))
        far = arguments.floats("far", far, ("N",))
        check_grid(density_bitfield, bound, C, H)
        alive = alive_rays(rays_alive, n_alive)
        rays_t = rays_t[alive]
        noise = torch.rand_like(rays_t) if perturb else torch.zeros_like(rays_t)
        samples = ray_marching.march_rays(
            *(rays_o[alive], rays_d[alive], rays_t, far[alive], density_bitfield.contiguous(), bound),
            max_steps=max_steps,
            max_samples=n_step,
            dt_gamma=dt_gamma,
            noise=noise,
        )
        t_start = rays_t + _step_length(rays_t, C, H, dt_gamma, max_steps) * noise
        column = depth.encode(samples.ts + samples.deltas, t_start, samples.packed_info)
        deltas = torch.stack((samples.deltas, column), 1)
        begin, count = samples.packed_info.long().unbind(1)
        shifts = torch.arange(n_alive, device=alive.device) * n_step - begin
        n_samples = len(samples.ts)
        rows = torch.arange(n_samples, device=alive.device)
        rows += torch.repeat_interleave(shifts, count, output_size=n_samples)
        n_rows = _aligned(n_alive * n_step, align)
        xyzs, dirs, deltas = (
            x.new_zeros(n_rows, x.shape[1]).index_copy_(0, rows, x)
            for x in (samples.positions, samples.directions, deltas)
        )
        return xyzs, dirs, deltas

    return march_rays_train, march_rays


def alive_rays(rays_alive: Tensor, n_alive: int) -> Tensor:
    """The first n_alive entries of rays_alive as int64 indices; ValueError if there are fewer, or dead ones."""
    n_alive = expect_integer("n_alive", n_alive, 0, None, "pass the number of living rays")
    alive = Arguments().integers("rays_alive", rays_alive, ("n",))[:n_alive].long()
    remedy = "keep the living ones with rays_alive = rays_alive[rays_alive >= 0] and pass their number"
    expect(len(alive) == n_alive, "rays_alive", f"at least n_alive = {n_alive} rays", len(alive), remedy)
    n_dead = int((alive < 0).sum())
    expect(n_dead == 0, "rays_alive", f"{n_alive} rays that are alive", f"{n_dead} dead ones (-1)", remedy)
    return alive


def _aligned(n: int, align: int) -> int:
    return n + align - n % align if align > 0 else n


def _step_length(t: Tensor, C: int, H: int, dt_gamma: float, max_steps: int) -> Tensor:
    """The lattice's first step, see taichi_kernels/lattice.py."""
    dt_max = 2 * math.sqrt(3) * 2 ** (C - 1) / H
    return (t * dt_gamma).clamp(min(dt_max, 2 * math.sqrt(3) / max_steps), dt_max)
