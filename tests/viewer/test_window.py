"""A real window with synthetic mouse and keys: `xvfb-run -a pytest tests/viewer/test_window.py`."""

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

import taichi_kernels as tk
from ernerf_ti.viewer.app import WINDOW
from ernerf_ti.viewer.display_check import NoWindowError, check_display
from ernerf_ti.viewer.panel import PANEL_WIDTH, Label
from ernerf_ti.viewer.sound import SilentOutput
from ernerf_ti.viewer.state import KEYS
from ernerf_ti.viewer.viewer import RuntimeOptions, Viewer
from ernerf_ti.viewer.window import ViewerWindow, key_actions
from tests.viewer.conftest import Layout

LAYOUT = Layout(680, 640, PANEL_WIDTH)
WIDTH, HEIGHT = LAYOUT.picture
FRAMES_TO_NOTICE = 5


@pytest.fixture(scope="module")
def has_window() -> None:
    try:
        check_display()
    except NoWindowError as error:
        pytest.skip(f"no window here: {error}")
    if shutil.which("xdotool") is None:
        pytest.skip("no xdotool here, which moves mouse and keys; apt-get install xdotool")


@pytest.fixture
def opened(has_window, screen_to_itself, trained, clip, time, tmp_path, monkeypatch):
    """A window that has shown nothing yet."""
    monkeypatch.chdir(tmp_path)
    viewer = Viewer(trained, clip, SilentOutput(time=time), RuntimeOptions(tmp_path, LAYOUT), time, own_clip=clip)
    viewer.act({"set": {"auto_scale": False}})
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


def picture(window) -> np.ndarray:
    """What the window shows beside the controls and above the waveform."""
    return window.grab()[:HEIGHT, :WIDTH]


def drag(window, begin: tuple[int, int], end: tuple[int, int], button: int = 1) -> None:
    """Pixels from the top left of the window."""
    xdotool("mousemove", "--window", window_id(), *begin)
    steps(window)
    xdotool("mousedown", button)
    steps(window)
    for fraction in (0.25, 0.5, 0.75, 1):
        place = [round(a + fraction * (b - a)) for a, b in zip(begin, end, strict=True)]
        xdotool("mousemove", "--window", window_id(), *place)
        steps(window)
    xdotool("mouseup", button)
    steps(window)


def test_window_shows_the_screen(window):
    screen, shown = window.viewer.tick(), window.grab()
    assert shown.shape == (640, 680, 3)
    assert np.abs(shown.astype(int) - screen).max() <= 1
    assert shown[:, WIDTH:].std() > 5  # the controls
    assert np.array_equal(window.grab(), shown)


def test_large_window_would_fit_on_a_small_display(window):
    geometry = dict(line.split("=") for line in xdotool("getwindowgeometry", "--shell", window_id()).splitlines())
    assert int(geometry["X"]) + WINDOW.width <= 1280 and int(geometry["Y"]) + WINDOW.height <= 800


def test_keys(window):
    before = picture(window)
    press(window, "j")  # not assigned
    press(window, "v")  # sound on or off
    assert np.array_equal(picture(window), before)
    assert window.viewer.state.volume == 0
    press(window, "m")
    assert window.viewer.state.mode == "depth"
    assert np.abs(picture(window).astype(int) - before).max() > 50
    press(window, "n")
    assert np.array_equal(picture(window), before)
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
    before = picture(window)
    drag(window, (150, 150), (210, 150))
    viewer = window.viewer
    assert viewer.state.yaw == pytest.approx(-90 * 60 / HEIGHT, abs=2)
    assert viewer.state.pitch == 0
    assert np.abs(picture(window).astype(int) - before).max() > 20
    drag(window, (150, 150), (150, 200), button=3)
    assert viewer.state.distance > 1.2
    drag(window, (150, 150), (150, 200), button=2)
    assert viewer.state.pan_y > 0.05
    press(window, "r")
    assert viewer.state.camera_is_captured
    assert np.array_equal(picture(window), before)


def test_mouse_scrubs(window):
    camera = window.viewer.state
    drag(window, (8 + 344 // 4, 610), (8 + 344 * 3 // 4, 610))
    assert window.viewer.clock.position == pytest.approx(0.75 * window.viewer.clock.duration, abs=0.01)
    drag(window, (100, 610), (300, 100))  # a drag that began on the waveform stays there
    assert window.viewer.clock.position == pytest.approx((300 - 8) / 344 * 0.24, abs=0.01)
    assert window.viewer.state == camera


def place_of(window, text: str) -> tuple[int, int]:
    """Middle of a control, in pixels from the top left."""
    widget = next(w for w in window.viewer.widgets if not isinstance(w, Label) and w.text == text)
    return widget.place.left + widget.place.width // 2, widget.place.top + widget.place.height // 2


def test_controls(window):
    viewer = window.viewer
    before = picture(window)
    place = place_of(window, "Play")
    drag(window, place, place)
    assert viewer.state.playing and viewer.state.camera_is_captured
    viewer.act({"set": {"playing": False}})
    viewer.act({"do": "seek", "seconds": 0})
    window.step()
    assert np.array_equal(picture(window), before)
    left, row = place_of(window, "Distance")
    drag(window, (left, row), (left + 500, row))
    assert viewer.state.distance == 2.5


@pytest.mark.parametrize("button", [1, 2, 3])
def test_every_press_is_noticed_even_if_it_is_shorter_than_a_frame(window, button):
    name = {1: "LMB", 2: "MMB", 3: "RMB"}[button]
    xdotool("mousemove", "--window", window_id(), 100, 100)
    xdotool("click", "--repeat", 3, "--delay", 1, button)
    window.display.show(window.viewer.tick())
    assert window.display.pressed() == [name] * 3
    assert not window.display.window.is_pressed(name)  # what the state alone would have shown


def test_quick_clicks_work(window):
    viewer = window.viewer
    for text, reached in (
        ("Depth", lambda: viewer.state.mode == "depth"),
        ("Torso", lambda: not viewer.state.torso),
        ("Frozen", lambda: viewer.state.head == "frozen"),
    ):
        xdotool("mousemove", "--window", window_id(), *place_of(window, text), "click", 1)
        steps(window)
        assert reached()
    xdotool("mousemove", "--window", window_id(), 8 + 344 // 2, 610, "click", 1)
    steps(window)
    assert viewer.clock.position == pytest.approx(0.5 * viewer.clock.duration, abs=0.01)


def test_every_key_in_the_manual_is_delivered(window):
    keysyms = {"up": "Up", "down": "Down", "left": "Left", "right": "Right", "escape": "Escape"}
    delivered = {}
    for name in KEYS:
        xdotool("key", "--window", window_id(), keysyms.get(name, name))
        window.display.show(window.viewer.tick())
        delivered[name] = [action["key"] for action in key_actions(window.display.pressed())]
    assert delivered == {name: [name] for name in KEYS}


def test_errors_are_shown(window):
    window.viewer.own_clip = None
    press(window, "o")
    assert "capture: no audio of the capture" in window.viewer.message


def test_escape_closes_the_window(window):
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
            check_display()
