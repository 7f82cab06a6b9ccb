"""Loss terms, each a function of rendered rays and their targets [ER-NeRF, section 3.5, and its code].

The operations depend on the shapes alone, never on the values, so that a CUDA graph can hold them.
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from ernerf_ti.portrait.records import RayBatch, RenderOutput
from ernerf_ti.train.config import LossWeights


def squared_error(output: RenderOutput, batch: RayBatch) -> Tensor:
    """[N] squared error of the color, mean over the channels."""
    return (output.rgb - batch.target_rgb).square().mean(1)


def uncertainty_weighted(error: Tensor, output: RenderOutput, batch: RayBatch, progress: float | Tensor) -> Tensor:
    """[N] errors weighted by the rays' uncertainty, plus the terms that train the uncertainty.

    The weight is w = softmax(u) N, blended in as training progresses: rays of a large uncertainty count more. In the
    face u is trained to the size of the error by ln(b)^2 / 2 + |e| / (2 b^2) with b = 1 + u; outside it is kept small.

    Args:
        error: [N] squared errors.
        output, batch: the rays; their uncertainty was requested.
        progress: fraction of the stage that is done, a number or [].
    """
    u, face = output.uncertainty, batch.face_mask.to(error.dtype)
    assert u is not None
    weights = torch.softmax(u.detach(), 0) * len(u)
    weighted = error * (0.2 + 0.8 * ((1 - progress) + progress * weights).clamp(0, 10))
    distance = (output.rgb - batch.target_rgb).detach().norm(dim=1)
    beta = u + 1
    scale = distance / (2 * beta.square()) + beta.log().square() / 2
    return weighted + progress * face * scale + 1e-3 * progress * (1 - face) * u


def head_terms(
    output: RenderOutput, batch: RayBatch, weights: LossWeights, max_steps: int, progress: float | Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Loss of the head stage without its smoothness term.

    Args:
        output, batch: the rays.
        weights: of the terms.
        max_steps: largest number of samples of a ray.
        progress: fraction of the stage that is done, a number or [].

    Returns:
        The weighted terms [] by name, and the mean squared error [].
    """
    error = squared_error(output, batch)
    mse = error.mean()
    color = mse
    if output.uncertainty is not None:
        color = uncertainty_weighted(error, output, batch, progress).mean()
    return {"color": color} | regularization(output, batch, weights, max_steps, progress), mse


def regularization(
    output: RenderOutput, batch: RayBatch, weights: LossWeights, max_steps: int, ramp: float | Tensor
) -> dict[str, Tensor]:
    """Weighted terms [] of opacity and attention by name.

    Args:
        output, batch: the rays.
        weights: of the terms.
        max_steps: largest number of samples of a ray.
        ramp: multiplies the weights of the attention terms, a number or [].
    """
    return {
        "opacity_entropy": weights.opacity_entropy * opacity_entropy(output.opacity),
        "audio_attention": ramp * weights.audio_attention * audio_attention(output, batch),
        "eye_attention": ramp * weights.eye_attention * eye_attention(output, batch, max_steps),
    }


def opacity_entropy(opacity: Tensor) -> Tensor:
    """Mean binary entropy in bits of [N] opacities."""
    a = opacity.clamp(1e-5, 1 - 1e-5)
    return -(a * a.log2() + (1 - a) * (1 - a).log2()).mean()


def audio_attention(output: RenderOutput, batch: RayBatch) -> Tensor:
    """Mean audio attention outside the face, where audio should have no effect."""
    return (output.audio_attention * ~batch.face_mask).mean()


def eye_attention(output: RenderOutput, batch: RayBatch, max_steps: int) -> Tensor:
    """Mean eye attention inside the face, weighted by the audio attention, which gets no gradient."""
    return (output.eye_attention / max_steps * output.audio_attention.detach() * batch.face_mask).mean()


def variation(a: Sequence[Tensor], b: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Mean squared difference of values at N pairs of points, summed over the values.

    Args:
        a, b: [N] for each value.
        mask: [N] bool, the pairs that count; 0 if there are none.
    """
    differences = reduce(torch.add, ((x - y).square() for x, y in zip(a, b, strict=True)))
    return (differences * mask).sum() / mask.sum().clamp(min=1)


def anchor_deviation(anchors: Tensor) -> Tensor:
    """Mean squared deviation from 1 of the last component of homogeneous points [3, 4]."""
    return (1 - anchors[:, 3]).square().mean()


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB, for values in [0, 1]; at most 120."""
    return -10 * math.log10(max(mean_squared_error, 1e-12))
