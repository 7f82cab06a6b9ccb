"""Judge a trained portrait on the frames that it was not trained on.

    python tools/evaluate.py runs/speaker
    python tools/evaluate.py runs/speaker --cross-speaker-audio other.wav
    python tools/evaluate.py runs/speaker --max-seconds 4       # a quick look

Prints a table, and writes metrics.json and evaluation.html with the worst frames. Metrics whose weights are not on the
machine are reported as not computed, with the file and where it goes.
"""

import argparse
import sys
from pathlib import Path

import torch

from ernerf_ti.evaluation.options import EvaluationOptions
from ernerf_ti.evaluation.report import evaluate_and_report
from ernerf_ti.evaluation.results_text import summary


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of train.py")
    parser.add_argument("--capture", type=Path, help="folder that the run was trained on, if it is not where it was")
    parser.add_argument("--output", type=Path, help="folder for the results; RUN/evaluation if left out")
    parser.add_argument("--frames", type=int, help="evaluate so many, evenly chosen; all if left out")
    parser.add_argument("--max-seconds", type=float, help="evaluate the first held-out seconds only")
    parser.add_argument(
        "--cross-speaker-audio", type=Path, help="speech of another voice: judge lip synchrony with it too"
    )
    parser.add_argument("--speech-model", type=Path, help="folder of the model of hubert or esperanto features")
    parser.add_argument("--weights", type=Path, help="folder of the metrics' weights; torch's own if left out")
    parser.add_argument("--keep-frames", action="store_true", help="leave the rendered frames in the folder")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = vars(parser.parse_args(arguments))
    try:
        evaluation, written = evaluate_and_report(EvaluationOptions(**options))
    except (OSError, ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    print(summary(evaluation))
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
