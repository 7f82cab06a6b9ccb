"""The notebooks run at small sizes, and those that are stored are light and free of errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs" / "notebooks").glob("*.ipynb"))
TINY = {"NOTEBOOK_STEPS": "10", "NOTEBOOK_SIZE": "96", "NOTEBOOK_SECONDS": "1.4"}


def outputs(path: Path) -> list[dict]:
    cells = json.loads(path.read_text())["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, device):
    pytest.importorskip("nbclient")
    if device.type != "cpu":
        pytest.skip("the notebooks' tensors are on the CPU")
    executed = tmp_path / "executed.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", str(path), f"--output={executed}"],
        env={
            **os.environ,
            **TINY,
            "NOTEBOOK_FOLDER": str(tmp_path / "portrait"),
            "IPYTHONDIR": str(tmp_path / "ipython"),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert any(
        "image/png" in output.get("data", {}) or "image/jpeg" in output.get("data", {}) for output in outputs(executed)
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebook(path):
    assert path.stat().st_size < 400_000
    assert [output for output in outputs(path) if output["output_type"] == "error"] == []
    assert str(Path.home()) not in path.read_text()
