"""The viewer's settings and how actions change them, as plain values.

An action is a dict of one of these kinds, the same from keys, mouse, panel and scripts:

    {"key": "space"}                              what the key does, see KEYS
    {"set": {"eye": 0.5, "mode": "depth"}}        settings; numbers are clamped to their limits
    {"toggle": "torso"}                           a setting that is on or off
    {"cycle": "mode"}                             the next choice of a setting; with "by": -1 the previous one
    {"drag": [0.1, 0], "button": "left"}          the mouse moved by this fraction of the image height, y down
    {"zoom": 1.1}                                 the distance to the head is divided by this
    {"do": "seek", "seconds": 2.0}                anything that is not a setting; see COMMANDS
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from ernerf_ti.portrait.config import DIAL_GROUPS, LARGEST_DIAL, LARGEST_MOUTH_GAIN

MODES = (
    "color",
    "depth",
    "opacity",
    "audio attention",
    "eye attention",
    "uncertainty",
    "normals",
    "samples",
    "occupancy",
    "torso deformation",
)
CHOICES: dict[str, tuple[str, ...]] = {
    "mode": MODES,
    "comparison": ("off", "side", "difference"),
    "head": ("capture", "frozen", "mouse"),
    "eyes": ("capture", "natural", "slider"),
    "background": ("capture", "color", "picture", "none"),
}
DIALS: dict[str, str] = {name.replace("-", "_"): name for names in DIAL_GROUPS.values() for name in names}
"""Settings -> the expression dials that they turn, in the portrait's order."""
LIMITS: dict[str, tuple[float, float]] = {
    "yaw": (-75.0, 75.0),
    "pitch": (-50.0, 50.0),
    "distance": (0.4, 2.5),
    "pan_x": (-0.5, 0.5),
    "pan_y": (-0.5, 0.5),
    "field_of_view": (5.0, 60.0),
    "head_yaw": (-40.0, 40.0),
    "head_pitch": (-30.0, 30.0),
    "eye": (0.0, 1.0),
    "volume": (0.0, 1.0),
    "scale": (0.125, 1.0),
    "target_rate": (2.0, 25.0),
    "mouth_gain": (0.0, LARGEST_MOUTH_GAIN),
    **dict.fromkeys(DIALS, (-LARGEST_DIAL, LARGEST_DIAL)),
}
HOME: dict[str, Any] = {
    "yaw": 0.0,
    "pitch": 0.0,
    "distance": 1.0,
    "pan_x": 0.0,
    "pan_y": 0.0,
    "head_yaw": 0.0,
    "head_pitch": 0.0,
}
"""The captured camera; the field of view goes back too."""

_DEGREES_PER_HEIGHT = 90.0
_PAN_PER_HEIGHT = 1.0  # scene units
_ZOOM_PER_HEIGHT = 3.0  # e-folds


@dataclass(frozen=True)
class ViewState:
    """Every setting of the viewer. Angles in degrees, lengths in scene units."""

    captured_field_of_view: float
    """Of the capture's camera, vertical."""
    n_embeddings: int
    """Training frames, each with an appearance embedding."""
    own_mouth_gain: float = 1.0
    """Of the portrait, or as the viewer was asked for."""
    lacking: frozenset[str] = frozenset()
    """Settings that the portrait does not have."""
    mode: str = "color"
    comparison: str = "off"
    """"side": beside the true frame and the difference; "difference": that alone."""
    playing: bool = False
    loop: bool = True
    volume: float = 1.0
    yaw: float = 0.0
    """Camera around the head; negative on the left of the image."""
    pitch: float = 0.0
    distance: float = 1.0
    """From camera to head, relative to the captured camera."""
    pan_x: float = 0.0
    pan_y: float = 0.0
    field_of_view: float = 0.0
    """Vertical; 0 for that of the capture."""
    head: str = "capture"
    """Head pose: of each frame, of one frame, or turned by the mouse."""
    head_yaw: float = 0.0
    head_pitch: float = 0.0
    eyes: str = "capture"
    eye: float = 0.0
    """Eye closure for eyes "slider": 0 open, 1 closed."""
    audio: bool = True
    """Whether the mouth follows the audio."""
    mouth_gain: float = 1.0
    """How far it moves."""
    brows: float = 0.0
    """This one and the next three are expression dials, in standard deviations of the capture."""
    smile: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    torso: bool = True
    background: str = "capture"
    color: tuple[float, float, float] = (0.0, 0.69, 0.25)
    appearance: int = -1
    """Training frame whose appearance embedding is used; -1 for the mean of all."""
    auto_scale: bool = True
    scale: float = 1.0
    """Rendered resolution relative to the capture's, if auto_scale is off."""
    target_rate: float = 12.0
    """Frames per second that auto_scale aims at."""
    numbers: bool = False
    """Whether frame rate and timings are shown."""
    help: bool = False
    training: bool = False

    @property
    def vertical_view(self) -> float:
        """The vertical field of view in use, degrees."""
        return self.field_of_view or self.captured_field_of_view

    @property
    def camera_is_captured(self) -> bool:
        """Whether camera and head pose are those of the capture."""
        return self.field_of_view == 0 and all(getattr(self, name) == value for name, value in HOME.items())


