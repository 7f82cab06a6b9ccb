"""Audio features by the name of their extractor."""

import numpy as np
import pytest

from ernerf_ti.audio.extractors import DEFAULT_EXTRACTOR, EXTRACTORS, current_name, extract_windows
from ernerf_ti.audio.phone_posteriors import PhonePosteriors
from ernerf_ti.audio.windows import audio_windows


@pytest.mark.parametrize(("extractor", "dimension"), [("ppg", 42), ("mel", 80)])
def test_one_window_per_frame(speech, extractor, dimension):
    samples = speech[:16_000]
    assert extract_windows(samples, extractor).shape == (25, 16, dimension)
    assert extract_windows(samples, extractor, n_frames=20).shape == (20, 16, dimension)


def test_windows_are_those_of_the_extractor(speech):
    samples = speech[:8_000]
    assert np.array_equal(extract_windows(samples, "ppg"), audio_windows(PhonePosteriors()(samples)))


@pytest.mark.parametrize("n_frames", [3, 4, 6])
def test_hubert_windows_fit_the_frames(monkeypatch, n_frames):
    class FourFrames:
        def __init__(self, model, device):
            assert (model, device) == ("facebook/hubert-large-ls960-ft", "cuda")

        def __call__(self, samples):
            return np.arange(4, dtype=np.float32)[:, None, None] * np.ones((1, 2, 8), np.float32)

    monkeypatch.setattr("ernerf_ti.audio.speech_models.HubertStates", FourFrames)
    windows = extract_windows(np.zeros(16_000), "hubert", n_frames, device="cuda")
    assert windows[:, 0, 0].tolist() == [0, 1, 2, 3, 3, 3][:n_frames]


def test_former_name(speech):
    assert DEFAULT_EXTRACTOR == current_name("senone") == "ppg"
    assert [current_name(name) for name in (*EXTRACTORS, "deepspeech")] == [*EXTRACTORS, "deepspeech"]
    samples = speech[:8_000]
    assert np.array_equal(extract_windows(samples, "senone"), extract_windows(samples, "ppg"))


def test_unknown_extractor():
    with pytest.raises(
        ValueError, match="extractor: expected one of ppg, whisper, mel, esperanto, hubert, got 'deepspeech'"
    ):
        extract_windows(np.zeros(16_000), "deepspeech")


def test_missing_model(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(FileNotFoundError, match="download it and pass the path of its folder"):
        extract_windows(np.zeros(16_000), "hubert", model=tmp_path / "nowhere")
