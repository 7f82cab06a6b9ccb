import numpy as np
import pytest
import torch

from ernerf_ti.audio.context import audio_context
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import HEAD, write_labels
from ernerf_ti.portrait.camera import all_pixels, pixel_coords, pixel_rays
from ernerf_ti.train.pixel_sampling import eye_rectangle, face_rectangle, lips_rectangle, squares_pixels
from ernerf_ti.train.training_frames import TrainingFrames
from tests.data.conftest import SIZE


@pytest.fixture
def capture(make_capture):
    made = make_capture()
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[8:24, 8:24] = HEAD
    for k in range(12):
        write_labels(made.paths.labels(k), labels)
    return made


@pytest.fixture
def every_pixel(device):
    return torch.arange(SIZE * SIZE, device=device)


def training_frames(folder, device, **options) -> TrainingFrames:
    opened = open_capture(folder)
    return TrainingFrames(opened, opened.train, device, **options)


def test_inputs_are_those_of_the_capture(capture, device):
    frames = training_frames(capture.folder, device)
    for i, (k, heard) in enumerate(zip(frames.split.frame_ids, frames.split.audio_ids, strict=True)):
        inputs = frames.inputs(i)
        assert torch.equal(inputs.audio_window.cpu(), audio_context(frames.windows, int(heard)))
        assert inputs.audio_window.is_contiguous()
        assert inputs.eye_closure.tolist() == [frames.capture.eye_closures[k]]
        assert torch.equal(inputs.head_pose.cpu(), frames.poses[i])
        assert (inputs.appearance_index, frames.inputs(i, trained=False).appearance_index) == (i, None)


def test_audio_beyond_the_end_of_the_sound(capture, device):
    frames = training_frames(capture.folder, device)
    n = len(frames.windows)
    for late in (n - 1, n, n + 3, n + 4, n + 40):
        frames.split.audio_ids[0] = late
        again = TrainingFrames(frames.capture, frames.split, device)
        assert torch.equal(again.inputs(0).audio_window.cpu(), audio_context(frames.windows, late))


def test_rays_are_those_of_the_frame(capture, device, every_pixel):
    frames = training_frames(capture.folder, device)
    k = int(frames.split.frame_ids[1])
    pixels = every_pixel[torch.randperm(SIZE * SIZE, device=device)]
    batch = frames.rays(frames.frame(1), pixels)
    for found, expected in zip(
        (batch.rays_o, batch.rays_d),
        pixel_rays(frames.pose(1), frames.capture.intrinsics, all_pixels(SIZE, SIZE, device)[pixels]),
        strict=True,
    ):
        assert found.is_contiguous()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    image, torso = (torch.from_numpy(read(k) / 255).float() for read in (frames.capture.image, frames.capture.torso))
    background = torch.from_numpy(frames.capture.background / 255).float()
    behind = torso[..., :3] * torso[..., 3:] + (1 - torso[..., 3:]) * background
    images = frames.images(1)
    for found, whole, expected in (
        (batch.target_rgb, images.image, image),
        (batch.background_rgb, images.torso_over_background, behind),
    ):
        torch.testing.assert_close(whole.cpu(), expected, rtol=0, atol=1e-6)
        assert torch.equal(found, whole.view(-1, 3)[pixels])
    row0, row1, column0, column1 = face_rectangle(frames.capture.landmarks(k), SIZE, SIZE)
    face = torch.zeros(SIZE, SIZE, dtype=torch.bool, device=device)
    face[row0:row1, column0:column1] = True
    assert torch.equal(batch.face_mask, face.view(-1)[pixels])


@pytest.mark.parametrize("torso_only", [False, True])
def test_torso_over_random_colors(capture, device, every_pixel, torso_only):
    frames = training_frames(capture.folder, device)
    frames.use(torso_only)
    colors = torch.rand(100, 3, device=device)
    batch = frames.torso(frames.frame(2), every_pixel, colors)
    torso = torch.from_numpy(frames.capture.torso(int(frames.split.frame_ids[2])) / 255).float().to(device).view(-1, 4)
    background = torch.from_numpy(frames.capture.background / 255).float().to(device).view(-1, 3)
    background[:100] = colors
    torch.testing.assert_close(batch.background_rgb, background, rtol=0, atol=1e-6)
    expected = torso[:, :3] * torso[:, 3:] + (1 - torso[:, 3:]) * background
    torch.testing.assert_close(batch.target_rgb, expected, rtol=0, atol=1e-6)
    assert torch.equal(batch.pixel_coords, pixel_coords(all_pixels(SIZE, SIZE, device), SIZE, SIZE))


