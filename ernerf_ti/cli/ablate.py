"""Compare forms of the head on one capture with equal training: encoders, and how the audio acts.

    python tools/ablate.py captures/speaker ablation --preset small
    python tools/ablate.py captures/speaker ablation --preset small --iterations 1000 --only hash3d triplane_hash

The forms are those of the paper's tables 4 and 5. Each is trained in a folder of its own and evaluated on the held-out
frames; a table, a plot and ablation.json come at the end. Interrupted, the same command goes on.
"""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read when torch starts: large buffers cost fewer page faults

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ernerf_ti.experiments.ablation import run_ablation
from ernerf_ti.experiments.ablation_options import AblationOptions
from ernerf_ti.experiments.ablation_report import ablation_table, plot_ablation
from ernerf_ti.media.files import write_json
from ernerf_ti.process.interruption import StopRequest
from ernerf_ti.train.config import PRESETS
from ernerf_ti.train.trainer import TrainingError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("output", type=Path, help="folder for the runs, the table and the plot")
    parser.add_argument("--preset", default="paper", choices=tuple(PRESETS))
    parser.add_argument("--iterations", type=int, help="of the head's stage; the preset's if left out")
    parser.add_argument("--stages", nargs="+", default=["head"], choices=("head", "finetune"))
    parser.add_argument("--perceptual", choices=("lpips", "dssim", "none"), help="loss of the fine stage")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="variants whose names start so")
    parser.add_argument("--frames", type=int, help="held-out frames to evaluate, evenly chosen; all if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    config = replace(PRESETS[options.preset], seed=options.seed)
    if options.iterations is not None:
        config = replace(config, head=replace(config.head, iterations=options.iterations))
    if options.perceptual is not None:
        config = replace(config, finetune=replace(config.finetune, perceptual=options.perceptual))
    try:
        ablation = AblationOptions(
            options.capture,
            options.output,
            config,
            tuple(options.stages),
            tuple(options.only),
            options.frames,
            options.device,
        )
        with StopRequest() as stop:
            rows = run_ablation(ablation, stop)
        if rows is None:
            print("stopped; the same command goes on", file=sys.stderr)
            return stop.exit_status
        write_json(options.output / "ablation.json", rows)
        print(ablation_table(rows))
        plot_ablation(rows, options.output / "ablation.png")
    except (OSError, ValueError, ImportError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    for name in ("ablation.json", "ablation.png"):
        print(options.output / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
