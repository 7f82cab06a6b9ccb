"""Real spherical harmonics of a direction, degrees 1 to 8.

    Y_l^m = (-1)^m K_l^m P_l^m(z) A_m(x, y),   Y_l^-m = (-1)^m K_l^m P_l^m(z) B_m(x, y),   0 <= m <= l
    A_m + i B_m = (x + i y)^m,   P_l^m = the m-th derivative of the Legendre polynomial P_l
    K_l^m = sqrt((2l + 1) / 4 pi * (l - m)! / (l + m)!) * (sqrt(2) if m > 0 else 1)

Evaluated as polynomials in x, y, z, by the recurrences of A, B (complex product) and P
((l - m) P_l^m = (2l - 1) z P_{l-1}^m - (l + m - 1) P_{l-2}^m).      [Sloan 2008, appendix A1-A2]
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from taichi_kernels.checks import FLOATS, ArgumentCheck, dense, expect_integer
from taichi_kernels.runtime import array, launch, scalar, start, taichi

MAX_DEGREE = 8


def spherical_harmonics(directions: Tensor, degree: int) -> Tensor:
    """The first degree^2 real spherical harmonics.

    Args:
        directions: [N, 3] float32 or float64, unit vectors. They are not normalised: for another
            length the polynomials are evaluated as they stand.
        degree: 1 to 8, number of bands l = 0 ... degree - 1.

    Returns:
        [N, degree^2]; band l holds m = -l ... l at l^2 + l + m. Signs as in the torch-ngp family.

    Differentiable once in the directions, as three independent coordinates. Deterministic.
    Raises ValueError if an argument is not as above.
    """
    degree = expect_integer("degree", degree, 1, MAX_DEGREE, "choose a degree in this range")
    check = ArgumentCheck()
    check.tensor("directions", directions, ("N", 3), FLOATS)
    start(directions.device, "directions")
    return _SphericalHarmonics.apply(directions, degree)


class _SphericalHarmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, directions, degree):
        harmonics = directions.new_empty(len(directions), degree**2)
        launch(_kernels(degree, directions.dtype).evaluate, directions, len(directions), harmonics)
        ctx.save_for_backward(directions)
        ctx.degree = degree
        return harmonics

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_harmonics):
        (directions,) = ctx.saved_tensors
        grad_directions = torch.empty_like(directions)
        gradient = _kernels(ctx.degree, directions.dtype).gradient
        launch(gradient, directions, dense(grad_harmonics), len(directions), grad_directions)
        return grad_directions, None


def _norm(l: int, m: int) -> float:
    norm = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - m) / math.factorial(l + m))
    return (-1) ** m * norm * (math.sqrt(2) if m else 1)


class _Kernels(NamedTuple):
    evaluate: object
    gradient: object


@functools.cache
def _kernels(degree: int, dtype: torch.dtype) -> _Kernels:
    ti = taichi()
    real, Reals = scalar(dtype), array(dtype)
    N = degree**2
    bands = range(degree)
    # Indexed [l][m]: norms, and the two factors of the recurrence in l.
    K = [[_norm(l, m) if m <= l else 0.0 for m in bands] for l in bands]
    UP = [[(2 * l - 1) / (l - m) if m < l else 0.0 for m in bands] for l in bands]
    DOWN = [[(l + m - 1) / (l - m) if m < l else 0.0 for m in bands] for l in bands]
    FIRST = [float(math.prod(range(2 * m - 1, 0, -2))) for m in bands]  # P_m^m = (2m - 1)!!

    @ti.kernel
    def evaluate(
        directions: Reals,  # [N, 3]
        n: ti.i32,
        harmonics: Reals,  # [N, degree^2]
    ):
        for i in range(n):
            x, y, z = directions[3 * i], directions[3 * i + 1], directions[3 * i + 2]
            a, b = real(1.0), real(0.0)
            for m in ti.static(range(degree)):
                p, p_before = real(FIRST[m]), real(0.0)
                for l in ti.static(range(m, degree)):
                    if ti.static(l > m):
                        p, p_before = real(UP[l][m]) * z * p - real(DOWN[l][m]) * p_before, p
                    harmonics[i * N + l * l + l + m] = real(K[l][m]) * p * a
                    if ti.static(m > 0):
                        harmonics[i * N + l * l + l - m] = real(K[l][m]) * p * b
                a, b = a * x - b * y, a * y + b * x

    @ti.kernel
    def gradient(
        directions: Reals,  # [N, 3]
        grad_harmonics: Reals,  # [N, degree^2]
        n: ti.i32,
        grad_directions: Reals,  # [N, 3]
    ):
        for i in range(n):
            x, y, z = directions[3 * i], directions[3 * i + 1], directions[3 * i + 2]
            grad_x, grad_y, grad_z = real(0.0), real(0.0), real(0.0)
            a, b = real(1.0), real(0.0)
            a_before, b_before = real(0.0), real(0.0)  # A_{m-1}, B_{m-1}: dA_m/dx = m A_{m-1}, dA_m/dy = -m B_{m-1}
            for m in ti.static(range(degree)):
                p, p_before = real(FIRST[m]), real(0.0)
                slope, slope_before = real(0.0), real(0.0)  # dP/dz
                for l in ti.static(range(m, degree)):
                    if ti.static(l > m):
                        slope, slope_before = (
                            real(UP[l][m]) * (p + z * slope) - real(DOWN[l][m]) * slope_before,
                            slope,
                        )
                        p, p_before = real(UP[l][m]) * z * p - real(DOWN[l][m]) * p_before, p
                    g = real(K[l][m]) * grad_harmonics[i * N + l * l + l + m]
                    grad_z += g * slope * a
                    if ti.static(m > 0):
                        h = real(K[l][m]) * grad_harmonics[i * N + l * l + l - m]
                        grad_z += h * slope * b
                        grad_x += real(float(m)) * p * (g * a_before + h * b_before)
                        grad_y += real(float(m)) * p * (h * a_before - g * b_before)
                a_before, b_before = a, b
                a, b = a * x - b * y, a * y + b * x
            grad_directions[3 * i] = grad_x
            grad_directions[3 * i + 1] = grad_y
            grad_directions[3 * i + 2] = grad_z

    return _Kernels(evaluate, gradient)
