import dataclasses

import pytest
import torch

from ernerf_ti.portrait.config import MarchConfig, OccupancyGridConfig
from ernerf_ti.portrait.records import FieldOutput
from ernerf_ti.portrait.render.head import render_head, render_head_in_chunks, render_head_in_passes
from ernerf_ti.portrait.render.head_occupancy import OccupancyGrid
from tests.compare import assert_gradient_close
from tests.portrait.render.scene import ball_grid, random_rays, small_head, small_inputs, solid_field, thin_field
from tests.reference import head_rendering

CONFIG = MarchConfig(max_steps=32)


def assert_same(output, expected, **tolerance):
    for name, value in vars(expected).items():
        if value is not None and name != "n_samples":
            torch.testing.assert_close(getattr(output, name), value, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("per_pass", "chunk", "recompute", "capacity"),
    [
        (32, None, False, None),
        (3, None, True, None),
        (4, 300, False, None),
        (4, 300, True, None),
        (4, None, False, 2**13),
        (4, 300, True, 2**13),
    ],
)
def test_training_pass_equals_a_torch_twin(per_pass, chunk, recompute, capacity, device):
    """Values, loss and the gradients of all parameters and rays, with rays that end early and rays that miss."""
    head, at, grid = small_head(device), small_inputs(device), ball_grid(device)
    with torch.no_grad():
        # Positive, behind a ReLU: dense enough that some rays become opaque.
        head.density_net.layers[-1].weight[0].abs_().mul_(60)
    background, target, noise = (torch.rand(200, *shape).to(device) for shape in ((3,), (3,), ()))
    config = dataclasses.replace(
        CONFIG, samples_per_pass=per_pass, samples_per_chunk=chunk, recompute=recompute, T_threshold=0.01
    )
    rays = random_rays(200, device)
    results = []
    for render in ("ours", "twin"):
        leaves = [ray.clone().requires_grad_() for ray in rays]
        head.zero_grad()
        if render == "ours":
            output = render_head(head.bind(at), grid, *leaves, config, background, noise, capacity)
            values = {name: value for name, value in vars(output).items() if name not in ("n_samples", "n_found")}
        else:
            values = head_rendering.render_head(
                *(head, at, grid.bitfield, grid.aabb, *leaves, config, background, noise)
            )
        loss = (
            ((values["rgb"] - target) ** 2).mean()
            + 0.02 * values["audio_attention"].mean()
            + 0.03 * values["eye_attention"].mean()
            + 0.1 * values["uncertainty"].mean()
            + 0.1 * (values["opacity"] ** 2).mean()
        )
        loss.backward()
        gradients = {name: parameter.grad.clone() for name, parameter in head.named_parameters()}
        results.append((values, loss.detach(), gradients | {"rays_o": leaves[0].grad, "rays_d": leaves[1].grad}))
    (values, loss, gradients), (twin_values, twin_loss, twin_gradients) = results
    for name, expected in twin_values.items():
        torch.testing.assert_close(values[name], expected, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
    opacity = values["opacity"]
    assert (opacity > 0.99).sum() > 10 and ((opacity > 0.3) & (opacity < 0.99)).sum() > 10 and (opacity == 0).any()
    torch.testing.assert_close(loss, twin_loss, rtol=1e-5, atol=0)
    assert gradients.keys() == twin_gradients.keys()
    for name, expected in twin_gradients.items():
        assert expected.abs().max() > 0, name
        assert_gradient_close(gradients[name], expected, name, tolerance={"rtol": 2e-3, "atol": 2e-6})


def test_passes_evaluate_less_and_change_nothing(device):
    grid, rays = ball_grid(device), random_rays(300, device)
    whole = render_head(solid_field, grid, *rays, dataclasses.replace(CONFIG, samples_per_pass=32))
    passes = render_head(solid_field, grid, *rays, dataclasses.replace(CONFIG, samples_per_pass=2))
    assert_same(passes, whole, rtol=1e-6, atol=1e-7)
    assert passes.n_samples.sum() < 0.75 * whole.n_samples.sum()


def test_chunks_give_what_training_gives(device):
    grid, rays = ball_grid(device), random_rays(301, device)
    background = torch.rand(301, 3, device=device)
    config = dataclasses.replace(CONFIG, rays_per_chunk=64, samples_per_chunk=50)
    expected = render_head(solid_field, grid, *rays, CONFIG, background)
    output = render_head_in_chunks(solid_field, grid, *rays, config, background)
    assert_same(output, expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(output.n_samples, expected.n_samples)


def test_passes_of_the_public_code_equal_training_where_no_ray_ends_early(device):
    grid, rays = ball_grid(device), random_rays(300, device)
    config = MarchConfig(max_steps=512, dt_gamma=0.0)
    expected = render_head(thin_field, grid, *rays, config)
    rounds = render_head_in_passes(thin_field, grid, *rays, config)
    assert_same(rounds, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(rounds.n_samples, expected.n_samples)
    assert (expected.opacity < 0.9).all() and (expected.opacity > 0.01).any()


def test_passes_of_the_public_code_agree_for_opaque_rays_to_the_threshold(device):
    grid, rays = ball_grid(device), random_rays(300, device)
    config = MarchConfig(max_steps=512, dt_gamma=0.0)
    output = render_head(solid_field, grid, *rays, config)
    rounds = render_head_in_passes(solid_field, grid, *rays, config)
    torch.testing.assert_close(output.rgb, rounds.rgb, rtol=0, atol=2e-4)


def test_empty_scene_is_background(device):
    grid, rays = ball_grid(device), random_rays(50, device)
    grid.set_bitfield(torch.zeros_like(grid.bitfield))
    background = torch.rand(50, 3, device=device)
    called = []

    def field(positions, directions):
        called.append(len(positions))
        return solid_field(positions, directions)

    for render in (render_head, render_head_in_chunks, render_head_in_passes):
        output = render(field, grid, *rays, CONFIG, background)
        assert torch.equal(output.rgb, background)
        for name in ("opacity", "depth", "audio_attention", "eye_attention", "uncertainty", "n_samples"):
            assert (getattr(output, name) == 0).all(), name
    assert sum(called) == 0


def test_rays_that_miss_are_background_and_not_evaluated(device):
    grid = ball_grid(device)
    rays_o = torch.tensor([[3.0, 0, 0], [3.0, 0, 0], [3.0, 0.0, 0.9]], device=device)
    # Through the ball; away from the box; through the box beside the ball.
    rays_d = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]], device=device)
    output = render_head(solid_field, grid, rays_o, rays_d, CONFIG)
    assert output.n_samples[0] > 0 and output.n_samples[1:].tolist() == [0, 0]
    assert output.opacity[0] > 0.9 and (output.opacity[1:] == 0).all()
    # Depth is the mean distance to the ends of the steps, times the opacity: the near face of the ball.
    assert 3 - 0.45 < output.depth[0] < 3 - 0.45 + 2 * 0.11 + 1 / 30  # two steps and a mean free path


