import json
import shutil

import numpy as np
import pytest

from ernerf_ti.audio.whisper_features import principal_components
from ernerf_ti.cli.main import main
from ernerf_ti.evaluation import statistics
from ernerf_ti.experiments import audio_feature_study
from ernerf_ti.media.video_writer import write_video
from tests.evaluation.conftest import mesh_face, smooth_noise, talker

RATE = 16_000


@pytest.fixture(scope="module")
def tool():
    return audio_feature_study


@pytest.fixture
def small_nets(tool, monkeypatch):
    monkeypatch.setattr(tool, "_EPOCHS", 2)
    monkeypatch.setattr(tool, "_N_NETS", 1)
    monkeypatch.setattr(statistics, "_RESAMPLES", 100)


def made_clip(tool, name, n=360, seed=0, noise=0.3, gain=1.0):
    """A clip with the features and targets of :func:`talker`; `gain` scales the range of the mouth."""
    windows, targets = talker(n, seed, noise)
    return tool.Clip(name, n, gain * (targets - 3) + 3, {"toy": windows})


def test_network_finds_nonlinear_dependence(tool, monkeypatch):
    monkeypatch.setattr(tool, "_N_NETS", 1)
    monkeypatch.setattr(tool, "_EPOCHS", 25)
    train, test = made_clip(tool, "a", n=800), made_clip(tool, "b", seed=1)
    standard = (train.targets - train.targets.mean(0)) / train.targets.std(0)
    r = tool.correlation(test.targets, tool.fit_net(train.windows["toy"], standard, 0)(test.windows["toy"]))
    assert r[0] > 0.85
    assert r[1] > 0.6
    assert abs(r[2]) < 0.35


