"""The viewer's command, without a window: a run that is trained by it, looked at, and taken away."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ernerf_ti.data.capture_files import write_sound
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.media.files import write_json
from ernerf_ti.media.images import read_image, write_image
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import read_frames
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.viewer.app import OFFSCREEN, Wanted, open_viewer
from ernerf_ti.viewer.sound import SilentOutput
from tests.cli.conftest import TOOLS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("view")
    write_portrait_capture(SyntheticPortrait(12, 32, seed=4), folder / "capture")
    return folder


@pytest.fixture
def view(load_tool):
    return load_tool("view").main


def offscreen(folder, name: str, seconds: float, actions: list[dict]) -> list[str]:
    script = folder / f"{name}.json"
    script.write_text(json.dumps({"seconds": seconds, "actions": actions}))
    return ["--offscreen", str(folder / f"{name}.mp4"), "--script", str(script), "--device", "cpu"]


@pytest.fixture(scope="module")
def run(folder, load_tool):
    """A run of three steps, begun by the viewer."""
    actions = [{"at": 0, "key": "y"}, {"at": 0.12, "key": "y"}, {"at": 0.12, "key": "k"}]
    options = ["--train", str(folder / "capture"), *offscreen(folder, "training", 0.16, actions)]
    assert load_tool("view").main([str(folder / "run"), *options]) == 0
    return folder / "run"


def test_training(folder, run):
    assert load_checkpoint(run / "checkpoint.pt")["step"] == 3
    frames = list(read_frames(folder / "training.mp4", 25))
    assert len(frames) == 4
    curves = (slice(8, 118), slice(692, 952))
    assert np.abs(frames[3][curves].astype(int) - frames[0][curves]).max() > 50


def test_a_capture_that_is_gone_is_said(run, tmp_path):
    copy = tmp_path / "run"
    copy.mkdir()
    shutil.copy(run / "checkpoint.pt", copy)
    write_json(copy / "capture.json", {"capture": str(tmp_path / "gone")})
    viewer = open_viewer(Wanted(copy), OFFSCREEN)(SilentOutput())
    assert "without the capture" in viewer.message and "pass it with --capture" in viewer.message
    viewer.close()


def test_looking_and_taking_away(view, folder, run, capsys):
    actions = [
        {"at": 0, "key": "space"},
        {"at": 0.08, "set": {"mode": "normals", "comparison": "side"}},
        {"at": 0.12, "do": "screenshot"},
        {"at": 0.12, "do": "export_path"},
    ]
    options = [str(run), "--capture", str(folder / "capture"), "--out", str(folder / "taken")]
    assert view([*options, *offscreen(folder, "looking", 0.2, actions)]) == 0
    assert capsys.readouterr().out.split() == [str(folder / "looking.mp4")]
    assert len(list(read_frames(folder / "looking.mp4", 25))) == 5
    assert len(read_sound(folder / "looking.mp4")) == pytest.approx(5 * 640, abs=1100)
    assert sorted(path.name for path in (folder / "taken").iterdir()) == ["camera_path_000.json", "normals_000.png"]
    assert read_image(folder / "taken" / "normals_000.png").shape == (32, 32, 3)


def test_another_sound_and_background(view, folder, run):
    write_sound(folder / "speech.wav", np.sin(np.arange(9_000) * 0.05) * 0.3)
    write_image(folder / "red.png", np.full((9, 9, 3), (255, 0, 0), np.uint8))
    inputs = ["--audio", str(folder / "speech.wav"), "--background", str(folder / "red.png")]
    actions = [{"at": 0, "set": {"numbers": False, "torso": False}}, {"at": 0, "key": "space"}]
    assert view([str(run), *inputs, *offscreen(folder, "red", 0.12, actions)]) == 0
    frame = next(read_frames(folder / "red.mp4", 25))
    assert frame[20, 250, 0] > 150 > 100 > frame[20, 250, 1]
    assert np.abs(read_sound(folder / "red.mp4")).max() > 0.2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["none"], "checkpoint, got no such file; train the portrait first"),
        (["{run}", "--capture", "none"], "none: expected a capture folder, got no such folder"),
        (["{run}", "--audio", "none.wav"], "none.wav: expected a video or sound file, got no such file"),
    ],
)
def test_what_is_not_there(view, folder, run, capsys, options, text):
    arguments = [option.format(run=run) for option in options]
    assert view([*arguments, *offscreen(folder, "none", 1, [])]) == 1
    assert text in capsys.readouterr().err
    assert not (folder / "none.mp4").exists()


def test_script_and_output_go_together(view, run, capsys):
    with pytest.raises(SystemExit):
        view([str(run), "--offscreen", "out.mp4"])
    assert "--offscreen and --script: expected both or none, got one" in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only X11 ends the process without a display")
def test_no_display_is_said_in_a_sentence(run):
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    command = [sys.executable, str(TOOLS / "view.py"), str(run)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == (
        "display: expected an X server at DISPLAY, got none; start one (xvfb-run on a server), "
        "or use --offscreen OUT.mp4 --script actions.json"
    )


def test_bench(load_tool, folder, run, capsys, screen_to_itself):
    bench = load_tool("bench_viewer").main
    arguments = [str(run), "--capture", str(folder / "capture"), "--seconds", "1.5", "--device", "cpu"]
    code = bench([*arguments, "-o", str(folder / "bench.json")])
    if code:
        pytest.skip(f"no window here: {capsys.readouterr().err.strip()}")
    figures = json.loads((folder / "bench.json").read_text())
    assert figures["picture"] == "32 x 32" and figures["seconds played"] == pytest.approx(1.5, abs=1)
    assert 0 < figures["pictures per second"] <= 26
    assert abs(figures["offset, median, ms"]) < 400
