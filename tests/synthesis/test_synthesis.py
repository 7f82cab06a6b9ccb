"""What drives a portrait: paths, blinks, and the order of frames."""

import dataclasses

import numpy as np
import pytest
import torch

from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import probe, read_frames, write_video
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.process.prefetch import ahead
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.driving import blinks, head_path, ping_pong, ready_made_windows, speech_windows
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.synthesis.video import SYNTHESIZED, SpeechVideo, synthesize
from ernerf_ti.train.config import PRESETS


@pytest.fixture(scope="module")
def trained() -> TrainedPortrait:
    torch.manual_seed(0)
    portrait = Portrait(PRESETS["small"].portrait, 42, 3).requires_grad_(False)
    poses = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    poses[:, 2, 3] = 0.8
    poses[:, 0, 3] = torch.linspace(-0.02, 0.02, 5)
    return TrainedPortrait(
        portrait,
        "ppg",
        42,
        (80.0, 80.0, 16.0, 16.0),
        (32, 32),
        scene_from_capture(poses).float(),
        torch.linspace(0, 1, 5),
        torch.full((32, 32, 3), 0.5),
    )


@pytest.fixture
def speech(tmp_path):
    sound = 0.3 * np.sin(np.arange(16_000 * 2) * 0.05).astype(np.float32)[: 16_000 // 2 + 100]
    path = tmp_path / "speech.mp4"
    write_video(path, [np.zeros((16, 16, 3), np.uint8)] * 13, 25, sound)
    return path


def test_ping_pong():
    assert ping_pong(11, 4).tolist() == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2]
    assert ping_pong(3, 1).tolist() == [0, 0, 0]


def test_paths(trained):
    still, places = head_path(trained, 7, "still")
    assert torch.equal(still, trained.poses[:1].expand(7, 4, 4)) and places.tolist() == [0] * 7
    path, places = head_path(trained, 10, "capture", smoothing=1)
    torch.testing.assert_close(path, torch.cat((trained.poses, trained.poses.flip(0))))
    assert places.tolist() == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
    calm, _ = head_path(trained, 5, "capture", smoothing=3)
    torch.testing.assert_close(calm[1, :3, 3], trained.poses[:3, :3, 3].mean(0))
    with pytest.raises(ValueError, match="pose: expected capture, still or a file, got 'spin'"):
        head_path(trained, 5, "spin")


def test_the_torso_follows_the_frames_of_the_capture(trained):
    codes = trained.portrait.torso.appearance
    held_out = [trained.torso_appearance(pose) for pose in trained.poses[3:]]
    of_capture = torch.cat((codes.of_all_frames(), torch.stack(held_out)))
    torch.testing.assert_close(trained.torso_appearance(trained.poses[1], 1), of_capture.mean(0))  # of 7 frames around
    moved = trained.torso_appearance(trained.poses[2], 1) - trained.torso_appearance(trained.poses[1], 1)
    torch.testing.assert_close(
        moved, trained.torso_appearance(trained.poses[2]) - trained.torso_appearance(trained.poses[1])
    )
    before = trained.torso_appearance(trained.poses[4])
    with torch.no_grad():
        codes.embeddings.add_(1.0)  # as training does
    torch.testing.assert_close(trained.torso_appearance(trained.poses[4]), before + 1)
    with torch.no_grad():
        codes.embeddings.sub_(1.0)
    published = dataclasses.replace(trained, as_published=True)
    assert torch.equal(published.torso_appearance(trained.poses[1], 1), codes(0))


def test_blinks(trained):
    assert blinks(trained, 7, "capture").tolist() == [0, 0.25, 0.5, 0.75, 1, 1, 0.75]
    assert blinks(trained, 3, "0.4").tolist() == pytest.approx([0.4] * 3)
    natural = blinks(trained, 25 * 60, "natural", seed=3)
    assert np.array_equal(natural, blinks(trained, 25 * 60, "natural", seed=3))
    n = ((natural[1:] == 1) & (natural[:-1] < 1)).sum()
    assert 8 <= n <= 32
    assert (natural == 0).mean() > 0.8
    for wrong in ("often", "1.2", "-1"):
        with pytest.raises(ValueError, match="blink: expected capture, natural or a number from 0 to 1, got"):
            blinks(trained, 3, wrong)


def test_speech_windows_check_the_dimension(trained):
    assert speech_windows(trained, np.zeros(16_000)).shape == (25, 16, 42)
    other = dataclasses.replace(trained, feature_dimension=29)
    with pytest.raises(ValueError, match=r"expected dimension 29 \(of the training\), got 42"):
        speech_windows(other, np.zeros(16_000))


