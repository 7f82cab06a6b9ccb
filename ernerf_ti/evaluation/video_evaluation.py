"""Evaluate a video of a talking head by any method: every metric that needs neither a run nor a capture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.evaluation.evaluation import Evaluation, measure_all, metrics_without_capture
from ernerf_ti.evaluation.fid_metric import Fid
from ernerf_ti.evaluation.mesh_metrics import Meshes, meshes_of, tracker_problem
from ernerf_ti.evaluation.metric import FrameMetric, ImageSequence, Metric, MetricValue, NotComputed, Setting
from ernerf_ti.evaluation.options import VideoOptions, frame_limit
from ernerf_ti.evaluation.run_facts import commit, machine, versions
from ernerf_ti.evaluation.video_frames import VideoFrames, check_shape, count_frames, framing
from ernerf_ti.evaluation.video_metrics import HEAD_LAG, video_metrics
from ernerf_ti.evaluation.weights import weights_folder
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import VideoInfo, probe
from ernerf_ti.preprocess.face_mesh import ibug_landmarks

VIDEO, REFERENCE = "video", "reference"
_IN_PIXELS = {"LMD"}  # beside those of single frames and FID
_RATE_TOLERANCE = 0.01  # frames per second
_LENGTH_TOLERANCE = 1.5 / FPS  # s
_WORTH_SAYING = 0.75  # frames of lag


@dataclass(frozen=True)
class _Input:
    """A video, from the frame on that is compared."""

    path: Path
    info: VideoInfo
    start: int
    """Frame at 25 fps."""

    @property
    def size(self) -> tuple[int, int]:
        return self.info.width, self.info.height

    def sound(self) -> np.ndarray | None:
        """[S] mono at 16 kHz, from its first frame on; None without sound."""
        return None if self.info.sound_rate is None else read_sound(self.path, SAMPLE_RATE)


def evaluate_video(options: VideoOptions) -> Evaluation:
    """Evaluate a video, with a reference or by itself.

    Both are read at 25 fps by their time stamps. The video is scaled to the reference's size. Frames are decoded as
    they are needed, so that memory does not grow with the length but for the face meshes (6 KB a frame and video, 17
    while they are tracked).

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError: a video or a sound can't be read, the shapes of the pictures
            differ, the videos have no frames in common, or no face is found in the true frames.
        ImportError: mediapipe is not installed.
    """
    problem = tracker_problem()
    if problem is not None:
        raise ImportError(f"evaluating a video {problem.reason}")
    video = _Input(options.video, probe(options.video, options.folder_rate), max(0, options.offset))
    reference = None
    if options.reference is not None:
        info = probe(options.reference, options.folder_rate)
        reference = _Input(options.reference, info, max(0, -options.offset))
        check_shape(video.path, video.size, reference.path, reference.size)
    n = _n_frames(video, reference, options)
    sound, whose = _sound(video, reference, options)
    settings = _settings(video, reference, n, sound, whose == REFERENCE, options.folder_rate)
    metrics = [*metrics_without_capture(options.weights or weights_folder(), options.device), *video_metrics()]
    missing = {metric.name: metric.missing() for metric in metrics}
    notes = _notes(video, reference, n, whose, options)
    if reference is not None:
        notes["framing"] = _check_framing(settings[0], metrics, missing)
    results = measure_all(settings, metrics, missing, options.seed)
    if reference is not None:
        notes["offset"] = _offset_text(results[VIDEO, HEAD_LAG], options.offset)
    facts = {
        "video": _facts(video),
        "reference": None if reference is None else _facts(reference),
        "comparison": {"frames": n, "seconds": n / FPS, "offset": options.offset, "notes": notes},
        "machine": machine(options.device),
        "versions": versions(),
        "commit": commit(),
        "bootstrap_seed": options.seed,
    }
    applicable = [metric for metric in metrics if reference is not None or not metric.needs_truth]
    return Evaluation(facts, applicable, settings, results)


def _n_frames(video: _Input, reference: _Input | None, options: VideoOptions) -> int:
    inputs = [video] if reference is None else [video, reference]
    n = count_frames(
        [i.path for i in inputs], [i.start for i in inputs], frame_limit(options.max_seconds), options.folder_rate
    )
    if not n:
        raise ValueError(
            f"offset: expected less than the length of the videos, got {options.offset} frames; pass a smaller one"
        )
    return n


def _sound(video: _Input, reference: _Input | None, options: VideoOptions) -> tuple[np.ndarray | None, str]:
    """[S] mono 16 kHz sound that the video was made for, None if there is none; and whose it is."""
    if options.audio is not None:
        return read_sound(options.audio, SAMPLE_RATE), str(options.audio)
    for source, name in ((video, VIDEO), (reference, REFERENCE)):
        samples = None if source is None else source.sound()
        if samples is not None:
            return samples, name
    return None, ""


def _settings(
    video: _Input,
    reference: _Input | None,
    n: int,
    sound: np.ndarray | None,
    sound_of_reference: bool,
    folder_rate: float,
) -> list[Setting]:
    size = None if reference is None else reference.size
    images: ImageSequence = VideoFrames(video.path, n, video.start, size, folder_rate)
    truth = None if reference is None else VideoFrames(reference.path, n, reference.start, None, folder_rate)
    true_landmarks = _landmarks(images if truth is None else truth, (reference or video).path)
    no_windows = np.zeros((n, 0, 0), np.float32)

    def setting(name: str, description: str, shown: ImageSequence, true: ImageSequence | None, start: int) -> Setting:
        heard = sound
        if name == REFERENCE and reference is not None:
            own = reference.sound()
            heard = sound if own is None else own
        elif sound_of_reference and reference is not None:
            start = reference.start
        times = start + np.arange(n)
        return Setting(name, description, shown, true, lambda i: true_landmarks[i], times, heard, no_windows)

    text = "The video" + (", compared with the reference." if truth is not None else ".")
    settings = [setting(VIDEO, text, images, truth, video.start)]
    if reference is not None and truth is not None:
        text = "The reference itself, for metrics that need no truth: what is to be expected of the video."
        settings.append(setting(REFERENCE, text, truth, None, reference.start))
    return settings


def _landmarks(images: ImageSequence, path: Path) -> np.ndarray:
    """[n, 68, 2] landmarks of the frames, in pixels; interpolated where no face is found."""
    meshes = meshes_of(images)
    if isinstance(meshes, NotComputed):
        raise ValueError(f"{path}: expected a face, found none in {len(images)} frames; pass a video of a talking head")
    found = np.isfinite(meshes.points).all((1, 2))
    at, frames = np.flatnonzero(found), np.arange(len(found))
    flat = ibug_landmarks(meshes.points[found]).reshape(len(at), -1)
    return np.stack([np.interp(frames, at, column) for column in flat.T], 1).reshape(-1, 68, 2).astype(np.float32)


def _check_framing(setting: Setting, metrics: list[Metric], missing: dict[str, NotComputed | None]) -> str:
    """How the face lies in the pictures; metrics of pixels are marked as not computed if that is another place."""
    assert setting.truth is not None
    meshes, true = meshes_of(setting.images), meshes_of(setting.truth)
    if not isinstance(meshes, Meshes) or not isinstance(true, Meshes):
        return "no face is found in the video"
    text, same = framing(meshes, true)
    if same:
        return text
    for metric in metrics:
        if isinstance(metric, FrameMetric | Fid) or metric.name in _IN_PIXELS:
            missing[metric.name] = NotComputed(
                f"the pictures show different parts: {text}; crop both videos to the same part"
            )
    return text


def _notes(video: _Input, reference: _Input | None, n: int, whose: str, options: VideoOptions) -> dict[str, str]:
    """What was done to bring the videos together, by headings."""
    notes = {"sound": f"of the {whose}" if whose in (VIDEO, REFERENCE) else whose or "none"}
    inputs = {VIDEO: video} if reference is None else {VIDEO: video, REFERENCE: reference}
    for name, given in inputs.items():
        said = list(given.info.notes)
        if abs(given.info.rate - FPS) > _RATE_TOLERANCE:
            said.append(f"{given.info.rate:.2f} frames per second, read at {FPS:g} by the time stamps")
        left = given.info.duration - (given.start + n) / FPS
        if left > _LENGTH_TOLERANCE and options.max_seconds is None:
            said.append(f"the last {left:.2f} s have no counterpart and are left out")
        if given is video and reference is not None and video.size != reference.size:
            said.append(f"scaled from {video.size[0]}x{video.size[1]} to {reference.size[0]}x{reference.size[1]}")
        if said:
            notes[f"how the {name} is read"] = "; ".join(said)
    return notes


def _offset_text(lag: MetricValue | NotComputed, offset: int) -> str:
    """Which offset the pictures have, and which one is used."""
    used = f"{offset} frames, as given" if offset else "none"
    if isinstance(lag, NotComputed):
        return f"{used}; can't be measured on the head: {lag.reason}"
    if abs(lag.value) < _WORTH_SAYING:
        return f"{used}; fits the motion of the head to {lag.value:.2f} frames"
    better = offset + round(lag.value)
    late = "late" if lag.value > 0 else "early"
    return (
        f"{used}; but the head moves {abs(lag.value):.2f} frames too {late}: if that is a shift of the file and not a "
        f"fault of the method, pass --offset {better}"
    )


def _facts(given: _Input) -> dict:
    info = given.info
    return {
        "path": str(given.path),
        "size": list(given.size),
        "frames_per_second": info.rate,
        "seconds": info.duration,
        "codec": info.codec,
        "first_frame": given.start,
    }
