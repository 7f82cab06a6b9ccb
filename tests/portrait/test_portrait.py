"""Construction of a portrait."""

import subprocess
import sys

import pytest
import torch

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


def test_rendering_under_autocast(device):
    """Networks run in half precision; rays, samples and compositing stay in float32."""
    from ernerf_ti.portrait.camera import scene_from_capture
    from ernerf_ti.portrait.portrait import Portrait
    from ernerf_ti.portrait.records import FrameInputs
    from ernerf_ti.train.config import PRESETS

    portrait = Portrait(PRESETS["small"].portrait, 44, 3).to(device)
    portrait.head_grid.update(lambda positions: 20.0 * (positions.norm(dim=1) < 0.3).float())
    pose = torch.eye(4, device=device)
    pose[2, 3] = 0.8
    inputs = FrameInputs(torch.randn(8, 44, 16, device=device), None, None, scene_from_capture(pose))
    background = torch.rand(16, 16, 3, device=device)
    plain = portrait.render(inputs, (20.0, 20.0, 8.0, 8.0), (16, 16), background)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        half = portrait.render(inputs, (20.0, 20.0, 8.0, 8.0), (16, 16), background)
    assert half.opacity.max() > 0.1
    torch.testing.assert_close(half.rgb.float(), plain.rgb, atol=0.05, rtol=0)
