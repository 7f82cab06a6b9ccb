"""Make a baked portrait of a run: one file that renders faster on a CPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ernerf_ti.audio.context import audio_contexts
from ernerf_ti.bake.baking import BakeOptions, TrainingConditions, bake_head
from ernerf_ti.data.capture import Capture, open_capture
from ernerf_ti.media.files import file_digest
from ernerf_ti.run.checkpoint import load_checkpoint, save_checkpoint
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.trained_portrait import TrainedPortrait, load_portrait

_CONTEXTS_PER_CHUNK = 64
# What rendering and evaluation need of a checkpoint.
_KEPT = ("portrait_config", "portrait", "capture", "scene", "train_config", "stage", "step", "stage_finished")
_KEPT_IF_THERE = ("stage_seconds", "consent", "official")


def bake_run(
    run: Path,
    output: Path,
    capture: Path | None,
    options: BakeOptions,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Write a baked portrait.

    Args:
        run: a run folder or a checkpoint.
        output: the file.
        capture: folder of the capture that the run was trained on; None for the one that the run names.
        options: what is stored.
        report: called with lines that say what was found.

    Raises:
        FileNotFoundError, ValueError: as :func:`ernerf_ti.run.trained_portrait.load_portrait` and
            :func:`ernerf_ti.data.capture.open_capture`; for a capture of other features, and for a baked portrait.
    """
    folder = RunFolder.find(run)
    content = load_checkpoint(folder.checkpoint)
    if "baked" in content:
        raise ValueError(f"{run}: expected a run, got a baked portrait; pass the run that it was made of")
    trained = load_portrait(folder.checkpoint)
    opened = open_capture(capture or folder.capture(), trained.extractor)
    trained_on = training_conditions(trained, opened)
    camera = (trained.intrinsics, trained.size)
    baked = bake_head(trained.portrait, *camera, trained_on, trained.appearance_index, options, report)
    kept = {name: content[name] for name in _KEPT if name in content}
    kept |= {name: content[name] for name in _KEPT_IF_THERE if name in content}
    source = {"run": folder.path.absolute().name, "checkpoint_sha256": file_digest(folder.checkpoint)}
    save_checkpoint(output, {**kept, "baked": baked.state(), "baked_from": source})


@torch.no_grad()
def training_conditions(trained: TrainedPortrait, capture: Capture) -> TrainingConditions:
    """Speech, eye closures and poses of the frames that a portrait was trained on.

    Raises ValueError if the capture has other features than the portrait.
    """
    windows, times = torch.from_numpy(capture.audio_windows), np.asarray(capture.train.audio_ids)
    if windows.shape[2] != trained.feature_dimension or len(capture.train) > len(trained.poses):
        raise ValueError(
            f"{capture.folder}: expected the capture of the run, with features of {trained.feature_dimension} channels "
            f"and up to {len(trained.poses)} training frames, got {windows.shape[2]} and {len(capture.train)}; "
            "pass the capture that the run was trained on"
        )
    contexts = audio_contexts(windows, silent_ends=trained.as_published)
    codes: list[Tensor] = []
    for part in np.array_split(times.clip(0, len(contexts) - 1), -(-len(times) // _CONTEXTS_PER_CHUNK)):
        codes.append(trained.portrait.head.audio_encoder(contexts[torch.from_numpy(part).long()]))
    n = len(times)
    return TrainingConditions(torch.cat(codes), trained.eye_closures[:n], trained.poses[:n])
