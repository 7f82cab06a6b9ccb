"""The launcher part of the check of a GPU: its process, and how it compares launches by the driver with Taichi's."""

import json
import os
import subprocess
from types import SimpleNamespace

import pytest
import torch

from ernerf_ti.experiments import check_launcher
from ernerf_ti.experiments.bench_kernels import Case
from ernerf_ti.experiments.check_setup import REHEARSAL, Check
from ernerf_ti.experiments.check_table import Budget, Row
from taichi_kernels import runtime

CPU = torch.device("cpu")


@pytest.fixture
def check(tmp_path):
    return Check(CPU, REHEARSAL, Budget(100), tmp_path, run=tmp_path / "run_1")


@pytest.mark.parametrize(
    ("code", "stderr", "failure"),
    [
        (0, "", None),
        (-11, "Fatal Python error\nSegmentation fault\n", "failed: ended with -11: Segmentation fault"),
        (1, "", "failed: ended with 1: no output"),
        (None, "", "failed: did not end within "),
    ],
)
def test_rows_of_a_process_that_ends_early_are_kept(check, monkeypatch, code, stderr, failure):
    def run(command, env, timeout, **options):
        assert env["TAICHI_KERNELS_CUDA_LAUNCHER"] == "driver" and env["PATH"] == os.environ["PATH"]
        request = json.loads(command[-2])
        assert (request["device"], request["run"]) == ("cpu", str(check.run))
        row = {"part": "launcher", "what": "launch of a kernel", "value": 9.5, "unit": "us", "target": 15.0}
        (check.folder / "launcher.json").write_text(json.dumps(row) + "\n")
        if code is None:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    first, *others = check_launcher.launcher(check)
    assert first == Row("launcher", "launch of a kernel", 9.5, unit="us", target=15.0)
    assert first.met
    assert bool(others) == (failure is not None)
    if failure:
        assert others[0].failed and others[0].note.startswith(failure)


def test_without_a_portrait(check):
    check.run = None
    with pytest.raises(RuntimeError, match="no portrait"):
        list(check_launcher.launcher(check))


@pytest.mark.parametrize(
    ("by_driver", "by_taichi", "failed", "note"),
    [
        ([1.0], [1.0, 1.0], False, "the same bits"),
        ([float("nan")], [float("nan"), float("nan")], False, "the same bits"),
        ([1.0 + 1e-6], [1.0, 1.0], True, "; failed: expected the same"),
        ([1.0 + 1e-6], [1.0, 1.0 + 1e-6], False, "two launches by Taichi differ by 1e-06"),
        ([1.1], [1.0, 1.0 + 1e-6], True, "; failed: expected the same"),
        ([float("nan")], [1.0, 1.0 + 1e-6], True, "; failed: expected the same"),
    ],
)
def test_bits_of_an_op(check, monkeypatch, by_driver, by_taichi, failed, note):
    """The first results are those of the driver; where Taichi's own differ, so may these, about as much."""
    session = SimpleNamespace(driver_kernels={})
    monkeypatch.setattr(runtime, "_session", session)
    monkeypatch.setattr(runtime, "can_capture", lambda device: True)
    results = {"driver": iter(by_driver), "taichi": iter(by_taichi)}

    def op(x):
        launcher = "taichi" if session.driver_kernels is None else "driver"
        return x.detach() * next(results[launcher])

    case = Case("op", "1", op, op, [torch.ones(3, dtype=torch.float64)])
    (row,) = check_launcher._same_bits(check, case)
    assert row.failed is failed and note in row.note
    assert session.driver_kernels == {}


def test_gradients_are_compared_too():
    x = torch.ones(3, requires_grad=True)
    values = check_launcher._values_and_gradients(Case("op", "3", torch.exp, torch.exp, [x]))
    assert len(values) == 2 and values[1].shape == x.shape


def test_other_shapes_differ():
    assert check_launcher._largest_difference([torch.ones(2)], [torch.ones(3)]) == float("inf")
