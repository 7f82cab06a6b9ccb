"""The wheel, installed away from the checkout, does what its commands say."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ernerf_ti.data.capture_files import write_sound
from ernerf_ti.media.video import probe

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--preset", "small", "--device", "cpu", "--portrait.head-grid.resolution", "32", "--finetune.iterations", "0"]
TINY += [f"--{stage}.{name}" for stage in ("head", "torso") for name in ("iterations=2", "n-rays=64")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built without a network, from a copy: a build leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for package in ("ernerf_ti", "taichi_kernels"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["wheel", str(folder), "--no-build-isolation", "--no-deps", "--no-index", "-w", str(folder / "dist")]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, capture_output=True)
    (path,) = (folder / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a program of the installed wheel, in a folder of its own, and returns what it printed."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    install = ["install", str(wheel), "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)

    def run(*command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.program, run.site, run.folder = str(site / "bin" / "ernerf-ti"), site, folder
    return run


def test_wheel_is_complete(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in packed if name.endswith("METADATA"))
    sources = {
        str(path.relative_to(ROOT)) for name in ("ernerf_ti", "taichi_kernels") for path in (ROOT / name).rglob("*")
    }
    sources = {name for name in sources if (ROOT / name).is_file() and "__pycache__" not in name}
    assert {"ernerf_ti/py.typed", "taichi_kernels/py.typed"} <= sources
    assert {name for name in packed if ".dist-info/" not in name} == sources
    for line in (
        "Project-URL: Homepage, https://github.com/",
        "Classifier: Typing :: Typed",
        "License-Expression: MIT",
    ):
        assert line in metadata


def test_commands_away_from_the_checkout(installed):
    program = "import ernerf_ti, taichi_kernels as t; print(ernerf_ti.__file__, ernerf_ti.__version__, t.__version__)"
    place, *versions = installed(sys.executable, "-c", program).split()
    assert Path(place).is_relative_to(installed.site)
    assert installed(installed.program, "--version") == f"ernerf-ti {versions[0]}\n" and versions[0] == versions[1]
    assert installed(sys.executable, "-m", "ernerf_ti") == installed(installed.program, "--help")
    assert "usage: ernerf-ti train" in installed(installed.program, "train", "--help")

    assert installed(installed.program, "synthetic", "captures/a", "--size", "32", "--seconds", "0.5") == "captures/a\n"
    assert installed(installed.program, "train", "captures/a", "runs/a", *TINY) == "runs/a\n"
    config = json.loads((installed.folder / "runs" / "a" / "config.json").read_text())
    assert config["head"]["iterations"] == 2
    write_sound(installed.folder / "a.wav", np.zeros(3200, np.float32))
    speaking = ["--audio", "a.wav", "-o", "out/a.mp4", "--device", "cpu"]
    assert installed(installed.program, "synthesize", "runs/a", *speaking) == "out/a.mp4\n"
    assert probe(installed.folder / "out" / "a.mp4").width == 32
    assert {path.name for path in installed.folder.iterdir()} == {"captures", "runs", "a.wav", "out"}
