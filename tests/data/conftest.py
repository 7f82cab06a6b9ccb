"""Captures of minimal size."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ernerf_ti.audio.ready_made import FORMATS, save_windows
from ernerf_ti.data.capture_files import (
    CapturePaths,
    Description,
    write_blinks,
    write_description,
    write_labels,
    write_landmarks,
    write_sound,
    write_transforms,
)
from ernerf_ti.media.images import write_image

SIZE = 32
FOCAL = 70.0


@dataclass
class Made:
    """A capture folder and its content."""

    folder: Path
    frames: np.ndarray
    """[n, 32, 32, 3] uint8; gt_imgs has their negatives."""
    torsos: np.ndarray
    """[n, 32, 32, 4] uint8"""
    labels: np.ndarray
    """[n, 32, 32] uint8"""
    landmarks: np.ndarray
    """[n, 68, 2] float32"""
    eye_closures: np.ndarray
    """[n] float32"""
    poses: np.ndarray
    """[n, 4, 4] float64"""
    windows: np.ndarray
    """[n, 16, C] float32"""

    @property
    def paths(self) -> CapturePaths:
        return CapturePaths(self.folder)

    def change_json(self, path: Path, change) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


@pytest.fixture
def make_capture(tmp_path):
    """A function (n_frames, extractor) -> complete capture."""

    def make(n_frames=12, extractor="ppg"):
        rng = np.random.default_rng(7)
        folder = tmp_path / "capture"
        paths = CapturePaths(folder)
        paths.make_folders()
        form = next(f for f in FORMATS if f.extractor == extractor)
        made = Made(
            folder,
            # One gray level each, which JPEG preserves.
            np.broadcast_to(rng.integers(0, 256, (n_frames, 1, 1, 1), np.uint8), (n_frames, SIZE, SIZE, 3)),
            rng.integers(0, 256, (n_frames, SIZE, SIZE, 4), np.uint8),
            rng.integers(0, 4, (n_frames, SIZE, SIZE), np.uint8),
            rng.uniform(0, SIZE, (n_frames, 68, 2)).astype(np.float32),
            rng.uniform(0, 1, n_frames).astype(np.float32),
            np.stack([_pose(rng) for _ in range(n_frames)]),
            rng.standard_normal((n_frames, form.window, form.dimension)).astype(np.float32),
        )
        for k in range(n_frames):
            write_image(paths.frame(k), made.frames[k])
            write_image(paths.image(k), 255 - made.frames[k])
            write_image(paths.torso(k), made.torsos[k])
            write_labels(paths.labels(k), made.labels[k])
            write_landmarks(paths.landmarks(k), made.landmarks[k])
        write_image(paths.background, np.full((SIZE, SIZE, 3), 90, np.uint8))
        write_transforms(folder, FOCAL, (SIZE, SIZE), range(n_frames), made.poses)
        write_blinks(paths.blinks, made.eye_closures, np.ones(n_frames, bool))
        write_sound(paths.sound, rng.uniform(-0.5, 0.5, n_frames * 640))
        save_windows(folder, extractor, made.windows)
        write_description(paths.description, Description(SIZE, SIZE, n_frames, extractor, form.dimension))
        return made

    return make


@pytest.fixture
def make_official_capture(make_capture):
    """A capture as ER-NeRF's preprocessing writes it: no capture.json, no sizes, its number formats and features."""

    def make(n_frames=12, extractor="deepspeech") -> Made:
        made = make_capture(n_frames, extractor)
        made.paths.description.unlink()
        for split in ("train", "val"):
            content = json.loads(made.paths.transforms(split).read_text())
            keys = ("focal_len", "cx", "cy", "frames")
            made.paths.transforms(split).write_text(json.dumps({key: content[key] for key in keys}, indent=2))
        form = next(f for f in FORMATS if f.extractor == extractor)
        dtype = np.float64 if extractor == "deepspeech" else np.float32
        np.save(made.folder / form.file_name, made.windows.astype(dtype))
        for k in range(n_frames):
            np.savetxt(made.paths.landmarks(k), made.landmarks[k], "%f")
        columns = "frame, face_id, timestamp, confidence, success, AU45_r, AU45_c"
        rows = [f"{k + 1}, 0, {k / 25:.3f}, 0.98, 1, {k * 0.37 % 2.5:.2f}, {k % 2:.2f}" for k in range(n_frames)]
        made.paths.blinks.write_text("\n".join([columns, *rows]) + "\n")
        made.eye_closures = np.clip(np.array([float(f"{k * 0.37 % 2.5:.2f}") for k in range(n_frames)]), 0, 2) / 2
        return made

    return make


@pytest.fixture
def capture(make_capture):
    return make_capture()


def _pose(rng):
    """[4, 4] with a rotation."""
    q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    pose = np.eye(4)
    pose[:3, :3] = q * np.sign(np.linalg.det(q))
    pose[:3, 3] = rng.standard_normal(3)
    return pose


@pytest.fixture
def official(make_official_capture):
    return make_official_capture()
