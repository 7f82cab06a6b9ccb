"""The settings in which a portrait is judged on frames that it was not trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ernerf_ti.data.capture import Capture
from ernerf_ti.data.capture_files import FPS, HEAD
from ernerf_ti.evaluation.metric import Pictures, Setting
from ernerf_ti.media.images import read_image, write_image
from ernerf_ti.portrait.camera import all_pixels, scene_from_capture
from ernerf_ti.portrait.render.alpha import over
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.driving import ping_pong
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.train.training_frames import TrainingFrames

_MEAN_OF = 500  # training frames in the mean frame: evenly chosen from longer captures
_HEAD_HALF = 0.4  # scene units, 10 cm: half the side of a cube that is about a head

WHAT = {
    "head": "the rendered head before the capture's torso and plate; compared with the frame",
    "head_only": "the rendered head before the plate, no torso; compared with the frame's head (by the capture's "
    "labels) before the plate",
    "portrait": "the rendered head and torso before the plate; compared with the frame",
    "nearest_pose": "baseline: the training frame whose head pose is nearest; compared with the frame",
    "mean_frame": "baseline: the mean of the training frames; compared with the frame",
    "truth": "the frames themselves, for metrics that compare with nothing",
    "foreign": "the rendered head, with the torso if it is trained, at the held-out poses, driven by the foreign sound",
    "cross_speaker_nearest_pose": "baseline: the training frames with the nearest head poses beside the foreign sound",
}


@dataclass(frozen=True)
class Chosen:
    """Held-out frames that are evaluated."""

    places: np.ndarray
    """[n] int in the split."""
    frames: TrainingFrames
    """Of the split."""

    def __len__(self) -> int:
        return len(self.places)

    @property
    def ids(self) -> np.ndarray:
        return self.frames.split.frame_ids[self.places]

    @property
    def times(self) -> np.ndarray:
        return self.frames.split.audio_ids[self.places]


def choose_frames(capture: Capture, n: int | None, seconds: float | None, device: torch.device | str) -> Chosen:
    """The held-out frames, or some of them.

    Args:
        capture: theirs.
        n: how many, evenly chosen; None for all.
        seconds: of those of the first seconds; None for no limit.
        device: where the frames are rendered.

    Raises ValueError for fewer than one frame, or less than a frame's time.
    """
    frames = TrainingFrames(capture, capture.val, device)
    if n is not None and n < 1:
        raise ValueError(f"frames: expected at least 1, got {n}; leave it out for all held-out frames")
    if seconds is not None and not seconds * FPS >= 1:
        raise ValueError(f"max-seconds: expected at least {1 / FPS:g}, got {seconds:g}; leave it out for all frames")
    places = np.arange(len(frames))
    if seconds is not None:
        times = frames.split.audio_ids
        places = places[times < times[0] + round(seconds * FPS)]
    if n is not None and n < len(places):
        places = places[np.linspace(0, len(places) - 1, n).round().astype(int)]
    return Chosen(places, frames)


def held_out_settings(
    trained: TrainedPortrait, capture: Capture, chosen: Chosen, folder: Path, samples: np.ndarray | None, torso: bool
) -> tuple[list[Setting], dict[str, float]]:
    """Render the frames, and make the baselines.

    Args:
        trained: the portrait.
        capture: of the portrait.
        chosen: which frames.
        folder: where rendered frames go, as PNGs.
        samples: [S] the capture's sound, None without.
        torso: whether it has a torso to render.

    Returns:
        The settings, and the median seconds in which a frame of the head, and of the portrait, was rendered.
    """
    truth = Pictures(len(chosen), lambda i: capture.image(chosen.ids[i]))
    head_truth = Pictures(len(chosen), lambda i: _head_alone(capture, chosen.ids[i]))
    labeled = all(capture.paths.labels(k).is_file() for k in chosen.ids)
    names = ["head", *(["head_only"] if labeled else []), *(["portrait"] if torso else [])]
    seconds = _render(trained, capture, chosen, folder, names)
    rows = {name: _saved(folder / name, len(chosen)) for name in names}
    nearest = nearest_poses(capture.train.poses, capture.val.poses[chosen.places])
    rows["nearest_pose"] = Pictures(len(chosen), lambda i: capture.image(capture.train.frame_ids[nearest[i]]))
    mean = _mean_frame(capture)
    rows["mean_frame"] = Pictures(len(chosen), lambda i: mean)
    rows["truth"] = truth
    windows = capture.audio_windows[chosen.times]

    def setting(name: str, pictures: Pictures) -> Setting:
        compared = {"head_only": head_truth, "truth": None}.get(name, truth)
        return Setting(
            *(name, WHAT[name], pictures, compared, lambda i: capture.landmarks(chosen.ids[i])),
            *(chosen.times, samples, windows),
        )

    return [setting(name, pictures) for name, pictures in rows.items()], seconds


def cross_speaker_settings(
    trained: TrainedPortrait,
    capture: Capture,
    chosen: Chosen,
    folder: Path,
    samples: np.ndarray,
    windows: Tensor,
    torso: bool,
) -> list[Setting]:
    """Render the held-out poses, there and back, with another sound.

    Args:
        trained, capture, chosen, folder, torso: as for :func:`held_out_settings`.
        samples: [S] the sound.
        windows: [T, steps, C] of it.
    """
    order = ping_pong(len(windows), len(chosen))
    places, ids = chosen.places[order], chosen.ids[order]
    poses = chosen.frames.poses[places]
    outputs = render_frames(trained, windows, poses, capture.eye_closures[ids], trained.background, torso)
    for i, output in enumerate(tqdm(outputs, "foreign sound", len(windows), unit="frame")):
        _save(folder / "foreign", i, output.rgb)
    nearest = nearest_poses(capture.train.poses, capture.val.poses[places])
    rows = {
        "foreign": _saved(folder / "foreign", len(windows)),
        "cross_speaker_nearest_pose": Pictures(
            len(windows), lambda i: capture.image(capture.train.frame_ids[nearest[i]])
        ),
    }
    return [
        Setting(
            *(name, WHAT[name], pictures, None, lambda i: capture.landmarks(ids[i])),
            *(np.arange(len(windows)), samples, windows.numpy()),
        )
        for name, pictures in rows.items()
    ]


def nearest_poses(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each of the poses [n, 4, 4] the place of the nearest one of [m, 4, 4].

    The distance of two poses is the root mean square one, in the camera, between the corners of a cube of the size
    of a head. Poses are those of a capture.
    """
    corners = np.stack(np.meshgrid(*3 * [(-_HEAD_HALF, _HEAD_HALF)]), -1).reshape(-1, 3)
    corners = np.column_stack((corners, np.ones(len(corners))))

    def in_camera(poses: np.ndarray) -> np.ndarray:
        scene = scene_from_capture(torch.from_numpy(np.ascontiguousarray(poses, np.float64))).numpy()
        return (np.linalg.inv(scene)[:, None, :3] @ corners[:, :, None]).reshape(len(poses), -1)

    have = in_camera(known)
    return np.array([int(np.square(have - one).sum(1).argmin()) for one in in_camera(wanted)])