def test_network_depends_only_on_its_seed(tool, small_nets):
    clip = made_clip(tool, "a", n=150)
    predicted = [tool.fit_net(clip.windows["toy"], clip.targets, seed)(clip.windows["toy"]) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(predicted[0], predicted[1])
    assert np.abs(predicted[0] - predicted[2]).max() > 1e-3


def test_measure_covers_clips_and_pairs(tool, small_nets):
    # Another speaker moves the mouth over another range, to which r is invariant.
    clips = [made_clip(tool, "a"), made_clip(tool, "b", seed=1, gain=20), made_clip(tool, "c", n=150, seed=2)]
    figures = tool.measure(clips, ["toy"], 0)
    ridge = {(f.kind, f.train, f.test): f for f in figures if f.predictor == "ridge" and f.target == "open"}
    assert set(ridge) == {("IN", x, x) for x in "abc"} | {("CROSS", x, y) for x in "abc" for y in "abc" if x != y}
    assert all(f.low < f.r < f.high for f in ridge.values())
    assert all(f.r > 0.8 for f in ridge.values() if f.train != "c")  # which is short
    assert ridge["IN", "a", "a"].n_frames == 72
    assert ridge["CROSS", "c", "a"].n_frames == 360
    assert len(figures) == 2 * 9 * 3
    mean = {(m["predictor"], m["kind"], m["target"]): m for m in tool.means(figures)}
    assert mean["ridge", "CROSS", "open"]["n"] == 6
    assert mean["ridge", "CROSS", "open"]["r"] == pytest.approx(
        np.mean([f.r for f in ridge.values() if f.kind == "CROSS"])
    )


def test_the_test_part_is_not_fitted(tool, small_nets):
    # Where the test part holds the opposite of what was learned, r must be negative.
    clip = made_clip(tool, "a", noise=0.05)
    clip.targets[tool.split_in_time(360)[1]] *= -1
    figures = [f for f in tool.measure([clip], ["toy"], 0) if f.predictor == "ridge"]
    assert figures[0].r < -0.9


def test_raw_mel_keeps_the_level_that_normalization_removes(tool):
    samples = 0.1 * np.random.default_rng(4).standard_normal(RATE)
    raw, normalized = tool.RawMelSpectrum(), tool.MelSpectrum()
    quieter = raw(samples)[5:-5] - raw(0.5 * samples)[5:-5]
    np.testing.assert_allclose(quieter, np.log(4), atol=0.05)
    np.testing.assert_allclose(normalized(samples), normalized(0.5 * samples), atol=0.05)


def test_every_feature_has_its_extractors(tool, small_nets, drawn_mouths, clip_file, no_packaged_files):
    assert {part for parts in tool.FEATURES.values() for part in parts} == tool.EXTRACTORS.keys()
    report, table = tool.run((clip_file,), (), None, 0, ("ridge",), 3)
    assert {figure["feature"] for figure in report["figures"]} == {"ppg", "mel", "mel-raw"}  # what is installed
    assert "whisper" not in table
    with pytest.raises(FileNotFoundError, match=r"pip install 'ernerf-ti\[speech\]'"):
        tool.run((clip_file,), ("whisper-2",), None, 0)


def test_layers_are_reduced_and_joined(tool):
    rng = np.random.default_rng(0)
    phones, states = (rng.standard_normal((90, 16, n)).astype(np.float32) for n in (42, 100))
    phones *= 0.1
    train = tool.Clip("a", 90, np.zeros((90, 3)), {"ppg": phones, "layer-3": states})
    test = tool.Clip("b", 90, np.zeros((90, 3)), {"ppg": 2 * phones, "layer-3": states[::-1]})
    part = slice(0, 60)
    joined = tool._joined("ppg+whisper-3", train, part, test, slice(5, 15))
    assert joined.shape == (10, 16, 106)
    assert np.array_equal(joined[..., :42], 2 * phones[5:15])
    mean, components = principal_components(states[part, 8:10].reshape(-1, 100), phones[part].var((0, 1)).mean())
    np.testing.assert_allclose(joined[..., 42:], (states[::-1][5:15] - mean) @ components.T, atol=1e-5)
    assert tool._joined("whisper-3", train, part, test, slice(5, 15)).shape == (10, 16, 64)


def test_each_block_is_predicted_from_the_others(tool):
    clips = [made_clip(tool, "a"), made_clip(tool, "b", seed=1, gain=20)]
    figures = tool.measure(clips, ["toy"], 0, ("ridge",), 5)
    assert {f.predictor for f in figures} == {"ridge"}
    assert [f.n_frames for f in figures if f.target == "open"] == [360] * 4
    assert all(f.r > 0.8 for f in figures if f.target == "open")
    # Where every block holds the opposite of what the others have, r must be negative.
    for begin, end in ((0, 120), (240, 360)):
        clips[0].targets[begin:end, 0] *= -1
    assert tool.measure(clips[:1], ["toy"], 0, ("ridge",), 3)[0].r < 0


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    """Five seconds: the mouth, drawn as the height of a bar, opens with the loudness of a tone."""
    path = tmp_path_factory.mktemp("clips") / "talk.mp4"
    rng = np.random.default_rng(5)
    loud = np.clip(np.abs(smooth_noise(125, 6, rng)), 0, 2) / 2
    time = np.arange(5 * RATE) / RATE
    tone = 0.05 * rng.standard_normal(len(time)) + 0.4 * np.sin(2 * np.pi * 200 * time)
    samples = tone * np.interp(time, np.arange(125) / 25, loud)
    frames = np.zeros((125, 64, 64, 3), np.uint8)
    for frame, level in zip(frames, loud, strict=True):
        frame[: round(60 * level)] = 255
    write_video(path, frames, 25, np.clip(samples, -1, 1).astype(np.float32))
    return path


@pytest.fixture
def drawn_mouths(tool, monkeypatch):
    """A tracker that reads the mouth off the bar, and doubts the first three frames; counts its videos."""
    videos = []

    class Track:
        def __init__(self, frames, progress):
            levels = np.array([(frame > 128).mean() for frame in frames])
            self.points = mesh_face(len(levels))
            self.points[:, [14, 87, 317], 1] += 20 * levels[:, None].astype(np.float32)
            self.valid = np.arange(len(levels)) >= 3
            self.points[0] = np.nan
            videos.append(len(levels))

    monkeypatch.setattr(tool, "track_face", Track)
    return videos


def test_command_writes_table_and_figures(tool, small_nets, drawn_mouths, clip_file, tmp_path, capsys):
    other, output = tmp_path / "other.mp4", tmp_path / "new" / "figures.json"
    shutil.copy(clip_file, other)
    arguments = [str(clip_file), str(other), "--features", "mel", "mel-raw", "-o", str(output)]
    arguments += ["--meshes", str(tmp_path / "meshes")]
    assert main(["study-audio", *arguments]) == 0
    report = json.loads(output.read_text())
    assert [clip["name"] for clip in report["clips"]] == ["talk", "other"]
    assert [(clip["frames"], clip["used"]) for clip in report["clips"]] == [(125, 122)] * 2
    assert len(report["figures"]) == 2 * 2 * 4 * 3
    first = report["figures"][0]
    assert (first["feature"], first["predictor"], first["train"], first["target"]) == ("mel", "ridge", "talk", "open")
    # The same clip under another name: what was learned is asked for again.
    assert next(f["r"] for f in report["figures"] if f["train"] != f["test"]) > 0.8
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(output)
    assert len(lines) == 2 + 2 * 2 * (4 + 2) + 1
    assert f"{first['r']:.3f} [{first['low']:.2f} {first['high']:.2f}]" in lines[2]
    assert {p.name for p in output.parent.iterdir()} == {"figures.json"}  # nothing temporary is left

    assert drawn_mouths == [125, 125]
    assert main(["study-audio", *arguments]) == 0  # the meshes are kept
    assert drawn_mouths == [125, 125]
    assert json.loads(output.read_text()) == report


def test_windows_belong_to_the_frames_in_use(tool, drawn_mouths, clip_file):
    # Step k carries k; frame t has step 2 t in the middle of its window, and the first three frames are left out.
    clip = tool.read_clip(clip_file, {"number": lambda samples: np.arange(250.0)[:, None]})
    np.testing.assert_array_equal(clip.windows["number"][:, 8, 0], 2 * np.arange(3, 125))
    assert clip.targets.shape == (122, 3)
    assert np.isfinite(clip.targets).all()


def test_a_changed_clip_is_tracked_again(tool, drawn_mouths, clip_file, tmp_path):
    path = tmp_path / "talk.mp4"
    shutil.copy(clip_file, path)
    tool.read_clip(path, {}, tmp_path)
    write_video(path, np.zeros((110, 64, 64, 3), np.uint8), 25, np.zeros(RATE, np.float32))
    assert tool.read_clip(path, {}, tmp_path).n_frames == 110
    assert drawn_mouths == [125, 110]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["{none}"], 1, "none.mp4: expected a video, got no such file"),
        (["{text}"], 1, "text.mp4: ffmpeg can't read this as video or sound"),
        (["{mute}"], 1, "mute.mp4: no audio track; use a recording with the speaker's voice"),
        (
            ["{short}"],
            1,
            "short.mp4: expected a face in at least 100 frames, got it in 22 of 25; use a longer video of one person "
            "who looks at the camera",
        ),
        (
            ["{none}", "{none}"],
            2,
            "clips: expected files of different names, got none 2 times; rename or omit one",
        ),
        (["{short}", "--features", "hubert"], 1, "--features: expected some of ppg, mel, mel-raw, whisper-1, "),
        (["{short}", "-o", "{text}/figures.json"], 1, "text.mp4"),
        (["{short}", "-o", "{folder}"], 1, ": expected a file to write, got a folder; add a file name"),
        (["{short}", "--seed", "-1"], 2, "--seed: expected 0 or more, below 2^62, got -1; pass e.g. 0"),
        ([], 2, "clips: expected at least one video, got none"),
        (["{short}", "--blocks", "1"], 2, "--blocks: expected 0, or 2 to 1000, got 1; pass 5"),
        (["{short}", "--blocks", "1000000"], 2, "--blocks: expected 0, or 2 to 1000, got 1000000; pass 5"),
    ],
)
def test_wrong_input(drawn_mouths, arguments, status, message, tmp_path, capsys):
    paths = {name: tmp_path / f"{name}.mp4" for name in ("none", "text", "mute", "short")}
    paths["text"].write_text("not a video")
    frames = np.zeros((25, 64, 64, 3), np.uint8)
    write_video(paths["mute"], frames, 25)
    write_video(paths["short"], frames, 25, np.zeros(RATE, np.float32))
    arguments = [argument.format(**paths, folder=tmp_path) for argument in arguments]
    assert main(["study-audio", *arguments]) == status
    assert message in " ".join(capsys.readouterr().err.split())


def test_without_mediapipe(tool, monkeypatch, clip_file, capsys):
    def track_face(frames, progress):
        raise ImportError("face mesh: expected the package mediapipe, got none; pip install 'ernerf-ti[preprocess]'")

    monkeypatch.setattr(tool, "track_face", track_face)
    assert main(["study-audio", str(clip_file), "--features", "mel"]) == 1
    assert "face mesh: expected the package mediapipe, got none" in capsys.readouterr().err


def test_the_figures_replace_no_clip(clip_file, capsys):
    before = clip_file.read_bytes()
    assert main(["study-audio", str(clip_file), "-o", str(clip_file)]) == 1
    assert "it would replace the video that is read" in capsys.readouterr().err
    assert clip_file.read_bytes() == before
