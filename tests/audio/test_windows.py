import numpy as np
import pytest

from ernerf_ti.audio.windows import audio_windows


def test_frame_t_sees_steps_around_2t():
    features = np.arange(1, 41, dtype=np.float32)[:, None]  # step k holds k + 1
    windows = audio_windows(features)
    assert windows.shape == (20, 16, 1)
    assert windows.dtype == np.float32
    assert windows[0, :, 0].tolist() == [0] * 8 + list(range(1, 9))
    assert windows[10, :, 0].tolist() == list(range(13, 29))  # steps 12 ... 27
    assert windows[19, :, 0].tolist() == [*range(31, 41), *[0] * 6]


@pytest.mark.parametrize(("steps", "frames"), [(0, 0), (1, 1), (2, 1), (3, 2), (100, 50)])
def test_number_of_windows(steps, frames):
    assert audio_windows(np.zeros((steps, 42))).shape == (frames, 16, 42)


def test_more_and_fewer_frames_than_sound():
    features = np.ones((10, 3))
    assert audio_windows(features, 2).shape == (2, 16, 3)
    longer = audio_windows(features, 20)
    assert longer.shape == (20, 16, 3)
    assert (longer[9:] == 0).all()


def test_bad_shape():
    with pytest.raises(ValueError, match=r"features: expected shape \[T, C\], got \[5\]; pass one row per step"):
        audio_windows(np.zeros(5))
