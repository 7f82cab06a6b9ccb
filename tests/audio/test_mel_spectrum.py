import numpy as np

from ernerf_ti.audio.mel_spectrum import MelSpectrum


def test_normalized(speech):
    features = MelSpectrum()(speech)
    assert features.shape == (150, 80)
    assert features.dtype == np.float32
    assert np.abs(features.mean(0)).max() < 1e-3
    assert 0.7 < features.std() <= 1  # the mean of two frames varies a little less than one


def test_a_tone_is_heard_in_its_band():
    time = np.arange(32_000) / 16_000
    sound = 0.5 * np.sin(2 * np.pi * np.where(time < 1, 500, 3000) * time)
    features = MelSpectrum()(sound)
    low, high = features[10:40].mean(0), features[60:90].mean(0)
    assert (low - high).argmax() < (high - low).argmax()


def test_loudness_does_not_matter(speech):
    loud, soft = MelSpectrum()(speech), MelSpectrum()(speech * 0.5)
    assert np.corrcoef(loud.ravel(), soft.ravel())[0, 1] > 0.98
