"""All compositing functions of both `raymarching` modules against a loop over rays and samples."""

import pytest
import torch

from taichi_kernels.compat.torch_ngp import raymarching, raymarching_torch_ngp
from tests.compare import assert_matches_twin
from tests.compat import twins
from tests.compat.scene import random_samples

# Of each training function: how many channels it takes, which of them are summed with the weights, and in which
# order its results are (ws: weights_sum, d: depth, i: image, a number: that channel's sum).
TRAINING = {
    "plain": (raymarching_torch_ngp.composite_rays_train, 0, (), ("ws", "d", "i")),
    "ambient": (raymarching.composite_rays_train, 1, (), ("ws", 0, "d", "i")),
    "sigma": (raymarching.composite_rays_train_sigma, 1, (0,), ("ws", 0, "d", "i")),
    "uncertainty": (raymarching.composite_rays_train_uncertainty, 2, (1,), ("ws", 0, 1, "d", "i")),
    "triplane": (raymarching.composite_rays_train_triplane, 3, (2,), ("ws", 0, 1, 2, "d", "i")),
}
INFERENCE = {
    "plain": (raymarching.composite_rays, 0, ()),
    "plain, torch-ngp": (raymarching_torch_ngp.composite_rays, 0, ()),
    "ambient": (raymarching.composite_rays_ambient, 1, ()),
    "sigma": (raymarching.composite_rays_ambient_sigma, 1, (0,)),
    "uncertainty": (raymarching.composite_rays_uncertainty, 2, (1,)),
    "triplane": (raymarching.composite_rays_triplane, 3, (2,)),
}


def training_twin(variant, sigmas, rgbs, channels, deltas, rays, T_thresh):
    _, n, with_weights, order = TRAINING[variant]
    results = twins.composite_rays_train(
        *(variant == "plain", sigmas, rgbs, deltas, rays, T_thresh),
        weighted=[channels[i] for i in with_weights],
        summed=[channels[i] for i in range(n) if i not in with_weights],
    )
    channel_sums = [*with_weights, *(i for i in range(n) if i not in with_weights)]
    named = dict(zip(("ws", "d", "i", *channel_sums), results, strict=True))
    return tuple(named[name] for name in order)


@pytest.mark.parametrize("variant", TRAINING)
@pytest.mark.parametrize("T_thresh", [1e-4, 0.3])
def test_training_matches_the_twin(variant, T_thresh, device):
    function, n, *_ = TRAINING[variant]
    counts = torch.randint(0, 12, (41,))
    counts[5] = 0
    sigmas, rgbs, deltas, rays, channels = random_samples(counts, device, n_channels=n)
    assert_matches_twin(
        lambda s, c, *channels: function(s, c, *channels, deltas, rays, T_thresh),
        lambda s, c, *channels: training_twin(variant, s, c, channels, deltas, rays, T_thresh),
        [sigmas, rgbs, *channels],
    )


@pytest.mark.parametrize("variant", TRAINING)
def test_rays_past_the_room_have_nothing(variant, device):
    function, n, *_ = TRAINING[variant]
    counts = torch.tensor([3, 0, 4, 5, 2])
    *_, rays, _ = random_samples(counts, device, n_channels=n)
    sigmas, rgbs, deltas, _, channels = random_samples([9], device, n_channels=n, padding=0)
    # 9 of the 14 samples: the ray of 5 samples, which begins at the seventh, and the one behind it have no room.
    assert_matches_twin(
        lambda s, c, *channels: function(s, c, *channels, deltas, rays),
        lambda s, c, *channels: training_twin(variant, s, c, channels, deltas, rays, 1e-4),
        [sigmas, rgbs, *channels],
    )
    image = function(sigmas, rgbs, *channels, deltas, rays)[-1]
    assert (image[[0, 2]] > 0).all() and (image[[1, 3, 4]] == 0).all()


def test_depth_has_no_gradient(device):
    sigmas, rgbs, deltas, rays, _ = random_samples([4, 3], device)
    weights_sum, depth, image = raymarching_torch_ngp.composite_rays_train(sigmas, rgbs, deltas, rays)
    assert weights_sum.requires_grad and image.requires_grad and not depth.requires_grad


