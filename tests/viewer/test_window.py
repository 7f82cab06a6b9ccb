"""A real window, driven with synthetic mouse and keys: `xvfb-run -a pytest tests/viewer/test_window.py`."""

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

import taichi_kernels as tk
from ernerf_ti.viewer.sound import SilentOutput
from ernerf_ti.viewer.viewer import Viewer, ViewerOptions
from ernerf_ti.viewer.window import NoWindowError, ViewerWindow, check_window
from tests.viewer.conftest import Layout

LAYOUT = Layout(600, 400, 240)
FRAMES_TO_NOTICE = 5


@pytest.fixture(scope="module")
def has_window() -> None:
    try:
        check_window()
    except NoWindowError as error:
        pytest.skip(f"no window here: {error}")
    if shutil.which("xdotool") is None:
        pytest.skip("no xdotool here, which moves mouse and keys; apt-get install xdotool")


@pytest.fixture
def opened(has_window, screen_to_itself, trained, clip, time, tmp_path, monkeypatch):
    """A window that has not shown anything yet."""
    monkeypatch.chdir(tmp_path)
    viewer = Viewer(trained, clip, SilentOutput(time=time), ViewerOptions(tmp_path, LAYOUT), time, own_clip=clip)
    viewer.act({"set": {"auto_scale": False, "numbers": False}})
    try:
        window = ViewerWindow(viewer)
    except NoWindowError as error:
        pytest.skip(f"no window here: {error}")
    yield window
    window.close()
    viewer.close()
    assert not (tmp_path / "imgui.ini").exists()


@pytest.fixture
def window(opened):
    steps(opened)
    return opened


def xdotool(*arguments: object) -> str:
    done = subprocess.run(["xdotool", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def window_id() -> str:
    return xdotool("search", "--name", "^ernerf-ti").split()[-1]  # Taichi adds the rate to the title


def steps(window) -> None:
    for _ in range(FRAMES_TO_NOTICE):
        window.step()


def press(window, key: str) -> None:
    xdotool("keydown", "--window", window_id(), key)
    steps(window)
    xdotool("keyup", "--window", window_id(), key)
    steps(window)


def drag(window, begin: tuple[int, int], end: tuple[int, int], button: int = 1) -> None:
    """Pixels from the top left of the window."""
    xdotool("mousemove", "--window", window_id(), *begin)
    steps(window)
    xdotool("mousedown", button)
    steps(window)
    for share in (0.25, 0.5, 0.75, 1):
        place = [round(a + share * (b - a)) for a, b in zip(begin, end, strict=True)]
        xdotool("mousemove", "--window", window_id(), *place)
        steps(window)
    xdotool("mouseup", button)
    steps(window)


def test_window_shows_the_screen(window):
    screen, shown = window.viewer.tick(), window.grab()
    assert shown.shape == (400, 600, 3)
    assert np.abs(shown[:, :355].astype(int) - screen[:, :355]).max() <= 1
    assert shown[:, 370:].std() > 5  # the controls
    assert np.array_equal(window.grab()[:, :355], shown[:, :355])


def test_keys(window):
    before = window.grab()[:, :355]
    press(window, "j")  # means nothing
    press(window, "v")  # the sound
    assert np.array_equal(window.grab()[:, :355], before)
    assert window.viewer.state.volume == 0
    press(window, "m")
    assert window.viewer.state.mode == "depth"
    assert np.abs(window.grab()[:340, :355].astype(int) - before[:340]).max() > 50
    press(window, "n")
    assert np.array_equal(window.grab()[:, :355], before)
    press(window, "Right")
    assert window.viewer.clock.frame() == 1
    press(window, "space")
    assert window.viewer.clock.playing
    press(window, "q")
    assert window.viewer.state.help
    press(window, "q")
    press(window, "s")
    assert [path.suffix for path in window.viewer.written] == [".png"]


def test_mouse_steers(window):
    before = window.grab()[:, :355]
    drag(window, (150, 150), (210, 150))
    viewer = window.viewer
    assert viewer.state.yaw == pytest.approx(-90 * 60 / 344, abs=2)
    assert viewer.state.pitch == 0
    assert np.abs(window.grab()[:340, :355].astype(int) - before[:340]).max() > 20
    drag(window, (150, 150), (150, 180), button=3)
    assert viewer.state.distance > 1.2
    drag(window, (150, 150), (150, 180), button=2)
    assert viewer.state.pan_y > 0.05
    press(window, "r")
    assert viewer.state.camera_is_captured
    assert np.array_equal(window.grab()[:, :355], before)


def test_mouse_scrubs(window):
    camera = window.viewer.state
    drag(window, (8 + 344 // 4, 370), (8 + 344 * 3 // 4, 370))
    assert window.viewer.clock.position == pytest.approx(0.75 * window.viewer.clock.duration, abs=0.01)
    drag(window, (100, 370), (300, 100))  # once it scrubs it goes on to, wherever the mouse is
    assert window.viewer.clock.position == pytest.approx((300 - 8) / 344 * 0.24, abs=0.01)
    assert window.viewer.state == camera


def test_controls(window):
    viewer = window.viewer
    before = window.grab()[:340, :355]
    drag(window, (378, 31), (378, 31))  # the first tick: play
    assert viewer.state.playing
    assert viewer.state.camera_is_captured
    viewer.act({"set": {"playing": False}})
    viewer.act({"do": "seek", "seconds": 0})
    window.step()
    assert np.array_equal(window.grab()[:340, :355], before)


def test_errors_are_said(window):
    window.viewer.own_clip = None
    press(window, "o")
    assert "capture: expected its sound, got none" in window.viewer.message


def test_leaving(window):
    assert window.step()
    xdotool("keydown", "--window", window_id(), "Escape")
    assert not all(window.step() for _ in range(FRAMES_TO_NOTICE))


def test_kernels_run_in_other_threads_once_a_window_is_open(opened):
    results = []
    thread = threading.Thread(target=lambda: results.append(tk.cell_centers(4)))
    thread.start()
    thread.join()
    assert results[0].shape == (64, 3)


def test_without_vulkan(has_window, trained, tmp_path):
    code = (
        "import torch; from ernerf_ti.viewer.window import Display, NoWindowError\n"
        "try:\n    Display(torch.device('cpu'), 64, 64)\nexcept NoWindowError as error:\n    print(error)"
    )
    environment = {**os.environ, "VK_ICD_FILENAMES": str(tmp_path / "none.json"), "VK_DRIVER_FILES": "none"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "window: expected Vulkan, got: " in done.stdout and "--offscreen" in done.stdout


def test_without_a_display(monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("only X11 ends the process without a display")
    for value in ("", ":987"):
        monkeypatch.setenv("DISPLAY", value)
        with pytest.raises(NoWindowError, match=f"display: expected an X server at DISPLAY, got {value or 'none'}; "):
            check_window()
