"""The controls at the right of the window: which there are, how they look, and what using them does.

They are drawn here and not by GGUI, whose toolkit has no choices by name, no two buttons in a row, and misses clicks
that are shorter than a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ernerf_ti.viewer.drawing import ACCENT, DIM, GROUND, TEXT, Color, draw_text, fit_text, text_width
from ernerf_ti.viewer.state import CHOICES, DIALS, LIMITS, MODES, ViewState

PANEL_WIDTH = 320
"""Pixels that the controls need."""

_MARGIN, _GAP, _LABEL = 8, 4, 78
_ROW, _HEIGHT, _HEADING = 21, 18, 18
_SIZE = 0.36  # of the text
_BAR, _HANDLE = 3, 5  # height of a slider's bar below its text, width of its handle
_BUTTON: Color = (52, 56, 64)
_TRACK: Color = (38, 41, 47)
_FILL: Color = (104, 113, 132)
_ON_ACCENT: Color = (20, 20, 20)
_UNITS = {
    **dict.fromkeys(("yaw", "pitch", "field_of_view", "head_yaw", "head_pitch"), "{:.0f} deg"),
    **dict.fromkeys(("eye", "volume", "scale"), "{:.0%}"),
    **dict.fromkeys(DIALS, "{:+.1f}"),
    **{"distance": "{:.2f} x", "mouth_gain": "{:.2f} x"},
    **{"pan_x": "{:.2f}", "pan_y": "{:.2f}", "target_rate": "{:.0f} / s"},
}
_FACE = {"mouth_gain": "Mouth gain", **{name: name.capitalize().replace("_", " ") for name in DIALS}}


@dataclass(frozen=True)
class PanelFacts:
    """What the controls depend on besides the settings."""

    has_capture_sound: bool = False
    recording: bool = False
    exporting: bool = False
    training: str = ""
    """Stage and step of the training; empty if nothing is trained."""
    inbox: str = ""
    """Folder that is watched for new files, if any."""


@dataclass(frozen=True)
class Rectangle:
    """Pixels of the screen, from its top left."""

    left: int
    top: int
    width: int
    height: int

    def contains(self, column: float, row: float) -> bool:
        return 0 <= column - self.left < self.width and 0 <= row - self.top < self.height


@dataclass(frozen=True)
class Label:
    """Text that does nothing."""

    place: Rectangle
    text: str
    color: Color = TEXT


@dataclass(frozen=True)
class Button:
    """A click on it is an action."""

    place: Rectangle
    text: str
    action: dict[str, Any]
    active: bool = False
    """Whether it is drawn as switched on."""


@dataclass(frozen=True)
class Slider:
    """A setting with a range; it takes the value under the mouse."""

    place: Rectangle
    text: str
    name: str
    value: float
    shown: str
    """The value with its unit."""
    component: int | None = None
    """Of the color, for the three sliders of that setting."""
    color: tuple[float, ...] = ()
    """The whole color, for these."""

    @property
    def limits(self) -> tuple[float, float]:
        return LIMITS.get(self.name, (0.0, 1.0))

    def action_at(self, column: float) -> dict[str, Any]:
        """The action of pressing or dragging the mouse at a column of the screen."""
        low, high = self.limits
        fraction = (column - self.place.left) / (self.place.width - 1)
        value: Any = low + min(max(fraction, 0.0), 1.0) * (high - low)
        if self.component is not None:
            value = [value if k == self.component else part for k, part in enumerate(self.color)]
        return {"set": {self.name: value}}


Widget = Label | Button | Slider


def panel_widgets(state: ViewState, facts: PanelFacts, left: int) -> list[Widget]:
    """The controls for a state, those without effect left out.

    Args:
        state: the settings.
        facts: what else they depend on.
        left: first column of the panel on the screen.
    """
    rows = _Rows(state, left)
    rows.heading("Playback")
    rows.buttons(
        ("Pause" if state.playing else "Play", {"toggle": "playing"}, state.playing),
        ("Loop", {"toggle": "loop"}, state.loop),
        ("Sound", {"toggle": "volume"}, state.volume > 0),
        *[("Capture's audio", {"do": "capture_sound"}, False)] * facts.has_capture_sound,
    )
    rows.sliders(("Volume", "volume"))
    rows.heading("View")
    for k in range(0, len(MODES), 2):
        rows.buttons(*[(mode.capitalize(), {"set": {"mode": mode}}, state.mode == mode) for mode in MODES[k : k + 2]])
    rows.choices("True frame", "comparison")
    of_face = [(text, name) for name, text in _FACE.items() if name not in state.lacking]
    rows.heading("Portrait", ("Neutral", {"do": "neutral"}, False) if of_face else None)
    rows.choices("Head pose", "head")
    if state.head == "mouse":
        rows.sliders(("Turn", "head_yaw"), ("Nod", "head_pitch"))
    rows.choices("Eyes", "eyes")
    if state.eyes == "slider":
        rows.sliders(("Eye closure", "eye"))
    rows.buttons(
        ("Mouth follows audio", {"toggle": "audio"}, state.audio),
        ("Torso", {"toggle": "torso"}, state.torso),
    )
    for k in range(0, len(of_face), 2):
        rows.sliders(*of_face[k : k + 2])
    rows.appearance()
    rows.choices("Background", "background")
    if state.background == "color":
        rows.color()
    rows.heading("Camera", ("Reset", {"do": "home"}, False))
    rows.sliders(("Orbit", "yaw"), ("Tilt", "pitch"))
    rows.sliders(("Distance", "distance"), ("Field of view", "field_of_view"))
    rows.sliders(("Pan", "pan_x"), ("Raise", "pan_y"))
    rows.resolution()
    rows.heading("Save")
    rows.buttons(
        ("Screenshot", {"do": "screenshot"}, False),
        ("Stop recording" if facts.recording else "Record", {"do": "record"}, facts.recording),
        ("Stop export" if facts.exporting else "Clip", {"do": "export_clip"}, facts.exporting),
    )
    rows.buttons(("Mesh", {"do": "export_mesh"}, False), ("Camera path", {"do": "export_path"}, False))
    if facts.training:
        rows.heading(f"Training: {facts.training}")
        rows.buttons(
            ("Pause" if state.training else "Train", {"toggle": "training"}, state.training),
            ("One step", {"do": "train_step"}, False),
            ("Save checkpoint", {"do": "save_checkpoint"}, False),
        )
    if facts.inbox:
        rows.heading("Audio and images copied into this folder are used")
        rows.text(facts.inbox)
    return rows.widgets


def widget_at(widgets: Sequence[Widget], column: float, row: float) -> Button | Slider | None:
    """The control at a pixel of the screen, if any."""
    found = (w for w in widgets if not isinstance(w, Label) and w.place.contains(column, row))
    return next(found, None)


def draw_panel(widgets: Sequence[Widget], left: int, width: int, height: int) -> np.ndarray:
    """[height, width, 3] uint8 of the controls; `left` is the panel's first column on the screen."""
    image = np.full((height, width, 3), GROUND, np.uint8)
    for widget in widgets:
        place = widget.place
        column, row = place.left - left, place.top
        baseline = row + place.height - 6
        if isinstance(widget, Label):
            draw_text(image, widget.text, column, baseline, widget.color, _SIZE, outline=False)
            continue
        if isinstance(widget, Button):
            color, ink = (ACCENT, _ON_ACCENT) if widget.active else (_BUTTON, TEXT)
            _box(image, column, row, place.width, place.height, color)
            middle = column + (place.width - text_width(widget.text, _SIZE)) // 2
            draw_text(image, widget.text, middle, baseline, ink, _SIZE, outline=False)
            continue
        low, high = widget.limits
        handle = round((widget.value - low) / (high - low) * (place.width - _HANDLE))
        _box(image, column, row, place.width, place.height, _TRACK)
        _box(image, column, row + place.height - _BAR, max(1, handle), _BAR, _FILL)
        _box(image, column + handle, row + place.height - _BAR, _HANDLE, _BAR, ACCENT)
        draw_text(image, widget.text, column + 5, baseline, TEXT, _SIZE, outline=False)
        end = column + place.width - 5 - text_width(widget.shown, _SIZE)
        draw_text(image, widget.shown, end, baseline, TEXT, _SIZE, outline=False)
    return image


