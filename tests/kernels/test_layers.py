import pytest
import torch

import taichi_kernels as tk
from taichi_kernels import reference


def layers(n, d, dtype, device):
    opacity = torch.randint(0, 256, (n, 1), dtype=torch.uint8, device=device)
    color = (torch.rand(n, 3, device=device) * opacity).byte()
    pixels = torch.randperm(n, device=device)[:d].int()
    front = torch.rand(d, dtype=dtype, device=device)
    rgb = torch.rand(d, 3, dtype=dtype, device=device) * front[:, None]
    return torch.cat((color, opacity), 1), torch.rand(n, 3, dtype=dtype, device=device), pixels, rgb, front


@pytest.mark.usefixtures("each_variant")
@pytest.mark.parametrize(
    ("n", "d", "dtype"), [(200, 70, torch.float64), (200, 70, torch.float32), (5, 0, torch.float32)]
)
def test_matches_twin(n, d, dtype, device):
    arguments = layers(n, d, dtype, device)
    picture, expected = tk.show_layers(*arguments), reference.show_layers(*arguments)
    assert picture.dtype == torch.uint8 and picture.shape == (n, 3)
    assert (picture.int() - expected.int()).abs().max() <= (dtype == torch.float32)


def test_clips(device):
    layer = torch.tensor([[255, 0, 9, 255], [0, 0, 0, 0]], dtype=torch.uint8, device=device)
    background, pixels = torch.full((2, 3), 0.5, device=device), torch.tensor([1], dtype=torch.int32, device=device)
    rgb = torch.tensor([[1.2, -0.7, 0.5]], device=device)
    picture = tk.show_layers(layer, background, pixels, rgb, torch.tensor([0.5], device=device))
    assert picture.tolist() == [[255, 0, 9], [255, 0, 191]]
