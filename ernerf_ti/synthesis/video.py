"""Synthesize speech into files: a video with its sound, opaque or with alpha, or a folder of images with alpha."""

import contextlib
import math
import re
import sys
from collections.abc import Callable, Iterator
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
from ernerf_ti.media.video_formats import CODECS, DEFAULT_ENCODING, Encoding, codec_of
from ernerf_ti.media.video_sound import VideoSound
from ernerf_ti.media.video_writer import VideoWriter, hardware_encoding_problem
from ernerf_ti.portrait.camera import interpolate_poses, scene_from_capture
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
from ernerf_ti.synthesis.outputs import check_formats, check_writable, output_has_alpha, output_paths
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

    The sound is that of the audio file, with its rate and channels: copied where the container takes it unchanged, else
    encoded, and then padded with silence to a whole number of frames.

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
    check_formats(options)
    rate = options.rate
    samples = read_sound(options.audio, SAMPLE_RATE)
    n = math.ceil(len(samples) * rate / SAMPLE_RATE)
    if n == 0:
        raise ValueError(f"{options.audio}: expected speech, got no sound; pass a longer recording")
    poses, capture_indices, eye_closures, positions = _motion(trained, options, n)
    background = _background(trained, options.background)
    check_writable(options)
    image_with_alpha = transparent_image if background is None else opaque_image
    videos = _videos(options, image_with_alpha, poses)
    images = [image for _, image, _ in videos] + ([] if options.output.suffix else [image_with_alpha])
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(contextlib.closing(w)) for w in _writers(trained, options, videos, n)]
        windows = _windows(trained, options, samples)
        frames = render_frames(
            *(trained, windows, poses, eye_closures, background, not options.head_only, capture_indices, positions)
        )
        pictures = stack.enter_context(contextlib.closing(images_ahead(frames, images, trained.background.device)))
        for k, of_frame in enumerate(tqdm(pictures, "frames", n, unit="frame")):
            for writer, picture in zip(writers, of_frame, strict=False):
                writer.write(picture)
            if not options.output.suffix:
                path = options.output / f"{k:05d}.png"
                write_synthesized_png(path, of_frame[-1], SYNTHESIZED, sign and partial(sign, path))
        for writer, (path, *_) in zip(writers, videos, strict=True):
            writer.finish(sign and partial(sign, path))
    return output_paths(options)


def _windows(trained: TrainedPortrait, options: SynthesisOptions, samples: np.ndarray) -> Tensor:
    """Audio windows at 25 frames per second."""
    samples = np.pad(samples, (0, -len(samples) % SAMPLES_PER_FRAME))
    if options.windows:
        return ready_made_windows(trained, options.windows, len(samples) // SAMPLES_PER_FRAME)
    return speech_windows(trained, samples, options.speech_model)


def _motion(
    trained: TrainedPortrait, options: SynthesisOptions, n: int
) -> tuple[Tensor, np.ndarray | None, np.ndarray, np.ndarray | None]:
    """Poses, capture's frames and eye closures of the n frames, and their places among those at 25 frames per second;
    None for the places at that rate."""
    if options.rate == FPS:
        poses, capture_indices = _poses(trained, options.pose, n)
        return poses, capture_indices, blinks(trained, n, options.blink, options.seed), None
    positions = np.arange(n) * float(FPS / options.rate)
    n_known = math.floor(positions[-1]) + 2
    poses, capture_indices = _poses(trained, options.pose, n_known)
    if capture_indices is not None:
        capture_indices = capture_indices[np.rint(positions).astype(int)]
    closures = np.interp(positions, np.arange(n_known), blinks(trained, n_known, options.blink, options.seed))
    return interpolate_poses(poses, positions), capture_indices, closures.astype(np.float32), positions


def _writers(
    trained: TrainedPortrait, options: SynthesisOptions, videos: "list[_Video]", n: int
) -> Iterator[VideoWriter]:
    """Open the videos; says on stderr where they differ from what was asked for."""
    hardware = options.hardware_encoding and _can_encode_in_hardware(trained, options)
    sound = VideoSound.of_file(options.audio, float(n / options.rate)) if videos else None
    for path, _, encoding in videos:
        writer = VideoWriter(path, options.rate, sound, encoding, SYNTHESIZED, hardware, trained.size, n)
        if writer.size != trained.size:
            width, height = writer.size
            print(f"{path}: {width}x{height} pixels, as the codec needs an even width and height", file=sys.stderr)
        yield writer


def _can_encode_in_hardware(trained: TrainedPortrait, options: SynthesisOptions) -> bool:
    """Whether the graphics card can encode the H.264 files; says on stderr why not."""
    problem: str | None = "it is for H.264 only"
    paths = [
        (options.output, options.encoding),
        (options.depth, DEFAULT_ENCODING),
        (options.attention, DEFAULT_ENCODING),
    ]
    if any(path and path.suffix and codec_of(path, encoding) is CODECS["h264"] for path, encoding in paths):
        width, height = trained.size
        problem = hardware_encoding_problem(width + width % 2, height + height % 2, options.rate)
    if problem is not None:
        print(f"hardware encoding: {problem}; encoding on the CPU", file=sys.stderr)
    return problem is None


_Video = tuple[Path, Image, Encoding]


def _videos(options: SynthesisOptions, image_with_alpha: Image, poses: Tensor) -> list[_Video]:
    """Videos to write, each with the image of a frame that goes into it."""
    image = image_with_alpha if output_has_alpha(options) else color_image
    videos: list[tuple[Path | None, Image, Encoding]] = [
        (options.output if options.output.suffix else None, image, options.encoding),
        (options.depth, DepthImages(poses), DEFAULT_ENCODING),
        (options.attention, attention_image, DEFAULT_ENCODING),
    ]
    return [(path, image, encoding) for path, image, encoding in videos if path is not None]


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
