"""Speech synthesis: its inputs, the rendered frames and the files."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ernerf_ti.media.images import read_image
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import probe, read_frames
from ernerf_ti.media.video_writer import VideoWriter
from ernerf_ti.portrait.camera import interpolate_poses
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.synthesis import video
from ernerf_ti.synthesis.driving import blinks, head_path, ping_pong, ready_made_windows, speech_windows
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.synthesis.options import SynthesisOptions
from ernerf_ti.synthesis.video import SYNTHESIZED, synthesize


def test_ping_pong():
    assert ping_pong(11, 4).tolist() == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2]
    assert ping_pong(3, 1).tolist() == [0, 0, 0]


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 200), available=st.integers(1, 40))
def test_ping_pong_is_a_path_without_jumps(n, available):
    indices = ping_pong(n, available)
    assert indices.shape == (n,)
    assert ((indices >= 0) & (indices < available)).all()
    assert (np.abs(np.diff(indices)) <= 1).all()
    assert (indices[:available] == np.arange(min(n, available))).all()
    assert (indices == ping_pong(n + 2 * available, available)[2 * available :]).all()


def test_head_path(trained):
    still, indices = head_path(trained, 7, "still")
    assert torch.equal(still, trained.poses[:1].expand(7, 4, 4)) and indices.tolist() == [0] * 7
    path, places = head_path(trained, 10, "capture", smoothing=1)
    # It slows down over 4 frames, and is at rest after 6.
    assert places.tolist() == [0, 1, 2, 2.875, 3.5, 3.875, 4, 3.875, 3.5, 2.875]
    torch.testing.assert_close(path, interpolate_poses(trained.poses, places))
    smooth, _ = head_path(trained, 5, "capture", smoothing=3)
    torch.testing.assert_close(smooth[1, :3, 3], trained.poses[:3, :3, 3].mean(0))
    with pytest.raises(ValueError, match="pose: expected capture, still or a transforms file, got 'spin'"):
        head_path(trained, 5, "spin")


def test_the_torso_follows_the_frames_of_the_capture(trained):
    embeddings = trained.portrait.torso.appearance
    expected = torch.stack([trained.torso_appearance(pose) for pose in trained.poses])
    unexplained = torch.cat((embeddings.of_all_frames() - expected[:3], torch.zeros_like(expected[3:])))
    for frame, mean in ((1, unexplained.mean(0)), (4, unexplained[1:].mean(0))):  # of 7 frames around
        torch.testing.assert_close(trained.torso_appearance(trained.poses[frame], frame), expected[frame] + mean)
    ends = [trained.torso_appearance(trained.poses[1], frame) for frame in (3, 4)]
    between = trained.torso_appearance(trained.poses[1], 3.25)
    torch.testing.assert_close(between, torch.lerp(*ends, 0.25))
    assert not torch.equal(*ends)
    moved = trained.torso_appearance(trained.poses[2], 1) - trained.torso_appearance(trained.poses[1], 1)
    torch.testing.assert_close(
        moved, trained.torso_appearance(trained.poses[2]) - trained.torso_appearance(trained.poses[1])
    )
    before = trained.torso_appearance(trained.poses[4])
    with torch.no_grad():
        embeddings.embeddings.add_(1.0)  # as training does
    torch.testing.assert_close(trained.torso_appearance(trained.poses[4]), before + 1)
    with torch.no_grad():
        embeddings.embeddings.sub_(1.0)
    published = dataclasses.replace(trained, as_published=True)
    assert torch.equal(published.torso_appearance(trained.poses[1], 1), embeddings(0))


def test_blinks(trained):
    # No more than usual next to a rest.
    assert blinks(trained, 7, "capture").tolist() == [0, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert blinks(trained, 3, "0.4").tolist() == pytest.approx([0.4] * 3)
    natural = blinks(trained, 25 * 60, "natural", seed=3)
    assert np.array_equal(natural, blinks(trained, 25 * 60, "natural", seed=3))
    n = ((natural[1:] == 1) & (natural[:-1] < 1)).sum()
    assert 8 <= n <= 32
    assert (natural == 0).mean() > 0.8
    for wrong in ("often", "1.2", "-1"):
        with pytest.raises(ValueError, match="blink: expected capture, natural or a number from 0 to 1, got"):
            blinks(trained, 3, wrong)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 400), seed=st.integers(0, 2**32 - 1))
def test_natural_blinks_are_bounded_and_complete(n, seed):
    closure = blinks(None, n, "natural", seed)
    assert (closure.shape, closure.dtype) == ((n,), np.float32)
    assert ((closure >= 0) & (closure <= 1)).all()
    starts = np.flatnonzero((closure > 0) & (np.concatenate(([0], closure[:-1])) == 0))
    assert (np.diff(starts) >= 49).all()  # 2 s, up to rounding
    assert all(closure[start + 1] == 1 for start in starts if start + 1 < n)
    longer = blinks(None, n + 50, "natural", seed)
    assert (longer[:n] == closure).all()  # more frames change nothing before


def test_speech_windows_check_the_dimension(trained):
    assert speech_windows(trained, np.zeros(16_000)).shape == (25, 16, 42)
    other = dataclasses.replace(trained, feature_dimension=29)
    with pytest.raises(ValueError, match=r"expected dimension 29 \(from training\), got 42"):
        speech_windows(other, np.zeros(16_000))


def test_ready_made_windows(trained, speech, tmp_path):
    path, windows = tmp_path / "aud.npy", np.random.default_rng(0).standard_normal((10, 16, 42))
    np.save(path, windows)
    found = ready_made_windows(trained, path, 12)
    np.testing.assert_allclose(found[:10], windows, rtol=1e-6)
    assert torch.equal(found[10:], found[9:10].expand(2, -1, -1))
    deepspeech = dataclasses.replace(trained, extractor="deepspeech")  # which can't be computed here
    out = tmp_path / "out.mp4"
    assert synthesize(deepspeech, SynthesisOptions(speech, out, windows=path)) == [out]
    assert len(list(read_frames(out, 25))) == -(-len(read_sound(speech)) // 640)
    np.save(path, windows[..., :29])
    with pytest.raises(ValueError, match=r"aud.npy: expected dimension 42 \(from training\), got 29"):
        ready_made_windows(trained, path, 12)


def test_frames_depend_on_the_pose_and_the_followed_torso(trained):
    windows = torch.rand(3, 16, 42)
    frames = list(render_frames(trained, windows, trained.poses[[0, 0, 4]], np.zeros(3), trained.background))
    assert frames[0].rgb.shape == (32, 32, 3)
    assert not torch.equal(frames[0].rgb, frames[2].rgb)
    followed = list(
        render_frames(trained, windows[:2], trained.poses[[0, 0]], np.zeros(2), None, capture_indices=np.array([0, 2]))
    )
    plain = next(render_frames(trained, windows, trained.poses, np.zeros(3), None, capture_indices=np.zeros(1, int)))
    torch.testing.assert_close(followed[0].rgb, plain.rgb)
    assert not torch.equal(followed[0].rgb, followed[1].rgb)
    clear = next(render_frames(trained, windows, trained.poses, np.zeros(3), None))
    composed = clear.rgb + (1 - clear.opacity)[..., None] * trained.background
    torch.testing.assert_close(composed.clamp(0, 1), frames[0].rgb, atol=1e-5, rtol=0)


def test_video_with_sound_and_metadata(trained, speech, tmp_path):
    import av

    out, depth, attention = (tmp_path / name for name in ("out.mp4", "depth.mp4", "attention.mp4"))
    options = SynthesisOptions(speech, out, blink="natural", depth=depth, attention=attention)
    assert synthesize(trained, options) == [out, depth, attention]
    n = -(-len(read_sound(speech)) // 640)
    for path in (out, depth, attention):
        assert len(list(read_frames(path, 25))) == n
        assert abs(len(read_sound(path)) - n * 640) <= 1024
        assert probe(path).width == 32
    with av.open(str(out)) as file:
        assert file.metadata["comment"] == SYNTHESIZED["comment"]
        assert "trainedAlgorithmicMedia" in file.metadata["comment"]


@pytest.mark.parametrize("problem", [None, "h264_nvenc can't be used (no card)"])
def test_hardware_encoding_where_it_can(trained, speech, tmp_path, capsys, monkeypatch, problem):
    tried, written = [], []

    class Writer(VideoWriter):
        def __init__(self, path, rate, sound, encoding, metadata, hardware, *others):
            written.append((path.name, hardware))
            super().__init__(path, rate, sound, encoding, metadata, False, *others)

    monkeypatch.setattr(video, "hardware_encoding_problem", lambda *arguments: tried.append(arguments) or problem)
    monkeypatch.setattr(video, "VideoWriter", Writer)
    out, depth = tmp_path / "out.mp4", tmp_path / "depth.mp4"
    assert synthesize(trained, SynthesisOptions(speech, out, depth=depth, hardware_encoding=True)) == [out, depth]
    assert tried == [(32, 32, 25)]
    assert written == [("out.mp4", problem is None), ("depth.mp4", problem is None)]
    expected = 0 if problem is None else 1
    assert capsys.readouterr().err.count(f"hardware encoding: {problem}; encoding on the CPU\n") == expected


def test_hardware_encoding_is_for_h264(trained, speech, tmp_path, capsys):
    synthesize(trained, SynthesisOptions(speech, tmp_path / "out.webm", hardware_encoding=True))
    assert capsys.readouterr().err.count("hardware encoding: it is for H.264 only; encoding on the CPU\n") == 1


def test_images_with_alpha(trained, speech, tmp_path):
    from ernerf_ti.media.images import read_image

    folder = tmp_path / "frames"
    synthesize(trained, SynthesisOptions(speech, folder, background="none", pose="still"))
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "00000.png" and len(names) == -(-len(read_sound(speech)) // 640)
    assert read_image(folder / "00000.png").shape == (32, 32, 4)


@pytest.mark.parametrize("suffix", [".webm", ".mov"])
def test_video_with_alpha(trained, speech, tmp_path, suffix):
    from ernerf_ti.media.images import read_image

    out, folder = tmp_path / f"out{suffix}", tmp_path / "frames"
    for output in (out, folder):
        synthesize(trained, SynthesisOptions(speech, output, background="none", pose="still"))
    alpha = np.stack([read_image(path)[..., 3] for path in sorted(folder.iterdir())])
    assert alpha.min() < 200  # so that an opaque file would not pass
    decoded = decode_alpha(out)
    assert decoded.shape == alpha.shape
    assert np.abs(decoded.astype(int) - alpha).mean() < 8
    assert abs(len(read_sound(out)) - len(alpha) * 640) <= 1024


def test_alpha_is_opaque_with_a_background(trained, speech, tmp_path):
    synthesize(trained, SynthesisOptions(speech, tmp_path / "out.mov", pose="still"))
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
    synthesize(trained, SynthesisOptions(speech, tmp_path / "out.mp4", background=kind, head_only=True))
    frame = next(read_frames(tmp_path / "out.mp4", 25))
    assert frame[0, 0, 0] > 150 > frame[0, 0, 1]


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"audio": "none.wav"}, FileNotFoundError, "none.wav: expected a video or sound file, got no such file"),
        ({"pose": "none.json"}, FileNotFoundError, "pose: expected capture, still or a transforms file, got none.json"),
        ({"background": "none"}, ValueError, r"expected .webm \(vp9\), .mov \(prores\) or a folder for a transparent"),
        ({"depth": "depth.mov"}, ValueError, "depth: expected an .mp4, got"),
        (
            {"background": "blue"},
            FileNotFoundError,
            "expected capture, none, a color as #rrggbb or an image",
        ),
        ({"output": "out.avi"}, ValueError, "output: expected .mp4, .webm, .mov, .mkv or a folder, got"),
    ],
)
def test_invalid_options_fail_before_rendering(trained, speech, tmp_path, changed, error, text):
    from pathlib import Path

    values = {"audio": speech, "output": tmp_path / "out.mp4"} | changed
    values = {key: Path(v) if key in ("audio", "output", "depth") else v for key, v in values.items()}
    with pytest.raises(error, match=text):
        synthesize(trained, SynthesisOptions(**values))
    assert [path.name for path in tmp_path.iterdir()] == ["speech.mp4"]


@pytest.fixture(scope="module")
def with_dials(trained):
    """A portrait with dials that reach its whole scene, and a head full of noise."""
    torch.manual_seed(1)
    config = trained.portrait.config
    config = dataclasses.replace(config, head=dataclasses.replace(config.head, dials=("smile", "brows")))
    portrait = Portrait(config, 42, 3).requires_grad_(False)
    torch.nn.init.normal_(portrait.head.position_encoder.encoding.tables)
    portrait.head.density_net.layers[0].weight[:, -2:] *= 20.0
    portrait.head.density_net.layers[-1].weight *= 5.0
    portrait.head.dials.boxes.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).expand(2, 2, 2, 2))
    return dataclasses.replace(trained, portrait=portrait)


def rendered(trained, speech, folder, *dial):
    options = SynthesisOptions(speech, folder, head_only=True, pose="still", background="#000000", dial=dial)
    synthesize(trained, options)
    return read_image(folder / "00000.png").astype(int)


def test_dials_change_the_picture(with_dials, speech, tmp_path):
    neutral = rendered(with_dials, speech, tmp_path / "neutral")
    assert np.array_equal(rendered(with_dials, speech, tmp_path / "zero", "smile=0", "brows=0"), neutral)
    pictures = [neutral]
    for k, dial in enumerate((("smile=2",), ("brows=-1.5",), ("smile=2", "brows=-1.5"))):
        picture = rendered(with_dials, speech, tmp_path / str(k), *dial)
        assert all(np.abs(picture - other).max() > 8 for other in pictures)
        pictures.append(picture)


@pytest.mark.parametrize(
    ("dial", "text"),
    [
        ("gaze-x=1", r"dial: expected a dial of this portrait \(brows, smile\), got gaze-x; choose one of these"),
        ("brows", "dial: expected NAME=VALUE with a value from -3 to 3, got 'brows'; pass e.g. --dial brows=1.5"),
        ("brows=up", "dial: expected NAME=VALUE with a value from -3 to 3, got 'brows=up'"),
        ("brows=3.5", "dial: expected NAME=VALUE with a value from -3 to 3, got 'brows=3.5'"),
        ("brows=nan", "dial: expected NAME=VALUE with a value from -3 to 3, got 'brows=nan'"),
    ],
)
def test_dials_that_are_refused(with_dials, speech, tmp_path, dial, text):
    with pytest.raises(ValueError, match=text):
        synthesize(with_dials, SynthesisOptions(speech, tmp_path / "out.mp4", dial=(dial,)))
    assert not (tmp_path / "out.mp4").exists()


def test_a_portrait_without_dials_says_so(trained, speech, tmp_path):
    with pytest.raises(ValueError, match=r"of this portrait \(none\), got brows; train it with --portrait.head.dials"):
        synthesize(trained, SynthesisOptions(speech, tmp_path / "out.mp4", dial=("brows=1",)))
