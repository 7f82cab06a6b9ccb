"""Measure a trained portrait on frames that it was not trained on.

    ernerf-ti evaluate runs/speaker
    ernerf-ti evaluate runs/speaker --cross-speaker-audio other.wav
    ernerf-ti evaluate runs/speaker --max-seconds 4

Prints a table, and writes metrics.json and evaluation.html with the worst frames. Metrics whose weights are missing are
reported as not computed, with the name of the file and the folder it belongs in.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from ernerf_ti.cli.options import Command, Device, OptionalOutput, Positional
from ernerf_ti.cli.paths import capture_folder, existing_file, output_folder, run_folder
from ernerf_ti.evaluation.options import EvaluationOptions
from ernerf_ti.process.device import CudaGraphs, resolve_device
from ernerf_ti.process.precision import Precision


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(EvaluationOptions):
    """Options of `ernerf-ti evaluate`."""

    run: Positional[Path]
    """Run folder of `ernerf-ti train`."""
    output: OptionalOutput = None
    """Folder for the results; by default RUN/evaluation."""
    device: Device = "auto"
    """Device to render and to compute metrics on; auto is CUDA if torch can use it, else the CPU."""
    precision: Precision = "auto"
    """Format of the networks' values; auto is float32 on the CPU, and on CUDA bf16, or fp16 on a GPU without bf16."""
    cuda_graphs: CudaGraphs = "auto"
    """Repeat recorded work on CUDA, which takes less time to launch: auto, off, or parts (without our kernels)."""


def _evaluate(options: EvaluateOptions) -> None:
    run = run_folder(options.run)
    capture = None if options.capture is None else capture_folder(options.capture)
    if options.cross_speaker_audio is not None:
        existing_file(options.cross_speaker_audio, "a video or sound file")
    if options.output is not None:
        output_folder(options.output)
    device = resolve_device(options.device)

    from ernerf_ti.evaluation.report import evaluate_and_report
    from ernerf_ti.evaluation.results_text import summary

    evaluation, written = evaluate_and_report(replace(options, run=run, capture=capture, device=str(device)))
    print(summary(evaluation))
    for path in written:
        print(path)


main = Command(
    "evaluate",
    EvaluateOptions,
    _evaluate,
    __doc__,
    important=(
        *("run", "capture", "output", "frames", "max_seconds", "cross_speaker_audio", "weights"),
        *("device", "precision"),
    ),
    renamed={"foreign-audio": "cross-speaker-audio"},
    interrupted="interrupted; no results were written. The same command starts the evaluation again",
)
