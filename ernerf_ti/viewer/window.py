"""The viewer in a window of Taichi's GGUI: mouse and keys become actions, screens become what is visible."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import torch

from ernerf_ti.viewer.panel import draw_panel
from ernerf_ti.viewer.state import KEYS
from ernerf_ti.viewer.viewer import Viewer
from taichi_kernels import runtime

_TITLE = "ernerf-ti"
_BUTTONS = {"LMB": "left", "MMB": "middle", "RMB": "right"}
_NAMES = {" ": "space"}  # of keys, where ours differ from Taichi's in more than capitals
_ERRORS = (OSError, ValueError, ImportError)
_MOST_FRAMES_PER_SECOND = 60
_IMGUI_LAYOUT = Path("imgui.ini")
"""Where the library of the controls writes how they were moved, unasked, into the folder that one happens to be in."""
_IDLE = 0.02  # s of rest when nothing has changed


class NoWindowError(OSError):
    """A window can't be opened here; the message says why and what to do."""


def check_window() -> None:
    """See whether a window can be opened, since GLFW would end the process where it can't.

    Raises NoWindowError.
    """
    if sys.platform.startswith("linux") and not _has_display():
        raise NoWindowError(
            f"display: expected an X server at DISPLAY, got {os.environ.get('DISPLAY') or 'none'}; "
            "start one (xvfb-run on a server), or use --offscreen OUT.mp4 --script actions.json"
        )


def run_window(viewer: Viewer) -> None:
    """Show a viewer until it is left.

    Raises NoWindowError if there is no Vulkan.
    """
    try:
        window = ViewerWindow(viewer)
        try:
            while window.step():
                pass
        finally:
            window.close()
    finally:
        viewer.close()


class ViewerWindow:
    """A window on a viewer.

    Args:
        viewer: what is shown, and acted on.

    Raises NoWindowError if there is no Vulkan.
    """

    def __init__(self, viewer: Viewer):
        layout = viewer.options.layout
        self.viewer, self._mouse = viewer, _Mouse()
        self.display = Display(viewer.trained.background.device, layout.width, layout.height)

    def step(self) -> bool:
        """Show what is due, and do what mouse and keys asked for; whether to go on."""
        viewer, display = self.viewer, self.display
        screen = viewer.tick()
        if screen is display.prepared:
            sleep(_IDLE)
        begin = perf_counter()
        actions = draw_panel(display.gui, viewer)
        display.show(screen)
        viewer.shown()
        viewer.note_window_time(perf_counter() - begin)
        for action in [*actions, *_key_actions(display), *self._mouse.actions(display, viewer)]:
            try:
                viewer.act(action)
            except _ERRORS as error:
                viewer.say(str(error))
        return viewer.running and display.window.running

    def grab(self) -> np.ndarray:
        """[height, width, 3] uint8, what the window looks like now, controls included."""
        self.display.prepare(self.viewer.tick())
        draw_panel(self.display.gui, self.viewer)
        return self.display.grab()

    def close(self) -> None:
        self.display.close()