def test_field_is_evaluated_inside_the_occupied_box_only(device):
    grid, seen = ball_grid(device, radius=0.3), []

    def field(positions, directions):
        seen.append(positions)
        return solid_field(positions, directions)

    render_head(field, grid, *random_rays(400, device), CONFIG)
    positions = torch.cat(seen)
    low, high = grid.occupied_box.view(2, 3)
    assert (positions >= low - 1e-5).all() and (positions <= high + 1e-5).all()
    assert positions.norm(dim=1).max() < 0.3 + 3 / 32


def test_the_occupied_box_drops_no_sample(device):
    grid, rays = ball_grid(device), random_rays(500, device)
    narrow = render_head(thin_field, grid, *rays, CONFIG)
    grid.occupied_box.copy_(torch.tensor(grid.aabb, device=device))
    wide = render_head(thin_field, grid, *rays, CONFIG)
    assert torch.equal(narrow.n_samples, wide.n_samples) and torch.equal(narrow.rgb, wide.rgb)


def test_images_have_no_gradient(device):
    head, grid = small_head(device), ball_grid(device)
    rays = [ray.requires_grad_() for ray in random_rays(20, device)]
    field = head.bind(small_inputs(device))
    for render in (render_head_in_chunks, render_head_in_passes):
        assert not render(field, grid, *rays, CONFIG).rgb.requires_grad


