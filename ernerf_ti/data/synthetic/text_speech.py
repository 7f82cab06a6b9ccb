"""Speech made of real words: a given text in one voice, or random phrases that each have a voice of their own."""

import numpy as np

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.synthetic.lexicon import COMMON_WORDS, phrases, pronunciation
from ernerf_ti.data.synthetic.phonemes import PHONES, SILENCE, VOWELS
from ernerf_ti.data.synthetic.speech import Segment, Speech, Voice, synthesize_sound

_FRAME = SAMPLE_RATE // 25  # phrases begin with a video frame
_PAUSE = 0.2, 0.45  # seconds


def say(text: str, voice: Voice, seed: int = 0) -> Speech:
    """A voice that speaks a text.

    Args:
        text: words of the CMU Pronouncing Dictionary; punctuation makes pauses.
        voice: the speaker's.
        seed: of timing and intonation.

    Raises ValueError for a word that is not in the dictionary, or a text without words.
    """
    runs = phrases(text)
    if not runs:
        raise ValueError(f"text: expected at least one word, got {text!r}; pass a sentence")
    rng = np.random.default_rng([seed, 5])
    return _joined([_spoken_phrase(words, voice, 1.0, rng) for words in runs])


def speak_words(duration: float, seed: int = 0) -> Speech:
    """Random phrases of common words. Each has its own voice, rate, loudness and background noise.

    The voices range from those of deep men to those of children, so that a portrait trained on them learns what they
    have in common: the phones.

    Args:
        duration: seconds, > 0; the sound has round(16000 * duration) samples.
        seed: of words and voices.
    """
    if not duration > 0:
        raise ValueError(f"duration: expected seconds > 0, got {duration}; ask for at least a frame, 0.04")
    rng = np.random.default_rng([seed, 6])
    n_samples, spoken, n = round(SAMPLE_RATE * duration), [], 0
    words = rng.permutation(COMMON_WORDS)
    while n < n_samples:
        chosen, words = words[: rng.integers(3, 8)], words[7:]
        if len(words) < 8:
            words = rng.permutation(COMMON_WORDS)
        phrase = _spoken_phrase(tuple(map(str, chosen)), _random_voice(rng), float(rng.uniform(0.8, 1.25)), rng)
        sound = phrase.samples * rng.uniform(0.4, 1.2)
        sound = sound + 10 ** rng.uniform(-4.5, -2.7) * rng.standard_normal(len(sound))
        spoken.append(Speech(phrase.timeline, np.clip(sound, -1, 1).astype(np.float32)))
        n += len(sound)
    whole = _joined(spoken)
    kept = [segment for segment in whole.timeline if segment.start < duration]
    kept[-1] = Segment(kept[-1].symbol, kept[-1].start, duration)
    return Speech(tuple(kept), whole.samples[:n_samples])


def _random_voice(rng: np.random.Generator) -> Voice:
    height = rng.uniform(0, 1)  # short tracts go with high voices, loosely
    return Voice(
        pitch=float(85 * 3.2 ** np.clip(height + 0.12 * rng.standard_normal(), 0, 1)),
        tract=float(0.92 + 0.3 * height + 0.03 * rng.standard_normal()),
        breath=float(rng.uniform(0.01, 0.2)),
        brightness=float(np.exp(rng.uniform(-0.4, 0.9))),
        melody=float(rng.uniform(0.3, 1.8)),
    )


def _spoken_phrase(words: tuple[str, ...], voice: Voice, slowness: float, rng: np.random.Generator) -> Speech:
    """A pause, then words. As long as a whole number of video frames."""
    timed = [(SILENCE, rng.uniform(*_PAUSE))]
    for word in words:
        for symbol in pronunciation(word):
            spread = (0.85, 1.35) if symbol in VOWELS else (0.85, 1.25)
            timed.append((symbol, slowness * PHONES[symbol].seconds * rng.uniform(*spread)))
    n_samples = -(-round(SAMPLE_RATE * sum(seconds for _, seconds in timed)) // _FRAME) * _FRAME
    ends = np.cumsum([seconds for _, seconds in timed])
    ends[-1] = n_samples / SAMPLE_RATE
    starts = np.concatenate(([0.0], ends[:-1]))
    timeline = tuple(Segment(symbol, float(a), float(b)) for (symbol, _), a, b in zip(timed, starts, ends, strict=True))
    return Speech(timeline, synthesize_sound(timeline, n_samples, voice, rng))


def _joined(spoken: list[Speech]) -> Speech:
    """One after the other, with a pause at the end."""
    segments, begin = [], 0.0
    pause = Speech((Segment(SILENCE, 0.0, 10 * _FRAME / SAMPLE_RATE),), np.zeros(10 * _FRAME, np.float32))
    for speech in (*spoken, pause):
        segments += [Segment(s.symbol, begin + s.start, begin + s.end) for s in speech.timeline]
        begin += len(speech.samples) / SAMPLE_RATE
    return Speech(tuple(segments), np.concatenate([speech.samples for speech in (*spoken, pause)]))
