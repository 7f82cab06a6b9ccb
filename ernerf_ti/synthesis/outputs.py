"""Whether the files that synthesis is to write can be written, before anything is rendered. Without torch."""

import os
import tempfile
from pathlib import Path

from ernerf_ti.media.files import require_not_replaced
from ernerf_ti.media.video_formats import VIDEO_SUFFIXES, codec_of, has_alpha
from ernerf_ti.synthesis.options import SynthesisOptions

SIZES = 32, 4096
"""Pixels a side, of the head that is rendered for a recording."""


def output_paths(options: SynthesisOptions) -> list[Path]:
    """The videos and the folder that are written."""
    return [path for path in (options.output, options.depth, options.attention) if path is not None]


def output_has_alpha(options: SynthesisOptions) -> bool:
    """Whether the output is a folder of images or a video with an alpha channel."""
    return not options.output.suffix or has_alpha(options.output, options.encoding)


def check_formats(options: SynthesisOptions) -> None:
    """Raise ValueError for outputs, a codec, its options or a frame rate that don't exist or don't go together, and
    for an output that is an input too."""
    suffix = options.output.suffix.lower()
    if suffix and suffix not in VIDEO_SUFFIXES:
        raise ValueError(
            f"output: expected {', '.join(VIDEO_SUFFIXES)} or a folder, got {options.output}; choose one of these"
        )
    if suffix:
        codec_of(options.output, options.encoding)
    else:
        given = [name for name in ("codec", "crf", "preset") if getattr(options, name) is not None]
        if given:
            raise ValueError(f"{given[0]}: it is for videos, and {options.output} is a folder of images; leave it out")
    if options.background == "none" and not output_has_alpha(options):
        raise ValueError(
            "output: expected .webm (vp9), .mov (prores) or a folder for a transparent background, "
            f"got {options.output} ({codec_of(options.output, options.encoding).name}), which has no alpha channel"
        )
    for name in ("depth", "attention"):
        path = getattr(options, name)
        if path is not None and path.suffix.lower() != ".mp4":
            raise ValueError(f"{name}: expected an .mp4, got {path}; choose another name")
    paths = output_paths(options)
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise ValueError("output: expected different files for output, depth and attention, got one path twice")
    _check_onto(options)
    for name in ("audio", "windows", "pose", "background", "onto"):
        given = getattr(options, name)
        # The words that pose and background take may be names of folders too.
        if given is not None and (name == "onto" or Path(given).is_file()):
            for path in paths:
                require_not_replaced(Path(given), f"{name} {'folder' if Path(given).is_dir() else 'file'}", path)
    _ = options.rate


def _check_onto(options: SynthesisOptions) -> None:
    """Raise ValueError for options that do not go with a recording, or that need one."""
    names = {"onto_capture": None, "onto_part": "face", "onto_size": None}
    taken = {"pose": "capture", "blink": "capture", "background": "capture", "head_only": False, "fps": 25.0}
    for name, default in (names if options.onto is None else taken).items():
        if getattr(options, name) != default:
            name = name.replace("_", "-")
            if options.onto is None:
                raise ValueError(f"{name}: it is for --onto, which was not given; pass a recording, or leave it out")
            raise ValueError(f"{name}: with --onto it is that of the recording; leave it out")
    if options.onto_size is not None and not SIZES[0] <= options.onto_size <= SIZES[1]:
        raise ValueError(f"onto-size: expected {SIZES[0]} to {SIZES[1]} pixels, got {options.onto_size}; try 512")


def check_writable(options: SynthesisOptions) -> None:
    """Raise ValueError or OSError if an output is a folder, or its folder can't be made or written to."""
    for path in output_paths(options):
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
