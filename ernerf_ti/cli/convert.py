"""Convert a checkpoint of the public ER-NeRF code to a run folder, and back.

    ernerf-ti convert ngp.pth runs/speaker --capture captures/speaker
    ernerf-ti convert ngp_ep0123.pth runs/speaker --capture captures/speaker --ema
    ernerf-ti convert runs/speaker ngp.pth --to-official
    ernerf-ti convert ngp.pth runs/speaker --check frame.npz

The run can be rendered, and `ernerf-ti train CAPTURE RUN --resume` continues its training. Training settings are
options too, as for `ernerf-ti train --preset released`.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ernerf_ti.cli.frame_options import BARE_VALUES, FrameOptions
from ernerf_ti.cli.options import Command, Device, Flat, Positional
from ernerf_ti.cli.paths import capture_folder, existing_file, output_file, output_folder, run_folder
from ernerf_ti.process.device import resolve_device
from ernerf_ti.run.serialization import old_option_names
from ernerf_ti.train.config import PRESETS, TrainConfig

if TYPE_CHECKING:
    import torch

    from ernerf_ti.interop.ngp_files import OfficialFile
    from ernerf_ti.interop.parity import Difference


@dataclass(frozen=True)
class ConvertOptions:
    """Options of `ernerf-ti convert`."""

    source: Positional[Path]
    """Checkpoint of the public code (ngp.pth or an epoch file); with --to-official a run folder."""
    target: Positional[Path]
    """Run folder to write; with --to-official the .pth file to write."""
    to_official: bool = False
    """Write a run as a checkpoint of the public code."""
    capture: Path | None = None
    """Capture that the checkpoint was trained on: its camera, poses, eye closures and background are added to the run,
    and training can continue."""
    ema: bool = False
    """Take the moving average of the weights that an epoch file holds instead of its weights."""
    stage: Literal["head", "finetune", "torso"] | None = None
    """Stage to continue the training with; by default the one that the file was saved in."""
    check: Path | None = None
    """First compare with results of the public code, stored in this .npz file."""
    device: Device = "cpu"
    """Device to compute on."""
    frames: Flat[FrameOptions] = field(default_factory=FrameOptions)
    config: Flat[TrainConfig] = field(default_factory=lambda: PRESETS["released"])


def _convert(options: ConvertOptions) -> int | None:
    lines = _to_official(options) if options.to_official else _to_run(options)
    if lines is None:
        return 1
    print("\n".join(lines), file=sys.stderr)
    print(options.target)
    return None


def _to_official(options: ConvertOptions) -> list[str]:
    given = [f"--{name}" for name in ("capture", "ema", "stage", "check") if getattr(options, name)]
    given += ["training settings"] if options.config != PRESETS["released"] else []
    if given:
        raise ValueError(f"--to-official: expected a run and a path alone, got {', '.join(given)} too; leave it out")
    run, target = run_folder(options.source), output_file(options.target)

    from ernerf_ti.interop.runs import write_official

    return write_official(run, target)


def _to_run(options: ConvertOptions) -> list[str] | None:
    """Lines that say what was converted; None if the comparison with the public code failed."""
    if options.source.is_dir():
        raise ValueError(
            f"{options.source}: expected a checkpoint of the public code, got a folder; "
            "pass --to-official to convert a run folder"
        )
    existing_file(options.source, "a checkpoint")
    output_folder(options.target)
    if options.check is not None:
        existing_file(options.check, "a frame.npz")
    if options.capture is None and options.stage:
        raise ValueError("--stage: expected --capture with it, got none; training needs the capture")
    capture_path = None if options.capture is None else capture_folder(options.capture)
    device = resolve_device(options.device)

    from ernerf_ti.train.trainer import trained_alone

    with trained_alone(options.target):
        return _convert_to_run(options, capture_path, device)


def _convert_to_run(options: ConvertOptions, capture_path: Path | None, device: "torch.device") -> list[str] | None:
    from ernerf_ti.data.capture import open_capture
    from ernerf_ti.interop.ngp_files import read_official_file
    from ernerf_ti.interop.runs import extractor_of, write_run, write_still_run

    source = read_official_file(options.source)
    source = source.averaged() if options.ema else source
    if options.check is not None and not _check(source, options.check, str(device)):
        return None
    if capture_path is None:
        return write_still_run(source, options.target, options.config, device)
    extractor = extractor_of(source.feature_dimension)
    capture = open_capture(capture_path, extractor, options.frames.selection())
    lines = write_run(source, options.target, capture, options.config, options.stage, device)
    command = f"ernerf-ti train {capture_path} {options.target} --resume --features {extractor}"
    return [*lines, f"to continue the training: {command}"]


def _check(source: "OfficialFile", path: Path, device: str) -> bool:
    from ernerf_ti.interop.parity import check_frame, read_frame

    differences = check_frame(source.portrait(device), source.has_torso, read_frame(path))
    for difference in differences:
        print(_line(difference))
    kinks = max(difference.kinks for difference in differences)
    if kinks:
        print(
            "ATTENTION: gradients marked (kinks: n) were compared with n hidden units of single samples on the other "
            f"side of their ReLU's kink, at most {kinks} of them: their inputs are zero within rounding"
        )
    wrong = [difference.name for difference in differences if not difference.fits]
    verdict = f"{len(wrong)} of {len(differences)} exceed the tolerance: {', '.join(wrong)}" if wrong else "holds"
    print(f"{path}: {verdict}")
    return not wrong


def _line(difference: "Difference") -> str:
    kinks = f"  (kinks: {difference.kinks})" if difference.kinks else ""
    verdict = "ok" if difference.fits else "EXCEEDS THE TOLERANCE"
    return f"{difference.name:48} {difference.value:.2e}  at most {difference.limit:.0e}  {verdict}{kinks}"


main = Command(
    "convert",
    ConvertOptions,
    _convert,
    __doc__,
    important=("source", "target", "to_official", "capture", "ema", "stage", "check", "device"),
    renamed=old_option_names(TrainConfig),
    bare_values=BARE_VALUES,
)
