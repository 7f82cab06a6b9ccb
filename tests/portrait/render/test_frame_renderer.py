"""Images that are launched without waiting: equal to those that are rendered in shapes of their own."""

import dataclasses

import pytest
import torch

from ernerf_ti.experiments.operations import recorded_operations
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.portrait.config import OccupancyGridConfig
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.records import FrameInputs
from ernerf_ti.portrait.render.frame import ImagePixels, render_portrait
from ernerf_ti.portrait.render.sample_capacity import SampleCapacity
from ernerf_ti.portrait.render.static_shapes import static_shapes, static_shapes_on_cpu
from ernerf_ti.train.config import PRESETS

SIZE = WIDTH, HEIGHT = 96, 80
INTRINSICS = (250.0, 250.0, 48.0, 40.0)


@pytest.fixture(scope="module")
def portrait(device):
    """A ball with a torso below it; some of the rays become opaque."""
    torch.manual_seed(3)
    config = PRESETS["small"].portrait
    config = dataclasses.replace(config, head_grid=OccupancyGridConfig(resolution=32))
    portrait = Portrait(config, 44, 3).to(device).requires_grad_(False)
    torch.nn.init.normal_(portrait.head.position_encoder.encoding.tables, std=0.5)
    portrait.head.density_net.layers[-1].weight[0].abs_().mul_(40)
    portrait.head_grid.update(lambda positions: 20.0 * (positions.norm(dim=1) < 0.4).float())
    portrait.torso_grid.update(lambda coords: (coords[:, 0] > 0.2).float())
    return portrait


def frame_inputs(device, shift=0.0):
    pose = torch.eye(4)
    pose[0, 3], pose[2, 3] = shift, 0.8
    window = torch.randn(8, 44, 16, generator=torch.Generator().manual_seed(1)).to(device)
    return FrameInputs(window, torch.tensor([0.3], device=device), 1, scene_from_capture(pose).to(device))


def assert_same(output, expected):
    assert expected.opacity.max() > 0.99 and (expected.n_samples == 0).any()
    for name in ("rgb", "opacity", "depth", "audio_attention", "eye_attention", "head_opacity"):
        value = getattr(expected, name)
        if value is not None:
            close = torch.isclose(getattr(output, name), value, rtol=1e-4, atol=1e-4)
            # Where a ray's transmittance is the threshold up to rounding, plain sums may have a sample more.
            assert close.all() or ("attention" in name and close.float().mean() > 0.999), name


def in_own_shapes(portrait, inputs, *arguments):
    """The image as it is rendered on the CPU."""
    head = portrait.head.bind(inputs, with_uncertainty=False)
    background, with_torso = arguments
    device = portrait.head_grid.bitfield.device
    torso = (lambda coords: portrait.torso(coords, inputs.head_pose, inputs.appearance_index)) if with_torso else None
    return render_portrait(
        *(head, portrait.head_grid, inputs.head_pose, ImagePixels(INTRINSICS, SIZE, device)),
        *(portrait.config.march, background, torso, portrait.torso_grid if with_torso else None),
    )


@pytest.fixture
def fresh(portrait):
    """The portrait without what it has learned about capacities."""
    portrait._capacities.clear()
    return portrait


@pytest.mark.parametrize("with_torso", [False, True])
@pytest.mark.parametrize("with_background", [False, True])
def test_equal_to_shapes_of_its_own(with_torso, with_background, fresh, device):
    inputs = frame_inputs(device)
    background = torch.rand(HEIGHT, WIDTH, 3, device=device) if with_background else None
    expected = in_own_shapes(fresh, inputs, background, with_torso)
    with static_shapes_on_cpu():
        output = fresh.render(inputs, INTRINSICS, SIZE, background, with_torso)
    assert_same(output, expected)
    assert output.n_found is not None and output.n_found == output.n_samples.sum()


