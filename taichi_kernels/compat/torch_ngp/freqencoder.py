"""`freqencoder` of the torch-ngp family: sines and cosines at octaves of frequency."""

from torch import Tensor, nn

from taichi_kernels.checks import expect
from taichi_kernels.compat.torch_ngp.arguments import Arguments
from taichi_kernels.frequency_encoding import frequency_encode


def freq_encode(inputs: Tensor, degree: int, output_dim: int) -> Tensor:
    """See :func:`taichi_kernels.frequency_encode`.

    Args:
        inputs: [B, D], radians; computed in float32 (float64 stays).
        degree: number of octaves.
        output_dim: D (1 + 2 degree).

    Returns:
        [B, output_dim]. Differentiable any number of times in inputs. Raises ValueError for another output_dim.
    """
    outputs = frequency_encode(Arguments().floats("inputs", inputs, ("B", "D")), degree)
    expect(
        output_dim == outputs.shape[1], "output_dim", f"{outputs.shape[1]}, D (1 + 2 degree)", output_dim, "pass that"
    )
    return outputs


class FreqEncoder(nn.Module):
    """Frequency encoding of `input_dim` coordinates with `degree` octaves; `output_dim` features."""

    def __init__(self, input_dim: int = 3, degree: int = 4):
        super().__init__()
        self.input_dim = input_dim
        self.degree = degree
        self.output_dim = input_dim * (1 + 2 * degree)

    def extra_repr(self) -> str:
        return f"input_dim={self.input_dim} degree={self.degree} output_dim={self.output_dim}"

    def forward(self, inputs: Tensor, **kwargs) -> Tensor:
        """[..., input_dim] -> [..., output_dim]; other arguments, such as the family's `bound`, have no effect."""
        outputs = freq_encode(inputs.reshape(-1, self.input_dim), self.degree, self.output_dim)
        return outputs.reshape(*inputs.shape[:-1], self.output_dim)
