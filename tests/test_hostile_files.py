"""Mutated files of every kind that is read: they are read, or one error names the file; nothing else happens.

`pytest tests/test_hostile_files.py --fuzz 8` tries more than 20,000 of them.
"""

import contextlib
import json
import random
import resource
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ernerf_ti.audio.ready_made import read_windows
from ernerf_ti.audio.whisper_weights import load_whisper
from ernerf_ti.data.capture import open_capture
from ernerf_ti.data.capture_files import (
    CapturePaths,
    read_blinks,
    read_description,
    read_landmarks,
    read_transforms,
    write_sound,
)
from ernerf_ti.interop.ngp_files import read_official_file
from ernerf_ti.media.files import read_arrays, read_json, write_arrays
from ernerf_ti.media.images import read_image, write_image
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import probe, read_frames
from ernerf_ti.media.video_writer import write_video
from ernerf_ti.run.checkpoint import load_checkpoint
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.serialization import config_from_dict, config_to_dict
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.train.config import TrainConfig
from ernerf_ti.train.trainer import Trainer
from ernerf_ti.train.training_log import rewind_log, training_seconds
from tests.audio.whisper_files import openai_tensors, write_ctranslate2, write_openai
from tests.interop.making import random_tensors, save
from tests.train.conftest import capture, config  # noqa: F401, fixtures

ODD = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**70, 10**400, -0.5, 1e-320, 1e308, float("nan"), float("inf")),
    *("", "x", "../../x", "\ud800", "1e5", [], {}, [[]], [1, "a"], {"a": 1}),
)
"""Values in place of others."""


_SECONDS, _KILOBYTES = 20, 1 << 20

WORDS = b"nan", b"inf", b"1e999", b'"', b"", b"1e30", b"-1", b"\xff", b"9" * 5000


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """A copy that is cut off, overwritten, or has other sizes in it."""
    data = bytearray(data)
    kind = rng.randrange(5)
    at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 400))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 2:
        size = rng.choice([2, 4, 8])
        value = rng.choice([0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 4), 60_000])
        data[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, rng.choice(["little", "big"]))
    elif kind == 3:
        data[at : at + rng.randrange(64)] = rng.randbytes(rng.randrange(64))
    else:
        data += data[at:]
    return bytes(data)