@pytest.mark.parametrize("n", [0, 1])
def test_few_rays(n, device):
    grid = ball_grid(device)
    for render in (render_head, render_head_in_chunks, render_head_in_passes):
        output = render(solid_field, grid, *random_rays(n, device), CONFIG)
        assert output.rgb.shape == (n, 3) and output.uncertainty.shape == (n,)


def test_no_uncertainty_where_the_field_gives_none(device):
    head, grid = small_head(device), ball_grid(device)
    field = head.bind(small_inputs(device), with_uncertainty=False)
    for render in (render_head, render_head_in_chunks, render_head_in_passes):
        assert render(field, grid, *random_rays(20, device), CONFIG).uncertainty is None


def test_uniform_density_by_hand(device):
    """sigma = 1 everywhere, 16 steps of 2 sqrt(3) / 128: alpha = 0.026700, sum of weights = 0.351448."""
    grid = OccupancyGrid(OccupancyGridConfig()).to(device)
    steps = []

    def field(positions, directions):
        ones = torch.ones(len(positions), device=device)
        steps.append(positions)
        return FieldOutput(ones, ones[:, None].expand(-1, 3) * 0.5, ones, ones, ones)

    rays = (torch.zeros(1, 3, device=device), torch.tensor([[0.0, 0.0, 1.0]], device=device))
    output = render_head(field, grid, *rays, MarchConfig())
    assert output.n_samples.tolist() == [16]
    positions = torch.cat(steps)[:, 2]
    torch.testing.assert_close(positions[0], torch.tensor(0.05, device=device))
    torch.testing.assert_close(positions.diff(), torch.full((15,), 0.027063293, device=device), rtol=1e-4, atol=0)
    assert output.opacity.item() == pytest.approx(0.351448, abs=2e-6)
    assert output.rgb[0, 0].item() == pytest.approx(0.5 * 0.351448, abs=2e-6)
    assert output.audio_attention.item() == 16
    assert render_head(field, grid, *rays, MarchConfig(max_steps=1)).n_samples.tolist() == [1]


def test_training_is_reproducible(device):
    head, at, grid = small_head(device), small_inputs(device), ball_grid(device)
    rays = random_rays(300, device)
    config = dataclasses.replace(CONFIG, samples_per_chunk=128)
    gradients = []
    for _ in range(2):
        head.zero_grad()
        render_head(head.bind(at), grid, *rays, config).rgb.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in head.named_parameters() if p.grad is not None})
    for name, first in gradients[0].items():
        second = gradients[1][name]
        if device.type == "cuda" and name.endswith((".table", ".tables")):
            torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-6)  # atomic sums, in any order
        else:
            assert torch.equal(second, first), name


def test_a_head_is_learned(device):
    """The colors of a solid ball, from rays through it: in 40 steps the error falls to a third."""
    head, at, grid = small_head(device), small_inputs(device), ball_grid(device)
    rays_o = torch.nn.functional.normalize(torch.randn(256, 3, device=device), dim=1) * 3
    target = torch.randn(256, 3, device=device) * 0.1
    rays = rays_o, torch.nn.functional.normalize(target - rays_o, dim=1)
    expected = render_head(solid_field, grid, *rays, CONFIG).rgb
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    errors = []
    for _ in range(40):
        errors.append(((render_head(head.bind(at), grid, *rays, CONFIG).rgb - expected) ** 2).mean())
        optimizer.zero_grad()
        errors[-1].backward()
        optimizer.step()
    assert errors[-1] < errors[0] / 3
