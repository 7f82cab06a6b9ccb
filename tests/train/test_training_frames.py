import numpy as np
import pytest
import torch

from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import HEAD, write_labels
from ernerf_ti.portrait.camera import all_pixels
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


def test_random_background_where_the_segmentation_is_certain(capture):
    opened = open_capture(capture.folder)
    frames, pixels = TrainingFrames(opened, opened.train), all_pixels(SIZE, SIZE)
    before, batch = frames.rays(2, pixels, "head"), frames.rays(2, pixels, "head")
    noise = torch.rand(20 * SIZE, 3)
    frames.randomize_background(batch, 2, pixels, noise)
    noise = torch.cat((noise, torch.full((12 * SIZE, 3), 2.0)))  # the last 12 rows get none
    rows, columns = pixels.unbind(1)
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


def test_no_random_background_without_segmentation(capture):
    for k in range(12):
        capture.paths.labels(k).unlink()
    opened = open_capture(capture.folder)
    frames, pixels = TrainingFrames(opened, opened.train), all_pixels(SIZE, SIZE)
    batch = frames.rays(0, pixels, "head")
    frames.randomize_background(batch, 0, pixels, torch.rand(100, 3))
    assert torch.equal(batch.background_rgb, frames.rays(0, pixels, "head").background_rgb)