class Display:
    """A window that shows pictures.

    Args:
        device: on which the kernels run; the window shares their Taichi program.
        width, height: in pixels.

    Raises NoWindowError if there is no Vulkan.
    """

    def __init__(self, device: torch.device, width: int, height: int):
        runtime.start(device)
        ti = runtime.taichi()
        self._ti = ti
        self._keeps_layout = _IMGUI_LAYOUT.exists()
        try:
            self.window = ti.ui.Window(_TITLE, (width, height), fps_limit=_MOST_FRAMES_PER_SECOND)
        except RuntimeError as error:
            raise NoWindowError(
                f"window: expected Vulkan, got: {error}; install its loader and a driver (apt-get install libvulkan1 "
                "mesa-vulkan-drivers), or use --offscreen OUT.mp4 --script actions.json"
            ) from None
        self._canvas = self.window.get_canvas()
        self.gui = self.window.get_gui()
        # Filling a field takes a fifth of the time that handing over an array does.
        self._field = ti.Vector.field(3, ti.u8, (width, height))
        self._fill = _fill_kernel(self._field, width, height)
        self._device = device
        self.prepared: np.ndarray | None = None
        """What was handed over last."""
        # Taichi lays out a new field at the next launch, which must be in this thread; the training has another.
        self.prepare(np.zeros((height, width, 3), np.uint8))

    def show(self, screen: np.ndarray) -> None:
        """Make [height, width, 3] uint8 visible, and take in what mouse and keys did."""
        self.prepare(screen)
        self.window.show()

    def prepare(self, screen: np.ndarray) -> None:
        """Hand over [height, width, 3] uint8, to be made visible or grabbed."""
        if screen is not self.prepared:
            runtime.launch(self._fill, torch.from_numpy(screen).to(self._device))
            self.prepared = screen
        self._canvas.set_image(self._field)

    def grab(self) -> np.ndarray:
        """[height, width, 3] uint8 of what was handed over and drawn since the last picture."""
        image = np.rot90(self.window.get_image_buffer_as_numpy()[..., :3])
        return (image * 255 + 0.5).astype(np.uint8)

    def close(self) -> None:
        self.window.destroy()
        if not self._keeps_layout:
            _IMGUI_LAYOUT.unlink(missing_ok=True)

    def pressed(self) -> list[str]:
        """Names of the keys and buttons that went down since the last call, as Taichi has them."""
        return [event.key for event in self.window.get_events(self._ti.ui.PRESS)]

    def cursor(self) -> tuple[float, float]:
        """Parts of the width and height, from the top left."""
        x, y = self.window.get_cursor_pos()
        return x, 1 - y


def _fill_kernel(field, width: int, height: int) -> Callable:
    """A kernel that copies [height, width, 3] bytes into a field [width, height] whose second axis goes up."""
    ti = runtime.taichi()
    byte_array = runtime.array(torch.uint8)

    @ti.kernel
    def fill(screen: byte_array):
        for column, row in ti.ndrange(width, height):
            place = 3 * ((height - 1 - row) * width + column)
            field[column, row] = ti.Vector([screen[place], screen[place + 1], screen[place + 2]])

    return fill


class _Mouse:
    """Turns positions of the mouse, looked at once a frame, into actions."""

    def __init__(self):
        self._button: str | None = None
        self._place = (0.0, 0.0)
        self._scrubbing = False

    def actions(self, display: Display, viewer: Viewer) -> list[dict[str, Any]]:
        layout, (x, y) = viewer.options.layout, display.cursor()
        held = next((key for key in _BUTTONS if display.window.is_pressed(key)), None)
        before, self._place = self._place, (x, y)
        if held is None or held != self._button:
            self._button, self._scrubbing = held, False
            if held is None:
                return []
            fraction = layout.place_in_clip(x, y)
            self._scrubbing = fraction is not None
            if not self._scrubbing and not layout.in_picture(x, y):
                self._button = "elsewhere"  # a drag that begins on the panel is the panel's
        if self._scrubbing:
            fraction = layout.place_in_clip(x, max(y, 1 - 1 / layout.height))
            return [] if fraction is None else [{"do": "seek", "fraction": fraction}]
        if self._button not in _BUTTONS or before == (x, y):
            return []
        height = layout.picture[1]
        moved = (x - before[0]) * layout.width / height, (y - before[1]) * layout.height / height
        return [{"drag": list(moved), "button": _BUTTONS[held]}]


def _key_actions(display: Display) -> list[dict[str, Any]]:
    names = [_NAMES.get(key, key.lower()) for key in display.pressed()]
    return [{"key": name} for name in names if name in KEYS]


def _has_display() -> bool:
    """Whether an X server answers; GLFW asks for one in the same way."""
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return False
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = x11.XOpenDisplay(None)
    if not display:
        return False
    x11.XCloseDisplay(ctypes.c_void_p(display))
    return True
