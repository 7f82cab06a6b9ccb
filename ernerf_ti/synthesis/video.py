"""Synthesize speech into files: a video with its sound, opaque or with alpha, or a folder of images with alpha."""

import contextlib
import re
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture_files import FPS, read_transforms
from ernerf_ti.media.images import read_image
from ernerf_ti.media.provenance.note import SOURCE_TYPE, write_synthesized_png
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video_writer import TRANSPARENT_SUFFIXES, VIDEO_SUFFIXES, VideoWriter, hardware_encoding_problem
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.driving import (
    SAMPLES_PER_FRAME,
    blinks,
    head_path,
    ping_pong,
    ready_made_windows,
    speech_windows,
)
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.synthesis.images import DepthImages, attention_image, color_image, opaque_image, transparent_image
from ernerf_ti.synthesis.options import SynthesisOptions
from ernerf_ti.synthesis.pipeline import Image, images_ahead

SYNTHESIZED = {
    "title": "Synthesized portrait",
    "comment": f"Synthesized by ernerf-ti, not a recording of a person. digitalSourceType: {SOURCE_TYPE}",
}
"""Metadata of every video and picture."""
Sign = Callable[[Path, Path], None]
"""Signs a file: its name, and the complete temporary file that will get it."""


def synthesize(trained: TrainedPortrait, options: SynthesisOptions, sign: Sign | None = None) -> list[Path]:
    """Render speech and write it to files. A video appears only when it is complete.

    The sound is padded with silence to a whole number of frames.

    Args:
        trained: the portrait.
        options: what to render and where to write it.
        sign: called with each file before it appears, see :meth:`ernerf_ti.media.provenance.signing.Signer.sign`.

    Returns:
        The videos, and the folder of images, that were written.

    Raises:
        FileNotFoundError, ValueError: an input is missing or invalid; raised before anything is rendered.
        OSError: an output can't be written; raised before anything is rendered where that can be known.
    """
    samples = read_sound(options.audio, SAMPLE_RATE)
    samples = np.pad(samples, (0, -len(samples) % SAMPLES_PER_FRAME))
    n = len(samples) // SAMPLES_PER_FRAME
    if n == 0:
        raise ValueError(f"{options.audio}: expected speech, got no sound; pass a longer recording")
    if options.windows:
        windows = ready_made_windows(trained, options.windows, n)
    else:
        windows = speech_windows(trained, samples, options.speech_model)
    poses, capture_indices = _poses(trained, options.pose, n)
    eye_closures = blinks(trained, n, options.blink, options.seed)
    background = _background(trained, options.background)
    _check_outputs(options, background is None)
    hardware = options.hardware_encoding and _can_encode_in_hardware(trained, options)
    image_with_alpha = transparent_image if background is None else opaque_image
    frames = render_frames(trained, windows, poses, eye_closures, background, not options.head_only, capture_indices)
    videos = _videos(options, image_with_alpha, poses)
    images = [image for _, image in videos] + ([] if options.output.suffix else [image_with_alpha])
    with contextlib.ExitStack() as stack:
        writers = []
        for path, _ in videos:
            writer = VideoWriter(path, FPS, samples, SAMPLE_RATE, metadata=SYNTHESIZED, hardware=hardware)
            writers.append(stack.enter_context(contextlib.closing(writer)))
        pictures = stack.enter_context(contextlib.closing(images_ahead(frames, images, trained.background.device)))
        for k, of_frame in enumerate(tqdm(pictures, "frames", n, unit="frame")):
            for writer, picture in zip(writers, of_frame, strict=False):
                writer.write(picture)
            if not options.output.suffix:
                path = options.output / f"{k:05d}.png"
                write_synthesized_png(path, of_frame[-1], SYNTHESIZED, sign and partial(sign, path))
        for writer, (path, _) in zip(writers, videos, strict=True):
            writer.finish(sign and partial(sign, path))
    return _output_paths(options)


