"""The README's programs run, and its table names every public op."""

import re
from pathlib import Path

import pytest

import taichi_kernels

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_program_runs(program, device):
    if device.type != "cpu":
        pytest.skip("the README's tensors are on the CPU")
    namespace = {}
    exec(compile(program, "README.md", "exec"), namespace)
    if "image" in namespace:
        assert namespace["image"].shape == (1000, 3)
        assert namespace["sigmas"].grad.abs().sum() > 0
    else:
        assert namespace["loss"].item() < 0.3


def test_every_public_name_is_explained():
    for name in taichi_kernels.__all__:
        assert f"`{name}" in README, name


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (Path(__file__).resolve().parents[1] / target).exists(), target
