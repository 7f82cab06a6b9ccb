import shutil
import struct
from pathlib import Path

import numpy as np
import pocketsphinx
import pytest

from ernerf_ti.audio.acoustic_model import load_acoustic_model
from ernerf_ti.audio.cepstra import cepstra
from ernerf_ti.audio.phone_posteriors import PhonePosteriors, feature_streams

MODEL = Path(pocketsphinx.get_model_path("en-us/en-us"))


@pytest.fixture(scope="module")
def extractor():
    return PhonePosteriors()


@pytest.fixture(scope="module")
def sphinx(speech, tmp_path_factory):
    """Cepstra and scores of pocketsphinx for the same sound, from its log files."""
    folder = tmp_path_factory.mktemp("sphinx")
    model = folder / "model"
    shutil.copytree(MODEL, model)
    parameters = (model / "feat.params").read_text()
    # The noise tracker adapts from frame to frame, so that results would depend on all the sound before.
    (model / "feat.params").write_text(parameters.replace("-remove_noise yes", "-remove_noise no"))
    decoder = pocketsphinx.Decoder(
        hmm=str(model),
        lm=None,
        dict=None,
        allphone=pocketsphinx.get_model_path("en-us/en-us-phone.lm.bin"),
        senlogdir=str(folder),
        mfclogdir=str(folder),
        compallsen=True,
        topn=128,
        loglevel="ERROR",
    )
    decoder.start_utt()
    decoder.process_raw((speech * 32768).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    frames = np.fromfile(next(folder.glob("*.mfc")), ">f4")[1:].reshape(-1, 13)
    data = next(folder.glob("*.sen")).read_bytes()
    body = np.frombuffer(data, np.int16, offset=data.find(b"endhdr\n") + 11)
    n_states = struct.unpack_from("<h", body)[0]
    scores = body.reshape(-1, n_states + 1)[:, 1 : 1 + 126]
    return frames, -scores.astype(float) * 1024 * np.log(1.0001)


def test_cepstra_match_sphinx(speech, sphinx):
    ours = cepstra(np.trunc(speech * 32768) / 32768)
    assert len(ours) > 280
    np.testing.assert_allclose(ours, sphinx[0][: len(ours)], atol=2e-3)  # float32 there


def test_scores_match_sphinx(extractor, sphinx):
    frames, scores = sphinx
    streams = feature_streams(np.pad(frames.astype(float), ((3, 3), (0, 0)), "edge"), frames.mean(0))
    # Sphinx limits how much less likely a Gaussian is than the best of its stream to 96 of its steps of 0.1. With the
    # same limit here, the remaining difference is its 8-bit sums of logarithms, which lose small terms.
    model, unit = extractor.model, 1024 * np.log(1.0001)
    limited = 0.0
    for f in range(3):
        x, mean, variance = streams[:, f, None, None], model.means[:, f], model.variances[:, f]
        logs = -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance)).sum(-1)
        logs = np.maximum(logs - logs.max((1, 2), keepdims=True), -96 * unit)
        limited += np.log(np.einsum("tpj,pjs->tps", np.exp(logs), np.exp(model.log_weights[:, f])))
    theirs = scores.reshape(limited.shape)
    limited, theirs = (x - x.max((1, 2), keepdims=True) for x in (limited, theirs))
    assert np.corrcoef(limited.ravel(), theirs.ravel())[0, 1] > 0.99
    # Without the limit the scores of likely states are the same.
    ours = model.log_likelihoods(streams)
    ours -= ours.max((1, 2), keepdims=True)
    assert np.median(np.abs(ours - theirs)[theirs > -2]) < 1.5 * unit


def test_model_holds_distributions(extractor):
    model = extractor.model
    assert len(model.phones) == extractor.dimension == 42
    assert {"AA", "B", "SIL", "ZH"} <= set(model.phones)
    sums = np.exp(model.log_weights).sum(2)
    assert np.abs(sums - 1).max() < 0.08  # 8 bits
    assert (model.variances >= 1e-4).all()


def test_log_likelihood_by_hand(extractor):
    model = extractor.model
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 3, 13)) * 3
    p, s = 7, 2
    expected = 0.0
    for f in range(3):
        density = np.exp(-0.5 * ((x[0, f] - model.means[p, f]) ** 2 / model.variances[p, f]).sum(-1))
        density /= np.sqrt(2 * np.pi * model.variances[p, f]).prod(-1)
        expected += np.log((density * np.exp(model.log_weights[p, f, :, s])).sum())
    assert model.log_likelihoods(x)[0, p, s] == pytest.approx(expected, rel=1e-9)


def test_features(extractor, speech):
    features = extractor(speech)
    assert features.shape == (150, 42)
    assert features.dtype == np.float32
    assert (features >= 0).all()
    assert (features <= 1).all()
    power = (features**2).sum(1)
    assert (power < 1 + 1e-5).all()
    assert power.mean() > 0.8  # the mean of two square roots is smaller where they differ
    # Silence is recognized as such, and the vowels are not.
    silence = features[:, extractor.model.phones.index("SIL")]
    assert silence[:4].mean() > 0.5
    assert silence[45:60].mean() < 0.3
    assert np.array_equal(features, extractor(speech))


def test_loudness_matters_little(extractor, speech):
    loud, soft = extractor(speech), extractor(speech * 0.25)
    assert np.corrcoef(loud.ravel(), soft.ravel())[0, 1] > 0.95


def test_bad_model_folders(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match="mdef: expected a file of the acoustic model, got no such file",
    ):
        load_acoustic_model(tmp_path)
    for name in ("mdef", "means", "variances", "sendump"):
        shutil.copy(MODEL / name, tmp_path)
    (tmp_path / "means").write_bytes(b"not parameters")
    with pytest.raises(ValueError, match="expected a Sphinx-3 parameter file"):
        load_acoustic_model(tmp_path)
    (tmp_path / "mdef").write_bytes(b"text")
    with pytest.raises(ValueError, match="expected a binary model definition"):
        load_acoustic_model(tmp_path)
