import pytest
import torch

from ernerf_ti.portrait.model import folded_torso
from ernerf_ti.portrait.model.folded_torso import FoldedTorso
from tests.portrait.model.test_torso_field import frontal_pose, small


@torch.no_grad()
@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("layers", [{}, {"deformation_layers": 1, "color_layers": 1}, {"appearance_size": 0}])
def test_folded_torso_is_the_field(layers, images, monkeypatch):
    monkeypatch.setattr(folded_torso, "_PIXELS_PER_PART", 64)
    torch.manual_seed(2)
    field = small(**layers)
    torch.nn.init.normal_(field.encoding.table)
    if not images:
        monkeypatch.setattr(field, "grid_images", lambda: None)
    coords = torch.rand(150, 2) * 2 - 1
    folded = FoldedTorso(field, coords)
    for shift in (0.0, 0.1):
        pose = frontal_pose()
        pose[0, 3] += shift
        embedding = torch.randn(field.config.appearance_size)
        expected = field(coords, pose, embedding)
        assert expected.alpha.std() > 1e-3
        values = folded(pose, embedding)
        torch.testing.assert_close(values[0], expected.alpha, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(values[1:].t(), expected.rgb, atol=1e-5, rtol=1e-4)
