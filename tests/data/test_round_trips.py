"""Properties of the files of a capture, for arbitrary content: what is written is read back."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from ernerf_ti.audio.ready_made import FORMATS, load_windows, read_windows, save_windows
from ernerf_ti.audio.windows import audio_windows
from ernerf_ti.data.capture_files import (
    CapturePaths,
    labels_of,
    read_blinks,
    read_landmarks,
    read_transforms,
    split_frames,
    write_blinks,
    write_labels,
    write_landmarks,
    write_sound,
    write_transforms,
)
from ernerf_ti.media.images import read_image
from ernerf_ti.media.sound import read_sound

# Each example overwrites the files of the one before.
few = settings(
    max_examples=20, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def reals(low: float, high: float, width: int = 64) -> st.SearchStrategy[float]:
    # Without subnormal numbers: Taichi and torch may set the processor to flush them to zero.
    return st.floats(low, high, width=width, allow_subnormal=False)


numbers = reals(-1, 1, 32)


@st.composite
def poses(draw) -> np.ndarray:
    n = draw(st.integers(2, 30))
    vectors = draw(arrays(np.float64, (n, 3), elements=reals(-3, 3)))
    result = np.tile(np.eye(4), (n, 1, 1))
    result[:, :3, :3] = Rotation.from_rotvec(vectors).as_matrix()
    result[:, :3, 3] = draw(arrays(np.float64, (n, 3), elements=reals(-50, 50)))
    return result


@few
@given(
    poses=poses(),
    relative_focal=reals(0.02, 900),
    half_size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    ids=st.sets(st.integers(0, 10_000), min_size=30, max_size=30),
)
def test_transforms(tmp_path, poses, relative_focal, half_size, ids):
    ids, size = sorted(ids)[: len(poses)], (2 * half_size[0], 2 * half_size[1])
    focal = relative_focal * max(size)
    write_transforms(tmp_path, focal, size, ids, poses)
    splits = []
    for name in ("train", "val"):
        intrinsics, found, split = read_transforms(CapturePaths(tmp_path).transforms(name))
        assert found == size
        assert intrinsics.tolist() == [focal, focal, *half_size]
        splits.append(split)
    assert len(splits[0]) == split_frames(len(poses)) and len(splits[1]) >= 1
    for key, expected in (("frame_ids", ids), ("audio_ids", ids), ("poses", poses)):
        assert np.array_equal(np.concatenate([getattr(split, key) for split in splits]), expected)


@few
@given(landmarks=arrays(np.float32, (68, 2), elements=reals(-1e4, 1e4, 32)))
def test_landmarks(tmp_path, landmarks):
    write_landmarks(tmp_path / "0.lms", landmarks)
    found = read_landmarks(tmp_path / "0.lms")
    assert found.dtype == np.float32 and np.array_equal(found, landmarks)


@few
@given(closures=arrays(np.float32, st.integers(1, 40), elements=reals(0, 1, 32)), data=st.data())
def test_blinks(tmp_path, closures, data):
    seen = data.draw(arrays(bool, len(closures)))
    write_blinks(tmp_path / "au.csv", closures, seen)
    for n in (len(closures), 1):
        assert np.array_equal(read_blinks(tmp_path / "au.csv", n), closures[:n])


@few
@given(labels=arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.integers(0, 3)))
def test_labels(tmp_path, labels):
    write_labels(tmp_path / "0.png", labels)
    assert np.array_equal(labels_of(read_image(tmp_path / "0.png")), labels)


@few
@given(samples=arrays(np.float32, st.integers(1, 3000), elements=numbers))
def test_sound(tmp_path, samples):
    write_sound(tmp_path / "aud.wav", samples)
    found = read_sound(tmp_path / "aud.wav")
    assert found.shape == samples.shape
    # Half a step of 16 bits, and the ratio of the scales 32767 and 32768.
    np.testing.assert_allclose(found, samples, atol=1.6 / 32768)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.extractor)
@few
@given(n=st.integers(1, 5), value=numbers)
def test_features(tmp_path, form, n, value):
    windows = np.full((n, form.window, form.dimension), value, np.float32)
    path = save_windows(tmp_path, form.extractor, windows)
    assert np.array_equal(load_windows(tmp_path, form.extractor), windows)
    extractor, found = read_windows(path)
    assert extractor == form.extractor and np.array_equal(found, windows)


@few
@given(n_steps=st.integers(0, 60), n_frames=st.none() | st.integers(0, 40))
def test_windows_hold_the_steps_around_each_frame(n_steps, n_frames):
    features = np.arange(1, n_steps + 1, dtype=np.float32)[:, None]  # step k has the value k + 1
    windows = audio_windows(features, n_frames)
    assert len(windows) == (-(-n_steps // 2) if n_frames is None else n_frames)
    for t, window in enumerate(windows[..., 0]):
        steps = range(2 * t - 8, 2 * t + 8)
        assert window.tolist() == [k + 1 if 0 <= k < n_steps else 0 for k in steps]
