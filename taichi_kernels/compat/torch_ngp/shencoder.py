"""`shencoder` of the torch-ngp family: real spherical harmonics of a direction."""

from torch import Tensor, nn

from taichi_kernels.checks import expect, expect_integer
from taichi_kernels.compat.torch_ngp.arguments import Arguments
from taichi_kernels.spherical_harmonics import MAX_DEGREE, spherical_harmonics


def sh_encode(inputs: Tensor, degree: int, calc_grad_inputs: bool = False) -> Tensor:
    """See :func:`taichi_kernels.spherical_harmonics`.

    Args:
        inputs: [B, 3], unit vectors; computed in float32 (float64 stays).
        degree: 1 to 8, number of bands.
        calc_grad_inputs: whether inputs get a gradient; without it they have none.

    Returns:
        [B, degree^2]. Differentiable twice in inputs. Raises ValueError if an argument is not as above.
    """
    inputs = Arguments().floats("inputs", inputs, ("B", 3))
    return spherical_harmonics(inputs if calc_grad_inputs else inputs.detach(), degree)


class SHEncoder(nn.Module):
    """Spherical harmonics of directions; `output_dim` = degree^2 features."""

    def __init__(self, input_dim: int = 3, degree: int = 4):
        super().__init__()
        expect(input_dim == 3, "input_dim", "3", input_dim, "spherical harmonics are functions of a direction in space")
        self.input_dim = input_dim
        self.degree = expect_integer("degree", degree, 1, MAX_DEGREE, "choose a degree in this range")
        self.output_dim = degree**2

    def extra_repr(self) -> str:
        return f"input_dim={self.input_dim} degree={self.degree}"

    def forward(self, inputs: Tensor, size: float = 1) -> Tensor:
        """[..., 3] vectors of length `size` -> [..., degree^2]."""
        inputs = inputs / size
        outputs = sh_encode(inputs.reshape(-1, self.input_dim), self.degree, inputs.requires_grad)
        return outputs.reshape(*inputs.shape[:-1], self.output_dim)
