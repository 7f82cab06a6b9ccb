"""Properties that hold for any scene: invariance to its frame, to the order of rays, to how finely it is sampled."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import taichi_kernels as tk
from tests.kernels.scene import random_rays, shell_bitfield

few = settings(max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)


def random_samples(counts, device):
    counts = torch.tensor(counts, dtype=torch.int32, device=device)
    n = int(counts.sum())
    sigmas, deltas = (torch.rand(n, dtype=torch.float64, device=device) for _ in range(2))
    values = torch.randn(n, 3, dtype=torch.float64, device=device)
    return 20 * sigmas, deltas, values, torch.stack((counts.cumsum(0).int() - counts, counts), 1)


@few
@given(seed=seeds, counts=st.lists(st.integers(0, 9), min_size=1, max_size=20), fraction=st.floats(0, 1))
def test_splitting_a_sample_in_two_keeps_the_composite(device, seed, counts, fraction):
    torch.manual_seed(seed)
    sigmas, deltas, values, info = random_samples(counts, device)
    expected = tk.composite(sigmas, deltas, values, None, info, T_threshold=0.0)
    halves = torch.stack((deltas * fraction, deltas * (1 - fraction)), 1).flatten()
    result = tk.composite(
        sigmas.repeat_interleave(2), halves, values.repeat_interleave(2, 0), None, 2 * info, T_threshold=0.0
    )
    for a, b in zip(result, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@few
@given(seed=seeds, n=st.integers(1, 60))
def test_permuting_rays_permutes_the_outputs(device, seed, n):
    torch.manual_seed(seed)
    rays, bitfield = random_rays(n, device, torch.float64), shell_bitfield(device)
    order = torch.randperm(n, device=device)

    def render(rays):
        samples = tk.march_rays(*rays, bitfield, max_steps=64)
        sigmas, colors = 5 + samples.ts, samples.positions.sin()
        return tk.composite(sigmas, samples.deltas, colors, None, samples.packed_info)

    for a, b in zip(render([x[order] for x in rays]), render(rays), strict=True):
        assert torch.equal(a, b[order])


def test_moving_camera_and_scene_together_changes_nothing(device):
    """The symmetries of the grid: axes swapped and mirrored, for the occupied cells and the rays alike."""
    rays_o, rays_d, *_ = random_rays(200, device, torch.float64)
    centers = tk.cell_centers(32, device=device)
    boxes = (-1.0,) * 3 + (1.0,) * 3

    def opacity(move):
        # The moved scene is occupied where its point, moved back, was: a box off the center.
        back = move(centers.double(), inverse=True)
        inside = ((back > back.new_tensor([-0.5, -0.2, 0.1])) & (back < back.new_tensor([0.6, 0.7, 0.8]))).all(1)
        o, d = move(rays_o).contiguous(), move(rays_d).contiguous()
        samples = tk.march_rays(o, d, *tk.intersect_aabb(o, d, boxes), tk.pack_bits(inside.float()[None], 0.5))
        ones = torch.ones_like(samples.ts)
        return tk.composite(ones, samples.deltas, ones[:, None], None, samples.packed_info).opacity

    expected = opacity(lambda x, inverse=False: x)
    assert 0.05 < (expected > 0).double().mean() < 1
    for axes in ((1, 2, 0), (0, 2, 1)):
        for signs in ((1, 1, -1), (-1, 1, 1), (-1, -1, -1)):
            sign = rays_o.new_tensor(signs)

            def move(x, inverse=False, axes=axes, sign=sign):
                if inverse:
                    return (x * sign)[:, [axes.index(d) for d in range(3)]]
                return x[:, axes] * sign

            # A sample within rounding of a face may fall on either side of it.
            assert ((opacity(move) - expected).abs() < 1e-9).double().mean() > 0.97
