"""The command that counts training steps with different numbers of threads."""

import json

from ernerf_ti.cli.main import main
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from ernerf_ti.experiments.bench_threads import count_steps


def test_counts_steps_of_each_mode(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    write_portrait_capture(SyntheticPortrait(6, 32, seed=4), tmp_path / "capture")
    assert count_steps(tmp_path / "capture", 0.01, "adaptive") >= 1
    turns = []

    def turn(command, **_):
        turns.append(command[-1])
        return type("Done", (), {"returncode": 0, "stdout": f"noise\n{len(turns)}\n"})

    monkeypatch.setattr("ernerf_ti.experiments.bench_threads.subprocess.run", turn)
    output = tmp_path / "new" / "bench.json"
    assert main(["bench", "threads", str(tmp_path / "capture"), "--seconds", "3", "-o", str(output)]) == 0
    assert turns == ["one", "all", "adaptive"] * 2
    assert json.loads(output.read_text()) == {"one": [1, 4], "all": [2, 5], "adaptive": [3, 6]}
    assert "adaptive 3 and 6 steps in 3 s" in capsys.readouterr().out
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert main(["bench", "threads", str(tmp_path / "capture")]) == 1
    assert "OMP_NUM_THREADS: expected it unset, got 2" in capsys.readouterr().err
