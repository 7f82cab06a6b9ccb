"""Compare a frame computed by the public ER-NeRF code with ours: image, maps, loss and gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ernerf_ti.interop.kinks import Kink, ReluTrace, choose_sides, find_kinks
from ernerf_ti.interop.tensors import EMBEDDINGS, by_official_name
from ernerf_ti.media.files import read_arrays, require_file
from ernerf_ti.portrait.config import MarchConfig
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.records import FieldOutput, FrameInputs, RenderOutput
from ernerf_ti.portrait.render.frame import ImagePixels, render_portrait
from ernerf_ti.portrait.render.head import render_head

VALUES = 1e-4
"""Largest absolute difference of an image or map."""
LOSS = 1e-5
"""Largest relative difference of the loss."""
GRADIENTS = 1e-3
"""Largest L2 norm of the difference of a gradient, relative to the gradient."""

_INPUTS = ("pose", "intrinsics", "auds", "eye", "bg")
_MAPS = {"image": "rgb", "amb_aud": "audio_attention", "amb_eye": "eye_attention"}
_TRAINING_INPUTS = ("rays_o", "rays_d", "index", "train_gt", "train_loss")
_TRAINING_MAPS = {"train_image": "rgb", "train_weights_sum": "opacity", "train_unc": "uncertainty"}
_GRADIENT = "grad/"


class Difference(NamedTuple):
    """Difference of a quantity between the two programs."""

    name: str
    value: float
    limit: float
    kinks: int = 0
    """Number of units at ReLU kinks that were flipped for it."""

    @property
    def fits(self) -> bool:
        return self.value <= self.limit  # False for NaN


def read_frame(path: Path) -> dict[str, Tensor]:
    """The arrays of a frame.npz.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file.
    """
    arrays = read_arrays(require_file(path, "a frame.npz", "check the path"))
    try:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    except TypeError as error:  # text and other things that are no tensors
        raise ValueError(f"{path}: expected arrays of numbers in an .npz, got {error}; write the frame again") from None


def check_frame(portrait: Portrait, has_torso: bool, frame: dict[str, Tensor]) -> list[Difference]:
    """Compare one frame.

    The frame is rendered like in the public code: in passes, with appearance embedding 0. For a head, a training
    step follows, without jitter, with appearance embedding `index` and the loss
    mean((image - train_gt)^2) + 1e-3 mean(audio) + 2e-3 mean(eye) + 3e-3 mean(uncertainty) + 0.01 mean(opacity).

    Args:
        portrait: portrait of an official checkpoint, with all of its appearance embeddings.
        has_torso: whether the checkpoint has a torso.
        frame: inputs `pose` [1, 4, 4], `intrinsics` [4], `auds` [8, C, steps], `eye` [1, 1], `bg` [H, W, 3];
            results `head_*` or `torso_*` (`image` [H, W, 3], `amb_aud`, `amb_eye` [H, W]); for a head also
            `rays_o`, `rays_d` [1, N, 3], `index`, `train_gt` [1, N, 3], `train_loss`, `train_image`,
            `train_weights_sum`, `train_unc`, and `grad/NAME` of every parameter (the first rows of embeddings).

    Returns:
        A Difference for each result.

    Raises:
        ValueError: arrays are missing or have other shapes.
    """
    prefix = "torso_" if has_torso else "head_"
    _need(frame, [*_INPUTS, *(prefix + name for name in _MAPS)])
    device = portrait.head_grid.bitfield.device
    frame = {name: array.to(device) for name, array in frame.items()}
    # By default torch rounds the inputs of convolutions to 10 bits on CUDA; the public code switches that off.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        output = _render(portrait, has_torso, frame)
        differences = [_values(prefix + name, getattr(output, ours), frame) for name, ours in _MAPS.items()]
        return differences if has_torso else differences + _check_training(portrait, frame)


def _render(portrait: Portrait, has_torso: bool, frame: dict[str, Tensor]) -> RenderOutput:
    inputs = _frame_inputs(frame, 0)
    pose, (height, width) = inputs.head_pose, frame["bg"].shape[:2]
    with torch.no_grad():
        head = portrait.head.bind(inputs, with_uncertainty=False)
    pixels = ImagePixels(tuple(frame["intrinsics"].tolist()), (width, height), pose.device)
    return render_portrait(
        *(head, portrait.head_grid, pose, pixels, MarchConfig(), frame["bg"].float()),
        torso=(lambda coords: portrait.torso(coords, pose, 0)) if has_torso else None,
        torso_grid=portrait.torso_grid if has_torso else None,
        in_passes=True,
    )


def _check_training(portrait: Portrait, frame: dict[str, Tensor]) -> list[Difference]:
    portrait.requires_grad_(True)
    portrait.zero_grad(set_to_none=True)
    parameters = by_official_name(dict(portrait.head.named_parameters(prefix="head")))
    _need(frame, [*_TRAINING_INPUTS, *_TRAINING_MAPS, *(_GRADIENT + name for name in parameters)])
    others = {name for name in frame if name.startswith(_GRADIENT)} - {_GRADIENT + name for name in parameters}
    if others:
        raise ValueError(
            f"frame: expected gradients of the checkpoint's parameters, got others too ({', '.join(sorted(others))}); "
            "pass the frame of this checkpoint"
        )
    head, march = portrait.head, MarchConfig()
    inputs = _frame_inputs(frame, int(frame["index"]))
    seen, trace = [], ReluTrace()

    def field(positions: Tensor, directions: Tensor) -> FieldOutput:
        seen.append((positions, directions))
        return head.bind(inputs)(positions, directions)

    rays_o, rays_d = (frame[name].reshape(-1, 3).float().contiguous() for name in ("rays_o", "rays_d"))
    with trace:
        output = render_head(
            *(field, portrait.head_grid, rays_o, rays_d),
            # All samples at once, as in the public code, so that each layer is recorded once.
            MarchConfig(samples_per_pass=march.max_steps, samples_per_chunk=2**62),
            frame["bg"].reshape(-1, 3).float(),
        )
    assert output.uncertainty is not None  # requested by the field, like the attention
    assert output.audio_attention is not None and output.eye_attention is not None
    loss = (
        (output.rgb - frame["train_gt"].reshape(-1, 3)).square().mean()
        + 1e-3 * output.audio_attention.mean()
        + 2e-3 * output.eye_attention.mean()
        + 3e-3 * output.uncertainty.mean()
        + 0.01 * output.opacity.mean()
    )
    loss.backward()
    differences = [_values(name, getattr(output, ours), frame) for name, ours in _TRAINING_MAPS.items()]
    expected = float(frame["train_loss"])
    differences.append(Difference("train_loss", abs(float(loss.detach()) - expected) / max(abs(expected), 1e-30), LOSS))

    def evaluate(samples: Tensor | None = None) -> ReluTrace:
        """Trace of some samples; if None, of all, moved along their rays by two units in the last place."""
        ((positions, directions),) = seen
        if samples is None:
            distances = (positions - inputs.head_pose[:3, 3]).norm(dim=1, keepdim=True)
            positions = positions + directions * distances * (2 * torch.finfo(positions.dtype).eps)
        else:
            positions, directions = positions[samples], directions[samples]
        with ReluTrace() as found:
            head.bind(inputs)(positions, directions)
        return found

    return differences + _compare_gradients(portrait, frame, trace, evaluate)


def _compare_gradients(
    portrait: Portrait, frame: dict[str, Tensor], trace: ReluTrace, evaluate: Callable[..., ReluTrace]
) -> list[Difference]:
    named = dict(portrait.head.named_parameters(prefix="head"))
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named.items()}
    expected = {name: frame[_GRADIENT + name].double() for name in by_official_name(gradients)}
    norms = {name: max(float(value.norm()), 1e-30) for name, value in expected.items()}

    def relative(values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Values by official names relative to the gradients; of embeddings the rows that the frame has."""
        found = by_official_name(values)
        embeddings = EMBEDDINGS[0]
        if embeddings in found:
            found[embeddings] = found[embeddings][: len(expected[embeddings])]
        return {name: value.double() / norms[name] for name, value in found.items()}

    errors = relative(gradients)
    for name, value in errors.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{_GRADIENT}{name}: expected shape {list(value.shape)}, got {list(expected[name].shape)}; "
                "pass the frame of this checkpoint"
            )
        errors[name] = value - expected[name] / norms[name]
    kinks: list[Kink] = []
    if any(not float(error.norm()) <= GRADIENTS for error in errors.values()):
        own_norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
        with torch.no_grad():
            moved = evaluate()
        kinks = find_kinks(trace, moved, evaluate, named, own_norms)
        kinks = [kink._replace(changes=relative(kink.changes)) for kink in kinks]
        errors, kinks = choose_sides(errors, kinks, GRADIENTS)
    return [
        Difference(_GRADIENT + name, float(error.norm()), GRADIENTS, sum(name in kink.changes for kink in kinks))
        for name, error in errors.items()
    ]


def _frame_inputs(frame: dict[str, Tensor], appearance_index: int) -> FrameInputs:
    pose, auds, eye = (frame[name].float() for name in ("pose", "auds", "eye"))
    return FrameInputs(auds.contiguous(), eye.view(1), appearance_index, pose.view(4, 4))


def _values(name: str, ours: Tensor, frame: dict[str, Tensor]) -> Difference:
    theirs = frame[name]
    if theirs.numel() != ours.numel():
        raise ValueError(
            f"{name}: expected {ours.numel()} numbers (of shape {list(ours.shape)}), got {list(theirs.shape)}; "
            "pass the frame of this checkpoint"
        )
    return Difference(name, float((ours.detach().double().flatten() - theirs.double().flatten()).abs().max()), VALUES)


def _need(frame: dict[str, Tensor], names: list[str]) -> None:
    missing = [name for name in names if name not in frame]
    if missing:
        raise ValueError(
            f"frame: expected the arrays {', '.join(missing)}, got none of these names; "
            "pass the frame of this checkpoint, with the results of its kind (head_* or torso_*)"
        )
