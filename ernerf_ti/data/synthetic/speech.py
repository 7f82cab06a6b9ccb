"""Source-filter speech synthesis with an exactly known timeline, and random syllables to feed it.

The glottal source is a sum of harmonics, aspiration and frication are white noise; all pass through the
resonances of a vocal tract that move from phone to phone (Fant 1960; Klatt 1980).
"""

from dataclasses import dataclass

import numpy as np

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.synthetic.phonemes import PHONE_SETS, PHONES, SILENCE

CONTROL_HOP = 80
"""Samples between control points of source and tract: 5 ms."""


@dataclass(frozen=True)
class Voice:
    """A speaker's voice."""

    pitch: float
    """Mean fundamental frequency in Hz."""
    tract: float
    """Formant frequencies relative to those of a vocal tract of 17 cm."""
    breath: float
    """Amplitude of aspiration noise in voiced phones."""
    brightness: float = 1.0
    """Corner frequency of the glottal spectrum relative to 300 Hz: low sounds soft, high sounds pressed."""
    melody: float = 1.0
    """Range of the intonation; 0 is monotonous."""


VOICES = {"bass": Voice(92.0, 0.95, 0.02), "tenor": Voice(128.0, 1.02, 0.03), "alto": Voice(198.0, 1.15, 0.05)}


