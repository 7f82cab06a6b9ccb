"""Images of requests."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.viewer.camera_control import field_of_view
from ernerf_ti.viewer.render_job import RenderedView, RenderJob, RenderRequest, look_of
from ernerf_ti.viewer.state import ViewState, changed

SILENCE = torch.zeros(8, 42, 16)


@pytest.fixture
def start(trained) -> ViewState:
    return ViewState(field_of_view(trained.intrinsics, 32), 3)


@pytest.fixture
def request_of(clip, start):
    def make(look: ViewState = start, frame: int = 2, **values) -> RenderRequest:
        settings = {"pose_frame": frame, "eye": 0.5, "audio": True, "size": (32, 32)}
        settings |= {"background_version": 0, "weights_version": 0, **values}
        return RenderRequest(clip, frame, look=look_of(look), **settings)

    return make


def render(trained, request, picture=None) -> RenderedView:
    job = RenderJob(trained, request, SILENCE, picture)
    assert job.advance()
    return job.view


def test_captured_camera_gives_what_synthesis_gives(trained, clip, request_of):
    eyes = np.full(len(clip), 0.5)
    *_, expected = render_frames(
        trained, clip.windows[:3], clip.poses, eyes, trained.background, capture_indices=clip.pose_indices
    )
    output = render(trained, request_of()).output
    for name in ("rgb", "opacity", "depth", "audio_attention", "eye_attention"):
        torch.testing.assert_close(getattr(output, name), getattr(expected, name), atol=2e-4, rtol=1e-4)
    assert torch.equal(output.n_samples, expected.n_samples)
    assert output.opacity.max() > 0.5 and (output.n_samples == 0).any()  # there is a head, and something beside it


def test_chunks_of_rows_give_the_whole_image(trained, request_of, monkeypatch):
    whole = render(trained, request_of())
    monkeypatch.setattr("ernerf_ti.viewer.render_job._CHUNK_PIXELS", 96)
    job, steps = RenderJob(trained, request_of(), SILENCE, None), 1
    while not job.advance(0.0):
        assert job.view is None
        steps += 1
    assert steps == 11  # of 3 rows, the last one of 2
    torch.testing.assert_close(job.view.output.rgb, whole.output.rgb)
    assert set(job.view.seconds) == {"audio", "rays", "torso", "head"}


def differs(trained, a: RenderRequest, b: RenderRequest, **options) -> float:
    return float((render(trained, a, **options).output.rgb - render(trained, b, **options).output.rgb).abs().max())


@pytest.mark.parametrize(
    "values",
    [
        {"eye": 0.0},
        {"audio": False},
        {"pose_frame": 4},
        {"look": {"torso": False}},
        {"look": {"background": "color"}},
        {"look": {"background": "none"}},
        {"look": {"appearance": 1}},
        {"look": {"mouth_gain": 1.5}},
        {"look": {"yaw": 10.0}},
        {"look": {"pan_x": 0.1}},
        {"look": {"distance": 0.8}},
        {"look": {"field_of_view": 25.0}},
        {"look": {"head": "mouse", "head_yaw": 10.0}},
    ],
)
def test_every_setting_counts(trained, start, request_of, values):
    look = changed(start, **values.pop("look", {}))
    assert request_of() == request_of()
    assert request_of(look, **values) != request_of()
    assert differs(trained, request_of(look, **values), request_of()) > 1e-3


def test_dials_of_a_portrait_that_has_them(trained, start, request_of):
    config = trained.portrait.config
    config = replace(config, head=replace(config.head, dials=("brows", "gaze")))
    torch.manual_seed(0)
    portrait = Portrait(config, 42, 3).requires_grad_(False)
    weights = trained.portrait.state_dict()
    for name, value in portrait.state_dict().items():
        if name in weights and value.shape == weights[name].shape:
            value.copy_(weights[name])
    portrait.head.density_net.layers[0].weight.mul_(4)
    portrait.head.dials.boxes[:, 0, 0], portrait.head.dials.boxes[:, 0, 1] = -1.0, 1.0
    portrait.head_grid.set_bitfield(portrait.head_grid.bitfield.clone())
    dialed = replace(trained, portrait=portrait)
    assert dialed.dial_names == ("brows", "gaze-x", "gaze-y")
    images = [render(dialed, request_of())] + [
        render(dialed, request_of(changed(start, **{name: 3.0}))) for name in ("brows", "gaze_x", "gaze_y", "smile")
    ]
    neutral, brows, gaze_x, gaze_y, smile = (image.output.rgb for image in images)
    assert torch.equal(smile, neutral)  # which this portrait lacks
    assert all((image - neutral).abs().max() > 1e-3 for image in (brows, gaze_x, gaze_y))
    assert not torch.equal(gaze_x, gaze_y)


def test_settings_of_the_window_do_not(start):
    shown = changed(start, playing=True, volume=0.5, mode="depth", comparison="side", target_rate=10.0, help=True)
    assert look_of(shown) == look_of(start)


def test_colors_behind(trained, start, request_of):
    red = changed(start, background="color", color=[1, 0, 0], torso=False)
    view = render(trained, request_of(red))
    beside = view.output.opacity == 0
    assert beside.any()
    torch.testing.assert_close(view.output.rgb[beside], torch.tensor([1.0, 0, 0]).expand(int(beside.sum()), 3))
    picture = torch.rand(32, 32, 3)
    view = render(trained, request_of(changed(start, background="picture", torso=False)), picture)
    torch.testing.assert_close(view.output.rgb[beside], picture[beside], atol=1e-3, rtol=0)
    clear = render(trained, request_of(changed(start, background="none", torso=False)))
    assert not clear.output.rgb[beside].any()


def test_extras_only_when_they_are_asked_for(trained, request_of):
    plain = render(trained, request_of())
    assert plain.output.uncertainty is None and plain.torso_offset is None
    rich = render(trained, request_of(with_uncertainty=True, with_torso_offset=True))
    assert rich.output.uncertainty.shape == (32, 32) and rich.output.uncertainty.max() > 0
    assert rich.torso_offset.shape == (32, 32, 2)
    torch.testing.assert_close(rich.output.rgb, plain.output.rgb)


def test_small_pictures_show_the_same_part(trained, start, request_of):
    look = changed(start, torso=False, yaw=20.0, pan_x=0.1)
    small = (render(trained, request_of(look, size=(16, 16))).output.n_samples > 0).float()
    large = (render(trained, request_of(look, size=(64, 64))).output.n_samples > 0).float()
    assert 0.1 < small.mean() < 0.9
    assert (small - large.view(16, 4, 16, 4).mean((1, 3))).abs().mean() < 0.05
