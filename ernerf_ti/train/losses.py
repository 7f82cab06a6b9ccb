"""Loss terms, each a function of rendered rays and their targets [ER-NeRF, section 3.5, and its code].

The operations depend on the shapes alone, never on the values, so that a CUDA graph can hold them.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ernerf_ti.portrait.records import RayBatch, RenderOutput
from ernerf_ti.train.config import LossWeights


class ComparedRays(NamedTuple):
    """What the loss depends on: N rendered rays with their targets."""

    rgb: Tensor
    opacity: Tensor
    audio_attention: Tensor
    eye_attention: Tensor
    uncertainty: Tensor | None
    target_rgb: Tensor
    face_mask: Tensor


def compare(output: RenderOutput, batch: RayBatch) -> ComparedRays:
    """Rendered rays with their targets."""
    assert output.audio_attention is not None and output.eye_attention is not None  # training requests them
    rendered = (output.rgb, output.opacity, output.audio_attention, output.eye_attention, output.uncertainty)
    return ComparedRays(*rendered, batch.target_rgb, batch.face_mask)


def squared_error(rays: ComparedRays) -> Tensor:
    """[N] squared error of the color, mean over the channels."""
    return (rays.rgb - rays.target_rgb).square().mean(1)


def uncertainty_weighted(error: Tensor, rays: ComparedRays, progress: float | Tensor) -> Tensor:
    """[N] errors weighted by the rays' uncertainty, plus the terms that train the uncertainty.

    The weight is w = softmax(u) N, blended in as training progresses: rays of a large uncertainty count more. In the
    face u is trained to the size of the error by ln(b)^2 / 2 + |e| / (2 b^2) with b = 1 + u; outside it is kept small.

    Args:
        error: [N] squared errors.
        rays: the rays; their uncertainty was requested.
        progress: fraction of the stage that is done, a number or [].
    """
    u, face = rays.uncertainty, rays.face_mask.to(error.dtype)
    assert u is not None
    weights = torch.softmax(u.detach(), 0) * len(u)
    weighted = error * (0.2 + 0.8 * ((1 - progress) + progress * weights).clamp(0, 10))
    distance = (rays.rgb - rays.target_rgb).detach().norm(dim=1)
    beta = u + 1
    scale = distance / (2 * beta.square()) + beta.log().square() / 2
    return weighted + progress * face * scale + 1e-3 * progress * (1 - face) * u


def head_terms(
    progress: float | Tensor, *fields: Tensor | None, weights: LossWeights, max_steps: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Loss of the head's stages without the terms of smoothness and perception.

    Args:
        progress: fraction of the head stage that is done, a number or []; 1 while fine-tuning.
        fields: those of :class:`ComparedRays`.
        weights: of the terms.
        max_steps: largest number of samples of a ray.

    Returns:
        The weighted terms [] by name, and the mean squared error [].
    """
    rays = ComparedRays._make(fields)
    error = squared_error(rays)
    mse = error.mean()
    color = mse
    if rays.uncertainty is not None:
        color = uncertainty_weighted(error, rays, progress).mean()
    return {"color": color} | regularization(rays, weights, max_steps, progress), mse.detach()


def regularization(rays: ComparedRays, weights: LossWeights, max_steps: int, ramp: float | Tensor) -> dict[str, Tensor]:
    """Weighted terms [] of opacity and attention by name.

    Args:
        rays: the rays.
        weights: of the terms.
        max_steps: largest number of samples of a ray.
        ramp: multiplies the weights of the attention terms, from 0 to 1 over the head stage, a number or [].
    """
    terms = {
        "opacity_entropy": weights.opacity_entropy * opacity_entropy(rays.opacity),
        "audio_attention": ramp * weights.audio_attention * outside_face(rays.audio_attention, rays),
        "eye_attention": ramp * weights.eye_attention * eye_attention(rays, max_steps),
    }
    if weights.attention_outside > 0:
        attention = rays.audio_attention + rays.eye_attention
        terms["attention_outside"] = _late(ramp) * weights.attention_outside * outside_face(attention, rays)
    return terms


def opacity_entropy(opacity: Tensor) -> Tensor:
    """Mean binary entropy in bits of [N] opacities."""
    a = opacity.clamp(1e-5, 1 - 1e-5)
    return -(a * a.log2() + (1 - a) * (1 - a).log2()).mean()


def _late(progress: float | Tensor) -> float | Tensor:
    """0 until nine tenths of a stage are done, then linear to 1 at its end."""
    late = 10 * progress - 9
    return late.clamp(0, 1) if isinstance(late, Tensor) else min(max(late, 0.0), 1.0)


def outside_face(attention: Tensor, rays: ComparedRays) -> Tensor:
    """Mean of an attention [N] outside the face, where neither audio nor the eyes should have an effect."""
    return (attention * ~rays.face_mask).mean()


def eye_attention(rays: ComparedRays, max_steps: int) -> Tensor:
    """Mean eye attention inside the face, weighted by the audio attention, which gets no gradient."""
    return (rays.eye_attention / max_steps * rays.audio_attention.detach() * rays.face_mask).mean()


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