def test_ready_made_windows(trained, speech, tmp_path):
    path, windows = tmp_path / "aud.npy", np.random.default_rng(0).standard_normal((10, 16, 42))
    np.save(path, windows)
    found = ready_made_windows(trained, path, 12)
    np.testing.assert_allclose(found[:10], windows, rtol=1e-6)
    assert torch.equal(found[10:], found[9:10].expand(2, -1, -1))
    deepspeech = dataclasses.replace(trained, extractor="deepspeech")  # which can't be computed here
    out = tmp_path / "out.mp4"
    assert synthesize(deepspeech, SpeechVideo(speech, out, windows=path)) == [out]
    assert len(list(read_frames(out, 25))) == -(-len(read_sound(speech)) // 640)
    np.save(path, windows[..., :29])
    with pytest.raises(ValueError, match=r"aud.npy: expected dimension 42 \(of the training\), got 29"):
        ready_made_windows(trained, path, 12)


def test_frames_depend_on_the_blink_and_the_pose(trained):
    windows = torch.rand(3, 16, 42)
    frames = list(render_frames(trained, windows, trained.poses[[0, 0, 4]], np.zeros(3), trained.background))
    assert frames[0].rgb.shape == (32, 32, 3)
    assert not torch.equal(frames[0].rgb, frames[2].rgb)
    followed = list(
        render_frames(trained, windows[:2], trained.poses[[0, 0]], np.zeros(2), None, places=np.array([0, 2]))
    )
    plain = next(render_frames(trained, windows, trained.poses, np.zeros(3), None, places=np.zeros(1, int)))
    torch.testing.assert_close(followed[0].rgb, plain.rgb)
    assert not torch.equal(followed[0].rgb, followed[1].rgb)
    clear = next(render_frames(trained, windows, trained.poses, np.zeros(3), None))
    composed = clear.rgb + (1 - clear.opacity)[..., None] * trained.background
    torch.testing.assert_close(composed.clamp(0, 1), frames[0].rgb, atol=1e-5, rtol=0)


def test_video_with_sound_and_metadata(trained, speech, tmp_path):
    import av

    out, depth, attention = (tmp_path / name for name in ("out.mp4", "depth.mp4", "attention.mp4"))
    wanted = SpeechVideo(speech, out, blink="natural", depth=depth, attention=attention)
    assert synthesize(trained, wanted) == [out, depth, attention]
    n = -(-len(read_sound(speech)) // 640)
    for path in (out, depth, attention):
        assert len(list(read_frames(path, 25))) == n
        assert abs(len(read_sound(path)) - n * 640) <= 1024
        assert probe(path).width == 32
    with av.open(str(out)) as file:
        assert file.metadata["comment"] == SYNTHESIZED["comment"]
        assert "trainedAlgorithmicMedia" in file.metadata["comment"]


def test_pictures_with_alpha(trained, speech, tmp_path):
    from ernerf_ti.media.images import read_image

    folder = tmp_path / "frames"
    synthesize(trained, SpeechVideo(speech, folder, background="none", pose="still"))
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "00000.png" and len(names) == -(-len(read_sound(speech)) // 640)
    assert read_image(folder / "00000.png").shape == (32, 32, 4)


@pytest.mark.parametrize("suffix", [".webm", ".mov"])
def test_video_with_alpha(trained, speech, tmp_path, suffix):
    from ernerf_ti.media.images import read_image

    out, folder = tmp_path / f"out{suffix}", tmp_path / "frames"
    for output in (out, folder):
        synthesize(trained, SpeechVideo(speech, output, background="none", pose="still"))
    alpha = np.stack([read_image(path)[..., 3] for path in sorted(folder.iterdir())])
    assert alpha.min() < 200  # so that an opaque file would not pass
    decoded = decode_alpha(out)
    assert decoded.shape == alpha.shape
    assert np.abs(decoded.astype(int) - alpha).mean() < 8
    assert abs(len(read_sound(out)) - len(alpha) * 640) <= 1024


def test_a_file_with_alpha_is_opaque_over_a_background(trained, speech, tmp_path):
    synthesize(trained, SpeechVideo(speech, tmp_path / "out.mov", pose="still"))
    assert decode_alpha(tmp_path / "out.mov").min() == 255


def decode_alpha(path):
    """[T, H, W] uint8. FFmpeg's own VP9 decoder drops alpha, so that of libvpx is asked for."""
    import av

    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        webm = path.suffix == ".webm"
        decoder = av.CodecContext.create("libvpx-vp9", "r") if webm else stream.codec_context
        frames = [frame for packet in file.demux(stream) for frame in decoder.decode(packet)]
        return np.stack([frame.to_ndarray(format="rgba")[..., 3] for frame in frames])


@pytest.mark.parametrize("background", ["#ff0000", "picture"])
def test_other_backgrounds(trained, speech, tmp_path, background):
    from ernerf_ti.media.images import write_image

    picture = np.zeros((20, 20, 3), np.uint8)
    picture[..., 0] = 255
    write_image(tmp_path / "red.png", picture)
    kind = str(tmp_path / "red.png") if background == "picture" else background
    synthesize(trained, SpeechVideo(speech, tmp_path / "out.mp4", background=kind, head_only=True))
    frame = next(read_frames(tmp_path / "out.mp4", 25))
    assert frame[0, 0, 0] > 150 > frame[0, 0, 1]


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"audio": "none.wav"}, FileNotFoundError, "none.wav: expected a video or sound file, got no such file"),
        ({"pose": "none.json"}, FileNotFoundError, "pose: expected capture, still or a transforms file, got none.json"),
        ({"background": "none"}, ValueError, "expected .webm, .mov or a folder for pictures with alpha"),
        ({"depth": "depth.mov"}, ValueError, "depth: expected an .mp4, got"),
        ({"background": "blue"}, FileNotFoundError, "background: expected capture, none, a color as #rrggbb"),
        ({"output": "out.avi"}, ValueError, "output: expected .mp4, .webm, .mov or a folder, got"),
    ],
)
def test_wrong_input_is_said_before_rendering(trained, speech, tmp_path, changed, error, text):
    from pathlib import Path

    values = {"audio": speech, "output": tmp_path / "out.mp4"} | changed
    values = {key: Path(v) if key in ("audio", "output", "depth") else v for key, v in values.items()}
    with pytest.raises(error, match=text):
        synthesize(trained, SpeechVideo(**values))
    assert [path.name for path in tmp_path.iterdir()] == ["speech.mp4"]


def test_ahead_keeps_order_and_passes_errors():
    assert list(ahead(range(50), 3)) == list(range(50))

    def broken():
        yield 1
        raise ValueError("second")

    items = ahead(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="second"):
        next(items)


def test_ahead_can_be_left():
    made = []

    def endless():
        while True:
            made.append(0)
            yield 0

    items = ahead(endless(), 2)
    next(items)
    items.close()
    assert len(made) < 10
