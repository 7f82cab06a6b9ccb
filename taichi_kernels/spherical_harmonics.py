"""Real spherical harmonics of a direction, degrees 1 to 8.

    Y_l^m = (-1)^m K_l^m P_l^m(z) A_m(x, y),   Y_l^-m = (-1)^m K_l^m P_l^m(z) B_m(x, y),   0 <= m <= l
    A_m + i B_m = (x + i y)^m,   P_l^m = the m-th derivative of the Legendre polynomial P_l
    K_l^m = sqrt((2l + 1) / 4 pi * (l - m)! / (l + m)!) * (sqrt(2) if m > 0 else 1)

Evaluated as polynomials in x, y, z, by the recurrences of A, B (complex product) and P
((l - m) P_l^m = (2l - 1) z P_{l-1}^m - (l + m - 1) P_{l-2}^m).      [Sloan 2008, appendix A1-A2]
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_kernels.checks import FLOATS, ArgumentCheck, cast_under_autocast, dense, expect_integer
from taichi_kernels.operators import Operator, not_differentiable
from taichi_kernels.parallel_loops import parallel_kernel
from taichi_kernels.ready_made import kernel_factory
from taichi_kernels.runtime import array, is_cuda, launch, scalar, taichi

MAX_DEGREE = 8


def spherical_harmonics(directions: Tensor, degree: int) -> Tensor:
    """The first degree^2 real spherical harmonics.

    Args:
        directions: [N, 3] float32 or float64, unit vectors. They are not normalised: for another
            length the polynomials are evaluated as they stand.
        degree: 1 to 8, number of bands l = 0 ... degree - 1.

    Returns:
        [N, degree^2]; band l holds m = -l ... l at l^2 + l + m. Signs as in the torch-ngp family. On CUDA the memory
        is channel-major, as of the grid encodings, so that threads that run together write to consecutive addresses.

    Differentiable twice in the directions, as three independent coordinates. Deterministic.
    Raises ValueError if an argument is not as above.
    """
    degree = expect_integer("degree", degree, 1, MAX_DEGREE, "choose a degree in this range")
    directions = cast_under_autocast(directions)
    check = ArgumentCheck()
    check.tensor("directions", directions, ("N", 3), FLOATS)
    harmonics: Tensor = _SPHERICAL_HARMONICS(directions, degree)
    return harmonics


def _evaluate(directions: Tensor, degree: int) -> Tensor:
    harmonics = _empty_harmonics(directions, degree)
    launch(_kernels(degree, directions.dtype, is_cuda()).evaluate, directions, len(directions), _dense(harmonics))
    return harmonics


def _empty_harmonics(directions: Tensor, degree: int) -> Tensor:
    shape = directions.shape[0], degree**2
    return directions.new_empty(shape[::-1]).t() if _is_channel_major(directions) else directions.new_empty(shape)


def _is_channel_major(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def _dense(harmonics: Tensor) -> Tensor:
    """[N, degree^2] as the kernels take it."""
    return dense(harmonics.t() if _is_channel_major(harmonics) else harmonics)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    directions, ctx.degree = inputs
    ctx.save_for_backward(directions)


def _backward(ctx: Any, grad_harmonics: Tensor) -> tuple[Tensor, None]:
    (directions,) = ctx.saved_tensors
    return _SPHERICAL_HARMONICS_BACKWARD(directions, grad_harmonics, ctx.degree), None


def _gradient(directions: Tensor, grad_harmonics: Tensor, degree: int) -> Tensor:
    grad_directions = torch.empty_like(directions)
    kernel = _kernels(degree, directions.dtype, is_cuda()).gradient
    launch(kernel, directions, _dense(grad_harmonics), len(directions), grad_directions)
    return grad_directions


def _setup_second_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    directions, grad_harmonics, ctx.degree = inputs
    ctx.save_for_backward(directions, grad_harmonics)


def _second_backward(ctx: Any, grad_grad_directions: Tensor) -> tuple[Tensor, Tensor, None]:
    directions, grad_harmonics = ctx.saved_tensors
    return *_SPHERICAL_HARMONICS_SECOND(directions, grad_harmonics, grad_grad_directions, ctx.degree), None


def _derivatives_along(
    directions: Tensor, grad_harmonics: Tensor, grad_grad_directions: Tensor, degree: int
) -> tuple[Tensor, Tensor]:
    grad_directions, harmonics = torch.empty_like(directions), _empty_harmonics(directions, degree)
    launch(
        _kernels(degree, directions.dtype, is_cuda()).derivatives_along,
        *(directions, dense(grad_grad_directions), _dense(grad_harmonics), len(directions)),
        *(grad_directions, _dense(harmonics)),
    )
    return grad_directions, harmonics


def _norm(l: int, m: int) -> float:
    norm = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - m) / math.factorial(l + m))
    return (-1) ** m * norm * (math.sqrt(2) if m else 1)


class _Kernels(NamedTuple):
    evaluate: Any
    gradient: Any
    derivatives_along: Any


@kernel_factory
def _kernels(degree: int, dtype: torch.dtype, on_cuda: bool) -> _Kernels:
    ti = taichi()
    real, Reals = scalar(dtype), array(dtype)
    N = degree**2
    bands = range(degree)
    # Indexed [l][m]: norms, and the two factors of the recurrence in l.
    K = [[_norm(l, m) if m <= l else 0.0 for m in bands] for l in bands]
    UP = [[(2 * l - 1) / (l - m) if m < l else 0.0 for m in bands] for l in bands]
    DOWN = [[(l + m - 1) / (l - m) if m < l else 0.0 for m in bands] for l in bands]
    FIRST = [float(math.prod(range(2 * m - 1, 0, -2))) for m in bands]  # P_m^m = (2m - 1)!!

    @ti.func
    def place(i, channel: ti.template(), n):
        return channel * n + i if ti.static(on_cuda) else i * N + channel

    @parallel_kernel(on_cuda)
    def evaluate(
        directions: Reals,  # [N, 3]
        n: ti.i32,
        harmonics: Reals,  # [N, degree^2], see `place`
    ):
        for i in range(n):
            x, y, z = directions[3 * i], directions[3 * i + 1], directions[3 * i + 2]
            a, b = real(1.0), real(0.0)
            for m in ti.static(range(degree)):
                p, p_before = real(FIRST[m]), real(0.0)
                for l in ti.static(range(m, degree)):
                    if ti.static(l > m):
                        p, p_before = real(UP[l][m]) * z * p - real(DOWN[l][m]) * p_before, p
                    harmonics[place(i, l * l + l + m, n)] = real(K[l][m]) * p * a
                    if ti.static(m > 0):
                        harmonics[place(i, l * l + l - m, n)] = real(K[l][m]) * p * b
                a, b = a * x - b * y, a * y + b * x

    @parallel_kernel(on_cuda)
    def gradient(
        directions: Reals,  # [N, 3]
        grad_harmonics: Reals,  # [N, degree^2], see `place`
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
                    g = real(K[l][m]) * grad_harmonics[place(i, l * l + l + m, n)]
                    grad_z += g * slope * a
                    if ti.static(m > 0):
                        h = real(K[l][m]) * grad_harmonics[place(i, l * l + l - m, n)]
                        grad_z += h * slope * b
                        grad_x += real(float(m)) * p * (g * a_before + h * b_before)
                        grad_y += real(float(m)) * p * (h * a_before - g * b_before)
                a_before, b_before = a, b
                a, b = a * x - b * y, a * y + b * x
            grad_directions[3 * i] = grad_x
            grad_directions[3 * i + 1] = grad_y
            grad_directions[3 * i + 2] = grad_z

    @parallel_kernel(on_cuda)
    def derivatives_along(
        directions: Reals,  # [N, 3]
        tangents: Reals,  # [N, 3]
        grad_harmonics: Reals,  # [N, degree^2], see `place`
        n: ti.i32,
        # results: the derivatives, along the tangents, of what `gradient` and `evaluate` compute
        grad_directions: Reals,  # [N, 3]
        harmonics: Reals,  # [N, degree^2], see `place`
    ):
        for i in range(n):
            x, y, z = directions[3 * i], directions[3 * i + 1], directions[3 * i + 2]
            vx, vy, vz = tangents[3 * i], tangents[3 * i + 1], tangents[3 * i + 2]
            total_x, total_y, total_z = real(0.0), real(0.0), real(0.0)
            a, b = real(1.0), real(0.0)
            a1, b1, a2, b2 = real(0.0), real(0.0), real(0.0), real(0.0)  # of m - 1 and m - 2
            for m in ti.static(range(degree)):
                order, order1 = real(float(m)), real(float(max(m - 1, 0)))
                da, db = order * (a1 * vx - b1 * vy), order * (b1 * vx + a1 * vy)
                da1, db1 = order1 * (a2 * vx - b2 * vy), order1 * (b2 * vx + a2 * vy)
                p, p_before = real(FIRST[m]), real(0.0)
                slope, slope_before = real(0.0), real(0.0)  # dP/dz
                curvature, curvature_before = real(0.0), real(0.0)  # d2P/dz2
                for l in ti.static(range(m, degree)):
                    if ti.static(l > m):
                        up, down = real(UP[l][m]), real(DOWN[l][m])
                        curvature, curvature_before = (
                            up * (real(2.0) * slope + z * curvature) - down * curvature_before,
                            curvature,
                        )
                        slope, slope_before = up * (p + z * slope) - down * slope_before, slope
                        p, p_before = up * z * p - down * p_before, p
                    norm = real(K[l][m])
                    j = place(i, l * l + l + m, n)
                    g = norm * grad_harmonics[j]
                    harmonics[j] = norm * (slope * vz * a + p * da)
                    total_z += g * (curvature * vz * a + slope * da)
                    if ti.static(m > 0):
                        j = place(i, l * l + l - m, n)
                        h = norm * grad_harmonics[j]
                        harmonics[j] = norm * (slope * vz * b + p * db)
                        total_z += h * (curvature * vz * b + slope * db)
                        total_x += order * (slope * vz * (g * a1 + h * b1) + p * (g * da1 + h * db1))
                        total_y += order * (slope * vz * (h * a1 - g * b1) + p * (h * da1 - g * db1))
                a2, b2, a1, b1 = a1, b1, a, b
                a, b = a * x - b * y, a * y + b * x
            grad_directions[3 * i] = total_x
            grad_directions[3 * i + 1] = total_y
            grad_directions[3 * i + 2] = total_z

    return _Kernels(evaluate, gradient, derivatives_along)


_SPHERICAL_HARMONICS = Operator(
    "spherical_harmonics(Tensor directions, int degree) -> Tensor",
    _evaluate,
    _empty_harmonics,
    _setup_context,
    _backward,
)
_SPHERICAL_HARMONICS_BACKWARD = Operator(
    "spherical_harmonics_backward(Tensor directions, Tensor grad_harmonics, int degree) -> Tensor",
    _gradient,
    lambda directions, grad_harmonics, degree: torch.empty_like(directions),
    _setup_second_context,
    _second_backward,
)
_SPHERICAL_HARMONICS_SECOND = Operator(
    "spherical_harmonics_second_backward("
    "Tensor directions, Tensor grad_harmonics, Tensor grad_grad_directions, int degree) -> (Tensor, Tensor)",
    _derivatives_along,
    lambda directions, grad_harmonics, grad_grad_directions, degree: (
        torch.empty_like(directions),
        _empty_harmonics(directions, degree),
    ),
    backward=not_differentiable("spherical_harmonics"),
)
