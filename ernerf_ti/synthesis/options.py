"""Options of speech synthesis, without torch."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from ernerf_ti.media.video_formats import Encoding, exact_rate
from ernerf_ti.portrait.config import LARGEST_DIAL

_COLOR = re.compile("#[0-9a-fA-F]{6}")

Part = Literal["face", "head"]
"""What is pasted into a recording."""


@dataclass(frozen=True)
class SynthesisOptions:
    """What the portrait says, how it is shown, and which files are written."""

    audio: Path
    """Speech to synthesize: a sound file of any format, or a video whose sound is used."""
    output: Path
    """File to write: .mp4 or .mkv, or .webm or .mov with an alpha channel; a path without a suffix is a folder of PNG
    images with an alpha channel."""
    pose: str = "capture"
    """Head motion: "capture" plays the smoothed head poses of the capture forward and backward in turn, "still" keeps
    the first one, and a path names a transforms file with other poses."""
    blink: str = "capture"
    """Eye closure: "capture" follows the capture, "natural" blinks at random times, and a number from 0 (open) to 1
    (closed) is kept throughout."""
    dial: tuple[str, ...] = ()
    """Expression dials of a portrait that was trained with them, as NAME=VALUE: brows, smile, gaze-x or gaze-y, from -3
    to 3 standard deviations of the capture. Dials that are not given stay neutral, at 0."""
    mouth_gain: float | None = None
    """How far the mouth moves with the sound, 0 to 3: with 1 as in training, with more further. By default the
    portrait's own, which the preset small sets to 1.15."""
    background: str = "capture"
    """Background: "capture" is the one of the capture, "none" is transparent, a color is written #rrggbb, and a path
    names an image."""
    head_only: bool = False
    """Leave the torso out."""
    onto: Path | None = None
    """A recording of the same person, a video or a folder of pictures: the rendered face is put into it, with its size,
    frame rate, poses and blinks, and the rest of each frame stays as it is."""
    onto_capture: Path | None = None
    """The capture that `ernerf-ti preprocess` made of this recording; by default the one that the portrait was trained
    on."""
    onto_part: Part = "face"
    """What is replaced in the recording: the face below the eyes, or the whole head."""
    onto_size: int | None = None
    """Width and height in pixels at which the head is rendered for --onto; by default those of the capture. It is
    scaled to the recording."""
    depth: Path | None = None
    """An .mp4 of the head's depth to write too; near is bright."""
    attention: Path | None = None
    """An .mp4 of the audio attention (red) and the eye attention (green) to write too."""
    speech_model: Path | None = None
    """Folder of the speech model, for portraits trained on hubert or esperanto features."""
    windows: Path | None = None
    """A .npy file with audio features of the speech, computed by another tool, to use instead of extracting them."""
    seed: int = 0
    """Seed of the blink times with --blink natural."""
    fps: float = 25.0
    """Frames per second, 1 to 120; 29.97 stands for 30000/1001, and 23.976 and 59.94 likewise. Frames are rendered at
    their own times: nothing is repeated or dropped."""
    codec: str | None = None
    """Codec of the output: h264, hevc, vp9, av1 or prores; the default is vp9 in .webm, prores in .mov, else h264.
    Those of vp9 and prores have an alpha channel."""
    crf: int | None = None
    """Constant rate factor of the output: lower is better and larger. h264 0 to 51 (default 18), hevc 0 to 51 (20), vp9
    0 to 63 (18), av1 1 to 63 (24); prores has none."""
    preset: str | None = None
    """Speed of the encoder of the output. h264 and hevc ultrafast to placebo (default medium), vp9 0 to 8 (6) and av1
    0 to 13 (8), higher being faster; prores has none, and hardware encoding its own."""
    hardware_encoding: bool = False
    """Encode H.264 on an NVIDIA graphics card (NVENC); where it can't, a line says why, and the CPU does it."""

    @property
    def dials(self) -> dict[str, float]:
        """Values of the expression dials by name. Raises ValueError for other text than NAME=VALUE, or for a value out
        of range."""
        values = {}
        for text in self.dial:
            name, _, value = text.partition("=")
            try:
                values[name] = float(value)
            except ValueError:
                values[name] = math.nan
            if not abs(values[name]) <= LARGEST_DIAL:
                raise ValueError(
                    f"dial: expected NAME=VALUE with a value from {-LARGEST_DIAL:g} to {LARGEST_DIAL:g}, "
                    f"got {text!r}; pass e.g. --dial brows=1.5"
                )
        return values

    @property
    def pose_file(self) -> Path | None:
        """The transforms file with other poses, if one is given."""
        return None if self.pose in ("capture", "still") else Path(self.pose)

    @property
    def background_file(self) -> Path | None:
        """The image to show behind the person, if one is given."""
        is_file = self.background not in ("capture", "none") and color_of(self.background) is None
        return Path(self.background) if is_file else None

    @property
    def encoding(self) -> Encoding:
        """How the pictures of the output are encoded."""
        return Encoding(self.codec, self.crf, self.preset)

    @property
    def rate(self) -> Fraction:
        """Frames per second. Raises ValueError for one that is out of range."""
        return exact_rate(self.fps)


def color_of(background: str) -> tuple[float, ...] | None:
    """RGB in [0, 1] of a background that is written #rrggbb; None for another one."""
    if not _COLOR.fullmatch(background):
        return None
    return tuple(int(background[i : i + 2], 16) / 255 for i in (1, 3, 5))


def constant_closure(blink: str) -> float | None:
    """The eye closure that the option blink keeps throughout; None for capture and natural.

    Raises ValueError for anything else.
    """
    if blink in ("capture", "natural"):
        return None
    try:
        value = float(blink)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(
            f"blink: expected capture, natural or a number from 0 to 1, got {blink!r}; choose one of these"
        )
    return value
