"""Synthesize speech into files: a video with its sound, opaque or with alpha, or a folder of images with alpha."""

import contextlib
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture_files import FPS, read_transforms
from ernerf_ti.media.images import read_image
from ernerf_ti.media.provenance.note import COMPOSITE_TYPE, SOURCE_TYPE, read_png_note, write_synthesized_png
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video_formats import CODECS, DEFAULT_ENCODING, Encoding, codec_of
from ernerf_ti.media.video_sound import VideoSound
from ernerf_ti.media.video_writer import VideoWriter, hardware_encoding_problem
from ernerf_ti.media.whole_files import replacing_files
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.process.prefetch import ahead
from ernerf_ti.process.ranks import Ranks
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.driving import (
    SAMPLES_PER_FRAME,
    blinks,
    head_path,
    ready_made_windows,
    speech_windows,
)
from ernerf_ti.synthesis.frames import render_frames
from ernerf_ti.synthesis.head_motion import HeadMotion
from ernerf_ti.synthesis.images import DepthImages, attention_image, color_image, opaque_image, transparent_image
from ernerf_ti.synthesis.options import SynthesisOptions, color_of
from ernerf_ti.synthesis.outputs import check_formats, check_writable, output_has_alpha, output_paths
from ernerf_ti.synthesis.paste import paste_frames
from ernerf_ti.synthesis.pipeline import Image, images_ahead
from ernerf_ti.synthesis.take import open_take

SYNTHESIZED = {
    "title": "Synthesized portrait",
    "comment": f"Synthesized by ernerf-ti, not a recording of a person. digitalSourceType: {SOURCE_TYPE}",
}
"""Metadata of every video and picture of a portrait."""
ALTERED = {
    "title": "Altered recording",
    "comment": "A recording in which the face was synthesized by ernerf-ti: the person did not say this. "
    f"digitalSourceType: {COMPOSITE_TYPE}",
}
"""Metadata of recordings into which a portrait was rendered."""
Sign = Callable[[Path, Path], None]
"""Signs a file: its name, and the complete temporary file that will get it."""


