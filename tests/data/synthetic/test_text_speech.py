"""Speech of real words, and the dictionary behind it."""

import collections

import numpy as np
import pytest

from ernerf_ti.audio.phone_posteriors import PhonePosteriors
from ernerf_ti.audio.windows import audio_windows
from ernerf_ti.data.synthetic.lexicon import COMMON_WORDS, phrases, pronunciation
from ernerf_ti.data.synthetic.mouth import mouth_track
from ernerf_ti.data.synthetic.phonemes import PHONE_SETS, PHONES, SILENCE
from ernerf_ti.data.synthetic.speech import VOICES
from ernerf_ti.data.synthetic.text_speech import say, speak_words


def test_words_are_pronounced_as_the_dictionary_says():
    assert pronunciation("portrait") == ("P", "AO", "R", "T", "R", "AH", "T")
    assert pronunciation("I") == ("AY",)


def test_common_words_use_every_phone():
    counts = collections.Counter(phone for word in COMMON_WORDS for phone in pronunciation(word))
    assert set(counts) == {*PHONE_SETS["english"].vowels, *PHONE_SETS["english"].consonants, "ZH"}
    assert min(counts.values()) >= 5
    assert len(set(COMMON_WORDS)) == len(COMMON_WORDS)


def test_punctuation_makes_phrases():
    assert phrases("I am new. Don't stop,  go!") == (("I", "am", "new"), ("Don't", "stop"), ("go",))


def test_a_sentence_is_spoken_with_a_pause_before_each_phrase():
    speech = say("I am a boat. See me.", VOICES["bass"], 4)
    symbols = [segment.symbol for segment in speech.timeline]
    assert " ".join(symbols) == "SIL AY AE M AH B OW T SIL S IY M IY SIL"
    assert_continuous(speech)
    assert len(speech.samples) % 640 == 0
    assert say("I am a boat. See me.", VOICES["bass"], 4).samples.tobytes() == speech.samples.tobytes()


@pytest.mark.parametrize("duration", [0.04, 3.21, 12.0])
def test_random_words_last_as_asked(duration):
    speech = speak_words(duration, 2)
    assert len(speech.samples) == round(16_000 * duration) and speech.samples.dtype == np.float32
    assert np.abs(speech.samples).max() <= 1
    assert_continuous(speech)


def test_phrases_have_different_voices():
    """Fundamental frequencies of the phrases, by autocorrelation of their longest vowels."""
    speech = speak_words(30.0, 0)
    pitches, longest = [], None
    for segment in speech.timeline:
        if segment.symbol == SILENCE:
            if longest:
                sound = speech.samples[round(longest.start * 16_000) : round(longest.end * 16_000)].astype(np.float64)
                correlation = np.correlate(sound, sound, "full")[len(sound) - 1 :]
                low = 16_000 // 320
                pitches.append(16_000 / (low + correlation[low : 16_000 // 65].argmax()))
            longest = None
        elif PHONES[segment.symbol].voice == 1 and (
            not longest or segment.end - segment.start > longest.end - longest.start
        ):
            longest = segment
    assert len(pitches) >= 6
    assert min(pitches) < 140 and max(pitches) > 180


def test_words_in_many_voices_teach_the_mouth_of_a_new_one():
    """Ridge regression from the windows of 16 s to the opening, tested on a sentence in a fixed voice."""
    extractor = PhonePosteriors()

    def data(speech):
        n = len(speech.samples) // 640
        windows = audio_windows(extractor(speech.samples), n).reshape(n, -1).astype(np.float64)
        return windows, mouth_track(speech.timeline, n)[:, 0].astype(np.float64)

    windows, openings = data(speak_words(16.0, 0))
    center, mean = windows.mean(0), openings.mean()
    gram = (windows - center) @ (windows - center).T + 30 * np.eye(len(windows))
    weights = (windows - center).T @ np.linalg.solve(gram, openings - mean)
    sentence = "We will see how beautiful summer mornings follow spring, but my face is not a map."
    for voice in VOICES.values():
        windows, openings = data(say(sentence, voice, 3))
        predicted = (windows - center) @ weights
        assert np.corrcoef(predicted, openings)[0, 1] > 0.7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hello qzxv", "text: expected words of the CMU Pronouncing Dictionary, got 'qzxv'; use another word"),
        ("...", "text: expected at least one word, got '...'; pass a sentence"),
    ],
)
def test_texts_that_cannot_be_spoken(text, message):
    with pytest.raises(ValueError) as caught:
        say(text, VOICES["bass"])
    assert str(caught.value) == message


def assert_continuous(speech):
    assert speech.timeline[0].start == 0
    assert speech.timeline[-1].end == pytest.approx(len(speech.samples) / 16_000)
    for segment, following in zip(speech.timeline, speech.timeline[1:], strict=False):
        assert segment.end == following.start > segment.start
