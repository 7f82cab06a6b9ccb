import math

import pytest
import torch

from taichi_kernels import CompositedRays, accumulate_, composite, reference
from tests.compare import assert_matches_twin

pytestmark = pytest.mark.usefixtures("each_variant")


def random_samples(counts, Cw, Cs, device, dtype=torch.float32, density=20.0):
    counts = torch.as_tensor(counts, dtype=torch.int32, device=device)
    n = int(counts.sum())
    sigmas = torch.rand(n, device=device, dtype=dtype) * density
    deltas = torch.rand(n, device=device, dtype=dtype) * 0.1
    weighted = torch.randn(n, Cw, device=device, dtype=dtype)
    summed = torch.randn(n, Cs, device=device, dtype=dtype)
    packed_info = torch.stack((counts.cumsum(0).int() - counts, counts), 1)
    return sigmas.requires_grad_(), deltas, weighted.requires_grad_(), summed.requires_grad_(), packed_info


def float32_rounding(sigmas, deltas, weighted, summed, packed_info):
    """How far two float32 results may be apart: 8 roundings of the sum of the magnitudes that a ray adds up.

    Terms cancel, so that rounding is not relative to the result, and the order of the sums differs. Against float64
    each of the two was seen off by up to 4 roundings, in sums of up to 39 terms.
    """
    terms = torch.cat((weighted, summed, torch.ones_like(sigmas)[:, None]), 1).abs()
    _, sums, _ = reference.composite(sigmas, deltas, weighted, terms, packed_info, T_threshold=0.0)
    largest = 8 * 2**-24 * sums.detach()
    return [*largest[:, :-1].split((weighted.shape[1], summed.shape[1]), 1), largest[:, -1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("Cw", "Cs"), [(3, 0), (5, 2), (0, 1), (0, 0), (16, 1), (17, 0), (40, 18), (1, 33)])
def test_matches_twin(Cw, Cs, dtype, device):
    counts = torch.randint(0, 40, (517,))
    inputs = list(random_samples(counts, Cw, Cs, device, dtype))
    # float32: the twin's transmittance comes from a sum over all rays; stay away from the threshold.
    assert_matches_twin(
        lambda *a: tuple(composite(*a, T_threshold=0.0)),
        lambda *a: reference.composite(*a, T_threshold=0.0),
        inputs,
        values_within=float32_rounding(*inputs) if dtype == torch.float32 else None,
    )


def test_early_termination_matches_twin(device):
    counts = torch.randint(0, 60, (1031,))
    inputs = list(random_samples(counts, 4, 2, device, torch.float64, density=200.0))
    sigmas, deltas, *_, packed_info = inputs
    assert_matches_twin(
        lambda *a: tuple(composite(*a, T_threshold=1e-3)),
        lambda *a: reference.composite(*a, T_threshold=1e-3),
        inputs,
        # the twin's sum over all rays reaches 1e5
        value_tolerance={"rtol": 1e-8, "atol": 1e-9},
        gradient_tolerance={"rtol": 1e-8, "atol": 1e-9},
    )
    # It does terminate here: the plain sums count the visited samples.
    ones = torch.ones(len(sigmas), 1, device=device, dtype=torch.float64)
    visited = composite(sigmas, deltas, ones[:, :0], ones, packed_info, 1e-3).summed[:, 0]
    assert (visited < packed_info[:, 1]).float().mean() > 0.5


def test_hand_worked(device):
    # alpha = 1/2, 3/4 with densities ln 2 and ln 4 over steps of 1: weights 1/2, 3/8, opacity 7/8.
    sigmas = torch.tensor([math.log(2), math.log(4)], device=device, requires_grad=True)
    deltas = torch.ones(2, device=device)
    weighted = torch.tensor([[1.0], [2.0]], device=device, requires_grad=True)
    summed = torch.tensor([[10.0], [20.0]], device=device, requires_grad=True)
    rays = composite(sigmas, deltas, weighted, summed, torch.tensor([[0, 2]], dtype=torch.int32, device=device))
    assert rays.weighted.item() == pytest.approx(0.5 + 0.75)
    assert rays.summed.item() == 30.0
    assert rays.opacity.item() == pytest.approx(7 / 8)
    (rays.weighted.sum() + 3 * rays.summed.sum() + 5 * rays.opacity.sum()).backward()
    # d/dsigma_1 = T_2 v_1 - w_2 v_2 = 1/2 - 3/4,  d/dsigma_2 = T_3 v_2 = 2/8; the opacity adds 5 T_end = 5/8 to each.
    torch.testing.assert_close(sigmas.grad, torch.tensor([-0.25 + 0.625, 0.25 + 0.625], device=device))
    torch.testing.assert_close(weighted.grad, torch.tensor([[0.5], [0.375]], device=device))
    torch.testing.assert_close(summed.grad, torch.full((2, 1), 3.0, device=device))  # not weighted


def test_constant_density_of_the_spec(device):
    dt = 0.027063293
    n = 16
    rays = composite(
        torch.ones(n, device=device),
        torch.full((n,), dt, device=device),
        torch.full((n, 3), 0.25, device=device),
        torch.ones(n, 1, device=device),
        torch.tensor([[0, n]], dtype=torch.int32, device=device),
    )
    assert rays.opacity.item() == pytest.approx(0.351448, abs=1e-6)
    torch.testing.assert_close(rays.weighted, torch.full((1, 3), 0.25 * 0.351448, device=device), atol=1e-6, rtol=0)
    assert rays.summed.item() == n
    first = composite(
        *(torch.ones(1, device=device), torch.tensor([dt], device=device)),
        *(torch.ones(1, 1, device=device), torch.ones(1, 0, device=device)),
        torch.tensor([[0, 1]], dtype=torch.int32, device=device),
    )
    assert first.opacity.item() == pytest.approx(0.026700, abs=1e-6)


@pytest.mark.parametrize(("Cw", "Cs"), [(3, 2), (18, 1), (0, 17)])
@pytest.mark.parametrize("T_threshold", [0.0, 0.2])
def test_gradcheck(Cw, Cs, T_threshold, device):
    # The uncertainty term is one of the weighted channels; spec 10.9.
    sigmas, deltas, weighted, summed, packed_info = random_samples([3, 0, 1, 7], Cw, Cs, device, torch.float64)

    def op(sigmas, weighted, summed):
        return tuple(composite(sigmas, deltas, weighted, summed, packed_info, T_threshold))

    assert torch.autograd.gradcheck(op, (sigmas, weighted, summed))


@pytest.mark.parametrize("counts", [[], [0], [0, 0, 0], [1], [511], [1] * 513, [0, 5] * 700])
def test_sizes(counts, device):
    inputs = list(random_samples(torch.tensor(counts, dtype=torch.int32), 3, 1, device))
    assert_matches_twin(
        lambda *a: tuple(composite(*a, T_threshold=0.0)), lambda *a: reference.composite(*a, T_threshold=0.0), inputs
    )


def test_everything_terminates_at_once(device):
    sigmas, deltas, weighted, summed, packed_info = random_samples([5] * 100, 3, 1, device)
    sigmas = torch.full_like(sigmas, 1e6).requires_grad_()
    rays = composite(sigmas, deltas + 0.1, weighted, summed, packed_info)
    torch.testing.assert_close(rays.opacity, torch.ones_like(rays.opacity))
    torch.testing.assert_close(rays.weighted, weighted[::5])
    torch.testing.assert_close(rays.summed, summed[::5])
    grads = torch.autograd.grad(sum(x.sum() for x in rays), (sigmas, weighted, summed))
    assert all(g.isfinite().all() for g in grads)
    later = torch.arange(500, device=device) % 5 > 0
    assert all((g[later] == 0).all() for g in grads)
    assert (grads[2][~later] == 1).all()


def test_no_plain_sums(device):
    sigmas, deltas, weighted, _, packed_info = random_samples([4, 2], 3, 0, device)
    rays = composite(sigmas, deltas, weighted, None, packed_info)
    expected = composite(sigmas, deltas, weighted, weighted[:, :0].contiguous(), packed_info)
    assert rays.summed.shape == (2, 0)
    assert torch.equal(rays.weighted, expected.weighted)
    rays.weighted.sum().backward()
    assert weighted.grad.sum() > 0


def test_weights_are_a_partial_sum_of_one(device):
    sigmas, deltas, _, _, packed_info = random_samples(torch.randint(0, 80, (500,)), 0, 0, device, density=100.0)
    ones = torch.ones(len(sigmas), 1, device=device)
    rays = composite(sigmas.detach(), deltas, ones, ones[:, :0], packed_info)
    assert (rays.opacity >= 0).all() and (rays.opacity <= 1 + 1e-6).all()
    torch.testing.assert_close(rays.weighted[:, 0], rays.opacity)
    assert (rays.opacity[packed_info[:, 1] == 0] == 0).all()


def test_gradient_of_colour_equals_weights(device):
    sigmas, deltas, weighted, summed, packed_info = random_samples([4, 9, 0, 2], 1, 0, device)
    rays = composite(sigmas, deltas, weighted, summed, packed_info)
    (grad,) = torch.autograd.grad(rays.weighted.sum(), weighted)
    per_ray = torch.stack([grad[s : s + c].sum() for s, c in packed_info.tolist()])
    torch.testing.assert_close(per_ray, rays.opacity)


def test_packed_info_out_of_range_stays_inside(device):
    sigmas, deltas, weighted, summed, _ = random_samples([4, 4], 3, 1, device)
    packed_info = torch.tensor([[0, 4], [4, 1000], [-5, 0], [900, 7]], dtype=torch.int32, device=device)
    rays = composite(sigmas, deltas, weighted, summed, packed_info)
    sum(x.sum() for x in rays).backward()
    assert rays.opacity.isfinite().all() and rays.opacity[3] == 0


def empty_rays(n, Cw, Cs, device, dtype=torch.float32):
    return CompositedRays(
        torch.zeros(n, Cw, device=device, dtype=dtype),
        torch.zeros(n, Cs, device=device, dtype=dtype),
        torch.zeros(n, device=device, dtype=dtype),
    )


@pytest.mark.parametrize(("Cw", "Cs"), [(5, 2), (18, 1), (0, 17)])
def test_accumulating_in_rounds_equals_compositing(Cw, Cs, device):
    n, length = 101, 12
    sigmas, deltas, weighted, summed, packed_info = (
        x.detach() for x in random_samples([length] * n, Cw, Cs, device, torch.float64)
    )
    expected = composite(sigmas, deltas, weighted, summed, packed_info, T_threshold=0.0)
    rays = empty_rays(n, Cw, Cs, device, torch.float64)
    ray_ids = torch.arange(n, dtype=torch.int32, device=device)
    for begin, end in [(0, 1), (1, 3), (3, 8), (8, 12)]:
        rows = (torch.arange(n, device=device)[:, None] * length + torch.arange(begin, end, device=device)).flatten()
        count = torch.full((n,), end - begin, dtype=torch.int32, device=device)
        info = torch.stack((count.cumsum(0).int() - count, count), 1)
        order = torch.randperm(n, device=device)  # the rows of a round name their rays
        chosen = (x[rows] for x in (sigmas, deltas, weighted, summed))
        permuted = _permuted(order, end - begin, *chosen)
        has_ended = accumulate_(rays, ray_ids[order], *permuted, info, T_threshold=0.0)
        assert not has_ended.any()
    for a, b in zip(rays, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def _permuted(order, length, *tensors):
    return (x.reshape(len(order), length, *x.shape[1:])[order].reshape(x.shape).contiguous() for x in tensors)


def test_accumulation_tests_transmittance_before_the_sample(device):
    # Opacity 0.9, 0.99 after each sample; threshold 0.05: the second sample starts at T = 0.1 and is taken, the third
    # starts at T = 0.01 and is taken too, but ends the ray. Compositing would have stopped after the second.
    sigmas = torch.full((5,), math.log(10.0), device=device)
    ones = torch.ones(5, 1, device=device)
    info = torch.tensor([[0, 5]], dtype=torch.int32, device=device)
    rays = empty_rays(1, 1, 1, device)
    ids = torch.zeros(1, dtype=torch.int32, device=device)
    assert accumulate_(rays, ids, sigmas, ones[:, 0], ones, ones, info, 0.05).tolist() == [True]
    assert rays.summed.item() == 3
    assert composite(sigmas, ones[:, 0], ones, ones, info, 0.05).summed.item() == 2


def test_rows_after_the_last_ray_change_nothing(device):
    sigmas, deltas, weighted, summed, packed_info = random_samples([3, 0, 5], 2, 1, device)
    inputs = [x.detach() for x in (sigmas, deltas, weighted, summed)]
    padded = [torch.cat((x, torch.full_like(x[:4], 3.0))) for x in inputs]
    leaves = [x.requires_grad_() for x in (*inputs[::2], inputs[3], *padded[::2], padded[3])]
    # A ray that got no samples for want of room begins where the rows end.
    info = torch.cat((packed_info, torch.tensor([[12, 0]], dtype=torch.int32, device=device)))
    for op in (composite, reference.composite):
        expected = op(*inputs, packed_info)
        results = op(*padded, info)
        for a, b in zip(results, expected, strict=True):
            assert torch.equal(a[:3], b) and not a[3].any()
        gradients = torch.autograd.grad([x.sum() for x in (*expected, *results)], leaves)
        for a, b in zip(gradients[3:], gradients[:3], strict=True):
            assert torch.equal(a[:8], b) and not a[8:].any()


def test_accumulate_refuses_gradients(device):
    sigmas, deltas, weighted, summed, info = random_samples([2], 1, 1, device)
    ids = torch.zeros(1, dtype=torch.int32, device=device)
    with pytest.raises(ValueError, match="sigmas: expected a tensor that requires no gradient"):
        accumulate_(empty_rays(1, 1, 1, device), ids, sigmas, deltas, weighted, summed, info)
