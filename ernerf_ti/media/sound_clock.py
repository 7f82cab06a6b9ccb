"""Sound and its time stamps: gaps, overlaps, clocks that drift or begin again."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ernerf_ti.media.container import LONGEST_GAP, MOST_FILLED
from ernerf_ti.media.sound_frames import Findings, Piece

_WINDOW = 15  # pieces, about 0.3 s
_JUMP = 0.015  # s; more is a gap or an overlap, less is drift
_TOLERANCE = 0.0007  # s; time stamps in milliseconds are off by up to 0.0005
_STRETCH = 0.01  # of the length, at most: a sixth of a semitone
_RESTART = 1.0  # s; a clock that goes back by more has begun again


class Clock:
    """Lays pieces end to end so that each is heard when its time stamp says.

    Single time stamps of recorders are off by tens of milliseconds, so a correction goes only as far as a piece and the
    median of the following ones agree.

    Args:
        path: for messages.
        pieces: at least one, as decoded.
        findings: gets the corrections.
    """

    def __init__(self, path: Path, pieces: Iterator[Piece], findings: Findings):
        self._path, self._findings = path, findings
        self._coming = _with_offsets(pieces)
        self._window: deque[tuple[Piece, float]] = deque()
        self._fill()
        self.first: Piece = self._window[0][0]
        begin = self._window[0][1]
        self.start = float(np.mean([offset for _, offset in self._window if abs(offset - begin) < _JUMP]))
        """Of the first piece on the clock of the file, in seconds."""

    def pieces(self) -> Iterator[Piece]:
        """Pieces without gaps or overlaps."""
        found, followed, at = self._findings, self.start, 0.0
        silence = 0.0
        while self._window:
            change = self._change(followed)
            piece, _ = self._window.popleft()
            self._fill()
            n, rate = piece.samples.shape[1], piece.rate
            if change > LONGEST_GAP:
                raise ValueError(
                    f"{self._path}: no sound from {at:.2f} to {at + change:.2f} s; the time stamps are damaged, "
                    "convert the file again"
                )
            if change < -_RESTART or (change < -_JUMP and self._is_at_start(piece)):
                found.restarts.append(at)
                followed += change
            elif change > _JUMP:
                found.gaps.append((at, change))
                silence += change
                if silence > LONGEST_GAP + MOST_FILLED * max(0.0, at + change - silence):
                    raise ValueError(
                        f"{self._path}: no sound for {silence:.2f} of the first {at + change:.2f} s; the time stamps "
                        "are damaged, convert the file again"
                    )
                piece = replace(piece, samples=np.pad(piece.samples, ((0, 0), (round(change * rate), 0))))
                followed += change
            elif change < -_JUMP:
                taken = min(n, round(-change * rate))
                found.overlaps.append((at, taken / rate))
                piece = replace(piece, samples=piece.samples[:, taken:])
                followed -= taken / rate
            elif abs(change) > _TOLERANCE:
                more = round(float(np.clip(change * rate, -_STRETCH * n, _STRETCH * n)))
                found.drift += more / rate
                piece = replace(piece, samples=_stretched(piece.samples, n + more))
                followed += more / rate
            at += piece.samples.shape[1] / rate
            if piece.samples.shape[1]:
                yield piece

    def _change(self, followed: float) -> float:
        """By how many seconds the next piece is late; negative if early."""
        alone = self._window[0][1] - followed
        if abs(alone) <= _TOLERANCE:
            return 0.0
        median = float(np.median([offset for _, offset in self._window])) - followed
        return sorted((0.0, alone, median))[1]

    def _is_at_start(self, piece: Piece) -> bool:
        return piece.time is not None and self.first.time is not None and piece.time < self.first.time + 0.1

    def _fill(self) -> None:
        while len(self._window) < _WINDOW and (item := next(self._coming, None)) is not None:
            self._window.append(item)


def _with_offsets(pieces: Iterator[Piece]) -> Iterator[tuple[Piece, float]]:
    """Pieces, and by how much the time stamp of each exceeds the length of the sound before it, in seconds."""
    heard, offset = 0.0, 0.0
    before: float | None = None
    for piece in pieces:
        # A stamp that does not rise says nothing.
        if piece.time is not None and (before is None or piece.time > before):
            offset = piece.time - heard
        before = piece.time if piece.time is not None else before
        heard += piece.samples.shape[1] / piece.rate
        yield piece, offset


def _stretched(samples: np.ndarray, n: int) -> np.ndarray:
    at = np.linspace(0, samples.shape[1] - 1, n)
    return np.stack([np.interp(at, np.arange(samples.shape[1]), channel) for channel in samples]).astype(np.float32)