COMMANDS: dict[str, str] = {
    "seek": "go to a time: seconds, or fraction of the clip",
    "step": "go forward by frames, negative for back",
    "load": "play an audio file: path",
    "capture_sound": "play the capture's own audio",
    "background": "use an image as the background: path",
    "screenshot": "save the image, without the text on it",
    "record": "start or stop recording the screen with its sound",
    "export_clip": "render the whole clip to an mp4 with sound; again to stop",
    "export_mesh": "save the head's surface as a mesh",
    "export_path": "save the camera path of the clip",
    "train_step": "train for one step",
    "save_checkpoint": "save a checkpoint of the run",
    "quit": "close the viewer",
}


@dataclass(frozen=True)
class Key:
    """What a key does."""

    action: dict[str, Any]
    help: str


KEYS: dict[str, Key] = {
    "space": Key({"toggle": "playing"}, "play or pause"),
    "right": Key({"do": "step", "frames": 1}, "next frame"),
    "left": Key({"do": "step", "frames": -1}, "previous frame"),
    "l": Key({"toggle": "loop"}, "loop on or off"),
    "v": Key({"toggle": "volume"}, "sound on or off"),
    "a": Key({"toggle": "audio"}, "mouth follows audio or not"),
    "e": Key({"cycle": "eyes"}, "eyes: capture, natural, slider"),
    "h": Key({"cycle": "head"}, "head: capture, frozen, mouse"),
    "t": Key({"toggle": "torso"}, "torso on or off"),
    "b": Key({"cycle": "background"}, "background: capture, color, picture, none"),
    "m": Key({"cycle": "mode"}, "next view"),
    "n": Key({"cycle": "mode", "by": -1}, "previous view"),
    "d": Key({"set": {"mode": "color"}}, "color view"),
    "c": Key({"cycle": "comparison"}, "true frame: off, side, difference"),
    "r": Key({"do": "home"}, "reset the camera"),
    "up": Key({"zoom": 1.1}, "move closer"),
    "down": Key({"zoom": 1 / 1.1}, "move away"),
    "i": Key({"toggle": "numbers"}, "frame rate and timings"),
    "o": Key({"do": "capture_sound"}, "play the capture's audio"),
    "s": Key({"do": "screenshot"}, "save a screenshot"),
    "w": Key({"do": "record"}, "record the screen"),
    "x": Key({"do": "export_clip"}, "export the clip as video"),
    "g": Key({"do": "export_mesh"}, "export the head as mesh"),
    "p": Key({"do": "export_path"}, "export the camera path"),
    "y": Key({"toggle": "training"}, "start or pause training"),
    "u": Key({"do": "train_step"}, "train for one step"),
    "k": Key({"do": "save_checkpoint"}, "save a checkpoint"),
    "q": Key({"toggle": "help"}, "show or hide this list"),
    "escape": Key({"do": "quit"}, "close the viewer"),
}

_FIXED = {"captured_field_of_view", "n_embeddings", "own_mouth_gain", "lacking"}
_FIELDS = {field.name for field in fields(ViewState)} - _FIXED
_ADVICE = {
    "mouth_gain": "view a portrait that is not in training, and was trained by this version",
    **{
        setting: f"train one with --portrait.head.dials {group}"
        for group, names in DIAL_GROUPS.items()
        for setting, name in DIALS.items()
        if name in names
    },
}  # what a portrait may lack -> what to do
_KINDS = ("key", "set", "toggle", "cycle", "drag", "zoom", "do")


