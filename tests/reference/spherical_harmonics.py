"""Real spherical harmonics in plain torch, from differentiated Legendre polynomials and complex powers."""

import math

import torch
from numpy.polynomial import legendre, polynomial
from torch import Tensor


def spherical_harmonics(directions: Tensor, degree: int) -> Tensor:
    x, y, z = directions.unbind(-1)
    turn = torch.complex(x, y)
    outputs = []
    for l in range(degree):
        monomials = legendre.leg2poly([0] * l + [1])
        for m in range(-l, l + 1):
            coefficients = polynomial.polyder(monomials, abs(m))
            along_z = sum(c * z**k for k, c in enumerate(coefficients))
            around_z = turn ** abs(m) if m else torch.ones_like(turn)
            norm = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - abs(m)) / math.factorial(l + abs(m)))
            norm *= (-1) ** abs(m) * (math.sqrt(2) if m else 1)
            outputs.append(norm * along_z * (around_z.imag if m < 0 else around_z.real))
    return torch.stack(outputs, -1)