@dataclass(frozen=True)
class Segment:
    """One phone of a timeline: its ARPABET symbol, its start and end in seconds."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """Synthesized speech.

    Attributes:
        timeline: phones and silences without gaps, from 0 to the end.
        samples: [S] float32 in [-1, 1] at 16 kHz.
    """

    timeline: tuple[Segment, ...]
    samples: np.ndarray


def speak(duration: float, seed: int, voice: str = "tenor", phones: str = "english") -> Speech:
    """Random syllables.

    Args:
        duration: seconds, > 0; the sound has round(16000 * duration) samples.
        seed: of the syllables, their timing and intonation.
        voice: one of VOICES. The timeline does not depend on it.
        phones: one of PHONE_SETS.

    Deterministic. Raises ValueError for a duration or seed out of range, or an unknown voice or set of phones.
    """
    if voice not in VOICES:
        raise ValueError(f"voice: expected one of {', '.join(VOICES)}, got {voice!r}; choose one of these")
    timeline = babble(duration, seed, phones)
    rng = np.random.default_rng([seed, 2])
    samples = synthesize_sound(timeline, round(SAMPLE_RATE * duration), VOICES[voice], rng)
    return Speech(timeline, samples)


def babble(duration: float, seed: int, phones: str = "english") -> tuple[Segment, ...]:
    """The timeline of :func:`speak`, with its arguments. For the same seed, a longer timeline starts with the shorter
    one."""
    if not duration > 0:
        raise ValueError(f"duration: expected seconds > 0, got {duration}; ask for at least a frame, 0.04")
    if seed < 0:
        raise ValueError(f"seed: expected a number >= 0, got {seed}; choose for example 0")
    if phones not in PHONE_SETS:
        raise ValueError(f"phones: expected one of {', '.join(PHONE_SETS)}, got {phones!r}; choose one of these")
    rng = np.random.default_rng([seed, 1])
    segments, now = [], 0.0

    def say(symbol: str, seconds: float) -> None:
        nonlocal now
        end = min(now + seconds, duration)
        if end > now:
            segments.append(Segment(symbol, now, end))
            now = end

    language = PHONE_SETS[phones]
    vowels = list(language.vowels)
    onsets, codas = (
        [symbol for symbol in language.consonants if symbol not in never]
        for never in (language.not_first, language.not_last)
    )
    say(SILENCE, rng.uniform(0.15, 0.3))
    while now < duration:
        for _ in range(rng.integers(3, 10)):  # syllables of a phrase
            if rng.random() < 0.88:
                say(symbol := onsets[rng.integers(len(onsets))], PHONES[symbol].seconds * rng.uniform(0.85, 1.25))
            say(symbol := vowels[rng.integers(len(vowels))], PHONES[symbol].seconds * rng.uniform(0.85, 1.35))
            if rng.random() < 0.4:
                say(symbol := codas[rng.integers(len(codas))], PHONES[symbol].seconds * rng.uniform(0.85, 1.25))
        say(SILENCE, rng.uniform(0.25, 0.6))
    return tuple(segments)


@dataclass
class _Controls:
    """Control points every 5 ms: [T] each, formants [T, 3] in Hz, hiss_hz [T, 2]."""

    voice: np.ndarray
    breath: np.ndarray
    hiss: np.ndarray
    hiss_hz: np.ndarray
    formants: np.ndarray
    nasal: np.ndarray


def _controls(timeline: tuple[Segment, ...], n: int) -> _Controls:
    times = np.arange(n) * CONTROL_HOP / SAMPLE_RATE
    ends = np.array([segment.end for segment in timeline])
    which = np.minimum(np.searchsorted(ends, times, "right"), len(timeline) - 1)
    c = _Controls(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros((n, 2)), np.zeros((n, 3)), np.zeros(n))
    pulls = np.ones(n)
    for i, segment in enumerate(timeline):
        at = which == i
        phone = PHONES[segment.symbol]
        u = (times[at] - segment.start) / (segment.end - segment.start)
        first, last = np.array(phone.formants), np.array(phone.formants_end or phone.formants)
        blend = np.clip((u - 0.25) / 0.5, 0, 1)[:, None]
        c.formants[at] = first + (last - first) * blend
        c.hiss_hz[at] = phone.hiss_hz
        c.nasal[at] = phone.nasal
        pulls[at] = 0.05 if segment.symbol in (SILENCE, "HH") else 1.0
        if phone.stop:
            # Closure, burst, then aspiration or the frication of CH and JH until the next phone.
            affricate = segment.symbol in ("CH", "JH")
            burst = np.where(u >= 0.6, np.exp(-((u - 0.6) * (segment.end - segment.start) / 0.012)), 0.0)
            c.hiss[at] = phone.hiss * ((u >= 0.5) * 0.9 if affricate else 1.6 * burst)
            c.breath[at] = phone.breath * (u >= 0.65) * 0.6
            c.voice[at] = 0.1 * (segment.symbol in "BDG") * (u < 0.6) + phone.voice * (u > 0.85)
        else:
            c.voice[at], c.breath[at], c.hiss[at] = phone.voice, phone.breath, phone.hiss
    # The tract moves within about 25 ms; the vocal folds start and stop a little faster.
    c.formants = _smooth(c.formants * pulls[:, None], 5.0) / _smooth(pulls, 5.0)[:, None]
    c.voice, c.hiss, c.breath = _smooth(c.voice, 2.0), _smooth(c.hiss, 0.8), _smooth(c.breath, 1.2)
    c.nasal = _smooth(c.nasal, 1.5)
    return c


def _smooth(track: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing along the first axis, sigma in steps; the ends are padded with their values."""
    reach = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(track, [(reach, reach)] + [(0, 0)] * (track.ndim - 1), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, 0)
    return windows @ (kernel / kernel.sum())


_HIGHER_FORMANTS = np.array([3500.0, 4500.0, 5500.0])
_BANDWIDTHS = np.array([70.0, 95.0, 140.0, 220.0, 300.0, 400.0])


def _tract(hz: np.ndarray, c: _Controls, voice: Voice) -> np.ndarray:
    """[T, K] Hz -> complex gains of the tract at each step: a product of resonances, 1 at 0 Hz."""
    n = len(hz)
    formants = np.concatenate((c.formants, np.broadcast_to(_HIGHER_FORMANTS, (n, 3))), 1) * voice.tract
    bandwidths = _BANDWIDTHS * (1 + 1.5 * c.nasal[:, None])
    gains = np.ones(hz.shape, complex)
    for k in range(6):
        f, b = formants[:, k, None], bandwidths[:, k, None]
        gains *= f**2 / (f**2 - hz**2 + 1j * b * hz)
    return gains


