import pytest
import torch

from taichi_kernels import morton_decode, morton_encode, reference

pytestmark = pytest.mark.usefixtures("each_variant")


def test_values_of_the_spec(device):
    cells = torch.tensor([[1, 2, 3], [64, 0, 0], [5, 9, 77], [127, 127, 127]], dtype=torch.int32, device=device)
    codes = morton_encode(cells)
    assert codes.tolist() == [53, 262144, 1051975, 2097151]
    assert torch.equal(morton_decode(codes), cells)


@pytest.mark.parametrize("n", [0, 1, 1031])
def test_matches_twin_and_inverts(n, device):
    cells = torch.randint(0, 1024, (n, 3), dtype=torch.int32, device=device)
    codes = morton_encode(cells)
    assert torch.equal(codes, reference.morton_encode(cells))
    assert torch.equal(morton_decode(codes), reference.morton_decode(codes))
    assert torch.equal(morton_decode(codes), cells)


def test_codes_of_a_cube_are_a_permutation(device):
    grid = torch.cartesian_prod(*[torch.arange(8, dtype=torch.int32, device=device)] * 3)
    assert torch.equal(morton_encode(grid).sort().values, torch.arange(512, dtype=torch.int32, device=device))
