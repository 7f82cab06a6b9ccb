"""The settings in which a portrait is evaluated on held-out frames: its renderings, and baselines."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import HEAD
from ernerf_ti.data.dials import read_dials
from ernerf_ti.evaluation.metric import ImageSequence, Setting
from ernerf_ti.evaluation.options import check_frames, frame_limit
from ernerf_ti.media.images import read_image, write_image
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.portrait.render.alpha import over
from ernerf_ti.process.ranks import Ranks
from ernerf_ti.process.threads import adaptive_threads
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.driving import ping_pong
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.synthesis.images import to_bytes
from ernerf_ti.train.training_frames import TrainingFrames

_MAX_MEAN_FRAMES = 500  # training frames in the mean frame, evenly spaced
_HEAD_HALF = 0.4  # scene units, 10 cm: half the side of a cube about the size of a head

CROSS_SPEAKER = "cross_speaker"
DESCRIPTIONS = {
    "head": "Rendered head composited over the capture's torso and background, compared with the frame.",
    "head_only": "Rendered head composited over the background, without a torso, compared with the frame's head (by "
    "the capture's segmentation masks) over the background.",
    "portrait": "Rendered head and torso composited over the background, compared with the frame.",
    "nearest_pose": "Baseline: the training frame with the nearest head pose, compared with the frame.",
    "mean_frame": "Baseline: the mean of the training frames, compared with the frame.",
    "truth": "The frames themselves, for metrics without a ground truth.",
    CROSS_SPEAKER: "Rendered head, and torso if it is trained, at the held-out poses, driven by another speaker.",
    f"{CROSS_SPEAKER}_nearest_pose": "Baseline: the training frames with the nearest head poses, with the sound of the "
    "other speaker.",
}


@dataclass(frozen=True)
class HeldOutFrames:
    """Held-out frames to evaluate."""

    indices: np.ndarray
    """[n] int, in the split."""
    frames: TrainingFrames
    """All frames of the split."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def ids(self) -> np.ndarray:
        """[n] int, numbers of the frames in the capture."""
        return self.frames.split.frame_ids[self.indices]

    @property
    def times(self) -> np.ndarray:
        """[n] int, indices of the frames' audio windows."""
        return self.frames.split.audio_ids[self.indices]


def select_frames(
    capture: Capture,
    n: int | None,
    seconds: float | None,
    device: torch.device | str,
    dial_names: tuple[str, ...] = (),
) -> HeldOutFrames:
    """Select held-out frames of a capture.

    Args:
        capture: the capture.
        n: number of frames, evenly spaced; None for all.
        seconds: only those of the first seconds; None or infinity for no limit.
        device: where the frames are rendered.
        dial_names: the expression dials that the frames' inputs have, with the values measured in the capture.

    Raises ValueError for less than one frame, and for a capture on which dials can't be measured.
    """
    check_frames(n)
    dials = read_dials(capture.folder, dial_names, capture.eye_closures).values if dial_names else None
    frames = TrainingFrames(capture, capture.val, device, dials=dials)
    limit = frame_limit(seconds)
    indices = np.arange(len(frames))
    if limit is not None:
        times = frames.split.audio_ids
        indices = indices[times < times[0] + limit]
    if n is not None and n < len(indices):
        indices = indices[np.linspace(0, len(indices) - 1, n).round().astype(int)]
    return HeldOutFrames(indices, frames)


