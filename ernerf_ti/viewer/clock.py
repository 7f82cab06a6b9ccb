"""Position in the clip, driven by the audio: images are dropped to keep up, never audio."""

import numpy as np

from ernerf_ti.viewer.sound import SoundOutput


class PlaybackClock:
    """Plays, pauses and seeks in one recording.

    Args:
        output: where the sound goes; it reports how much was heard.
        samples: [S] mono sound in [-1, 1].
        rate: samples per second.
        frame_rate: frames per second.
    """

    def __init__(self, output: SoundOutput, samples: np.ndarray, rate: int, frame_rate: float):
        self.output, self.samples, self.rate, self.frame_rate = output, samples, rate, frame_rate
        self.playing = False
        self.loop = True
        self._start = 0.0  # where the output started, or the position while paused, s

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.rate

    @property
    def n_frames(self) -> int:
        return max(1, -(-len(self.samples) * round(self.frame_rate) // self.rate))

    @property
    def position(self) -> float:
        """Seconds into the clip of what is heard now. Reading it at the end stops, or starts the loop again."""
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
        """Index of the frame to show.

        Args:
            ahead: seconds from now at which it will be visible.
        """
        position = self.position
        if self.playing:
            position += ahead
            if self.loop and self.duration:
                position %= self.duration
        return min(int(position * self.frame_rate + 1e-6), self.n_frames - 1)

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
        """Go to a time; playback continues from there."""
        self._start = min(max(seconds, 0.0), self.duration)
        if self.playing:
            self._begin()

    def step(self, frames: int) -> None:
        """Pause and move by so many frames, to the middle of one, so that rounding does not matter."""
        at = self.frame()
        self.pause()
        to = min(max(at + frames, 0), self.n_frames - 1)
        self.seek((to + 0.5) / self.frame_rate)

    def _begin(self) -> None:
        self.output.play(self.samples[round(self._start * self.rate) :], self.rate)