def test_torch_ngp_depth_over_many_rays(device):
    # Its sum runs over all rays; the last must be as exact as the first.
    counts = torch.full((20_000,), 16)
    sigmas, rgbs, deltas, rays, _ = random_samples(counts, device, torch.float32, n_channels=0)
    depth = raymarching_torch_ngp.composite_rays_train(sigmas, rgbs, deltas, rays, 0.0)[1]
    t = deltas[: 16 * 20_000, 1].view(-1, 16).double().cumsum(1)
    thickness = (sigmas * deltas[:, 0]).detach()[: 16 * 20_000].view(-1, 16).double()
    T = torch.exp(thickness - thickness.cumsum(1))
    expected = (T * (1 - torch.exp(-thickness)) * t).sum(1).float()
    torch.testing.assert_close(depth, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", INFERENCE)
def test_inference_rounds_match_the_twin(variant, device):
    function, n, with_weights = INFERENCE[variant]
    as_steps = variant.endswith("torch-ngp")
    dtype, n_rays, T_thresh = torch.float64, 23, 0.2
    plain = [i for i in range(n) if i not in with_weights]
    totals = [torch.zeros(n_rays, *s, device=device, dtype=dtype) for s in ((), (), (3,), *[()] * n)]
    expected = [x.clone() for x in totals]
    alive = torch.arange(n_rays, dtype=torch.int32, device=device)
    rays_t = torch.rand(n_rays, dtype=dtype).to(device)
    expected_t = rays_t.clone()
    n_dead = 0
    for n_step in (1, 2, 3):
        m = len(alive) * n_step
        sigmas, rgbs, deltas, _, channels = random_samples([m], device, density=8.0, n_channels=n, padding=9)
        # Some rays run out of samples: zeros from some row of their block on.
        blocks = deltas[:m].view(len(alive), n_step, 2)
        blocks[2, n_step // 2 :] = 0
        blocks[5] = 0
        arguments = [x.detach() for x in (sigmas, rgbs, deltas)]
        channels = [x.detach() for x in channels]
        twin_alive = alive.clone()
        twins.composite_rays_(
            *(as_steps, n_step, twin_alive, expected_t, *arguments),
            [expected[0], expected[1], expected[2], *(expected[3 + i] for i in (*with_weights, *plain))],
            *(T_thresh, [channels[i] for i in with_weights], [channels[i] for i in plain]),
        )
        result = function(len(alive), n_step, alive, rays_t, *arguments, *channels, *totals, T_thresh)
        assert result == ()
        assert torch.equal(alive, twin_alive)
        torch.testing.assert_close(rays_t, expected_t)
        for total, wanted in zip(totals, expected, strict=True):
            torch.testing.assert_close(total, wanted)
        n_dead += int((alive < 0).sum())
        alive = alive[alive >= 0]
    assert n_dead > 6 and len(alive) > 1


@pytest.mark.parametrize("variant", TRAINING)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(variant, dtype, device):
    function, n, *_ = TRAINING[variant]
    sigmas, rgbs, deltas, rays, channels = random_samples([4, 0, 3], device, torch.float32, n_channels=n)
    low = [x.detach().to(dtype).requires_grad_() for x in (sigmas, rgbs, *channels)]
    with torch.autocast(device.type, dtype=torch.bfloat16):
        outputs = function(*low, deltas, rays)
    expected = function(*(x.detach().float() for x in low), deltas, rays)
    for output, wanted in zip(outputs, expected, strict=True):
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, wanted)
    sum(x.sum() for x in outputs).backward()
    assert all(x.grad.dtype == dtype and x.grad.abs().max() > 0 for x in low)


def test_one_number_a_sample_may_be_a_column(device):
    sigmas, rgbs, deltas, rays, channels = random_samples([4, 3], device, n_channels=3)
    columns = [x.detach()[:, None].requires_grad_() for x in channels]
    expected = raymarching.composite_rays_train_triplane(sigmas, rgbs, *channels, deltas, rays)
    outputs = raymarching.composite_rays_train_triplane(sigmas[:, None], rgbs, *columns, deltas, rays)
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    sum(x.sum() for x in outputs).backward()
    assert all(x.grad.shape == (12, 1) for x in columns)


def test_wide_uncertainties_of_er_nerfs_test_mode(device):
    m = 6
    sigmas, rgbs, deltas, _, channels = (
        x.detach() if isinstance(x, torch.Tensor) else [c.detach() for c in x]
        for x in random_samples([m], device, n_channels=2, padding=0)
    )
    wide = torch.full((m, 36), 0.7, device=device, dtype=torch.float64)
    results = []
    for uncertainties in (wide, wide[:, 0]):
        sums = [torch.zeros(3, *s, device=device, dtype=torch.float64) for s in ((), (), (3,), (), (), ())]
        alive = torch.arange(3, dtype=torch.int32, device=device)
        rays_t = torch.zeros(3, device=device, dtype=torch.float64)
        raymarching.composite_rays_triplane(3, 2, alive, rays_t, sigmas, rgbs, deltas, *channels, uncertainties, *sums)
        results.append(sums)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    torch.testing.assert_close(results[0][5], 0.7 * results[0][0])


def test_everything_ends_at_once(device):
    n = 7
    sigmas = torch.full((n * 2,), 1e6, device=device)
    rgbs, deltas = torch.full((n * 2, 3), 0.5, device=device), torch.ones(n * 2, 2, device=device)
    rays = torch.tensor([[i, 2 * i, 2] for i in range(n)], dtype=torch.int32, device=device)
    ambient = torch.ones(n * 2, device=device)
    weights_sum, ambient_sum, depth, image = raymarching.composite_rays_train(sigmas, rgbs, ambient, deltas, rays)
    assert (weights_sum == 1).all() and (image == 0.5).all() and (depth == 1).all()
    assert (ambient_sum == 1).all()  # the second sample of each ray is not visited
    totals = [torch.zeros(n, *s, device=device) for s in ((), (), (3,))]
    alive = torch.arange(n, dtype=torch.int32, device=device)
    raymarching.composite_rays(n, 2, alive, torch.zeros(n, device=device), sigmas, rgbs, deltas, *totals)
    assert (alive == -1).all() and (totals[0] == 1).all()


@pytest.mark.parametrize("variant", TRAINING)
def test_no_rays_and_no_samples(variant, device):
    function, n, *_ = TRAINING[variant]
    none = torch.zeros(0, device=device)
    for n_rays in (0, 4):
        rays = torch.zeros(n_rays, 3, dtype=torch.int32, device=device)
        rays[:, 0] = torch.arange(n_rays)
        outputs = function(none, torch.zeros(0, 3, device=device), *[none] * n, torch.zeros(0, 2, device=device), rays)
        assert [x.shape for x in outputs] == [(n_rays,)] * (n + 2) + [(n_rays, 3)]
        assert all((x == 0).all() for x in outputs)


def test_no_living_rays(device):
    sums = [torch.zeros(4, *s, device=device) for s in ((), (), (3,))]
    alive = torch.zeros(0, dtype=torch.int32, device=device)
    nothing = torch.zeros(128, device=device), torch.zeros(128, 3, device=device), torch.zeros(128, 2, device=device)
    assert raymarching.composite_rays(0, 8, alive, torch.zeros(4, device=device), *nothing, *sums) == ()
    assert all((x == 0).all() for x in sums)


def test_errors(device):
    sigmas, rgbs, deltas, rays, (ambient,) = random_samples([4, 3], device, n_channels=1)
    with pytest.raises(ValueError, match=r"ambient: expected shape \[M\] with M = 12 \(from sigmas\), got \[11\]; "):
        raymarching.composite_rays_train(sigmas, rgbs, ambient[:11], deltas, rays)
    with pytest.raises(ValueError, match=r"rgbs: expected shape \[M, 3\] with M = 12 \(from sigmas\), got \[12, 4\]; "):
        raymarching.composite_rays_train(sigmas, torch.zeros(12, 4, device=device), ambient, deltas, rays)
    with pytest.raises(ValueError, match=r"rays: expected shape \[N, 3\], got \[2, 2\]; "):
        raymarching.composite_rays_train(sigmas, rgbs, ambient, deltas, rays[:, :2])
    with pytest.raises(ValueError, match=r"sigmas: expected dtype float32 or float64, got int64; "):
        raymarching.composite_rays_train(sigmas.long(), rgbs, ambient, deltas, rays)
    totals = [torch.zeros(5, *s, device=device, dtype=torch.float64) for s in ((), (), (3,))]
    alive = torch.arange(5, dtype=torch.int32, device=device)
    rays_t = torch.zeros(5, device=device, dtype=torch.float64)
    with pytest.raises(ValueError) as error:
        raymarching.composite_rays(5, 3, alive, rays_t, sigmas, rgbs, deltas, *totals)
    assert str(error.value) == (
        "sigmas: expected n_alive n_step = 15 rows or more, got 12; pass the results for all rows of march_rays"
    )
    with pytest.raises(ValueError, match=r"depth: expected shape \[N\] with N = 5 \(from rays_t\), got \[4\]; "):
        raymarching.composite_rays(5, 2, alive, rays_t, sigmas, rgbs, deltas, totals[0], totals[1][:4], totals[2])