def held_out_settings(
    trained: TrainedPortrait,
    capture: Capture,
    held_out: HeldOutFrames,
    folder: Path,
    samples: np.ndarray | None,
    with_torso: bool,
    ranks: Ranks,
) -> tuple[list[Setting], dict[str, float]]:
    """Render the held-out frames, and make the baselines.

    Args:
        trained: the portrait.
        capture: its capture.
        held_out: frames to evaluate.
        folder: folder for the rendered frames, PNG files.
        samples: [S] the capture's mono sound at 16 kHz; None without sound.
        with_torso: whether the portrait has a torso to render.
        ranks: the processes that render the frames; the first one writes them.

    Returns:
        The settings, and the median seconds per rendered frame of the head and of the portrait.
    """
    truth = ImageSequence(len(held_out), lambda i: capture.image(held_out.ids[i]))
    head_truth = ImageSequence(len(held_out), lambda i: _head_alone(capture, held_out.ids[i]))
    has_masks = all(capture.paths.labels(k).is_file() for k in held_out.ids)
    names = ["head", *(["head_only"] if has_masks else []), *(["portrait"] if with_torso else [])]
    seconds = _render(trained, held_out, folder, names, ranks)
    sequences = {name: saved_frames(folder / name, len(held_out)) for name in names}
    nearest = nearest_poses(capture.train.poses, capture.val.poses[held_out.indices])
    sequences["nearest_pose"] = ImageSequence(
        len(held_out), lambda i: capture.image(capture.train.frame_ids[nearest[i]])
    )
    mean = _mean_frame(capture)
    sequences["mean_frame"] = ImageSequence(len(held_out), lambda i: mean)
    sequences["truth"] = truth
    windows = capture.audio_windows[held_out.times]

    def setting(name: str, images: ImageSequence) -> Setting:
        compared = {"head_only": head_truth, "truth": None}.get(name, truth)
        return Setting(
            *(name, DESCRIPTIONS[name], images, compared, lambda i: capture.landmarks(int(held_out.ids[i]))),
            *(held_out.times, samples, windows),
        )

    return [setting(name, images) for name, images in sequences.items()], seconds


def cross_speaker_settings(
    trained: TrainedPortrait,
    capture: Capture,
    held_out: HeldOutFrames,
    folder: Path,
    samples: np.ndarray,
    windows: Tensor,
    with_torso: bool,
    ranks: Ranks,
) -> list[Setting]:
    """Render the held-out poses, forward and backward in turn, driven by another speaker.

    Args:
        trained, capture, held_out, folder, with_torso, ranks: as for :func:`held_out_settings`.
        samples: [S] mono sound of the other speaker at 16 kHz.
        windows: [T, steps, C] audio windows of that sound.
    """
    n, order = len(windows), ping_pong(len(windows), len(held_out))
    indices, ids = held_out.indices[order], held_out.ids[order]
    poses = held_out.frames.poses[indices]
    eyes, own = capture.eye_closures[ids], ranks.frames(n)
    outputs = render_frames(trained, windows, poses, eyes, trained.background, with_torso, only=own)
    outputs = adaptive_threads(outputs, trained.background.device.type)
    images = ((to_bytes(output.rgb),) for output in outputs)
    save_frames(folder, [CROSS_SPEAKER], images, n, "cross-speaker frames", ranks)
    nearest = nearest_poses(capture.train.poses, capture.val.poses[indices])
    sequences = {
        CROSS_SPEAKER: saved_frames(folder / CROSS_SPEAKER, n),
        f"{CROSS_SPEAKER}_nearest_pose": ImageSequence(n, lambda i: capture.image(capture.train.frame_ids[nearest[i]])),
    }
    return [
        Setting(
            *(name, DESCRIPTIONS[name], images, None, lambda i: capture.landmarks(ids[i])),
            *(np.arange(n), samples, windows.numpy()),
        )
        for name, images in sequences.items()
    ]


