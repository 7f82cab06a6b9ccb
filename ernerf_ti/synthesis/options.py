"""Options of speech synthesis, without torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SynthesisOptions:
    """What the portrait says, how it is shown, and which files are written."""

    audio: Path
    """Speech to synthesize: a sound file of any format, or a video whose sound is used."""
    output: Path
    """File to write: .mp4, or .webm or .mov with an alpha channel; a path without a suffix is a folder of PNG images
    with an alpha channel."""
    pose: str = "capture"
    """Head motion: "capture" plays the smoothed head poses of the capture forward and backward in turn, "still" keeps
    the first one, and a path names a transforms file with other poses."""
    blink: str = "capture"
    """Eye closure: "capture" follows the capture, "natural" blinks at random times, and a number from 0 (open) to 1
    (closed) is kept throughout."""
    background: str = "capture"
    """Background: "capture" is the one of the capture, "none" is transparent, a color is written #rrggbb, and a path
    names an image."""
    head_only: bool = False
    """Leave the torso out."""
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
    hardware_encoding: bool = False
    """Encode .mp4 files on an NVIDIA graphics card (NVENC); where it can't, a line says why, and the CPU does it."""