def transition(state: ViewState, action: dict[str, Any]) -> tuple[ViewState, dict[str, Any] | None]:
    """Apply an action.

    Returns:
        The new state, and an action of kind "do" that the viewer has to carry out, or None.

    Raises:
        ValueError: an unknown action, setting or choice. An unassigned key does nothing.
    """
    kinds = [kind for kind in _KINDS if kind in action]
    if len(kinds) != 1:
        raise ValueError(f"action: expected one of {', '.join(_KINDS)}, got {action!r}; see docs/viewer.md")
    kind, value = kinds[0], action[kinds[0]]
    if kind == "key":
        key = KEYS.get(value)
        return (state, None) if key is None else transition(state, key.action)
    if kind == "do":
        if value == "home":
            return replace(state, **HOME, field_of_view=0.0), None
        if value == "neutral":
            neutral: dict[str, Any] = dict.fromkeys(DIALS, 0.0)
            return replace(state, **neutral, mouth_gain=state.own_mouth_gain), None
        if value not in COMMANDS:
            raise ValueError(f"do: expected one of {', '.join(COMMANDS)}, got {value!r}; choose one of these")
        return state, action
    if kind == "drag":
        right, down = value
        return _dragged(state, right, down, action.get("button", "left")), None
    if kind == "zoom":
        return changed(state, distance=state.distance / _number("zoom", value)), None
    if kind == "set":
        return changed(state, **value), None
    if kind == "cycle":
        choices = CHOICES.get(value)
        if choices is None:
            raise ValueError(f"cycle: expected one of {', '.join(CHOICES)}, got {value!r}; choose one of these")
        index = choices.index(getattr(state, value)) + action.get("by", 1)
        return replace(state, **{value: choices[index % len(choices)]}), None
    current = getattr(state, value, None) if value in _FIELDS else None
    if value == "volume":
        return replace(state, volume=0.0 if state.volume else 1.0), None
    if not isinstance(current, bool):
        raise ValueError(f"toggle: expected a setting that is on or off, got {value!r}; see docs/viewer.md")
    flipped: dict[str, Any] = {value: not current}
    return replace(state, **flipped), None


def changed(state: ViewState, **values: Any) -> ViewState:
    """The state with settings replaced, numbers clamped to their limits.

    Raises ValueError for an unknown setting, another choice, or a value of another type.
    """
    return replace(state, **{name: _checked(state, name, value) for name, value in values.items()})


def _checked(state: ViewState, name: str, value: Any) -> Any:
    if name not in _FIELDS:
        raise ValueError(f"set: expected one of {', '.join(sorted(_FIELDS))}, got {name!r}; choose one of these")
    if name in state.lacking:
        raise ValueError(f"{name}: expected a setting that this portrait has, got one that it lacks; {_ADVICE[name]}")
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise ValueError(f"{name}: expected one of {', '.join(CHOICES[name])}, got {value!r}; choose one of these")
        return value
    if name == "appearance":
        return min(max(int(_number(name, value)), -1), state.n_embeddings - 1)
    if name == "color":
        if not isinstance(value, (list, tuple)) or len(value) != 3:
            raise ValueError(f"color: expected three numbers from 0 to 1, got {value!r}; pass red, green, blue")
        return tuple(min(max(_number(name, part), 0.0), 1.0) for part in value)
    if name == "field_of_view" and value == 0:
        return 0.0
    if name in LIMITS:
        low, high = LIMITS[name]
        return min(max(_number(name, value), low), high)
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {value!r}; pass one of these")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}; pass one")
    return float(value)


def _dragged(state: ViewState, right: float, down: float, button: str) -> ViewState:
    if button == "right":
        return changed(state, distance=state.distance * math.exp(_ZOOM_PER_HEIGHT * down))
    if button == "middle":
        # The person follows the mouse: the camera moves the other way.
        reach = _PAN_PER_HEIGHT * state.distance
        return changed(state, pan_x=state.pan_x - reach * right, pan_y=state.pan_y + reach * down)
    if button != "left":
        raise ValueError(f"button: expected left, middle or right, got {button!r}; choose one of these")
    turn, tilt = _DEGREES_PER_HEIGHT * right, _DEGREES_PER_HEIGHT * down
    if state.head == "mouse":
        return changed(state, head_yaw=state.head_yaw + turn, head_pitch=state.head_pitch + tilt)
    return changed(state, yaw=state.yaw - turn, pitch=state.pitch + tilt)
