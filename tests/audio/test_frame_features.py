"""What all extractors have in common: number of steps, equal results from a stream, errors."""

import numpy as np
import pytest

from ernerf_ti.audio.mel_spectrum import MelSpectrum
from ernerf_ti.audio.phone_posteriors import PhonePosteriors


@pytest.fixture(scope="module", params=[PhonePosteriors, MelSpectrum])
def extractor(request):
    return request.param()


@pytest.mark.parametrize("chunk", [100, 320, 1000, 48_000])
def test_stream_equals_the_whole(extractor, speech, chunk):
    sound = speech[:-77]  # not a whole number of steps
    n_steps = -(-len(sound) // 320)
    padded = np.pad(sound, (extractor.padding, extractor.padding + n_steps * 320 - len(sound)))
    frames = extractor.frames(padded, 0.0)
    stream = extractor.stream((frames.mean(0), frames.var(0)))
    chunks = [stream.push(sound[i : i + chunk]) for i in range(0, len(sound), chunk)]
    n_complete = sum(map(len, chunks))
    assert n_complete >= n_steps - 4  # latency
    features = np.concatenate([*chunks, stream.finish()])
    np.testing.assert_allclose(features, extractor(sound), atol=1e-6)
    assert len(stream.finish()) == 0


def test_stream_with_running_statistics(extractor, speech):
    stream = extractor.stream()
    sound = np.tile(speech, 3)
    features = np.concatenate([stream.push(sound[i : i + 640]) for i in range(0, len(sound), 640)])
    whole = extractor(sound)[: len(features)]
    later = slice(150, None)  # once the statistics have settled
    assert np.corrcoef(features[later].ravel(), whole[later].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("n", [0, 1, 319, 320, 321])
def test_short_sounds(extractor, n):
    sound = np.full(n, 0.1)
    assert extractor(sound).shape == (-(-n // 320), extractor.dimension)
    stream = extractor.stream()
    assert len(stream.push(sound)) + len(stream.finish()) == -(-n // 320)
    with pytest.raises(RuntimeError, match="this stream is finished; start a new one"):
        stream.push(sound)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 400)), r"expected a vector of floats at 16000 Hz, got float64 of shape \[2, 400\]"),
        (np.zeros(400, np.int16), "got int16 of shape .400.; mix to mono and divide integers by their full scale"),
        (np.full(400, np.nan), "expected finite values in .-1, 1., got nan; scale the sound to that range"),
        (np.full(400, 3.0), "got 3.0; scale the sound to that range"),
    ],
)
def test_bad_samples(extractor, samples, message):
    with pytest.raises(ValueError, match=message):
        extractor(samples)
    with pytest.raises(ValueError, match=message):
        extractor.stream().push(samples)


def test_steps_are_aligned(extractor):
    # A click in the middle of step 20 changes step 20 most, and only steps whose windows contain it.
    sound = 1e-3 * np.random.default_rng(2).standard_normal(16_000)
    clicked = sound.copy()
    clicked[20 * 320 + 160] = 0.9
    frames = extractor.frames(np.pad(sound, extractor.padding), 0.0)
    statistics = frames.mean(0), frames.var(0)
    features = []
    for samples in (sound, clicked):
        stream = extractor.stream(statistics)
        features.append(np.concatenate((stream.push(samples), stream.finish())))
    change = np.abs(features[1] - features[0]).sum(1)
    assert change[20] > 0.5 * change.max()
    reach = 1 + -(-extractor.context // 2)
    assert change[: 20 - reach].max() == 0
    assert change[20 + reach + 1 :].max() == 0
