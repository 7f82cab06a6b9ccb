"""Speech models, tested with tiny random weights: the pretrained ones are not part of any package."""

import numpy as np
import pytest
import torch

from ernerf_ti.audio.speech_models import HubertStates, Wav2Vec2Letters
from ernerf_ti.audio.windows import audio_windows

transformers = pytest.importorskip("transformers")

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}


def save(folder, model):
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def hubert_folder(tmp_path_factory):
    torch.manual_seed(0)
    model = transformers.HubertModel(transformers.HubertConfig(**TINY))
    return save(tmp_path_factory.mktemp("hubert"), model)


@pytest.fixture(scope="module")
def wav2vec2_folder(tmp_path_factory):
    torch.manual_seed(0)
    model = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**TINY, vocab_size=44))
    return save(tmp_path_factory.mktemp("wav2vec2"), model)


def noise(n):
    return np.random.default_rng(4).uniform(-0.5, 0.5, n)


@pytest.mark.parametrize(("n", "frames"), [(0, 0), (399, 0), (16_000, 24), (16_080, 25), (16_400, 25)])
def test_hubert_shape(hubert_folder, n, frames):
    extractor = HubertStates(hubert_folder)
    states = extractor(noise(n))
    assert states.shape == (frames, 2, 16)
    assert states.dtype == np.float32


def test_hubert_states_are_those_of_the_model(hubert_folder):
    sound = noise(20_000)
    model = transformers.HubertModel.from_pretrained(hubert_folder).eval()
    x = torch.tensor((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7), dtype=torch.float32)[None]
    with torch.no_grad():
        expected = model(x).last_hidden_state[0].numpy()
    states = HubertStates(hubert_folder)(sound).reshape(-1, 16)
    np.testing.assert_allclose(states, expected[: len(states)], atol=1e-4)


def test_hubert_clips_are_joined(hubert_folder, monkeypatch):
    # Clips of 1 s: 50 states each, from samples that reach 80 into the next clip.
    sound = noise(3 * 16_000)
    whole = HubertStates(hubert_folder)(sound)
    monkeypatch.setattr("ernerf_ti.audio.speech_models._CLIP", 16_000)
    states = HubertStates(hubert_folder)(sound)
    assert states.shape == whole.shape
    model = transformers.HubertModel.from_pretrained(hubert_folder).eval()
    x = torch.tensor((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7), dtype=torch.float32)[None]
    with torch.no_grad():
        second = model(x[:, 16_000:32_080]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(states.reshape(-1, 16)[50:100], second, atol=1e-4)


@pytest.mark.parametrize("n", [0, 319, 320, 16_000, 50_000])
def test_wav2vec2_shape(wav2vec2_folder, n):
    letters = Wav2Vec2Letters(wav2vec2_folder)(noise(n))
    assert letters.shape == (n // 320, 44)
    assert letters.dtype == np.float32
    assert audio_windows(letters).shape[1:] == (16, 44)


def test_wav2vec2_steps_are_aligned(wav2vec2_folder):
    extractor = Wav2Vec2Letters(wav2vec2_folder)
    quiet = 1e-3 * noise(48_000)
    changed = quiet.copy()
    changed[40_000:40_320] += 0.5  # step 125, in the third second
    difference = np.abs(extractor(changed) - extractor(quiet)).sum(1)
    assert difference[:90].max() == 0  # more than the context of 10 steps before that second
    assert difference[100:150].max() > 0


def test_weights_of_another_model(wav2vec2_folder, hubert_folder):
    with pytest.raises(ValueError, match=r"expected the weights of a Wav2Vec2ForCTC, but \d+ of them are missing"):
        Wav2Vec2Letters(hubert_folder)


def test_bad_samples(hubert_folder, wav2vec2_folder):
    for extractor in (HubertStates(hubert_folder), Wav2Vec2Letters(wav2vec2_folder)):
        with pytest.raises(ValueError, match="expected a vector of floats at 16000 Hz, got int16"):
            extractor(np.zeros(500, np.int16))


@pytest.mark.parametrize("extractor", [HubertStates, Wav2Vec2Letters])
def test_missing_model(extractor, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        extractor(tmp_path)
    message = str(error.value)
    assert f"speech model {tmp_path}: not found as a folder with config.json, preprocessor_config.json and" in message
    assert message.endswith("download it and pass the path of its folder")


@pytest.mark.parametrize("extractor", [HubertStates, Wav2Vec2Letters])
def test_default_model_is_not_downloaded(extractor, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no-such-model: not found .*, nor in the transformers cache"):
        extractor("nobody/no-such-model")
