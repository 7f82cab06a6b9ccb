"""Convert a checkpoint of the public ER-NeRF code to a run folder, and back, and compare the two programs.

    python tools/convert_checkpoint.py ngp.pth runs/speaker --capture captures/speaker
    python tools/convert_checkpoint.py ngp_ep0123.pth runs/speaker --capture captures/speaker --ema
    python tools/convert_checkpoint.py --to-official runs/speaker ngp.pth
    python tools/convert_checkpoint.py ngp.pth runs/speaker --check frame.npz

The run can be rendered, and `train.py captures/speaker runs/speaker --resume` trains it on.
"""

import argparse
import sys
from pathlib import Path

import tyro

from ernerf_ti.cli.frame_options import add_frame_options, frame_selection
from ernerf_ti.data.capture import open_capture
from ernerf_ti.interop.ngp_files import OfficialFile, read_official_file
from ernerf_ti.interop.parity import Difference, check_frame, read_frame
from ernerf_ti.interop.runs import extractor_of, write_official, write_run, write_still_run
from ernerf_ti.train.config import PRESETS, STAGES, TrainConfig


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Settings of the training that follows are options too, as those of train.py with --preset released.",
    )
    parser.add_argument("source", type=Path, help="ngp.pth or an epoch file; with --to-official a run")
    parser.add_argument("target", type=Path, help="folder of the run; with --to-official the .pth to write")
    parser.add_argument("--to-official", action="store_true", help="write a run as an ngp.pth")
    parser.add_argument(
        "--capture", type=Path, help="what it was trained on: camera, poses, blinks and background, and training data"
    )
    parser.add_argument("--ema", action="store_true", help="take the running average of an epoch file, not its weights")
    parser.add_argument("--stage", choices=STAGES, help="that training goes on with; else where the file left it")
    parser.add_argument("--check", type=Path, metavar="FRAME.NPZ", help="first compare with the public code's results")
    parser.add_argument("--device", default="cpu", help="where --check computes")
    add_frame_options(parser)
    options, settings = parser.parse_known_args(arguments)
    config = tyro.cli(TrainConfig, default=PRESETS["released"], args=settings, prog="convert_checkpoint.py")
    try:
        if options.to_official:
            lines = _to_official(options, settings)
        else:
            source = read_official_file(options.source)
            source = source.averaged() if options.ema else source
            if options.check and not _check(source, options.check, options.device):
                return 1
            lines = _to_run(source, options, config)
    except (OSError, ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lines), file=sys.stderr)
    print(options.target)
    return 0


def _to_official(options: argparse.Namespace, settings: list[str]) -> list[str]:
    given = [name for name in ("capture", "ema", "stage", "check") if getattr(options, name)] + settings
    if given:
        raise ValueError(f"to-official: expected a run and a path alone, got {', '.join(given)} too; leave it out")
    return write_official(options.source, options.target)


def _to_run(source: OfficialFile, options: argparse.Namespace, config: TrainConfig) -> list[str]:
    if options.capture is None:
        if options.stage:
            raise ValueError("stage: expected --capture with it, got none; training needs the capture")
        return write_still_run(source, options.target, config, options.device)
    extractor = extractor_of(source.feature_dimension)
    capture = open_capture(options.capture, extractor, frame_selection(options))
    lines = write_run(source, options.target, capture, config, options.stage, options.device)
    command = f"python tools/train.py {options.capture} {options.target} --resume --features {extractor}"
    return [*lines, f"to go on: {command}"]


def _check(source: OfficialFile, path: Path, device: str) -> bool:
    differences = check_frame(source.portrait(device), source.has_torso, read_frame(path))
    for difference in differences:
        print(_line(difference))
    kinks = max(difference.kinks for difference in differences)
    if kinks:
        print(
            "ATTENTION: for the gradients marked (kinks: n), n hidden units of single samples were taken on the other "
            f"side of their ReLU's kink than ours, at most {kinks}: their inputs are zero within rounding"
        )
    wrong = [difference.name for difference in differences if not difference.fits]
    print(
        f"{path}: {len(wrong)} of {len(differences)} past tolerance: {', '.join(wrong)}" if wrong else f"{path}: holds"
    )
    return not wrong


def _line(difference: Difference) -> str:
    kinks = f"  (kinks: {difference.kinks})" if difference.kinks else ""
    verdict = "ok" if difference.fits else "PAST TOLERANCE"
    return f"{difference.name:48} {difference.value:.2e}  at most {difference.limit:.0e}  {verdict}{kinks}"


if __name__ == "__main__":
    sys.exit(main())
