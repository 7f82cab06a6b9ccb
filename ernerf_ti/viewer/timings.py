"""How fast the viewer is: images per second and milliseconds by stage."""

from collections import deque
from time import perf_counter

from ernerf_ti.viewer.render_job import RenderedView

_RATE_SECONDS = 2.0  # over which images are counted
_TEXT_EVERY = 0.25  # s, so that the numbers can be read
_STAGES = ("audio", "rays", "torso", "head", "screen", "window", "work")


class Timings:
    """Collects times, and puts them into words."""

    def __init__(self) -> None:
        self._milliseconds: dict[str, float] = {}
        self._shown: deque[float] = deque()  # times of the last images
        self._text: list[str] = []
        self._next_text = 0.0

    def lap(self, stage: str, begin: float) -> float:
        """Note the time since `begin` (of perf_counter) for a stage; returns the time now."""
        now = perf_counter()
        self.note(stage, now - begin)
        return now

    def note(self, stage: str, seconds: float) -> None:
        self._milliseconds[stage] = 1000 * seconds

    def note_image(self, now: float) -> None:
        """A new image became visible."""
        self._shown.append(now)

    def rate(self, now: float) -> float:
        """Different images per second over the last two seconds."""
        while self._shown and self._shown[0] < now - _RATE_SECONDS:
            self._shown.popleft()
        return len(self._shown) / _RATE_SECONDS

    def text(self, now: float, view: RenderedView) -> list[str]:
        """Two lines: rate and size, and the time of each stage."""
        if now >= self._next_text:
            self._next_text = now + _TEXT_EVERY
            width, height = view.request.size
            milliseconds = self._milliseconds | {name: 1000 * value for name, value in view.seconds.items()}
            times = " ".join(f"{name} {milliseconds[name]:.0f}" for name in _STAGES if name in milliseconds)
            self._text = [f"{self.rate(now):.1f} images/s, {width} x {height}", f"ms: {times}"]
        return self._text
