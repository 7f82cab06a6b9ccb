"""Train a portrait of a capture.

    python tools/train.py captures/speaker runs/speaker                  # the paper's schedule
    python tools/train.py captures/speaker runs/speaker --preset small   # for a CPU
    python tools/train.py captures/speaker runs/speaker --resume
    python tools/train.py captures/speaker runs/speaker --preset small --head.iterations 5000 --help

Ctrl-C saves and stops; --resume goes on with the same result as if it had never stopped.
"""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read when torch starts: large buffers cost fewer page faults

import argparse
import sys
from pathlib import Path

import torch
import tyro

from ernerf_ti.cli.frame_options import add_frame_options, frame_selection
from ernerf_ti.data.capture import open_capture
from ernerf_ti.process.interruption import StopRequest
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.train.config import PRESETS, STAGES, TrainConfig
from ernerf_ti.train.trainer import Trainer, TrainingError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every field of the settings is an option too; --settings-help lists them.",
    )
    parser.add_argument("capture", type=Path, help="folder that preprocess_video.py made, or a tool of ER-NeRF")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--preset", default="paper", choices=tuple(PRESETS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES, help="all in a row if left out")
    parser.add_argument("--features", help="extractor of the audio features, if the capture has several")
    parser.add_argument("--resume", action="store_true", help="go on with the run of the folder")
    parser.add_argument("--view", action="store_true", help="watch in a window; leaving it saves and stops")
    parser.add_argument("--settings-help", action="store_true", help="list every setting of the preset and leave")
    add_frame_options(parser)
    options, settings = parser.parse_known_args(arguments)
    if options.settings_help:
        settings = ["--help"]
    config = tyro.cli(TrainConfig, default=PRESETS[options.preset], args=settings, prog="train.py")
    try:
        trainer = _trainer(options, config, bool(settings))
        for note in trainer.notes:
            print(note, file=sys.stderr)
        if options.view:
            from ernerf_ti.viewer.app import watch_training

            watch_training(trainer, tuple(options.stages))
            return 0
        with StopRequest() as stop:
            finished = trainer.run(tuple(options.stages), stop)
    except (OSError, ValueError, ImportError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    if not finished:
        print(f"stopped at stage {trainer.stage}, step {trainer.step}; --resume goes on", file=sys.stderr)
        return stop.exit_status
    print(options.run)
    return 0


def _trainer(options: argparse.Namespace, config: TrainConfig, has_settings: bool) -> Trainer:
    capture = open_capture(options.capture, options.features, frame_selection(options))
    if options.resume:
        if has_settings:
            raise ValueError("resume: expected no settings, got some; a run goes on with those that it was begun with")
        return Trainer.resume(capture, options.run, options.device)
    if (RunFolder(options.run).checkpoint).exists():
        raise ValueError(
            f"{options.run}: expected a folder without a run, got one with a checkpoint; "
            "pass --resume to go on with it, or another folder"
        )
    return Trainer(capture, config, options.run, options.device)


if __name__ == "__main__":
    sys.exit(main())
