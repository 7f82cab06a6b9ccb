"""Portraits that answer in real time: sound goes in as it arrives, pictures with sound come out at 25 per second."""

from ernerf_ti.live.clock import Clock, MonotonicClock, SimulatedClock
from ernerf_ti.live.frame import LiveFrame
from ernerf_ti.live.portrait import LivePortrait
from ernerf_ti.live.session import LiveSession
from ernerf_ti.live.sound import SoundQueueFull

__all__ = [
    "Clock",
    "LiveFrame",
    "LivePortrait",
    "LiveSession",
    "MonotonicClock",
    "SimulatedClock",
    "SoundQueueFull",
]
