"""Damaged and foreign checkpoints: one line that names the file and what is wrong."""

import re
import signal

import pytest
import torch

from ernerf_ti.data.capture import Capture
from ernerf_ti.media.whole_files import DiskFullError
from ernerf_ti.run.checkpoint import load_checkpoint, save_checkpoint
from ernerf_ti.run.trained_portrait import load_portrait
from ernerf_ti.train.trainer import Trainer
from tests.train.conftest import capture, config  # noqa: F401, fixtures


@pytest.fixture
def content(capture: Capture, config, tmp_path) -> dict:  # noqa: F811
    Trainer(capture, config, tmp_path / "run").save()
    return load_checkpoint(tmp_path / "run" / "checkpoint.pt")


def damaged(content: dict, key: str, value) -> dict:
    """A copy with another value, or without the entry if the value is None."""
    *groups, last = key.split("/")
    copy = target = dict(content)
    for group in groups:
        target[group] = dict(target[group])
        target = target[group]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return copy


TRAINING = ("train_config", "stage", "step", "stage_finished", "cameras", "optimizer", "average")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("portrait", None, "expected the entry portrait, got none"),
        ("portrait_config", [1], "expected the entry portrait_config as dict, got list"),
        ("capture/n_train", None, "expected the entry n_train, got none"),
        ("capture/n_train", 10**15, r"expected tensors of portrait .* got .* instead of \[4096, "),
        ("capture/n_train", 0, "expected n_train of the capture to be at least 1, got 0"),
        ("capture/width", "48", "expected the entry width as int, got str"),
        ("scene/poses", torch.zeros(4, 4), r"expected poses of shape \[-1, 4, 4\], got \[4, 4\]"),
        ("scene/background", None, "expected the entry background, got none"),
        ("portrait_config/hed", 1, "portrait_config: expected only the fields .*, got also hed"),
        ("portrait_config/head", {"bound": "1"}, r"portrait_config.head.bound: expected .*float.*, got '1'"),
        (
            "portrait_config/head_grid",
            {"resolution": 2**40},
            "expected a power of two from 2 to 1024, got 1099511627776",
        ),
        ("portrait_config/torso", {"log2_table_size": 62}, "expected .*; the file is damaged"),
        ("portrait/head.color_net.layers.0.weight", None, "got no tensor head.color_net.layers.0.weight; the file"),
        ("portrait/other", torch.zeros(1), "got an unknown tensor other; the file is damaged"),
        (
            "portrait/head.color_net.layers.0.weight",
            torch.zeros(3),
            r"got \[3\] instead of \[\d+, \d+\] for head.color",
        ),
        ("portrait/head.color_net.layers.0.weight", "x", "got str instead of .* for head.color_net.layers.0.weight"),
    ],
)
def test_damaged_portraits(content, tmp_path, key, value, text):
    save_checkpoint(tmp_path / "damaged.pt", damaged(content, key, value))
    with pytest.raises(ValueError, match=f"damaged.pt: .*{text}") as error:
        load_portrait(tmp_path / "damaged.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        *((name, None, f"expected the entry {name}, got none") for name in TRAINING),
        ("stage", "body", "expected stage one of head, finetune, torso, got 'body'"),
        ("step", True, "expected the entry step as int, got bool"),
        ("train_config/seeed", 1, "config: expected only the fields .*, got also seeed"),
        ("cameras/rotations", torch.zeros(1), r"expected tensors of cameras .*, got \[1\] instead of \[\d+, 3\]"),
        ("optimizer/param_groups", [], "expected a state of optimizer that fits the configuration, got loaded state"),
        ("average/n", None, "expected a state of average that fits the configuration, got 'n'"),
    ],
)
def test_damaged_training_states(content, capture, tmp_path, key, value, text):  # noqa: F811
    (tmp_path / "damaged").mkdir()
    save_checkpoint(tmp_path / "damaged" / "checkpoint.pt", damaged(content, key, value))
    with pytest.raises(ValueError, match=f"checkpoint.pt: .*{text}") as error:
        Trainer.resume(capture, tmp_path / "damaged")
    assert "\n" not in str(error.value)


def test_other_files(tmp_path):
    path = tmp_path / "file.pt"
    with pytest.raises(FileNotFoundError, match=r"file\.pt: expected a checkpoint, got no such file"):
        load_checkpoint(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="expected a checkpoint of ernerf-ti, got a file that torch can't read"):
        load_checkpoint(path)
    torch.save({"format_version": 99}, path)
    with pytest.raises(ValueError, match="of format_version 1 to 4, got 99; use the version"):
        load_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(ValueError, match="got another file"):
        load_checkpoint(path)
    torch.save({"format_version": 1}, path)
    with pytest.raises(ValueError, match=re.escape("file.pt: expected the entry train_config, got none")):
        load_checkpoint(path)


def test_a_full_disk(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"table": torch.zeros(1)})
    before = path.read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DiskFullError, match=r"checkpoint.pt: the disk is full, .* 4,000,000 bytes are needed"):
            save_checkpoint(path, {"table": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_one_flipped_bit_is_found(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"format_version": 2, "table": torch.zeros(10_000)}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"checkpoint.pt: .*damaged file .*; take another copy"):
        load_checkpoint(path)


def test_a_tensor_larger_than_its_data(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"format_version": 2, "table": torch.zeros(1).expand(10**9, 4)}, path)
    with pytest.raises(ValueError, match=r"content.table of shape \[1000000000, 4\] has more elements than are stored"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("scene/intrinsics", torch.tensor([0.0, 70, 24, 24]), "a focal length of about the size"),
        ("scene/intrinsics", torch.tensor([70, float("inf"), 24, 24]), "a focal length of about the size"),
        ("scene/poses", torch.zeros(22, 4, 4), "poses that are rotations"),
        ("scene/eye_closures", torch.full((22,), float("nan")), "eye closures from 0 to 1"),
        ("capture/width", 10**6, "a size of at most"),
        ("portrait", float("nan"), None),
    ],
)
def test_values_without_a_meaning(content, tmp_path, key, value, text):
    if text is None:
        name = next(name for name, tensor in content["portrait"].items() if tensor.is_floating_point())
        key, value = f"portrait/{name}", torch.full_like(content["portrait"][name], value)
        text = f"expected finite numbers, got NaN or infinity in content.portrait.{name}"
    path = tmp_path / "damaged.pt"
    save_checkpoint(path, damaged(content, key, value))
    with pytest.raises(ValueError, match=f"damaged.pt: .*{re.escape(text)}"):
        load_checkpoint(path)