def test_too_little_room_is_found_out_and_mended(fresh, device):
    inputs, background = frame_inputs(device), torch.rand(HEIGHT, WIDTH, 3, device=device)
    expected = in_own_shapes(fresh, inputs, background, True)
    with static_shapes_on_cpu():
        fresh._capacities[WIDTH * HEIGHT] = SampleCapacity(1)
        pending = fresh.renderer(INTRINSICS, SIZE).submit(inputs, background)
        # Rays without room have no samples, and look like background.
        lacking = pending._output
        assert lacking.n_samples.sum() <= 4096 < lacking.n_found
        assert (lacking.rgb - expected.rgb).abs().max() > 0.1
        assert_same(pending.result(), expected)
        assert pending.result() is pending.result()
        # The next image has room at once.
        again = fresh.renderer(INTRINSICS, SIZE).submit(inputs, background)
        assert_same(again._output, expected)
        assert again.result() is again._output


def test_several_images_in_flight(fresh, device):
    all_inputs = [frame_inputs(device, 0.02 * k) for k in range(4)]
    expected = [in_own_shapes(fresh, inputs, None, True) for inputs in all_inputs]
    with static_shapes_on_cpu():
        fresh._capacities[WIDTH * HEIGHT] = SampleCapacity(1)
        pending = [fresh.renderer(INTRINSICS, SIZE).submit(inputs) for inputs in all_inputs]
        for frame, image in zip(pending, expected, strict=True):
            assert_same(frame.result(), image)


def test_submitting_waits_for_nothing(fresh, device):
    inputs, background = frame_inputs(device), torch.rand(HEIGHT, WIDTH, 3, device=device)
    with static_shapes_on_cpu():
        fresh.render(inputs, INTRINSICS, SIZE, background)  # what is computed once
        with recorded_operations() as operations:
            pending = fresh.renderer(INTRINSICS, SIZE).submit(inputs, background)
        assert operations.waits == []
        with recorded_operations() as operations:
            pending.result()
        assert operations.waits == ["_local_scalar_dense"] and len(operations.names) == 1


def test_submitting_needs_no_values_and_nothing_of_the_host(monkeypatch):
    """The meta device stands for a GPU: its tensors have no values, and can't be mixed with tensors of the CPU."""
    monkeypatch.setattr("ernerf_ti.portrait.render.static_shapes._device_types", {"meta"})
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type: False)  # knows no meta device
    portrait = Portrait(PRESETS["small"].portrait, 44, 3).requires_grad_(False).to("meta")
    inputs = FrameInputs(
        *(torch.empty(*shape, device="meta") for shape in ((8, 44, 16), (1,))), 1, torch.empty(4, 4, device="meta")
    )
    background = torch.empty(HEIGHT, WIDTH, 3, device="meta")
    portrait.renderer(INTRINSICS, SIZE).submit(inputs, background)  # what is computed once
    with recorded_operations() as operations:
        pending = portrait.renderer(INTRINSICS, SIZE).submit(inputs, background)
    assert operations.waits == [] and operations.from_host == []
    assert pending._output.rgb.shape == (HEIGHT, WIDTH, 3) and pending._output.rgb.device.type == "meta"


def test_shapes_of_its_own_would_wait(fresh, device):
    inputs = frame_inputs(device)
    with recorded_operations() as operations:
        in_own_shapes(fresh, inputs, None, True)
    assert operations.waits


def test_the_renderer_of_a_camera_is_kept(fresh):
    first = fresh.renderer(INTRINSICS, SIZE)
    assert fresh.renderer(INTRINSICS, SIZE) is first
    assert fresh.renderer(INTRINSICS, (WIDTH, HEIGHT + 1)) is not first


def test_as_the_public_code_does_it_needs_no_capacity(fresh, device):
    inputs = frame_inputs(device)
    with static_shapes_on_cpu():
        output = fresh.render(inputs, INTRINSICS, SIZE, in_passes=True)
    assert output.n_found is None and not fresh._capacities


def test_shapes_are_fixed_on_cuda_and_where_asked_for():
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert static_shapes(cuda) and not static_shapes(cpu)
    with static_shapes_on_cpu():
        assert static_shapes(cuda) and static_shapes(cpu)
        with static_shapes_on_cpu():
            pass
        assert static_shapes(cpu)
    assert not static_shapes(cpu)


def test_a_wrong_background_is_named_when_the_image_is_submitted(fresh, device):
    with pytest.raises(ValueError, match="background: expected shape"):
        fresh.renderer(INTRINSICS, SIZE).submit(frame_inputs(device), torch.zeros(3, 3, 3, device=device))