def _can_encode_in_hardware(trained: TrainedPortrait, options: SynthesisOptions) -> bool:
    """Whether the graphics card can encode the .mp4 files; says on stderr why not."""
    problem: str | None = "it is for .mp4 files only"
    if any(path.suffix.lower() == ".mp4" for path in _output_paths(options)):
        problem = hardware_encoding_problem(*trained.size, FPS)
    if problem is not None:
        print(f"hardware encoding: {problem}; encoding on the CPU", file=sys.stderr)
    return problem is None


def _videos(options: SynthesisOptions, image_with_alpha: Image, poses: Tensor) -> list[tuple[Path, Image]]:
    """Videos to write, each with the image of a frame that goes into it."""
    suffix = options.output.suffix.lower()
    videos: list[tuple[Path | None, Image]] = [
        (options.output if suffix else None, image_with_alpha if suffix in TRANSPARENT_SUFFIXES else color_image),
        (options.depth, DepthImages(poses)),
        (options.attention, attention_image),
    ]
    return [(path, image) for path, image in videos if path is not None]


def _output_paths(options: SynthesisOptions) -> list[Path]:
    return [path for path in (options.output, options.depth, options.attention) if path is not None]


def _check_outputs(options: SynthesisOptions, transparent: bool) -> None:
    """Find out before rendering whether the outputs can be written."""
    suffix = options.output.suffix.lower()
    if suffix and suffix not in VIDEO_SUFFIXES:
        raise ValueError(
            f"output: expected {', '.join(VIDEO_SUFFIXES)} or a folder, got {options.output}; choose one of these"
        )
    if transparent and suffix and suffix not in TRANSPARENT_SUFFIXES:
        raise ValueError(
            f"output: expected {', '.join(TRANSPARENT_SUFFIXES)} or a folder for a transparent background, "
            f"got {options.output}; {suffix} has no alpha channel"
        )
    for name in ("depth", "attention"):
        path = getattr(options, name)
        if path is not None and path.suffix.lower() != ".mp4":
            raise ValueError(f"{name}: expected an .mp4, got {path}; choose another name")
    paths = _output_paths(options)
    if len({path.absolute() for path in paths}) < len(paths):
        raise ValueError("output: expected different files for output, depth and attention, got one path twice")
    for path in paths:
        if path.suffix and path.is_dir():
            raise ValueError(f"{path}: expected a file to write, got a folder; choose another name")
        folder = path.parent if path.suffix else path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(
                f"{path}: could not write to {folder} ({error.strerror}); check its permissions and the disk"
            ) from error


def _poses(trained: TrainedPortrait, kind: str, n: int) -> tuple[Tensor, np.ndarray | None]:
    """[n, 4, 4] poses in the scene, and [n] indices of the capture's frames if they come from there."""
    if kind in ("capture", "still"):
        return head_path(trained, n, kind)
    if not Path(kind).is_file():
        raise FileNotFoundError(f"pose: expected capture, still or a transforms file, got {kind}; choose one of these")
    _, _, split = read_transforms(Path(kind))
    poses = scene_from_capture(torch.from_numpy(split.poses)).float()
    return poses[ping_pong(n, len(poses))], None


def _background(trained: TrainedPortrait, kind: str) -> Tensor | None:
    """[H, W, 3] in [0, 1] on the portrait's device; None for a transparent background."""
    if kind == "none":
        return None
    if kind == "capture":
        return trained.background
    width, height = trained.size
    if re.fullmatch("#[0-9a-fA-F]{6}", kind):
        color = [int(kind[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return torch.tensor(color, device=trained.background.device).expand(height, width, 3)
    if not Path(kind).is_file():
        raise FileNotFoundError(
            f"background: expected capture, none, a color as #rrggbb or an image, got {kind}; choose one of these"
        )
    image = cv2.resize(read_image(Path(kind))[..., :3], (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(image).float().to(trained.background.device) / 255
