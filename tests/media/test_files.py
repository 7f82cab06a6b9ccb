import errno
import json
import os
import re
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ernerf_ti.media.files import file_digest, read_arrays, read_json, write_arrays, write_json
from ernerf_ti.media.whole_files import DiskFullError, holding, remove_leftovers, replacing, temporary_folder

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


KILLED = """
import os, signal, sys
from pathlib import Path
from ernerf_ti.media.whole_files import replacing, temporary_folder
folder = Path(sys.argv[1])
with replacing(folder / "checkpoint.pt") as file, temporary_folder(folder / "capture") as inner:
    file.write_text("half")
    (inner / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there the age of files decides")
def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    kept = [".hidden.tmp", ".checkpoint.12.pt", "a.0123456789abcdef.tmp.pt", ".b.tmp.pt", "checkpoint.pt"]
    for name in kept:
        (tmp_path / name).write_text("x")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x").touch()
    link = f".link.{'0' * 16}.tmp"
    (tmp_path / link).symlink_to(tmp_path / "precious")
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    left = set(names(tmp_path)) - {*kept, "precious", link}
    assert len(left) == 2
    with replacing(tmp_path / "other.txt") as alive, temporary_folder(tmp_path / "new") as alive_folder:
        assert left.isdisjoint(names(tmp_path)), "the first writing to a folder cleans it"
        alive.write_text("new")
        remove_leftovers(tmp_path)
        assert names(tmp_path) == sorted([*kept, "precious", link, alive.name, alive_folder.name])
    assert names(tmp_path) == sorted([*kept, "precious", link, "other.txt"])
    assert (tmp_path / "precious" / "x").exists()


def test_where_nothing_can_be_locked_the_age_decides(tmp_path, monkeypatch):
    monkeypatch.setattr("ernerf_ti.media.whole_files.fcntl", None)
    with replacing(tmp_path / "checkpoint.pt") as temporary:
        leftover = tmp_path / temporary.name
    leftover.touch()
    remove_leftovers(tmp_path)
    assert leftover.exists(), "it may belong to a running process"
    os.utime(leftover, (time.time() - 601, time.time() - 601))
    remove_leftovers(tmp_path)
    assert not leftover.exists()


HOLDING = """
import os, signal, sys
from pathlib import Path
from ernerf_ti.media.whole_files import holding
with holding(Path(sys.argv[1])) as is_free:
    print(is_free, flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders can't be locked there")
def test_one_process_holds_a_folder_until_it_ends(tmp_path):
    folder, pipe = tmp_path / "runs" / "run", subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(folder)], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "True\n"
        with holding(folder) as is_free:
            assert not is_free
        assert folder.is_dir(), "it is the other's"
        other.communicate("\n")
    with holding(folder) as is_free:
        assert is_free, "a killed process holds nothing"
    assert names(folder) == []


def test_a_folder_that_was_made_to_be_held_goes_with_the_holder(tmp_path, monkeypatch):
    with holding(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    with holding(tmp_path / "used"):
        (tmp_path / "used" / "file").touch()
    monkeypatch.setattr("ernerf_ti.media.whole_files.fcntl", None)
    with holding(tmp_path / "used") as first, holding(tmp_path / "used") as second:
        assert first and second, "where there are no locks, nothing is refused"
    assert names(tmp_path) == ["used"]


def test_a_link_at_the_output_is_kept(tmp_path):
    (tmp_path / "large").mkdir()
    link = tmp_path / "a.json"
    link.symlink_to(tmp_path / "large" / "b.json")
    write_json(link, 1)
    write_json(link, 2)
    assert link.is_symlink() and read_json(tmp_path / "large" / "b.json") == 2
    assert names(tmp_path / "large") == ["b.json"]
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="loop"):
        write_json(loop, 1)


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no devices")
def test_a_device_is_not_replaced():
    with pytest.raises(ValueError, match=r"/dev/null: expected a file to write, got a device or a pipe"):
        write_json(Path("/dev/null"), 1)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), OSError("1000 requested and 96 written")],
    ids=["error number", "NumPy"],
)
def test_a_full_disk_is_one_line(tmp_path, error):
    path = tmp_path / "a.npy"
    path.write_text("old")

    def write():
        with replacing(path, 1_234_567):
            raise error

    with pytest.raises(DiskFullError) as caught:
        write()
    assert re.fullmatch(
        rf"{path}: the disk is full, .*: 1,234,567 bytes are needed, [\d,]+ bytes are free; make room and run the "
        "command again",
        str(caught.value),
    )
    assert path.read_text() == "old" and names(tmp_path) == ["a.npy"]


def test_a_target_that_can_not_be_replaced_loses_nothing(tmp_path, monkeypatch):
    path, rename = tmp_path / "a.json", Path.replace

    def busy(source, target):
        if target == path:
            raise PermissionError(errno.EBUSY, "Device or resource busy")
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr("ernerf_ti.media.whole_files._RENAME_PAUSES", (0.0,))
    with pytest.raises(PermissionError, match=r"a.json: can't be replaced .*; the complete file is (.*)") as caught:
        write_json(path, [1])
    kept = Path(str(caught.value).rpartition("file is ")[2])
    assert read_json(kept) == [1] and names(tmp_path) == [kept.name]


@pytest.mark.parametrize(
    "name",
    [
        "take:1.json",
        " a b ",
        "-o",
        "Zoë 話.json",
        "a\nb.json",
        os.fsdecode(b"\xff.json"),
        "n" * 255,
        "話" * 80 + ".json",
    ],
)
def test_any_file_name(tmp_path, name):
    write_json(tmp_path / name, 1)
    assert read_json(tmp_path / name) == 1 and names(tmp_path) == [name]


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
