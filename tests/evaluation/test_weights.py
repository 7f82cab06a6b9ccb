import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from ernerf_ti.evaluation.metric import NotComputed
from ernerf_ti.evaluation.weights import INCEPTION, find_weights, load_exactly, read_weights, weights_folder


def test_folder_is_torchs(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert weights_folder() == tmp_path / "hub" / "checkpoints"


def test_missing_file_says_what_and_where(tmp_path):
    found = find_weights(INCEPTION, tmp_path)
    assert isinstance(found, NotComputed)
    assert (found.file, found.folder) == (INCEPTION.names[0], str(tmp_path))


def test_either_name_is_found(tmp_path):
    for name in INCEPTION.names:
        path = tmp_path / name
        path.write_bytes(b"")
        assert find_weights(INCEPTION, tmp_path) == path
        path.unlink()


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("weights.pth", "wb") as file:
        pickle.dump(Harmful(), file)
    with pytest.raises(ValueError, match=r"weights\.pth: expected a weight file, got one that torch can't read"):
        read_weights(Path("weights.pth"))
    torch.save({"a": Harmful()}, "weights.pth")
    with pytest.raises(ValueError, match="expected a weight file"):
        read_weights(Path("weights.pth"))
    assert not Path("harm").exists()


def test_other_content(tmp_path):
    torch.save({"step": 3}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="expected a state dict of tensors, got other content"):
        read_weights(tmp_path / "a.pth")


def test_loads_exactly(tmp_path):
    first, second = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(2))
    weights = first.state_dict()
    del weights["1.num_batches_tracked"]  # as files of older versions
    load_exactly(second, weights, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"expected the 7 tensors of the published network, got others \(2\.weight\)"):
        load_exactly(second, {**weights, "2.weight": torch.ones(1)}, tmp_path)
    with pytest.raises(ValueError, match=r"\(0\.bias\)"):
        load_exactly(second, {**weights, "0.bias": torch.ones(4)}, tmp_path)
    del weights["0.weight"]
    with pytest.raises(ValueError, match=r"\(0\.weight\)"):
        load_exactly(second, weights, tmp_path)
