"""Synthesized speech as files: a video with its sound, opaque or with alpha, or pictures with alpha."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ernerf_ti.audio.frame_features import SAMPLE_RATE
from ernerf_ti.data.capture_files import FPS, read_transforms
from ernerf_ti.media.images import read_image, write_image
from ernerf_ti.media.sound import read_sound
from ernerf_ti.media.video import TRANSPARENT_SUFFIXES, VIDEO_SUFFIXES, VideoWriter
from ernerf_ti.portrait.camera import scene_from_capture
from ernerf_ti.portrait.records import RenderOutput
from ernerf_ti.process.prefetch import ahead
from ernerf_ti.run.trained_portrait import TrainedPortrait
from ernerf_ti.synthesis.driving import blinks, head_path, ping_pong, ready_made_windows, speech_windows
from ernerf_ti.synthesis.frames import render_frames

SYNTHESIZED = {
    "title": "Synthesized portrait",
    # The term of the IPTC for media made by a trained model.
    "comment": "Synthesized by ernerf-ti, not a recording of a person. "
    "digitalSourceType: http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
}
"""Metadata of every video."""

_FRAME = round(SAMPLE_RATE / FPS)


@dataclass(frozen=True)
class SpeechVideo:
    """What is spoken, how it looks, and where it goes; see tools/synthesize.py."""

    audio: Path
    output: Path
    pose: str = "capture"
    blink: str = "capture"
    background: str = "capture"
    head_only: bool = False
    depth: Path | None = None
    attention: Path | None = None
    speech_model: Path | None = None
    windows: Path | None = None
    seed: int = 0


def synthesize(trained: TrainedPortrait, wanted: SpeechVideo) -> list[Path]:
    """Render speech and write it.

    Sound and pictures are of the same length: the sound is filled up with silence to a whole frame.

    Args:
        trained: who speaks.
        wanted: what.

    Returns:
        The files, or the folder, that were written.

    Raises:
        FileNotFoundError, ValueError: an input that is not there or does not fit, before anything is rendered.
    """
    samples = read_sound(wanted.audio, SAMPLE_RATE)
    samples = np.pad(samples, (0, -len(samples) % _FRAME))
    n = len(samples) // _FRAME
    if n and wanted.windows:
        windows = ready_made_windows(trained, wanted.windows, n)
    else:
        windows = speech_windows(trained, samples, wanted.speech_model)
    if n == 0:
        raise ValueError(f"{wanted.audio}: expected speech, got no sound; pass a longer recording")
    poses, places = _poses(trained, wanted.pose, n)
    eye_closures = blinks(trained, n, wanted.blink, wanted.seed)
    background = _background(trained, wanted.background)
    _check_outputs(wanted, background is None)
    frames = render_frames(trained, windows, poses, eye_closures, background, not wanted.head_only, places)
    frames = ahead(tqdm(frames, "frames", n, unit="frame"))
    videos = [(wanted.depth, _depth_picture), (wanted.attention, _attention_picture)]
    videos = [(path, picture) for path, picture in videos if path is not None]
    suffix = wanted.output.suffix.lower()
    with_alpha = _transparent_picture if background is None else _opaque_picture
    if suffix:
        videos.insert(0, (wanted.output, with_alpha if suffix in TRANSPARENT_SUFFIXES else picture_of))
    else:
        frames = _save_pictures(frames, wanted.output, with_alpha)
    writers = [VideoWriter(path, FPS, samples, SAMPLE_RATE, metadata=SYNTHESIZED) for path, _ in videos]
    try:
        for output in frames:
            for writer, (_, picture) in zip(writers, videos, strict=True):
                writer.write(picture(output))
        for writer in writers:
            writer.finish()
    finally:
        for writer in writers:
            writer.close()
    return [path for path, _ in videos] + ([] if suffix else [wanted.output])


def _check_outputs(wanted: SpeechVideo, transparent: bool) -> None:
    suffix = wanted.output.suffix.lower()
    if suffix and suffix not in VIDEO_SUFFIXES:
        raise ValueError(
            f"output: expected {', '.join(VIDEO_SUFFIXES)} or a folder, got {wanted.output}; choose one of these"
        )
    if transparent and suffix and suffix not in TRANSPARENT_SUFFIXES:
        raise ValueError(
            f"output: expected {', '.join(TRANSPARENT_SUFFIXES)} or a folder for pictures with alpha, "
            f"got {wanted.output}; {suffix} has no transparency"
        )
    for name in ("depth", "attention"):
        path = getattr(wanted, name)
        if path is not None and path.suffix.lower() != ".mp4":
            raise ValueError(f"{name}: expected an .mp4, got {path}; choose another name")


def _save_pictures(
    frames: Iterator[RenderOutput], folder: Path, picture: Callable[[RenderOutput], np.ndarray]
) -> Iterator[RenderOutput]:
    folder.mkdir(parents=True, exist_ok=True)
    for k, output in enumerate(frames):
        write_image(folder / f"{k:05d}.png", picture(output))
        yield output


def _poses(trained: TrainedPortrait, kind: str, n: int) -> tuple[Tensor, np.ndarray | None]:
    """[n, 4, 4] poses, and [n] places in the capture if they are of there."""
    if kind in ("capture", "still"):
        return head_path(trained, n, kind)
    if not Path(kind).is_file():
        raise FileNotFoundError(f"pose: expected capture, still or a transforms file, got {kind}; choose one of these")
    _, _, split = read_transforms(Path(kind))
    poses = scene_from_capture(torch.from_numpy(split.poses)).float()
    return poses[ping_pong(n, len(poses))], None


def _background(trained: TrainedPortrait, kind: str) -> Tensor | None:
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
            f"background: expected capture, none, a color as #rrggbb or a picture, got {kind}; choose one of these"
        )
    picture = cv2.resize(read_image(Path(kind))[..., :3], (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(picture).float().to(trained.background.device) / 255


def picture_of(output: RenderOutput) -> np.ndarray:
    """[H, W, 3] uint8 RGB."""
    return _bytes(output.rgb)


def _opaque_picture(output: RenderOutput) -> np.ndarray:
    """[H, W, 4] uint8 of a picture over a background, for a file that has an alpha channel."""
    return np.dstack((picture_of(output), np.full(output.opacity.shape, 255, np.uint8)))


def _transparent_picture(output: RenderOutput) -> np.ndarray:
    """[H, W, 4] uint8 RGB and straight alpha of a picture without a background."""
    alpha = output.opacity.clamp(0, 1)[..., None]
    return _bytes(torch.cat((output.rgb / alpha.clamp(min=1e-3), alpha), -1))


def _depth_picture(output: RenderOutput) -> np.ndarray:
    """Near is bright, over half a metre: the depth of the box is 1 scene unit."""
    depth = output.depth / output.opacity.clamp(min=1e-3)
    near = depth[output.depth > 0].min() if (output.depth > 0).any() else depth.min()
    return _bytes(((1 - (depth - near)).clamp(0, 1) * (output.depth > 0))[..., None].expand(*depth.shape, 3))


def _attention_picture(output: RenderOutput) -> np.ndarray:
    """Audio attention in red, eye attention in green, each over its largest value, the picture behind in gray."""
    gray = output.rgb.mean(-1) * 0.5
    maps = [values / values.max().clamp(min=1e-6) for values in (output.audio_attention, output.eye_attention)]
    return _bytes(torch.stack((gray + maps[0] * 0.5, gray + maps[1] * 0.5, gray), -1))


def _bytes(values: Tensor) -> np.ndarray:
    return (values.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
