"""The place in the clip, driven by the sound: pictures are dropped to keep up, never the sound."""

import numpy as np

from ernerf_ti.viewer.sound import SoundOutput


class PlaybackClock:
    """Plays, pauses and seeks in one recording.

    Args:
        output: what the sound goes to; it tells how much was heard.
        samples: [S] mono sound in [-1, 1].
        rate: samples per second.
        frame_rate: pictures per second.
    """

    def __init__(self, output: SoundOutput, samples: np.ndarray, rate: int, frame_rate: float):
        self.output, self.samples, self.rate, self.frame_rate = output, samples, rate, frame_rate
        self.playing = False
        self.loop = True
        self._start = 0.0  # where the output began, or the place while paused, s

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.rate

    @property
    def n_frames(self) -> int:
        return max(1, -(-len(self.samples) * round(self.frame_rate) // self.rate))

    @property
    def position(self) -> float:
        """Seconds from the begin of what is heard now. Turns off the playing at the end, or begins again."""
        if not self.playing:
            return self._start
        heard = self._start + self.output.heard()
        if heard < self.duration:
            return heard
        if not self.loop:
            self.pause()
            self._start = self.duration
            return self._start
        self.seek(heard % self.duration if self.duration else 0.0)
        return self._start

    def frame(self, ahead: float = 0.0) -> int:
        """Number of the picture that belongs to a moment.

        Args:
            ahead: seconds from now, for a picture that is shown only then.
        """
        place = self.position
        if self.playing:
            place += ahead
            if self.loop and self.duration:
                place %= self.duration
        return min(int(place * self.frame_rate + 1e-6), self.n_frames - 1)

    def play(self) -> None:
        if self.playing or not len(self.samples):
            return
        if self._start >= self.duration:
            self._start = 0.0
        self.playing = True
        self._begin()

    def pause(self) -> None:
        if self.playing:
            self._start = min(self._start + self.output.heard(), self.duration)
            self.playing = False
            self.output.stop()

    def seek(self, seconds: float) -> None:
        """Go to a place; what plays goes on from there."""
        self._start = min(max(seconds, 0.0), self.duration)
        if self.playing:
            self._begin()

    def step(self, frames: int) -> None:
        """Pause, and go so many pictures on, to the middle of one so that rounding has no say."""
        at = self.frame()
        self.pause()
        to = min(max(at + frames, 0), self.n_frames - 1)
        self.seek((to + 0.5) / self.frame_rate)

    def _begin(self) -> None:
        self.output.play(self.samples[round(self._start * self.rate) :], self.rate)
