import json

import pytest
import torch


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("bench_kernels")


def test_checks_and_times_every_op(tool, device, tmp_path, capsys):
    output = tmp_path / "bench.json"
    arguments = ["--scale", "0.002", "--repeats", "1", "--device", device.type, "--json", str(output)]
    assert tool.main(arguments) == 0
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
    assert rows["composite"]["both"] > 0
    assert rows["morton_encode"]["both"] is None
    table = capsys.readouterr().out
    assert all(f"| {name} |" in table for name in rows)


def test_an_op_that_differs_from_its_twin_is_not_timed(tool, device):
    x = torch.rand(5, 2, device=device)
    case = tool.Case("wrong", "5", lambda x: x + 0.1, lambda x: x, [x])
    with pytest.raises(
        SystemExit, match=r"wrong: expected the twin's result within 0.001, got a relative difference of"
    ):
        tool.measure(case, 1, 1e9)


def test_unknown_op(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(["--only", "nothing"])
    assert "--only: expected a part of an op's name, got 'nothing'" in capsys.readouterr().err
