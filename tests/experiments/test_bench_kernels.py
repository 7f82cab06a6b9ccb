import json

import pytest
import torch

import taichi_kernels as tk
from ernerf_ti.cli.main import main


def test_checks_and_times_every_op(device, tmp_path, capsys):
    output = tmp_path / "bench.json"
    arguments = ["--scale", "0.002", "--repeats", "1", "--device", device.type, "--json", str(output)]
    assert main(["bench", "kernels", *arguments]) == 0
    report = json.loads(output.read_text())
    assert report["device"] == device.type
    assert report["torch"] == torch.__version__
    assert report["taichi"] == "1.7.4"
    assert {"commit", "name", "threads", "python"} <= report.keys()
    assert report["bandwidth_gb_per_s"] > 0
    assert report["gathers_per_us"] > 0
    rows = {row["name"]: row for row in report["rows"]}
    assert len(rows) == 12
    for row in rows.values():
        assert row["forward"] > 0
        assert row["twin_forward"] > 0
        assert row["limit"] > 0
        assert row["difference"] < 1e-2
    assert rows["march_rays"]["rays_apart"] < 0.02 * 131 and rows["composite"]["rays_apart"] is None
    assert rows["composite"]["both"] > 0
    assert rows["morton_encode"]["both"] is None
    table = capsys.readouterr().out
    assert all(f"| {name} |" in table for name in rows)


def test_an_op_that_differs_from_its_twin_is_not_timed(device):
    from ernerf_ti.experiments import bench_kernels as tool

    x = torch.rand(5, 2, device=device)
    case = tool.Case("wrong", "5", lambda x: x + 0.1, lambda x: x, [x])
    with pytest.raises(
        SystemExit, match=r"wrong: expected the twin's result within 0.001, got a relative difference of"
    ):
        tool.measure(case, 1, 1e9)


def test_rays_with_other_samples_are_counted_and_left_out(device):
    from ernerf_ti.experiments.bench_kernels import same_samples

    def samples(*ts):
        """Of rays along z, given the distances on each."""
        counts = torch.tensor([len(x) for x in ts], dtype=torch.int32)
        flat = torch.tensor([t for x in ts for t in x])
        directions = torch.tensor([0.0, 0.0, 1.0]).expand(len(flat), 3)
        info = torch.stack((counts.cumsum(0).int() - counts, counts), 1)
        values = (flat[:, None] * directions, directions, flat, torch.full_like(flat, 0.1), info, counts.sum())
        return tk.RaySamples(*(x.to(device) for x in values))

    found = samples([1.0, 1.1], [], [1.0, 1.1], [2.0, 2.1])
    expected = samples([1.0, 1.1], [], [1.1, 1.2], [2.0, 2.1, 2.2])  # the third shifted, the last with one more
    pairs, n_apart = same_samples(found, expected, 0.5)
    assert n_apart == 2
    assert all(torch.equal(a, b) and len(a) == 2 for a, b in pairs)
    with pytest.raises(SystemExit, match=r"march_rays: expected other samples .* at most 40% of the rays, got 2 of 4"):
        same_samples(found, expected, 0.4)


def test_unknown_op(capsys):
    assert main(["bench", "kernels", "--ops", "nothing", "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "--ops: expected beginnings of triplane_encode, " in error and "got nothing" in error


def test_git_need_not_be_installed(monkeypatch):
    from ernerf_ti.experiments import bench_kernels as tool

    monkeypatch.setenv("PATH", "")
    assert tool.commit() == "unknown"
