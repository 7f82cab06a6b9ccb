import json
import os
import stat
import zipfile

import numpy as np
import pytest

from ernerf_ti.media.files import (
    file_digest,
    read_arrays,
    read_json,
    remove_leftovers,
    replacing,
    write_arrays,
    write_json,
)

RNG = np.random.default_rng(3)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replacing_appears_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.suffix == ".txt"
        assert temporary.parent == tmp_path
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_replacing_keeps_the_old_file_after_an_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    # Even where the name can be guessed: the file is created exclusively.
    monkeypatch.setattr("secrets.token_hex", lambda n: "0" * 2 * n)
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (tmp_path / f".a.{'0' * 16}.tmp.txt").symlink_to(victim)
    with (
        pytest.raises(FileExistsError, match=r"a.txt: can't create the file \(File exists\)"),
        replacing(tmp_path / "a.txt"),
    ):
        raise AssertionError("not reached")
    assert victim.read_text() == "precious"
    assert (tmp_path / f".a.{'0' * 16}.tmp.txt").is_symlink()


def test_temporary_names_differ(tmp_path):
    with replacing(tmp_path / "a.txt") as first, replacing(tmp_path / "a.txt") as second:
        assert first != second


def test_new_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    with replacing(tmp_path / "checkpoint.pt") as temporary:
        leftover = temporary.name
    kept = [".hidden.tmp", ".checkpoint.12.pt", "a.0123456789abcdef.tmp.pt", ".b.tmp.pt", "checkpoint.pt"]
    for name in [leftover, *kept]:
        (tmp_path / name).write_text("x")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / leftover).write_text("x")
    remove_leftovers(tmp_path, unused_for=3600)
    assert leftover in names(tmp_path), "it may belong to a running process"
    hour_ago = (tmp_path / leftover).stat().st_mtime - 3601
    os.utime(tmp_path / leftover, (hour_ago, hour_ago))
    remove_leftovers(tmp_path, unused_for=3600)
    assert names(tmp_path) == sorted([*kept, "inner"])
    assert names(tmp_path / "inner") == [leftover]


def test_json(tmp_path):
    path = tmp_path / "a.json"
    value = {"fps": 25.0, "frames": [1, 2], "name": "Zoë"}
    write_json(path, value)
    assert read_json(path) == value
    assert names(tmp_path) == ["a.json"]


def test_json_that_can_not_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [object()])
    assert read_json(path) == [1]
    assert names(tmp_path) == ["a.json"]


def test_no_json(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError) as error:
        read_json(path)
    assert f"{path}: expected a JSON file, got no such file; check" in str(error.value)
    path.write_text(json.dumps({"a": [1, 2]})[:-2])
    with pytest.raises(ValueError) as error:
        read_json(path)
    assert f"{path}: not valid JSON (Expecting" in str(error.value)
    assert str(error.value).endswith("; create the file again")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON \('utf-8' codec"):
        read_json(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON"):
        read_json(path)


def test_arrays(tmp_path):
    arrays = {"points": RNG.standard_normal((3, 2)).astype(np.float32), "valid": np.array([True, False])}
    for name in ("a.npz", "b.npz"):
        write_arrays(tmp_path / name, **arrays)
    found = read_arrays(tmp_path / "a.npz")
    assert list(found) == ["points", "valid"]
    for key, value in arrays.items():
        assert found[key].dtype == value.dtype and np.array_equal(found[key], value)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as file:  # no time of writing, that would differ in a later run
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert names(tmp_path) == ["a.npz", "b.npz"]


@pytest.mark.parametrize("kept", [0, 10, 200, -1])
def test_truncated_arrays(kept, tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, points=RNG.standard_normal(100))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"a\.npz: damaged or not an \.npz file \(.*\); create the file again"):
        read_arrays(path)


def test_one_array_is_not_an_npz(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.npz: damaged or not an \.npz file"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("read", [read_json, read_arrays, file_digest])
def test_a_folder_for_a_file(read, tmp_path):
    with pytest.raises(IsADirectoryError) as error:
        read(tmp_path)
    assert f"{tmp_path}: expected a" in str(error.value)
    assert "file, got a folder; pass the path of a file" in str(error.value)