def mutated_value(rng: random.Random, value):
    """A copy of a JSON value with one part replaced, removed or repeated."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutated_value(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        if rng.random() < 0.1:
            return value[:at] + value[at:][rng.randrange(2) * 2 :]
        return [*value[:at], mutated_value(rng, value[at]), *value[at + 1 :]]
    return rng.choice(ODD)


def mutated_json(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.25:
        return mutated_bytes(rng, data)
    try:
        return json.dumps(mutated_value(rng, json.loads(data))).encode()
    except ValueError:  # a log: many lines
        lines = data.splitlines()
        at = rng.randrange(len(lines))
        return b"\n".join([*lines[:at], mutated_json(rng, lines[at]), *lines[at + 1 :]])


def mutated_text(rng: random.Random, data: bytes) -> bytes:
    """Another word in place of one."""
    if rng.random() < 0.4:
        return mutated_bytes(rng, data)
    words = data.split(b" ")
    words[rng.randrange(len(words))] = rng.choice(
        [b"nan", b"inf", b"1e999", b'"', b"", b"1e30", b"-1", b"\xff", b"9" * 5000]
    )
    return b" ".join(words)


def mutated_checkpoint(rng: random.Random, path: Path, whole: dict) -> None:
    """Another value in the place of one, or other bytes."""
    if rng.random() < 0.3:
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
        return
    content, inner = dict(whole), None
    inner = content
    while True:
        key = rng.choice(list(inner))
        if isinstance(inner[key], dict) and inner[key] and rng.random() < 0.9:
            inner[key] = dict(inner[key])
            inner = inner[key]
            continue
        break
    value = inner[key]
    if isinstance(value, torch.Tensor) and rng.random() < 0.8:
        other = [
            torch.zeros(1).expand(10**9, 4),
            value.new_zeros(0),
            value.reshape(-1)[:1],
            value[None],
            value.to(torch.complex64),
            value.to(torch.uint8),
            -value if value.dtype == torch.uint8 else value * float("nan"),
            value + 100,
            value * 1e30,
        ]
        inner[key] = rng.choice(other)
    elif rng.random() < 0.1:
        del inner[key]
    else:
        inner[key] = rng.choice(ODD)
    torch.save(content, path)


@contextlib.contextmanager
def within_limits(path: Path) -> Iterator[None]:
    """AssertionError if a file takes 20 s, or takes more than 1 GB beyond what the process had before."""

    def stop(*_):
        raise AssertionError(f"{path.name}: expected to be read or refused within {_SECONDS} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < _KILOBYTES, f"{path.name}: {grown} kB of memory for a file of {path.stat().st_size} bytes"


@pytest.fixture(autouse=True)
def factor(request, monkeypatch):
    monkeypatch.setattr(Fuzz, "factor", request.config.getoption("--fuzz"))


class Fuzz:
    """Runs a reader on mutated copies of a file."""

    factor = 1
    """By which the numbers of cases are multiplied."""

    def __init__(self, path: Path, read: Callable[[Path], object], name: str = ""):
        self.path, self.read, self.data = path, read, path.read_bytes()
        self.name = name or path.name
        """Of the file or folder that errors must name."""

    def run(self, n: int, mutate: Callable[[random.Random, bytes], bytes]) -> int:
        """Number of files that were read."""
        rng, n_read = random.Random(self.path.name), 0
        try:
            for _ in range(n * self.factor):
                self.path.write_bytes(mutate(rng, self.data))
                n_read += self.outcome()
        finally:
            self.path.write_bytes(self.data)
        return n_read

    def outcome(self) -> bool:
        try:
            with warnings.catch_warnings(), within_limits(self.path):
                warnings.simplefilter("ignore")
                self.read(self.path)
        except (ValueError, OSError) as error:
            named = self.name in str(error) and not isinstance(error, UnicodeError)
            if not named:
                raise AssertionError(f"{error!r} does not name {self.path}") from error
            return False
        except Exception as error:
            raise AssertionError(f"{self.path.name}: {type(error).__name__}: {error}") from error
        return True


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (24, 32, 3), np.uint8)
    write_image(folder / "picture.png", picture)
    write_image(folder / "photo.jpg", picture)
    sound = rng.uniform(-0.1, 0.1, 3200).astype(np.float32)
    write_sound(folder / "sound.wav", sound)
    write_video(folder / "clip.mp4", [picture] * 5, 25, sound)
    write_arrays(folder / "mesh.npz", points=rng.standard_normal((5, 3)), valid=np.ones(5, bool))
    np.save(folder / "windows.npy", rng.standard_normal((4, 16, 42)).astype(np.float32))
    return folder


@pytest.mark.parametrize(
    ("name", "read", "n"),
    [
        ("picture.png", read_image, 150),
        ("photo.jpg", read_image, 150),
        ("sound.wav", read_sound, 100),
        ("clip.mp4", lambda path: (probe(path), sum(1 for _ in read_frames(path, 25)), read_sound(path)), 60),
        ("mesh.npz", read_arrays, 200),
        ("windows.npy", read_windows, 200),
    ],
)
def test_media_and_arrays(files, name, read, n):
    Fuzz(files / name, read).run(n, mutated_bytes)


@pytest.mark.parametrize(
    ("path_of", "read", "mutate"),
    [
        (lambda paths: paths.transforms("train"), read_transforms, mutated_json),
        (lambda paths: paths.description, read_description, mutated_json),
        (lambda paths: paths.description, read_json, mutated_json),
        (lambda paths: paths.landmarks(0), read_landmarks, mutated_text),
        (lambda paths: paths.blinks, lambda path: read_blinks(path, 22), mutated_text),
    ],
    ids=["transforms", "capture.json", "json", "landmarks", "au.csv"],
)
def test_files_of_a_capture(capture, tmp_path, path_of, read, mutate):  # noqa: F811
    path = tmp_path / path_of(capture.paths).name
    shutil.copy(path_of(capture.paths), path)
    Fuzz(path, read).run(250, mutate)


def test_whole_captures(capture, tmp_path):  # noqa: F811
    folder = tmp_path / "capture"
    shutil.copytree(capture.folder, folder)
    paths = CapturePaths(folder)
    for path in (paths.transforms("train"), paths.transforms("val"), paths.description):
        Fuzz(path, lambda _: open_capture(folder), folder.name).run(20, mutated_json)


@pytest.fixture
def run(capture, config, tmp_path) -> RunFolder:  # noqa: F811
    trainer = Trainer(capture, config, tmp_path / "run")
    trainer.train_step()
    trainer.save()
    log = [{"stage": "head", "step": k, "loss": 0.1, "statistics": {"psnr": 20.0}, "seconds": k * 0.1} for k in (1, 2)]
    RunFolder(trainer.folder).log.write_text("".join(json.dumps(entry) + "\n" for entry in log))
    return RunFolder(trainer.folder)


def test_checkpoints(run, capture):  # noqa: F811
    rng, path = random.Random(3), run.checkpoint
    whole = torch.load(path, weights_only=True)

    def read(path: Path) -> None:
        load_portrait(path)
        Trainer.resume(capture, path.parent)

    fuzz = Fuzz(path, read)
    for _ in range(60 * Fuzz.factor):
        mutated_checkpoint(rng, path, whole)
        fuzz.outcome()
        path.write_bytes(fuzz.data)
    assert fuzz.outcome()


def test_checkpoints_of_the_public_code(tmp_path):
    path = save(tmp_path / "ngp.pth", random_tensors(1, 29, True, 4))
    rng, whole = random.Random(6), torch.load(path, weights_only=True)
    fuzz = Fuzz(path, read_official_file)
    for _ in range(20 * Fuzz.factor):
        mutated_checkpoint(rng, path, whole)
        fuzz.outcome()
        path.write_bytes(fuzz.data)
    assert fuzz.outcome()


@pytest.mark.parametrize(("name", "write"), [("model.bin", write_ctranslate2), ("tiny.pt", write_openai)])
def test_whisper_models(tmp_path, name, write):
    path = write(tmp_path / name, openai_tensors())
    Fuzz(path, lambda path: load_whisper(path, 1)).run(150, mutated_bytes)


def test_every_flipped_bit_of_a_checkpoint_is_found(run):
    data, rng = run.checkpoint.read_bytes(), random.Random(4)
    for _ in range(20 * Fuzz.factor):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data) // 8, len(data) * 7 // 8)] ^= 1 << rng.randrange(8)
        run.checkpoint.write_bytes(flipped)
        try:
            content = load_checkpoint(run.checkpoint)
        except ValueError:
            continue
        run.checkpoint.write_bytes(data)  # it was in the padding between records
        whole = load_checkpoint(run.checkpoint)
        assert all(torch.equal(content["portrait"][name], value) for name, value in whole["portrait"].items())


def test_logs(run):
    def read(path: Path) -> None:
        training_seconds(path)
        rewind_log(run, "head", 2)

    Fuzz(run.log, read).run(40, mutated_json)


def test_configurations():
    rng = random.Random(5)

    values = config_to_dict(TrainConfig())
    for _ in range(300 * Fuzz.factor):
        try:
            config_from_dict(TrainConfig, mutated_value(rng, values), "run.pt: config")
        except ValueError as error:
            message = str(error)
            assert message.startswith("run.pt: config")
