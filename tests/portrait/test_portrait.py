"""Construction of a portrait."""

import subprocess
import sys

import pytest

CONSTRUCT = """
import sys
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.train.config import PRESETS
portrait = Portrait(PRESETS[{preset!r}].portrait, 44, 3)
assert "taichi" not in sys.modules, "constructing a portrait imported taichi"
"""


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_construction_launches_no_kernel(preset):
    """Taichi stays on the device of its first launch: a launch on the CPU here would make `.to("cuda")` useless."""
    done = subprocess.run([sys.executable, "-c", CONSTRUCT.format(preset=preset)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_moved_portrait_can_be_updated(device):
    from ernerf_ti.portrait.portrait import Portrait
    from ernerf_ti.train.config import PRESETS

    portrait = Portrait(PRESETS["small"].portrait, 44, 3).to(device)
    portrait.head_grid.update(lambda positions: 20.0 * (positions.norm(dim=1) < 0.3).float())
    assert portrait.head_grid.occupied_box.abs().max() < 0.4
