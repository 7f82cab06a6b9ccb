"""Debug views."""

import numpy as np
import pytest
import torch

from ernerf_ti.portrait.camera import all_pixels, pixel_rays
from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.viewer.clip import Clip
from ernerf_ti.viewer.modes import color_picture, difference_picture, picture_of_mode, transparent_picture
from ernerf_ti.viewer.render_job import RenderedView, RenderRequest, look_of
from ernerf_ti.viewer.state import MODES, ViewState, changed

SIZE, RADIUS, DISTANCE = 96, 0.3, 3.0
INTRINSICS = (380.0, 380.0, 48.0, 48.0)


@pytest.fixture
def ball() -> RenderedView:
    """An opaque red ball at the origin, seen along the scene's -y."""
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # camera x: scene z; down: -x; forward: -y
    pose[1, 3] = DISTANCE
    rays_o, rays_d = pixel_rays(pose, INTRINSICS, all_pixels(SIZE, SIZE))
    along = -(rays_o * rays_d).sum(1)
    root = RADIUS**2 - (rays_o.square().sum(1) - along.square())
    opacity = (root > 0).float()
    depth = (along - root.clamp(min=0).sqrt()) * opacity
    rows = torch.arange(SIZE).float()[:, None].expand(SIZE, SIZE)
    look = changed(ViewState(14.0, 3), background="none")
    clip = Clip(
        "", np.zeros(640, np.float32), torch.zeros(1, 16, 42), pose[None], np.zeros(1, int), np.zeros(1), np.zeros(1)
    )
    request = RenderRequest(clip, 0, 0, 0.0, True, look_of(look), (SIZE, SIZE), 0, 0)
    shape = (SIZE, SIZE)
    output = RenderOutput(
        (opacity[:, None] * torch.tensor([1.0, 0, 0])).view(*shape, 3),
        opacity.view(shape),
        depth.view(shape),
        rows * opacity.view(shape),
        rows.flip(0) * opacity.view(shape),
        rows / SIZE,
        (8 * opacity).int().view(shape),
    )
    offset = torch.zeros(*shape, 2)
    offset[:, : SIZE // 2, 1] = 0.1  # to the right by a twentieth of the picture
    offset[:, SIZE // 2 :, 0] = 0.05  # down by half of that
    return RenderedView(request, output, opacity.view(shape), offset, rays_d.view(*shape, 3), pose, INTRINSICS, {})


def image(view, mode, edges=None) -> np.ndarray:
    picture = picture_of_mode(view, mode, 16, edges).image
    assert picture.shape == (SIZE, SIZE, 3) and picture.dtype == np.uint8
    return picture.astype(int)


def test_normals_of_a_ball(ball):
    normals = image(ball, "normals") / 255 * 2 - 1
    seen = ball.head_opacity.numpy() > 0
    hit = ball.rays_d.numpy() * ball.output.depth.numpy()[..., None] + ball.pose[:3, 3].numpy()
    expected = (hit / RADIUS) @ ball.pose[:3, :3].numpy() * (1, -1, -1)  # right, up, to the camera
    cosine = (normals * expected).sum(-1)[seen]
    inside = expected[..., 2][seen] > 0.5
    assert np.median(cosine[inside]) > 0.99
    assert cosine[inside].min() > 0.8
    assert not image(ball, "normals")[~seen].any()


def test_depth_is_brightest_where_it_is_nearest(ball):
    picture = image(ball, "depth").sum(-1)
    seen = ball.head_opacity.numpy() > 0
    assert picture[SIZE // 2, SIZE // 2] == picture.max() > 0
    assert picture[seen].min() > 0 == picture[~seen].max()


def test_attention_is_where_it_is(ball):
    seen = ball.head_opacity.numpy() > 0
    rows = np.flatnonzero(seen[:, SIZE // 2])
    for mode, low, high in (("audio attention", rows[2], rows[-3]), ("eye attention", rows[-3], rows[2])):
        picture = image(ball, mode).sum(-1)
        assert picture[high, SIZE // 2] > picture[low, SIZE // 2] + 100
        assert picture[~seen].max() < 250


def test_opacity_samples_and_uncertainty(ball):
    seen = ball.head_opacity.numpy() > 0
    assert (image(ball, "opacity")[seen] == 255).all() and not image(ball, "opacity")[~seen].any()
    samples = picture_of_mode(ball, "samples", 16)
    assert len(np.unique(samples.image.reshape(-1, 3), axis=0)) == 2
    assert samples.legend.startswith("per ray, 0 to 16; mean ")
    assert image(ball, "uncertainty")[-1].sum() > image(ball, "uncertainty")[0].sum()


def test_occupied_boxes_are_drawn_over_the_picture(ball):
    edge = np.array([[[0.0, 0, -0.2], [0.0, 0, 0.2]]], np.float32)  # across the middle
    picture = picture_of_mode(ball, "occupancy", 16, lambda: edge)
    row = 47 if picture.image[47, 30].sum() > picture.image[48, 30].sum() else 48
    assert picture.image[row, 30].sum() > 300
    half_length = 0.2 / DISTANCE * INTRINSICS[0]
    assert picture.image[row, round(48 - half_length) - 3].sum() < 300
    assert picture.legend == "surface of the occupied cells, 1 edges"


def test_deformation(ball):
    picture = picture_of_mode(ball, "torso deformation", 16)
    left, right = picture.image[10, 10].astype(int), picture.image[10, -10].astype(int)
    assert left[0] > 200 and left[1] < 60 and left[2] < 60  # to the right: red
    assert right[1] == max(right) and max(right) < max(left)  # down: green, and less of it
    assert "0 to 4.8 of 96 pixels" in picture.legend
    ball.torso_offset = None
    assert picture_of_mode(ball, "torso deformation", 16).legend == "no deformation: the torso is off"


def test_no_background(ball):
    picture, seen = color_picture(ball), ball.head_opacity.numpy() > 0
    assert (picture[seen] == (255, 0, 0)).all()
    assert len(np.unique(picture[~seen].reshape(-1, 3), axis=0)) == 2  # two grays
    assert (transparent_picture(ball)[seen] == (255, 0, 0, 255)).all()
    assert not transparent_picture(ball)[~seen][:, 3].any()


def test_difference():
    picture = np.full((8, 8, 3), 100, np.uint8)
    other = picture.copy()
    other[:, 4:] += 51
    shown = difference_picture(picture, other)
    assert shown.image[:, :4].max() <= 4 and shown.image[:, 4:].sum(-1).min() > 300
    assert shown.legend == "0 to 64 of 255; PSNR 17.0 dB"  # 20 log10(255 / 51) + 3.01
    assert difference_picture(picture, picture).legend.endswith("PSNR inf dB")


def test_no_two_modes_look_alike(ball):
    edges = np.array([[[0.0, 0, -0.2], [0.0, 0, 0.2]]], np.float32)
    pictures = [image(ball, mode, lambda: edges) for mode in MODES]
    for k, picture in enumerate(pictures):
        assert all(np.abs(picture - other).max() > 20 for other in pictures[:k])
