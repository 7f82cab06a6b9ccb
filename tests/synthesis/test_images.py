"""Depth as gray images."""

import dataclasses

import numpy as np
import pytest
import torch

from ernerf_ti.media.video import read_frames
from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.synthesis.images import DepthImages
from ernerf_ti.synthesis.options import SynthesisOptions
from ernerf_ti.synthesis.video import synthesize

SIZE, RADIUS = 64, 24  # pixels of the image and of the ball in it
HAZE = 0.002  # opacity of the haze around the ball


def ball(distance=3.35):
    """A ball of radius 0.4 at the scene's origin, seen from `distance`, in a thin haze that is much nearer.

    The lower half of the image is covered by an opaque torso.
    """
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    squared = ((rows - SIZE / 2) ** 2 + (columns - SIZE / 2) ** 2) / RADIUS**2
    surface = distance - 0.4 * (1 - squared).clamp(min=0).sqrt()
    head = torch.where(squared <= 1, 0.98, HAZE)
    depth = torch.where(squared <= 1, surface * head, 1.0 * HAZE)
    opacity = torch.where(rows > SIZE / 2, 1.0, head)
    blank = torch.zeros(SIZE, SIZE)
    return RenderOutput(torch.zeros(SIZE, SIZE, 3), opacity, depth, blank, blank, None, blank.int(), head)


def poses_at(*distances):
    poses = torch.eye(4).repeat(len(distances), 1, 1)
    poses[:, 2, 3] = -torch.tensor(distances)
    return poses


def test_depth_is_bright_inside_the_head_and_brightest_at_the_nearest_point():
    image = DepthImages(poses_at(3.35))(ball()).numpy()
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
    gray = image[..., 0].astype(int)
    middle, edge = gray[SIZE // 2, SIZE // 2], gray[SIZE // 2, SIZE // 2 - RADIUS + 2]
    assert middle > 240
    assert middle > edge + 60 and edge > 20
    assert gray[2, 2] <= 1 and gray[-3, 2] <= 1  # neither the haze nor the torso shows
    row = gray[SIZE // 2, SIZE // 2 - RADIUS + 1 : SIZE // 2 + 1]
    assert (np.diff(row) >= 0).all()


def test_range_of_the_depth_is_fixed_over_the_frames():
    images = DepthImages(poses_at(3.35, 3.35, 3.0, 3.6))
    gray = [int(images(ball(distance))[SIZE // 2, SIZE // 2, 0]) for distance in (3.35, 3.35, 3.0, 3.6)]
    assert gray[0] == gray[1]
    assert gray[2] > gray[0] > gray[3] > 20  # the nearer, the brighter, and nothing is clipped
    assert gray[2] > 240


def test_depth_of_an_empty_frame_is_black():
    empty = ball()
    empty.head_opacity = torch.zeros(SIZE, SIZE)
    assert DepthImages(poses_at(3.35))(empty).max() == 0


def test_depth_video_shows_the_head(trained, speech, tmp_path, monkeypatch):
    monkeypatch.setattr("ernerf_ti.synthesis.video.render_frames", lambda *_, **__: (ball() for _ in range(13)))
    out, depth = tmp_path / "out.mp4", tmp_path / "depth.mp4"
    synthesize(dataclasses.replace(trained, size=(SIZE, SIZE)), SynthesisOptions(speech, out, depth=depth))
    for frame in read_frames(depth, 25):
        inside = frame[SIZE // 2 - 10 : SIZE // 2 + 10, SIZE // 2 - 10 : SIZE // 2 + 10]
        assert inside.mean() > 200
        assert frame[:6, :6].mean() < 6


def test_head_opacity_excludes_the_torso(trained):
    from ernerf_ti.portrait.records import FrameInputs

    inputs = FrameInputs(torch.zeros(8, 42, 16), None, None, trained.poses[0])
    with_torso, head = (trained.render(inputs, None, torso) for torso in (True, False))
    assert torch.equal(with_torso.head_opacity, head.opacity)
    assert head.head_opacity is None
    assert (with_torso.opacity >= with_torso.head_opacity).all()
    normalized = head.depth / head.opacity
    seen = head.opacity > 0.01
    distance = float(trained.poses[0, :3, 3].norm())
    assert normalized[seen].numpy() == pytest.approx(distance, abs=1.75)  # within the scene's box