def synthesize(
    trained: TrainedPortrait, options: SynthesisOptions, sign: Sign | None = None, ranks: Ranks | None = None
) -> list[Path]:
    """Render speech and write it to files. A video appears only when it is complete, and so do the pictures of a
    folder; those of an earlier, longer output that would follow them are removed.

    The sound is that of the audio file, with its rate and channels: copied where the container takes it unchanged, else
    encoded, and then padded with silence to a whole number of frames.

    Args:
        trained: the portrait.
        options: what to render and where to write it.
        sign: called with each file before it appears, see :meth:`ernerf_ti.media.provenance.signing.Signer.sign`.
        ranks: processes that call this with the same arguments, and render every so many frames each. None for this one
            alone.

    Returns:
        The videos, and the folder of images, that were written: by the first process.

    Raises:
        FileNotFoundError, ValueError: an input is missing or invalid; raised before anything is rendered.
        OSError: an output can't be written; raised before anything is rendered where that can be known.
    """
    ranks = ranks or Ranks()
    check_formats(options)
    dials = trained.dials(options.dials)
    take = None if options.onto is None else open_take(options.onto, options.onto_capture, trained)
    rate = options.rate if take is None else take.rate
    samples = read_sound(options.audio, SAMPLE_RATE)
    n = math.ceil(len(samples) * rate / SAMPLE_RATE)
    if n == 0:
        raise ValueError(f"{options.audio}: expected speech, got no sound; pass a longer recording")
    if take is None:
        motion = _motion(trained, options, n)
        background = _background(trained, options.background)
    else:
        trained = take.camera(trained, options.onto_size or take.capture.width)
        order = take.order(n)
        of_take = take.motion(order)
        positions = None if rate == FPS else np.arange(n) * float(FPS / rate)
        motion = _Motion(of_take.poses, None, of_take.eye_closures, positions)
        background = None
    check_writable(options)
    # A recording is opaque, but the head that is pasted into it is not.
    image_with_alpha = transparent_image if background is None else opaque_image
    videos = _videos(options, image_with_alpha, motion.poses, trained.size, trained.size if take is None else take.size)
    images = [video.image for video in videos] + ([] if options.output.suffix else [image_with_alpha])
    with_torso = take is None and not options.head_only
    with contextlib.ExitStack() as stack:
        opened = _writers(options, videos, rate, n) if ranks.is_first else ()
        writers = [stack.enter_context(contextlib.closing(w)) for w in opened]
        windows = _windows(trained, options, samples)
        frames = render_frames(
            *(trained, windows, motion.poses, motion.eye_closures, background, with_torso),
            *(motion.capture_indices, motion.positions),
            with_attention=options.attention is not None,
            only=ranks.frames(n) if ranks.count > 1 else None,
            dials=dials,
        )
        pictures = stack.enter_context(contextlib.closing(images_ahead(frames, images, trained.background.device)))
        if ranks.count > 1:
            pictures = stack.enter_context(contextlib.closing(ranks.in_order(pictures, n)))
        if take is not None and ranks.is_first:
            place = 0 if options.output.suffix else -1
            with_alpha = options.output.suffix != "" and output_has_alpha(options)
            pasted = paste_frames(take, order, of_take.presence, pictures, place, options.onto_part, with_alpha)
            pictures = stack.enter_context(contextlib.closing(ahead(pasted)))
        folder = None
        if not options.output.suffix and ranks.is_first:
            folder = stack.enter_context(_pictures(options.output, n))
        for k, of_frame in enumerate(tqdm(pictures, "frames", n, unit="frame", disable=not ranks.is_first)):
            for writer, picture in zip(writers, of_frame, strict=False):
                writer.write(picture)
            if folder is not None:
                name = _picture_name(k)
                note, kind = (SYNTHESIZED, SOURCE_TYPE) if take is None else (ALTERED, COMPOSITE_TYPE)
                before_rename = sign and partial(sign, options.output / name)
                write_synthesized_png(folder / name, of_frame[-1], note, before_rename, kind)
        for writer, video in zip(writers, videos, strict=False):
            writer.finish(sign and partial(sign, video.path))
        ranks.wait()
    return output_paths(options) if ranks.is_first else []


@contextlib.contextmanager
def _pictures(folder: Path, n: int) -> Iterator[Path]:
    """Where the n pictures of a folder are written. They appear in it when all are complete, and those of an earlier,
    longer output that follow them go; files of others stay."""
    with replacing_files(folder) as temporary:
        yield temporary
    for k in itertools.count(n):
        path = folder / _picture_name(k)
        if not path.is_file() or read_png_note(path).get("comment") not in (SYNTHESIZED["comment"], ALTERED["comment"]):
            return
        path.unlink()


def _picture_name(k: int) -> str:
    return f"{k:05d}.png"