@pytest.mark.parametrize("part", ["lips", "eyes"])
@pytest.mark.parametrize("least_side", [1, 20, 1000])
def test_squares_around_a_part(capture, device, part, least_side):
    frames = training_frames(capture.folder, device)
    side, corners = frames.squares(part, least_side)
    assert side >= min(least_side, SIZE) and corners.shape == (len(frames), 1 if part == "lips" else 2)
    for i, of_frame in enumerate(corners.tolist()):
        landmarks = frames.capture.landmarks(int(frames.split.frame_ids[i]))
        for which, corner in enumerate(of_frame):
            row, column = divmod(corner, SIZE)
            assert 0 <= row <= SIZE - side and 0 <= column <= SIZE - side
            size = SIZE, SIZE
            inner = lips_rectangle(landmarks, *size) if part == "lips" else eye_rectangle(landmarks, which, *size)
            if inner.row1 - inner.row0 <= side:
                assert row <= inner.row0 and inner.row1 <= row + side
            if inner.column1 - inner.column0 <= side:
                assert column <= inner.column0 and inner.column1 <= column + side


def test_dense_rays_are_those_of_the_pixels_and_between_them(capture, device):
    frames = training_frames(capture.folder, device)
    corners, side = torch.tensor([(SIZE - 7) * (SIZE + 1), 9 * SIZE + 12], device=device), 7
    plain = frames.rays(frames.frame(1), squares_pixels(corners, side, SIZE))
    dense = frames.dense_rays(frames.frame(1), corners, side)
    assert dense.rays_d.is_contiguous() and dense.rays_o.shape == (2 * 13**2, 3)
    for name in ("rays_o", "rays_d", "target_rgb", "background_rgb", "face_mask"):
        of_pixels, everywhere = getattr(plain, name).view(2, 7, 7, -1), getattr(dense, name).view(2, 13, 13, -1)
        # On a GPU products of matrices of other sizes may be summed in another order.
        torch.testing.assert_close(everywhere[:, ::2, ::2], of_pixels, rtol=0, atol=1e-6 if name == "rays_d" else 0)
        if name == "face_mask":
            expected = of_pixels[:, :, 1:] & of_pixels[:, :, :-1]
            assert of_pixels.any() and not of_pixels.all()
        else:
            expected = (of_pixels[:, :, 1:] + of_pixels[:, :, :-1]) / 2
        if name == "rays_d":
            expected = torch.nn.functional.normalize(expected, dim=-1)
        torch.testing.assert_close(everywhere[:, ::2, 1::2], expected, rtol=0, atol=1e-4 if name == "rays_d" else 1e-6)


def test_random_background_where_the_segmentation_is_certain(capture, device, every_pixel):
    frames = training_frames(capture.folder, device, with_regions=True)
    noise = torch.rand(20 * SIZE, 3, device=device)
    before, batch = frames.rays(frames.frame(2), every_pixel), frames.rays(frames.frame(2), every_pixel, noise)
    assert torch.equal(batch.face_mask, before.face_mask)
    noise = torch.cat((noise, torch.full((12 * SIZE, 3), 2.0, device=device)))  # the last 12 rows get none
    rows, columns = every_pixel // SIZE, every_pixel % SIZE
    inside = (rows >= 9) & (rows < 23) & (columns >= 9) & (columns < 23) & (rows < 20)
    near = (rows >= 7) & (rows < 25) & (columns >= 7) & (columns < 25) & ~inside
    outside = (rows < 20) & ~near & ~inside
    for mask, target, background in (
        (inside, before.target_rgb, noise),
        (outside, noise, noise),
        (near | (rows >= 20), before.target_rgb, before.background_rgb),
    ):
        assert mask.any()
        assert torch.equal(batch.target_rgb[mask], target[mask])
        assert torch.equal(batch.background_rgb[mask], background[mask])


@pytest.mark.parametrize("deleted", [False, True])
def test_no_random_background_without_segmentation(capture, device, every_pixel, deleted):
    if deleted:
        for k in range(12):
            capture.paths.labels(k).unlink()
    frames = training_frames(capture.folder, device, with_regions=deleted)
    batch, before = (
        frames.rays(frames.frame(0), every_pixel, torch.rand(100, 3, device=device)),
        frames.rays(frames.frame(0), every_pixel),
    )
    assert torch.equal(batch.background_rgb, before.background_rgb)
    assert torch.equal(batch.target_rgb, before.target_rgb)
