"""Make a capture, or a video with sound, of a synthetic person whose geometry and speech are known exactly.

    ernerf-ti synthetic captures/synthetic
    ernerf-ti synthetic captures/synthetic --seconds 20 --size 512 --voice alto --video talking.mp4
    ernerf-ti synthetic captures/francophone --phones french --features whisper

A portrait can be trained on the capture, and `ernerf-ti preprocess` turns the video into one.
"""

from dataclasses import dataclass
from pathlib import Path

from ernerf_ti.cli.options import Command, Device, Positional, check_range
from ernerf_ti.cli.paths import make_parent, new_folder, output_file, whole_folder
from ernerf_ti.cli.running import UsageError
from ernerf_ti.data.capture_files import FPS
from ernerf_ti.process.device import resolve_device


@dataclass(frozen=True)
class SyntheticOptions:
    """Options of `ernerf-ti synthetic`."""

    output: Positional[Path | None] = None
    """Folder for the capture, new or empty; by default none is written."""
    video: Path | None = None
    """An .mp4 video to write too."""
    seconds: float = 10.0
    """Length in seconds."""
    size: int = 256
    """Width and height in pixels, an even number."""
    seed: int = 0
    """Seed of the speech and the head motion."""
    voice: str = "bass"
    """Voice of the speaker; an unknown name lists all."""
    phones: str = "english"
    """Phones of the random syllables: english or french."""
    features: str = "ppg"
    """Audio features of the capture: ppg (phone posteriors), whisper (extra speech) or mel."""
    device: Device = "auto"
    """Device to render on; auto is CUDA if torch can use it, else the CPU."""


def _synthetic(options: SyntheticOptions) -> None:
    if options.output is None and options.video is None:
        raise UsageError("output: expected a folder, --video, or both, got neither; say where to write")
    check_range("seconds", options.seconds, 1 / FPS, 86_400)
    check_range("size", options.size, 16, 1 << 13)
    if options.output is not None:
        new_folder(options.output)
    if options.video is not None:
        output_file(options.video)
    device = resolve_device(options.device)

    from ernerf_ti.data.synthetic.portrait_writers import write_portrait_capture, write_portrait_video
    from ernerf_ti.data.synthetic.synthetic_portrait import SyntheticPortrait

    n_frames = round(options.seconds * FPS)
    portrait = SyntheticPortrait(
        n_frames, options.size, options.seed, options.voice, device=str(device), phones=options.phones
    )
    if options.output is not None:
        with whole_folder(options.output) as folder:
            write_portrait_capture(portrait, folder, options.features, progress=True)
        print(options.output)
    if options.video is not None:
        write_portrait_video(portrait, make_parent(options.video), progress=True)
        print(options.video)


main = Command("synthetic", SyntheticOptions, _synthetic, __doc__)