def _render(
    trained: TrainedPortrait, capture: Capture, chosen: Chosen, folder: Path, names: list[str]
) -> dict[str, float]:
    """Write the frames of the settings; returns the median seconds of a frame of the head and of the portrait."""
    device = trained.background.device
    background, times = trained.background, {}
    pixels = all_pixels(capture.height, capture.width)

    def timed(what: str, draw: Callable):
        _wait(device)
        begin = perf_counter()
        output = draw()
        _wait(device)
        times.setdefault(what, []).append(perf_counter() - begin)
        return output

    for i, place in enumerate(tqdm(chosen.places, "held-out frames", unit="frame")):
        inputs = chosen.frames.inputs(int(place), trained=False)
        head = timed("head", lambda inputs=inputs: trained.render(inputs, None, with_torso=False))
        torso = chosen.frames.rays(int(place), pixels, "head").background_rgb.view_as(head.rgb)
        _save(folder / "head", i, over(head.rgb, head.opacity, torso))
        if "head_only" in names:
            _save(folder / "head_only", i, over(head.rgb, head.opacity, background))
        if "portrait" in names:
            whole = timed("portrait", lambda inputs=inputs: trained.render(inputs, background))
            _save(folder / "portrait", i, whole.rgb)
    # The first frame may compile kernels.
    return {what: float(np.median(values[1:] or values)) for what, values in times.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _head_alone(capture: Capture, k: int) -> np.ndarray:
    return np.where(capture.labels(k)[..., None] == HEAD, capture.image(k), capture.background)


def _mean_frame(capture: Capture) -> np.ndarray:
    ids = capture.train.frame_ids
    chosen = ids[np.linspace(0, len(ids) - 1, min(len(ids), _MEAN_OF)).astype(int)]
    total = sum(capture.image(k).astype(np.float64) for k in tqdm(chosen, "mean frame", unit="frame", leave=False))
    return np.round(total / len(chosen)).astype(np.uint8)


def _save(folder: Path, i: int, rgb: Tensor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_image(folder / f"{i:05d}.png", (rgb.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy())


def _saved(folder: Path, n: int) -> Pictures:
    return Pictures(n, lambda i: read_image(folder / f"{i:05d}.png"))
