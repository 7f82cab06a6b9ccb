"""Real spherical harmonics in plain torch, from differentiated Legendre polynomials and complex powers."""

import math

import torch
from torch import Tensor


def spherical_harmonics(directions: Tensor, degree: int) -> Tensor:
    """Twin of :func:`taichi_kernels.spherical_harmonics`: [N, 3] -> [N, degree^2].

    Sums of monomials cancel: pass float64 for the higher degrees.
    """
    x, y, z = directions.unbind(-1)
    turn = torch.complex(x, y)
    outputs = []
    for l, polynomial in enumerate(_legendre_polynomials(degree)):
        for m in range(-l, l + 1):
            along_z = sum(c * z**k for k, c in enumerate(_derivative(polynomial, abs(m))))
            around_z = turn ** abs(m) if m else torch.ones_like(turn)
            norm = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - abs(m)) / math.factorial(l + abs(m)))
            norm *= (-1) ** abs(m) * (math.sqrt(2) if m else 1)
            outputs.append(norm * along_z * (around_z.imag if m < 0 else around_z.real))
    return torch.stack(outputs, -1)


def _legendre_polynomials(n: int) -> list[list[float]]:
    """Coefficients of P_0 ... P_{n-1}, lowest power first: l P_l = (2l - 1) z P_{l-1} - (l - 1) P_{l-2}."""
    polynomials = [[1.0], [0.0, 1.0]]
    for l in range(2, n):
        times_z, before = [0.0, *polynomials[-1]], [*polynomials[-2], 0.0, 0.0]
        polynomials.append([((2 * l - 1) * a - (l - 1) * b) / l for a, b in zip(times_z, before, strict=True)])
    return polynomials[:n]


def _derivative(coefficients: list[float], order: int) -> list[float]:
    for _ in range(order):
        coefficients = [k * c for k, c in enumerate(coefficients)][1:]
    return coefficients