def synthesize_sound(
    timeline: tuple[Segment, ...], n_samples: int, voice: Voice, rng: np.random.Generator
) -> np.ndarray:
    """[n_samples] float32 in [-1, 1] at 16 kHz: a voice speaking the timeline."""
    n = n_samples // CONTROL_HOP + 2
    c = _controls(timeline, n)
    sound = _buzz(c, voice, n_samples, _pitch(timeline, n, voice, rng))
    sound += _noise(c, voice, n_samples, rng)
    sound += 2e-4 * rng.standard_normal(n_samples)  # background noise
    return (0.6 * np.tanh(sound / 0.6)).astype(np.float32)


def _pitch(timeline: tuple[Segment, ...], n: int, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """[T] fundamental frequency in Hz: falls over each phrase, varies with the syllables, and jitters."""
    times = np.arange(n) * CONTROL_HOP / SAMPLE_RATE
    pauses = np.array([0.0] + [segment.end for segment in timeline if segment.symbol == SILENCE])
    since = times - pauses[np.searchsorted(pauses, times, "right") - 1]
    melody = _smooth(rng.standard_normal(n), 20.0) * np.sqrt(2 * 20.0 * np.sqrt(np.pi))
    tremble = _smooth(rng.standard_normal(n), 1.0)
    return voice.pitch * np.exp(0.12 - 0.10 * since + 0.10 * voice.melody * melody + 0.012 * tremble)


def _buzz(c: _Controls, voice: Voice, n_samples: int, pitch: np.ndarray) -> np.ndarray:
    at = np.arange(n_samples) / CONTROL_HOP
    steps = np.arange(len(pitch))
    hz = np.interp(at, steps, pitch)
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE
    n_harmonics = int(0.47 * SAMPLE_RATE / pitch.min())
    harmonics = pitch[:, None] * np.arange(1, n_harmonics + 1)
    gains = _tract(harmonics, c, voice) * (0.06 * c.voice)[:, None]
    # Glottal pulses fall by 12 dB an octave above 300 Hz; radiation at the mouth adds 6.
    gains *= (harmonics / 500) / (1 + (harmonics / (300 * voice.brightness)) ** 2) * (harmonics < 0.47 * SAMPLE_RATE)
    sound = np.zeros(n_samples)
    for k in range(n_harmonics):
        sound += np.interp(at, steps, gains[:, k].real) * np.sin((k + 1) * phase)
        sound += np.interp(at, steps, gains[:, k].imag) * np.cos((k + 1) * phase)
    return sound * 1.4


def _noise(c: _Controls, voice: Voice, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Aspiration and frication: noise filtered in overlapping windows."""
    window = 4 * CONTROL_HOP
    n = len(c.voice)
    hz = np.broadcast_to(np.fft.rfftfreq(window, 1 / SAMPLE_RATE), (n, window // 2 + 1))
    breath = np.abs(_tract(hz, c, voice)) * (hz / 1000) / (1 + hz / 1000)
    breath *= (0.004 * (c.breath + voice.breath * c.voice))[:, None]
    center, width = c.hiss_hz[:, :1] * voice.tract**0.5, c.hiss_hz[:, 1:]
    hiss = 0.035 * c.hiss[:, None] * np.exp(-0.5 * ((hz - center) / width) ** 2)
    white = rng.standard_normal((n + 3) * CONTROL_HOP)
    blocks = np.lib.stride_tricks.sliding_window_view(white, window)[::CONTROL_HOP][:n]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    shaped = np.fft.irfft(np.fft.rfft(blocks * hann) * (breath + hiss), window) / 2
    sound = np.zeros((n + 3) * CONTROL_HOP)
    for quarter in range(4):
        piece = shaped[:, quarter * CONTROL_HOP : (quarter + 1) * CONTROL_HOP]
        sound[quarter * CONTROL_HOP :][: n * CONTROL_HOP] += piece.ravel()
    return sound[2 * CONTROL_HOP :][:n_samples]
