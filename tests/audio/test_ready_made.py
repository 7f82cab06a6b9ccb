import numpy as np
import pytest

from ernerf_ti.audio.mel_spectrum import MelSpectrum
from ernerf_ti.audio.phone_posteriors import PhonePosteriors
from ernerf_ti.audio.ready_made import FORMATS, load_windows, read_windows, save_windows
from ernerf_ti.audio.windows import WINDOW, audio_windows


@pytest.mark.parametrize("form", FORMATS, ids=lambda f: f.extractor)
def test_round_trip(form, tmp_path):
    windows = np.random.default_rng(0).standard_normal((7, form.window, form.dimension)).astype(np.float32)
    path = save_windows(tmp_path, form.extractor, windows)
    assert path == tmp_path / form.file_name
    assert np.array_equal(load_windows(tmp_path, form.extractor), windows)
    assert [p.name for p in tmp_path.iterdir()] == [form.file_name]


def test_float64_files_load_as_float32(tmp_path):
    np.save(tmp_path / "aud_ds.npy", np.ones((3, 16, 29)))  # as ER-NeRF writes them
    assert load_windows(tmp_path, "deepspeech").dtype == np.float32


@pytest.mark.parametrize("extractor", [PhonePosteriors, MelSpectrum])
def test_formats_match_the_extractors(extractor, speech, tmp_path):
    windows = audio_windows(extractor()(speech))
    assert windows.shape[1] == WINDOW
    save_windows(tmp_path, extractor.name, windows)
    assert len(load_windows(tmp_path, extractor.name)) == 75


def test_wrong_dimension(tmp_path):
    np.save(tmp_path / "aud_ds.npy", np.zeros((5, 16, 44)))
    with pytest.raises(ValueError) as error:
        load_windows(tmp_path, "deepspeech")
    assert "expected deepspeech features of shape [T, 16, 29], got [5, 16, 44]" in str(error.value)
    assert "which looks like esperanto (aud_eo.npy)" in str(error.value)


def test_aud_npy_instead_of_aud_ds_npy(tmp_path):
    np.save(tmp_path / "aud.npy", np.zeros((5, 16, 29)))
    with pytest.raises(
        FileNotFoundError, match=r"aud_ds.npy: .* aud.npy in the same folder .* rename it to aud_ds.npy"
    ):
        load_windows(tmp_path, "deepspeech")
    with pytest.raises(FileNotFoundError, match="got no such file; extract the features first"):
        load_windows(tmp_path, "hubert")


def test_features_of_another_extractor(tmp_path):
    save_windows(tmp_path, "ppg", np.zeros((5, 16, 42)))
    with pytest.raises(FileNotFoundError, match=r"aud_mel.npy: .*; the folder has ppg features"):
        load_windows(tmp_path, "mel")


def test_broken_files(tmp_path):
    (tmp_path / "aud_hu.npy").write_bytes(b"not an array")
    with pytest.raises(ValueError, match=r"aud_hu.npy: expected an .npy file of numbers, got something else \("):
        load_windows(tmp_path, "hubert")
    for value in (np.nan, np.inf, 1e39):
        np.save(tmp_path / "aud_mel.npy", np.full((2, 16, 80), value))
        for read in (lambda: load_windows(tmp_path, "mel"), lambda: read_windows(tmp_path / "aud_mel.npy")):
            with pytest.raises(ValueError, match=r"aud_mel.npy: expected finite float32 numbers, got NaN, infinity or"):
                read()


@pytest.mark.parametrize("values", [np.array(["a"]), np.array([None]), np.zeros(2, complex)])
def test_no_numbers(values, tmp_path):
    np.save(tmp_path / "aud_hu.npy", values)
    with pytest.raises(ValueError, match=r"aud_hu.npy: expected an .npy file of numbers, got something else \("):
        load_windows(tmp_path, "hubert")


def test_an_npz_is_no_npy(tmp_path):
    with open(tmp_path / "aud_hu.npy", "wb") as file:
        np.savez(file, a=np.zeros(3))
    with pytest.raises(ValueError, match=r"got something else \(the magic string is not correct"):
        load_windows(tmp_path, "hubert")


def test_a_header_that_claims_more_than_the_memory(tmp_path):
    np.save(tmp_path / "aud_ds.npy", np.zeros((1, 16, 29)))
    data = (tmp_path / "aud_ds.npy").read_bytes()
    (tmp_path / "aud_ds.npy").write_bytes(data.replace(b"(1, 16, 29), }" + 10 * b" ", b"(10000000000, 16, 29), }"))
    assert b"10000000000" in (tmp_path / "aud_ds.npy").read_bytes()
    with pytest.raises(ValueError, match=r"aud_ds.npy: expected an .npy file of numbers"):
        load_windows(tmp_path, "deepspeech")


def test_file_named_by_an_earlier_version(tmp_path):
    windows = np.random.default_rng(0).standard_normal((5, 16, 42)).astype(np.float32)
    save_windows(tmp_path, "ppg", windows).rename(tmp_path / "aud_senone.npy")
    for name in ("ppg", "senone"):
        assert np.array_equal(load_windows(tmp_path, name), windows)
    with pytest.raises(FileNotFoundError, match="the folder has ppg features"):
        load_windows(tmp_path, "mel")
    save_windows(tmp_path, "ppg", windows + 1)
    assert np.array_equal(load_windows(tmp_path, "senone"), windows + 1)  # the newer file wins


def test_unknown_extractor(tmp_path):
    with pytest.raises(
        ValueError, match="extractor: expected one of deepspeech, esperanto, hubert, ppg, whisper, mel, other, got 'x'"
    ):
        load_windows(tmp_path, "x")
    with pytest.raises(ValueError, match=r"windows: expected those of one of .*, got \[2, 3, 4\] for 'mel'"):
        save_windows(tmp_path, "mel", np.zeros((2, 3, 4)))


@pytest.mark.parametrize(("shape", "extractor"), [((5, 16, 29), "deepspeech"), ((5, 2, 1024), "hubert")])
def test_extractor_is_recognized_by_the_shape(tmp_path, shape, extractor):
    windows = np.random.default_rng(0).normal(size=shape)
    np.save(tmp_path / "aud.npy", windows)
    name, read = read_windows(tmp_path / "aud.npy")
    assert name == extractor
    assert np.array_equal(read, windows.astype(np.float32))


def test_shape_of_no_extractor(tmp_path):
    np.save(tmp_path / "aud.npy", np.zeros((5, 16, 31)))
    with pytest.raises(ValueError, match=r"\[T, 16, 29\] \(deepspeech\).*got \[5, 16, 31\]"):
        read_windows(tmp_path / "aud.npy")
    with pytest.raises(FileNotFoundError, match="expected windows of audio features"):
        read_windows(tmp_path / "none.npy")
