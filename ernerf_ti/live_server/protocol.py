"""Messages of the WebSocket: JSON text for control, binary 16-bit PCM for sound. docs/live_server.md lists
them.

Nothing here knows the network, so that every rule can be tried without one.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Background = tuple[int, int, int] | Literal["transparent"] | None
"""What is behind the person: a color, nothing, or with None what was behind the person in the capture."""
RATES = 8_000, 96_000
"""Lowest and highest number of samples per second that a program may send."""
CHANNELS = 1, 2


class ProtocolError(ValueError):
    """A message that can't be followed.

    Args:
        code: a word for programs.
        message: one line for people: what was expected, what came.
        fatal: whether the connection ends with it.
    """

    def __init__(self, code: str, message: str, fatal: bool = False):
        super().__init__(message)
        self.code, self.fatal = code, fatal

    def as_message(self) -> dict[str, Any]:
        return {"type": "error", "code": self.code, "message": str(self)}


@dataclass(frozen=True)
class Limits:
    """What one server allows."""

    sessions: int = 2
    """Portraits that are rendered at the same time."""
    connections: int = 16
    """WebSockets at the same time, those of programs that speak included."""
    message_bytes: int = 65_536
    """Size of a WebSocket message."""
    messages_per_second: float = 100.0
    """Sustained rate of messages of one connection; twice as many may come at once."""
    sdp_bytes: int = 20_000
    """Size of an offer."""
    offers: int = 20
    """Offers of one connection."""
    buffered_seconds: float = 120.0
    """Sound that may wait to be spoken."""
    errors: int = 20
    """Wrong messages after which a connection is closed."""
    start_seconds: float = 10.0
    """Time for the first message."""


@dataclass(frozen=True)
class Start:
    """Begin a session, or join the one with this name."""

    session: str | None
    background: Background


@dataclass(frozen=True)
class Offer:
    """A WebRTC offer."""

    sdp: str


@dataclass(frozen=True)
class Format:
    """How the binary messages that follow are to be read."""

    sample_rate: int
    channels: int


@dataclass(frozen=True)
class SetBackground:
    """Another background."""

    background: Background


@dataclass(frozen=True)
class Simple:
    """A message without fields."""

    type: Literal["flush", "interrupt", "stop"]


Message = Start | Offer | Format | SetBackground | Simple
_FIELDS = {
    "start": {"session", "background"},
    "offer": {"sdp"},
    "format": {"sample_rate", "channels"},
    "background": {"background"},
    "flush": set(),
    "interrupt": set(),
    "stop": set(),
}


def read_message(text: str, limits: Limits) -> Message:
    """A control message; raises ProtocolError."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("not_json", f"message: expected a JSON object, got {_short(text)}") from None
    if not isinstance(fields, dict):
        raise ProtocolError("not_json", f"message: expected a JSON object, got {_short(text)}")
    kind = fields.pop("type", None)
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise ProtocolError("unknown_type", f"type: expected one of {', '.join(_FIELDS)}, got {_short(kind)}")
    if unknown := sorted(set(fields) - _FIELDS[kind]):
        expected = ", ".join(sorted(_FIELDS[kind])) or "no field"
        raise ProtocolError("unknown_field", f"{kind}: expected {expected}, got {_short(unknown[0])}")
    if kind == "start":
        session = fields.get("session")
        if session is not None and not (isinstance(session, str) and re.fullmatch("[0-9a-z]{1,64}", session)):
            raise ProtocolError("bad_value", f"session: expected the name of a session, got {_short(session)}")
        return Start(session, read_background(fields.get("background", "portrait")))
    if kind == "offer":
        sdp = fields.get("sdp")
        if not isinstance(sdp, str) or not sdp:
            raise ProtocolError("bad_value", f"sdp: expected a session description, got {_short(sdp)}")
        if len(sdp) > limits.sdp_bytes:
            raise ProtocolError("too_large", f"sdp: expected at most {limits.sdp_bytes} bytes, got {len(sdp)}")
        return Offer(sdp)
    if kind == "format":
        return Format(
            _integer("sample_rate", fields.get("sample_rate"), *RATES),
            _integer("channels", fields.get("channels", 1), *CHANNELS),
        )
    if kind == "background":
        return SetBackground(read_background(fields.get("background")))
    return Simple(kind)  # type: ignore[arg-type]


def read_background(value: Any) -> Background:
    """`portrait`, `transparent` or a color as `#rrggbb`; raises ProtocolError."""
    if value == "portrait":
        return None
    if value == "transparent":
        return "transparent"
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        red, green, blue = bytes.fromhex(value[1:])
        return red, green, blue
    raise ProtocolError("bad_value", f"background: expected portrait, transparent or #rrggbb, got {_short(value)}")


def read_pcm(data: bytes, sound: Format | None) -> np.ndarray:
    """[n, channels] int16 samples of a binary message; raises ProtocolError."""
    if sound is None:
        raise ProtocolError("no_format", "sound: expected a format message before the first samples, got none")
    n_bytes = 2 * sound.channels
    if not data or len(data) % n_bytes:
        raise ProtocolError(
            "bad_sound",
            f"sound: expected 16-bit samples of {sound.channels} channels ({n_bytes} bytes each time), "
            f"got {len(data)} bytes",
        )
    return np.frombuffer(data, "<i2").reshape(-1, sound.channels)


class Rate:
    """A token bucket: how many messages a connection may send.

    Args:
        per_second: sustained rate; twice as many may come at once.
        clock: seconds.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic):
        self._per_second, self._clock = per_second, clock
        self._left, self._at = 2 * per_second, clock()

    def take(self) -> None:
        """Count a message; raises ProtocolError if there were too many."""
        now = self._clock()
        self._left = min(2 * self._per_second, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            raise ProtocolError(
                "too_many", f"messages: expected at most {self._per_second:g} per second, got more", fatal=True
            )
        self._left -= 1


def _integer(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ProtocolError("bad_value", f"{name}: expected a whole number from {low} to {high}, got {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
