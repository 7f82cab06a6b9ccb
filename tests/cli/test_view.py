"""`ernerf-ti view`, mostly without a window: a run that it trains, shows and exports."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ernerf_ti.cli.main import main
from ernerf_ti.data.capture_files import write_sound
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.media.files import write_json
from ernerf_ti.media.images import read_image, write_image
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import read_frames
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.viewer.app import OFFSCREEN, open_viewer, start_playing
from ernerf_ti.viewer.options import ViewerOptions
from ernerf_ti.viewer.sound import SilentOutput
from tests.cli.conftest import TOOLS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("view")
    write_portrait_capture(SyntheticPortrait(12, 32, seed=4), folder / "capture")
    return folder


def view(arguments: list[str]) -> int:
    return main(["view", *arguments])


def offscreen(folder, name: str, seconds: float, actions: list[dict]) -> list[str]:
    script = folder / f"{name}.json"
    script.write_text(json.dumps({"seconds": seconds, "actions": actions}))
    return ["--offscreen", str(folder / f"{name}.mp4"), "--script", str(script), "--device", "cpu"]


@pytest.fixture(scope="module")
def run(folder):
    """A run of three steps, started by the viewer."""
    actions = [{"at": 0, "key": "y"}, {"at": 0.12, "key": "y"}, {"at": 0.12, "key": "k"}]
    options = ["--train", str(folder / "capture"), *offscreen(folder, "training", 0.16, actions)]
    assert view([str(folder / "run"), *options]) == 0
    return folder / "run"


def test_training(folder, run):
    assert load_checkpoint(run / "checkpoint.pt")["step"] == 3
    frames = list(read_frames(folder / "training.mp4", 25))
    assert len(frames) == 4
    curves = (slice(8, 118), slice(692, 952))
    assert np.abs(frames[3][curves].astype(int) - frames[0][curves]).max() > 50


def damaged(folder, tmp_path, damage: str) -> Path:
    """A copy of the capture, damaged, or a path where there is none."""
    capture = tmp_path / "capture"
    if damage != "gone":
        shutil.copytree(folder / "capture", capture)
    if damage == "no features":
        for path in capture.glob("aud*.npy"):
            path.unlink()
    if damage == "cut off":
        (capture / "transforms_train.json").write_text("{")
    if damage == "audio":
        (capture / "aud.wav").write_text("nothing")
    return capture


@pytest.mark.parametrize("damage", ["gone", "no features", "cut off", "audio"])
def test_a_run_without_its_capture_opens_and_says_why(folder, run, tmp_path, damage, capsys):
    capture = damaged(folder, tmp_path, damage)
    copy = tmp_path / "run"
    copy.mkdir()
    shutil.copy(run / "checkpoint.pt", copy)
    write_json(copy / "capture.json", {"capture": str(capture)})
    viewer = open_viewer(ViewerOptions(copy), OFFSCREEN)(SilentOutput())
    printed = capsys.readouterr().err
    assert printed.startswith("opened without its capture, so without audio and true frames: ")
    assert str(capture) in printed and printed.count("\n") == 1
    assert viewer.message == printed.strip()
    assert viewer.clip.name == "silence (no audio)" and viewer.tick().any()
    viewer.close()


@pytest.mark.parametrize("damage", ["gone", "no features", "cut off", "audio"])
def test_a_broken_capture_that_is_asked_for_is_an_error(folder, run, tmp_path, damage, capsys):
    capture = damaged(folder, tmp_path, damage)
    assert view([str(run), "--capture", str(capture), *offscreen(tmp_path, "out", 0.1, [])]) == 1
    printed = capsys.readouterr().err
    assert str(capture) in printed and printed.count("\n") == 1
    assert not (tmp_path / "out.mp4").exists()


def test_plays_when_it_opens_if_there_is_something_to_hear(folder, run):
    for audio, plays in ((None, True), (folder / "silence.wav", False)):
        write_sound(folder / "silence.wav", np.zeros(5_000))
        viewer = open_viewer(ViewerOptions(run, folder / "capture", audio), OFFSCREEN)(SilentOutput())
        start_playing(viewer)
        assert viewer.state.playing == viewer.clock.playing == plays
        viewer.close()


@pytest.mark.parametrize("name", ["audio", "background", "script"])
def test_a_video_of_the_viewer_replaces_nothing_that_is_read(folder, run, tmp_path, capsys, name):
    options = offscreen(tmp_path, "out", 0.1, [])
    (tmp_path / "out.mp4").write_text("x")
    assert view([str(run), *options, f"--{name}", str(tmp_path / "out.mp4")]) == 1
    assert "it would replace the" in capsys.readouterr().err
    assert (tmp_path / "out.mp4").read_text() == "x"


def test_help_needs_no_torch():
    code = "import sys; from ernerf_ti.cli.main import main\n"
    code += "try: main(['view', '--help'])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr
    for option in ("RUN", "--audio", "--train", "--offscreen", "--device auto|cpu|cuda"):
        assert option in done.stdout


def test_old_option_names_are_understood(folder, run, capsys):
    options = [str(run), "--out", str(folder / "old"), *offscreen(folder, "old", 0.04, [{"at": 0, "key": "s"}])]
    assert view(options) == 0
    assert "note: --out is now --output" in capsys.readouterr().err
    assert [path.name for path in (folder / "old").iterdir()] == ["color_000.png"]


def test_views_and_exports(folder, run, capsys):
    actions = [
        {"at": 0, "key": "space"},
        {"at": 0.08, "set": {"mode": "normals", "comparison": "side"}},
        {"at": 0.12, "do": "screenshot"},
        {"at": 0.12, "do": "export_path"},
    ]
    options = [str(run), "--capture", str(folder / "capture"), "--output", str(folder / "taken")]
    assert view([*options, *offscreen(folder, "looking", 0.2, actions)]) == 0
    assert capsys.readouterr().out.split() == [str(folder / "looking.mp4")]
    assert len(list(read_frames(folder / "looking.mp4", 25))) == 5
    assert len(read_sound(folder / "looking.mp4")) == pytest.approx(5 * 640, abs=1100)
    assert sorted(path.name for path in (folder / "taken").iterdir()) == ["camera_path_000.json", "normals_000.png"]
    assert read_image(folder / "taken" / "normals_000.png").shape == (32, 32, 3)


def test_another_sound_and_background(folder, run):
    write_sound(folder / "speech.wav", np.sin(np.arange(9_000) * 0.05) * 0.3)
    write_image(folder / "red.png", np.full((9, 9, 3), (255, 0, 0), np.uint8))
    inputs = ["--audio", str(folder / "speech.wav"), "--background", str(folder / "red.png")]
    actions = [{"at": 0, "set": {"torso": False}}, {"at": 0, "key": "space"}]
    assert view([str(run), *inputs, *offscreen(folder, "red", 0.12, actions)]) == 0
    frame = next(read_frames(folder / "red.mp4", 25))
    assert frame[20, 250, 0] > 150 > 100 > frame[20, 250, 1]
    assert np.abs(read_sound(folder / "red.mp4")).max() > 0.2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["none"], "none: expected a run folder or a checkpoint, got no such file or folder; train a portrait"),
        (["{run}", "--capture", "none"], "none: expected a capture folder, got no such folder"),
        (["{run}", "--audio", "none.wav"], "none.wav: expected a video or sound file, got no such file"),
    ],
)
def test_what_is_not_there(folder, run, capsys, options, text):
    arguments = [option.format(run=run) for option in options]
    assert view([*arguments, *offscreen(folder, "none", 1, [])]) == 1
    assert text in capsys.readouterr().err
    assert not (folder / "none.mp4").exists()


def test_script_and_output_go_together(run, capsys):
    assert view([str(run), "--offscreen", "out.mp4"]) == 2
    assert capsys.readouterr().err == (
        "--offscreen and --script: expected both or neither, got one; pass the other too\n"
    )


@pytest.mark.parametrize(
    ("gain", "more", "message"),
    [
        ("4", (), "mouth-gain: expected 0 to 3, got 4; pass e.g. 1.25"),
        (
            *("1.5", ("--train", "x")),
            "--mouth-gain: expected none with --train, whose portrait has 1, got 1.5; leave it out",
        ),
    ],
)
def test_gains_that_can_not_be(run, capsys, gain, more, message):
    assert view([str(run), "--mouth-gain", gain, *more]) == 2
    assert capsys.readouterr().err == f"{message}\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only X11 ends the process without a display")
def test_no_display_is_one_line(run):
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    command = [sys.executable, str(TOOLS / "view.py"), str(run)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == (
        "display: expected an X server at DISPLAY, got none; on a server run the command under xvfb-run -a, "
        "or write a video with --offscreen OUT.mp4 --script actions.json"
    )


def test_bench(folder, run, capsys, screen_to_itself):
    arguments = [str(run), "--capture", str(folder / "capture"), "--seconds", "1.5", "--device", "cpu"]
    code = main(["bench", "viewer", *arguments, "-o", str(folder / "bench.json")])
    if code:
        pytest.skip(f"no window here: {capsys.readouterr().err.strip()}")
    figures = json.loads((folder / "bench.json").read_text())
    assert figures["image"] == "32 x 32" and figures["seconds played"] == pytest.approx(1.5, abs=1)
    assert 0 < figures["images per second"] <= 26
    assert abs(figures["offset, median, ms"]) < 400
