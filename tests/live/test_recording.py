import dataclasses

import numpy as np

from ernerf_ti.live import LiveRecording
from ernerf_ti.media.container import open_media
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import probe, read_frames
from tests.live.conftest import Stage


def test_a_recording_has_every_frame_and_says_that_it_is_synthesized(trained, tmp_path):
    path = tmp_path / "session.mp4"
    stage = Stage(trained)
    stage.session.push_audio(np.sin(np.arange(24_000) * 0.05).astype(np.float32), 48_000)
    stage.session.flush()
    frames = [dataclasses.replace(frame, image=np.zeros((32, 32, 3), np.uint8)) for frame in stage.read(30)]
    with LiveRecording(path) as recording:
        for k, frame in enumerate(frames):
            if not 20 <= k < 23:
                recording.add(frame)
    info = probe(path)
    assert (info.width, info.height, float(info.rate)) == (32, 32, 25)
    assert len(list(read_frames(path, 25))) == 30
    sound = np.abs(read_sound(path, 48_000)[: 30 * 1920]).reshape(-1, 1920).max(1) > 0.3
    expected = np.array([frame.speaking for frame in frames])
    expected[20:23] = False
    assert (sound == expected).mean() > 0.9
    with open_media(path) as file:
        assert "Synthesized by ernerf-ti" in file.metadata["comment"]