def nearest_poses(known: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """For each query the index of the nearest known pose.

    The distance between two poses is the root mean square distance, in camera coordinates, between the corners of a
    cube of the size of a head.

    Args:
        known: [m, 4, 4] poses of a capture.
        queries: [n, 4, 4] poses of a capture.

    Returns:
        [n] int.
    """
    corners = np.stack(np.meshgrid(*3 * [(-_HEAD_HALF, _HEAD_HALF)]), -1).reshape(-1, 3)
    corners = np.column_stack((corners, np.ones(len(corners))))

    def in_camera(poses: np.ndarray) -> np.ndarray:
        scene = scene_from_capture(torch.from_numpy(np.ascontiguousarray(poses, np.float64))).numpy()
        return (np.linalg.inv(scene)[:, None, :3] @ corners[:, :, None]).reshape(len(poses), -1)

    candidates = in_camera(known)
    return np.array([int(np.square(candidates - query).sum(1).argmin()) for query in in_camera(queries)])


def _render(
    trained: TrainedPortrait, held_out: HeldOutFrames, folder: Path, names: list[str], ranks: Ranks
) -> dict[str, float]:
    """Write the frames of the settings; returns the median seconds per frame of the head and of the portrait."""
    device, background = trained.background.device, trained.background
    times: dict[str, list[float]] = {}

    def timed(name: str, render: Callable[[], RenderOutput]) -> RenderOutput:
        _synchronize(device)
        start = perf_counter()
        output = render()
        _synchronize(device)
        times.setdefault(name, []).append(perf_counter() - start)
        return output

    def images() -> Iterator[tuple[np.ndarray, ...]]:
        for index in held_out.indices[ranks.frames(len(held_out))]:
            inputs = held_out.frames.inputs(int(index), trained=False)
            head = timed("head", partial(trained.render, inputs, None, with_torso=False))
            torso = held_out.frames.images(int(index)).torso_over_background
            shown = {"head": over(head.rgb, head.opacity, torso)}
            if "head_only" in names:
                shown["head_only"] = over(head.rgb, head.opacity, background)
            if "portrait" in names:
                shown["portrait"] = timed("portrait", partial(trained.render, inputs, background)).rgb
            yield tuple(to_bytes(shown[name]) for name in names)

    rendered = adaptive_threads(images(), device.type)
    save_frames(folder, names, rendered, len(held_out), "held-out frames", ranks)
    # The first frame may compile kernels.
    return {name: float(np.median(seconds[1:] or seconds)) for name, seconds in times.items()}


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _head_alone(capture: Capture, k: int) -> np.ndarray:
    return np.where(capture.labels(k)[..., None] == HEAD, capture.image(k), capture.background)


def _mean_frame(capture: Capture) -> np.ndarray:
    ids = capture.train.frame_ids
    ids = ids[np.linspace(0, len(ids) - 1, min(len(ids), _MAX_MEAN_FRAMES)).astype(int)]
    total = sum(capture.image(k).astype(np.float64) for k in tqdm(ids, "mean frame", unit="frame", leave=False))
    return np.round(total / len(ids)).astype(np.uint8)


def save_frames(
    folder: Path, names: Sequence[str], images: Iterable[tuple[np.ndarray, ...]], n: int, what: str, ranks: Ranks
) -> None:
    """Write frames for :func:`saved_frames`, in the first process.

    Args:
        folder: gets a folder for each name.
        names: of the settings.
        images: [H, W, 3] uint8 RGB of each setting, of the frames of this process (see :meth:`Ranks.frames`).
        n: frames of all processes.
        what: for the progress bar.
        ranks: the processes.
    """
    for name in names if n and ranks.is_first else ():
        (folder / name).mkdir(parents=True, exist_ok=True)
    bar = tqdm(ranks.in_order(images, n), what, n, unit="frame", disable=not (n and ranks.is_first))
    for i, of_frame in enumerate(bar):
        for name, image in zip(names, of_frame, strict=True):
            write_image(frame_file(folder / name, i), image)


def saved_frames(folder: Path, n: int) -> ImageSequence:
    """The first n frames that :func:`save_frames` wrote to the folder of a setting."""
    return ImageSequence(n, lambda i: read_image(frame_file(folder, i)))


def frame_file(folder: Path, i: int) -> Path:
    """File of frame i of a setting."""
    return folder / f"{i:05d}.png"
