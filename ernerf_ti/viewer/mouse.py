"""The mouse: presses and positions become actions."""

from collections.abc import Callable, Sequence
from typing import Any

from ernerf_ti.viewer.panel import Button, Slider, Widget, widget_at
from ernerf_ti.viewer.screen import Layout

BUTTONS = {"LMB": "left", "MMB": "middle", "RMB": "right"}
"""Taichi's names of the buttons, and those of actions."""


class Mouse:
    """Follows the mouse from frame to frame.

    Clicks come as press events, so that one shorter than a frame is noticed. What a button drags while it is held is
    decided when it goes down.

    Args:
        layout: of the screen.
    """

    def __init__(self, layout: Layout):
        self._layout = layout
        self._button = ""  # that drags
        self._dragged: Slider | str | None = None  # a slider, "strip" or "picture"
        self._position = (0.0, 0.0)

    def actions(
        self,
        position: tuple[float, float],
        pressed: Sequence[str],
        is_held: Callable[[str], bool],
        widgets: Sequence[Widget],
    ) -> list[dict[str, Any]]:
        """What the mouse asks for.

        Args:
            position: column and row, as fractions of the screen from its top left.
            pressed: names of the buttons that went down since the last call, in order; other keys are ignored.
            is_held: whether a button is down now.
            widgets: the controls that are visible.
        """
        actions = []
        before, self._position = self._position, position
        for name in pressed:
            if name in BUTTONS:
                actions += self._press(name, widgets)
                before = position
        if self._button and not is_held(self._button):
            self._button, self._dragged = "", None
        if before != position:
            actions += self._drag(before)
        return actions

    def _press(self, name: str, widgets: Sequence[Widget]) -> list[dict[str, Any]]:
        layout, (x, y) = self._layout, self._position
        column, row = x * layout.width, y * layout.height
        self._button, self._dragged = name, None
        if layout.in_picture(x, y):
            self._dragged = "picture"
            return []
        if name != "LMB":
            return []
        fraction = layout.fraction_in_clip(x, y)
        if fraction is not None:
            self._dragged = "strip"
            return [{"do": "seek", "fraction": fraction}]
        widget = widget_at(widgets, column, row)
        if isinstance(widget, Button):
            return [widget.action]
        if isinstance(widget, Slider):
            self._dragged = widget
            return [widget.action_at(column)]
        return []

    def _drag(self, before: tuple[float, float]) -> list[dict[str, Any]]:
        layout, (x, y) = self._layout, self._position
        if isinstance(self._dragged, Slider):
            return [self._dragged.action_at(x * layout.width)]
        if self._dragged == "strip":  # wherever the mouse goes meanwhile
            in_strip = min(x, (layout.picture[0] - 1) / layout.width), 1 - 0.5 / layout.height
            return [{"do": "seek", "fraction": layout.fraction_in_clip(*in_strip)}]
        if self._dragged == "picture":
            height = layout.picture[1]
            moved = (x - before[0]) * layout.width / height, (y - before[1]) * layout.height / height
            return [{"drag": list(moved), "button": BUTTONS[self._button]}]
        return []
