"""A row with the product's own commands, on a tiny capture."""

import json

from ernerf_ti.cli.main import main
from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture
from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait
from tests.quick_training import options


def test_a_capture_becomes_a_run(tmp_path, capsys):
    write_portrait_capture(SyntheticPortrait(12, 32, seed=4), tmp_path / "capture")
    train = " ".join([*options(2, 0, 0), "--stages", "head"])
    (tmp_path / "speakers.csv").write_text(f"name,video,train,checks\none,capture,{train},no\n")
    command = ["batch", str(tmp_path / "speakers.csv"), str(tmp_path / "out"), "--workers", "1"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'index.html'}\n"
    record = json.loads((tmp_path / "out" / "one" / "row.json").read_text())
    assert record["status"] == "done" and record["thumbnail"] == "thumbnail.jpg"
    assert "training" in (tmp_path / "out" / "one" / "logs" / "train.txt").read_text()
    checkpoint = tmp_path / "out" / "one" / "run" / "checkpoint.pt"
    kept = checkpoint.stat().st_mtime_ns
    assert main(command) == 0
    assert checkpoint.stat().st_mtime_ns == kept
    assert "data:image/jpeg;base64," in (tmp_path / "out" / "index.html").read_text()