def _windows(trained: TrainedPortrait, options: SynthesisOptions, samples: np.ndarray) -> Tensor:
    """Audio windows at 25 frames per second."""
    samples = np.pad(samples, (0, -len(samples) % SAMPLES_PER_FRAME))
    if options.windows:
        return ready_made_windows(trained, options.windows, len(samples) // SAMPLES_PER_FRAME)
    return speech_windows(trained, samples, options.speech_model)


class _Motion(NamedTuple):
    """Head and eyes in n frames."""

    poses: Tensor
    """[n, 4, 4] pose_world_from_camera in the scene."""
    capture_indices: np.ndarray | None
    """[n] places among the capture's frames that they come from, if they do."""
    eye_closures: np.ndarray
    """[n] in [0, 1]."""
    positions: np.ndarray | None
    """[n] places among the audio windows, which are at 25 frames per second; None at that rate."""


def _motion(trained: TrainedPortrait, options: SynthesisOptions, n: int) -> _Motion:
    interval = float(FPS / options.rate)
    poses, capture_indices = _poses(trained, options.pose, n, interval)
    closures = blinks(trained, n, options.blink, options.seed, interval)
    positions = None if options.rate == FPS else np.arange(n) * interval
    return _Motion(poses, capture_indices, closures, positions)


class _Video(NamedTuple):
    """A video to write."""

    path: Path
    image: Image
    """What of a rendered frame goes into it."""
    encoding: Encoding
    size: tuple[int, int]
    """Width and height in pixels."""


def _videos(
    options: SynthesisOptions,
    image_with_alpha: Image,
    poses: Tensor,
    size: tuple[int, int],
    output_size: tuple[int, int],
) -> list[_Video]:
    """Videos to write: the output if it is one, and those of the head, of `size` pixels."""
    image = image_with_alpha if options.onto is not None or output_has_alpha(options) else color_image
    videos: list[tuple[Path | None, Image, Encoding, tuple[int, int]]] = [
        (options.output if options.output.suffix else None, image, options.encoding, output_size),
        (options.depth, DepthImages(poses), DEFAULT_ENCODING, size),
        (options.attention, attention_image, DEFAULT_ENCODING, size),
    ]
    return [_Video(path, picture, encoding, of) for path, picture, encoding, of in videos if path is not None]


def _writers(options: SynthesisOptions, videos: list[_Video], rate: Fraction, n: int) -> Iterator[VideoWriter]:
    """Open the videos; says on stderr where they differ from what was asked for."""
    hardware = options.hardware_encoding and _can_encode_in_hardware(videos, rate)
    sound = VideoSound.of_file(options.audio, float(n / rate)) if videos else None
    for path, _, encoding, size in videos:
        note = ALTERED if options.onto is not None and path == options.output else SYNTHESIZED
        writer = VideoWriter(path, rate, sound, encoding, note, hardware, size, n)
        if writer.size != size:
            width, height = writer.size
            print(f"{path}: {width}x{height} pixels, as the codec needs an even width and height", file=sys.stderr)
        yield writer


def _can_encode_in_hardware(videos: list[_Video], rate: Fraction) -> bool:
    """Whether the graphics card can encode the H.264 files; says on stderr why not."""
    sizes = {video.size for video in videos if codec_of(video.path, video.encoding) is CODECS["h264"]}
    problems = [hardware_encoding_problem(w + w % 2, h + h % 2, rate) for w, h in sizes] or ["it is for H.264 only"]
    problem = next((text for text in problems if text is not None), None)
    if problem is not None:
        print(f"hardware encoding: {problem}; encoding on the CPU", file=sys.stderr)
    return problem is None


def _poses(trained: TrainedPortrait, kind: str, n: int, interval: float) -> tuple[Tensor, np.ndarray | None]:
    """[n, 4, 4] poses in the scene, and [n] places among the capture's frames if they come from there."""
    if kind in ("capture", "still"):
        return head_path(trained, n, kind, interval)
    if not Path(kind).is_file():
        raise FileNotFoundError(f"pose: expected capture, still or a transforms file, got {kind}; choose one of these")
    _, _, split = read_transforms(Path(kind))
    motion = HeadMotion(scene_from_capture(torch.from_numpy(split.poses)))
    return motion.poses(motion.places(np.arange(n) * interval), smoothing=1), None


def _background(trained: TrainedPortrait, kind: str) -> Tensor | None:
    """[H, W, 3] in [0, 1] on the portrait's device; None for a transparent background."""
    if kind == "none":
        return None
    if kind == "capture":
        return trained.background
    width, height = trained.size
    color = color_of(kind)
    if color is not None:
        return torch.tensor(color, device=trained.background.device).expand(height, width, 3)
    if not Path(kind).is_file():
        raise FileNotFoundError(
            f"background: expected capture, none, a color as #rrggbb or an image, got {kind}; choose one of these"
        )
    image = cv2.resize(read_image(Path(kind))[..., :3], (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(image).float().to(trained.background.device) / 255
