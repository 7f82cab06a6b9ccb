"""The viewer in a window of Taichi's GGUI: shows its screens and turns mouse and keys into actions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import torch

from ernerf_ti.viewer.display_check import NoWindowError
from ernerf_ti.viewer.mouse import Mouse
from ernerf_ti.viewer.state import KEYS
from ernerf_ti.viewer.viewer import Viewer
from taichi_kernels import runtime

_TITLE = "ernerf-ti viewer"
_NAMES = {" ": "space"}  # keys whose name in Taichi differs from ours by more than capitals
_ERRORS = (OSError, ValueError, ImportError)
_MAX_FRAME_RATE = 60
_POSITION = (0, 40)  # of the top left corner on the display, below the title bar
_IMGUI_LAYOUT = Path("imgui.ini")  # GGUI writes it into the working directory
_IDLE = 0.02  # s to sleep when nothing has changed


def run_window(viewer: Viewer) -> None:
    """Show a viewer until it is closed.

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
    """A window that shows a viewer.

    Args:
        viewer: shown in the window and controlled by it.

    Raises NoWindowError if there is no Vulkan.
    """

    def __init__(self, viewer: Viewer):
        layout = viewer.options.layout
        self.viewer, self._mouse = viewer, Mouse(layout)
        self.display = Display(viewer.trained.background.device, layout.width, layout.height)

    def step(self) -> bool:
        """Show the next screen and apply mouse and keys; returns False when the viewer was closed."""
        viewer, display = self.viewer, self.display
        screen = viewer.tick()
        if screen is display.prepared:
            sleep(_IDLE)
        begin = perf_counter()
        display.show(screen)
        viewer.shown()
        viewer.timings.note("window", perf_counter() - begin)
        pressed = display.pressed()
        mouse = self._mouse.actions(display.cursor(), pressed, display.window.is_pressed, viewer.widgets)
        for action in [*key_actions(pressed), *mouse]:
            try:
                viewer.act(action)
            except _ERRORS as error:
                viewer.say(str(error))
        return viewer.running and display.window.running

    def grab(self) -> np.ndarray:
        """[height, width, 3] uint8 contents of the window."""
        self.display.prepare(self.viewer.tick())
        return self.display.grab()

    def close(self) -> None:
        self.display.close()


class Display:
    """A window that shows images.

    Args:
        device: where the kernels run; the window shares their Taichi program.
        width, height: in pixels.

    Raises NoWindowError if there is no Vulkan.
    """

    def __init__(self, device: torch.device, width: int, height: int):
        runtime.start(device)
        ti = runtime.taichi()
        self._ti = ti
        self._keeps_layout = _IMGUI_LAYOUT.exists()
        try:
            self.window = ti.ui.Window(_TITLE, (width, height), fps_limit=_MAX_FRAME_RATE, pos=_POSITION)
        except RuntimeError as error:
            raise NoWindowError(
                f"window: expected Vulkan, got: {error}; install its loader and a driver (apt-get install libvulkan1 "
                "mesa-vulkan-drivers), or write a video with --offscreen OUT.mp4 --script actions.json"
            ) from None
        self._canvas = self.window.get_canvas()
        # Filling a field takes a fifth of the time of passing an array.
        self._field = ti.Vector.field(3, ti.u8, (width, height))
        self._fill = _fill_kernel(self._field, width, height)
        self._device = device
        self.prepared: np.ndarray | None = None
        """The screen that was passed last."""
        # Taichi lays out a new field at the next launch, which must be in this thread; the training has another.
        self.prepare(np.zeros((height, width, 3), np.uint8))

    def show(self, screen: np.ndarray) -> None:
        """Make [height, width, 3] uint8 visible and collect events of mouse and keys."""
        self.prepare(screen)
        self.window.show()

    def prepare(self, screen: np.ndarray) -> None:
        """Pass [height, width, 3] uint8, to be made visible or grabbed."""
        if screen is not self.prepared:
            runtime.launch_by_taichi(self._fill, torch.from_numpy(screen).to(self._device))
            self.prepared = screen
        self._canvas.set_image(self._field)

    def grab(self) -> np.ndarray:
        """[height, width, 3] uint8 contents of the window."""
        image = np.rot90(self.window.get_image_buffer_as_numpy()[..., :3])
        return (image * 255 + 0.5).astype(np.uint8)

    def close(self) -> None:
        self.window.destroy()
        if not self._keeps_layout:
            _IMGUI_LAYOUT.unlink(missing_ok=True)

    def pressed(self) -> list[str]:
        """Taichi's names of the keys and mouse buttons that went down since the last call, in order."""
        events = self.window.get_events(self._ti.ui.PRESS)
        self.window.get_events(self._ti.ui.RELEASE)  # Taichi keeps them until they are fetched
        return [event.key for event in events]

    def cursor(self) -> tuple[float, float]:
        """Column and row as fractions of width and height, from the top left."""
        x, y = self.window.get_cursor_pos()
        return x, 1 - y


def _fill_kernel(field: Any, width: int, height: int) -> Callable:
    """A kernel that copies [height, width, 3] bytes into a field [width, height] whose second axis points up."""
    ti = runtime.taichi()
    byte_array = runtime.array(torch.uint8)

    @ti.kernel
    def fill(screen: byte_array):
        for column, row in ti.ndrange(width, height):
            first = 3 * ((height - 1 - row) * width + column)
            field[column, row] = ti.Vector([screen[first], screen[first + 1], screen[first + 2]])

    return fill


def key_actions(pressed: Sequence[str]) -> list[dict[str, Any]]:
    """Actions of keys by Taichi's names."""
    names = [_NAMES.get(key, key.lower()) for key in pressed]
    return [{"key": name} for name in names if name in KEYS]
