"""The voice in sound of several channels."""

from dataclasses import dataclass

import numpy as np

_FULL_SCALE = 0.99  # the highest value of 8 bit is 0.992
_UNUSED_DB = -20.0  # relative to the loudest channel
_CANCELED = 0.25  # of the mean power of two channels: what their average keeps; of unrelated channels it keeps 0.5
_USUAL_CENTER = 2  # in the usual orders of 6 and 8 channels: left, right, center, low frequencies, ...
_USUAL_CENTER_DB = -6.0
_LOW_FREQUENCIES = {"LFE", "LFE2"}


@dataclass(frozen=True)
class Levels:
    """Of the channels of a sound."""

    mean: np.ndarray
    """[C]"""
    covariance: np.ndarray
    """[C, C]; the diagonal is the power without the mean."""
    peak: np.ndarray
    """[C], with the mean."""
    clipped: np.ndarray
    """[C] fraction of the samples at full scale or above."""


class LevelMeter:
    """Measures the levels of a sound chunk by chunk."""

    def __init__(self, n_channels: int):
        self._n = 0
        self._total, self._peak, self._clipped = (np.zeros(n_channels) for _ in range(3))
        self._products = np.zeros((n_channels, n_channels))

    def add(self, chunk: np.ndarray) -> None:
        """Add [C, n] samples."""
        wide, size = chunk.astype(np.float64), np.abs(chunk)
        self._n += chunk.shape[1]
        self._total += wide.sum(1)
        self._products += wide @ wide.T
        self._peak = np.maximum(self._peak, size.max(1, initial=0))
        self._clipped += (size >= _FULL_SCALE).sum(1)

    def levels(self) -> Levels:
        n = max(1, self._n)
        mean = self._total / n
        return Levels(mean, self._products / n - np.outer(mean, mean), self._peak, self._clipped / n)


def voice_weights(channels: tuple[str, ...], levels: Levels) -> tuple[np.ndarray, str | None]:
    """How the channels are mixed to the voice: one of them at its full level, or the average of two.

    Args:
        channels: ffmpeg's names, such as FL or FC; NONE where the file does not say.
        levels: of the channels.

    Returns:
        [C] float32 weights, and a line about it unless the sound is mono or plain stereo.
    """
    n, power = len(channels), np.diag(levels.covariance).copy()
    power[[name in _LOW_FREQUENCIES for name in channels]] = 0
    loudest = int(power.argmax())
    decibels = 10 * np.log10(np.maximum(power, 1e-20) / max(power[loudest], 1e-20))
    one = np.eye(n, dtype=np.float32)
    if n == 1:
        return one[0], None
    if n == 2:
        return _pair((0, 1), n, levels)
    if channels[0] == "AMBI0":
        return one[0], "ambisonic sound: only its first channel, which has all directions, is used"
    if "FC" in channels and decibels[channels.index("FC")] > _UNUSED_DB:
        return one[channels.index("FC")], f"{n} channels: only the center is used, at its full level"
    if {"FL", "FR"} <= set(channels):
        pair = channels.index("FL"), channels.index("FR")
        if decibels[list(pair)].max() > _UNUSED_DB:
            weights, note = _pair(pair, n, levels)
            return weights, note or f"{n} channels: the average of front left and front right is used"
    elif n in (6, 8) and decibels[_USUAL_CENTER] > _USUAL_CENTER_DB:
        return one[_USUAL_CENTER], f"{n} channels without names: only the third, usually the center, is used"
    return one[loudest], f"{n} channels: only channel {loudest + 1}, the loudest, is used"


def _pair(pair: tuple[int, int], n: int, levels: Levels) -> tuple[np.ndarray, str | None]:
    power, covariance = np.diag(levels.covariance)[list(pair)], levels.covariance[pair]
    louder = int(power.argmax())
    total = power.sum()
    weights = np.zeros(n, np.float32)
    weights[pair[louder]] = 1
    name, other = ("left", "right") if louder == 0 else ("right", "left")
    if power[1 - louder] < total * 10 ** (_UNUSED_DB / 10):
        less = 10 * np.log10(total / power[1 - louder]) if power[1 - louder] > 0 else np.inf
        how = "silent" if less > 90 else f"{less:.0f} dB quieter"
        return weights, f"one-sided stereo: only the {name} channel is used, at its full level; the {other} is {how}"
    if (total + 2 * covariance) / 4 < _CANCELED * total / 2:
        correlation = covariance / np.sqrt(power.prod())
        return weights, (
            f"stereo out of phase: left and right cancel (correlation {correlation:.2f}), so only the {name} channel "
            "is used; check the cables"
        )
    weights[list(pair)] = 0.5
    return weights, None