def _box(image: np.ndarray, column: int, row: int, width: int, height: int, color: Color) -> None:
    cv2.rectangle(image, (column, row), (column + width - 1, row + height - 1), color, cv2.FILLED)


class _Rows:
    """Lays widgets out from top to bottom."""

    def __init__(self, state: ViewState, left: int):
        self.widgets: list[Widget] = []
        self._state = state
        self._left, self._top = left + _MARGIN, 2
        self._width = PANEL_WIDTH - 2 * _MARGIN

    def heading(self, text: str, button: tuple[str, dict[str, Any], bool] | None = None) -> None:
        self._top += 3
        self._label(fit_text(text, self._width, _SIZE), DIM)
        if button is not None:
            width = text_width(button[0], _SIZE) + 24
            place = Rectangle(self._left + self._width - width, self._top - 1, width, _HEIGHT)
            self.widgets.append(Button(place, *button))
        self._top += _HEADING

    def text(self, text: str) -> None:
        self._label(fit_text(text, self._width, _SIZE))
        self._top += _ROW

    def buttons(self, *buttons: tuple[str, dict[str, Any], bool], label: str = "") -> None:
        """Text, action and whether it is switched on, of each; with a label at the left."""
        left, width = self._left, self._width
        if label:
            self._label(label)
            left, width = left + _LABEL, width - _LABEL
        # Equal widths if every text fits into them; else as wide as the text and a fraction of what is left.
        widths = [text_width(text, _SIZE) for text, _, _ in buttons]
        equal = (width - _GAP * (len(buttons) - 1)) // len(buttons)
        if max(widths) + 2 * _GAP <= equal:
            widths = [equal] * len(buttons)
        spare = width - sum(widths) - _GAP * (len(buttons) - 1)
        ends = [left + round(k * spare / len(buttons)) + sum(widths[:k]) + _GAP * k for k in range(len(buttons) + 1)]
        for button, begin, end in zip(buttons, ends, ends[1:], strict=False):
            self.widgets.append(Button(Rectangle(begin, self._top, end - begin - _GAP, _HEIGHT), *button))
        self._top += _ROW

    def choices(self, label: str, name: str) -> None:
        current = getattr(self._state, name)
        self.buttons(
            *[(text.capitalize(), {"set": {name: text}}, text == current) for text in CHOICES[name]], label=label
        )

    def sliders(self, *sliders: tuple[str, str]) -> None:
        """Text and setting of each."""
        for place, (text, name) in zip(self._columns(len(sliders)), sliders, strict=True):
            self._slider(place, text, name)
        self._top += _ROW

    def appearance(self) -> None:
        """Steps through the appearance embeddings of the training frames."""
        current = self._state.appearance
        steps = [(f"{by:+d}", {"set": {"appearance": max(current + by, -1)}}, False) for by in (-10, -1, 1, 10)]
        text = "Mean" if current < 0 else f"Frame {current}"
        self.buttons(*steps[:2], (text, {"set": {"appearance": -1}}, current < 0), *steps[2:], label="Appearance")

    def color(self) -> None:
        color = self._state.color
        for k, place in enumerate(self._columns(3)):
            shown = f"{255 * color[k]:.0f}"
            self.widgets.append(Slider(place, "RGB"[k], "color", color[k], shown, component=k, color=color))
        self._top += _ROW

    def resolution(self) -> None:
        """Whether the scale adapts to a rate, beside the slider of what is given."""
        left, right = self._columns(2)
        self.widgets.append(Button(left, "Adaptive resolution", {"toggle": "auto_scale"}, self._state.auto_scale))
        self._slider(right, *(("Frame rate", "target_rate") if self._state.auto_scale else ("Scale", "scale")))
        self._top += _ROW

    def _label(self, text: str, color: Color = TEXT) -> None:
        self.widgets.append(Label(Rectangle(self._left, self._top, self._width, _HEIGHT), text, color))

    def _columns(self, n: int) -> list[Rectangle]:
        width = (self._width - _GAP * (n - 1)) // n
        return [Rectangle(self._left + k * (width + _GAP), self._top, width, _HEIGHT) for k in range(n)]

    def _slider(self, place: Rectangle, text: str, name: str) -> None:
        value = self._state.vertical_view if name == "field_of_view" else getattr(self._state, name)
        self.widgets.append(Slider(place, text, name, value, _UNITS[name].format(value)))
