"""Measure a trained portrait on frames that it was not trained on, or a video by any method.

    ernerf-ti evaluate runs/speaker
    ernerf-ti evaluate runs/speaker --cross-speaker-audio other.wav
    ernerf-ti evaluate --video theirs.mp4 --reference truth.mp4

Prints a table, and writes metrics.json and evaluation.html with the worst frames. Metrics whose weights are missing are
reported as not computed, with the name of the file and the folder it belongs in. Several GPUs evaluate one run
together: torchrun --nproc-per-node 4 -m ernerf_ti evaluate ...
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ernerf_ti.cli.options import Command, Device, OptionalOutput, Positional
from ernerf_ti.cli.paths import capture_folder, existing_file, output_folder, run_folder
from ernerf_ti.cli.running import UsageError
from ernerf_ti.evaluation.options import (
    EvaluationOptions,
    MeasuringOptions,
    ReferenceOptions,
    RunOptions,
    VideoOptions,
    check_frames,
    frame_limit,
)
from ernerf_ti.media.frame_folder import check_folder_rate, frame_files
from ernerf_ti.portrait.config import check_mouth_gain
from ernerf_ti.process.device import CudaGraphs, resolve_device, started_by_torchrun, use_own_device
from ernerf_ti.process.precision import Precision


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(RunOptions, ReferenceOptions):
    """Options of `ernerf-ti evaluate`."""

    run: Positional[Path | None] = None
    """Run folder of `ernerf-ti train`; none with --video."""
    video: Path | None = None
    """Video of a talking head by any method, or a folder of its frames, to evaluate in place of a run."""
    output: OptionalOutput = None
    """Folder for the results; by default RUN/evaluation, or NAME_evaluation beside a video or a baked portrait."""
    device: Device = "auto"
    """Device to render and to compute metrics on; auto is CUDA if torch can use it, else the CPU."""
    precision: Precision = "auto"
    """Format of the networks' values; auto is float32 on the CPU, and on CUDA bf16, or fp16 on a GPU without bf16."""
    cuda_graphs: CudaGraphs = "auto"
    """Repeat recorded work on CUDA, which takes less time to launch: auto, off, or parts (without our kernels)."""


def _check(options: EvaluateOptions) -> None:
    if (options.run is None) == (options.video is None):
        got = "neither" if options.run is None else "both"
        raise UsageError(f"evaluate: expected a run folder or --video, got {got}; pass one of them")
    if options.run is not None:
        _leave_out(options, ReferenceOptions, "belongs to --video, got a run")
    else:
        _leave_out(options, RunOptions, "belongs to a run, got --video")
    check_frames(options.frames)
    check_mouth_gain(options.mouth_gain)
    frame_limit(options.max_seconds)
    check_folder_rate(options.folder_rate)


def _evaluate(options: EvaluateOptions) -> None:
    if options.video is not None and started_by_torchrun():
        raise UsageError("--video: expected one process, got several by torchrun, which evaluate runs; leave it out")
    chosen = _of_run(options) if options.run is not None else _of_video(options)
    if options.output is not None:
        output_folder(options.output)
    use_own_device()
    device = resolve_device(options.device)
    chosen = replace(chosen, device=str(device))

    from ernerf_ti.evaluation.report import evaluate_and_report, evaluate_video_and_report
    from ernerf_ti.evaluation.results_text import summary
    from ernerf_ti.process.ranks import Ranks

    if isinstance(chosen, EvaluationOptions):
        with Ranks.joined(device) as ranks:
            evaluation, written = evaluate_and_report(chosen, ranks)
            if not ranks.is_first:
                return
    else:
        evaluation, written = evaluate_video_and_report(chosen)
    print(summary(evaluation))
    for path in written:
        print(path)


def _of_run(options: EvaluateOptions) -> EvaluationOptions:
    assert options.run is not None
    run = run_folder(options.run)
    values = _values(options, RunOptions)
    if options.capture is not None:
        values["capture"] = capture_folder(options.capture)
    if options.cross_speaker_audio is not None:
        existing_file(options.cross_speaker_audio, "a video or sound file")
    return EvaluationOptions(run, **values)


def _of_video(options: EvaluateOptions) -> VideoOptions:
    assert options.video is not None
    for path in (options.video, options.reference):
        if path is not None and not frame_files(path):
            existing_file(path, "a video, or a folder of its frames")
    if options.audio is not None:
        existing_file(options.audio, "a sound file")
    return VideoOptions(options.video, **_values(options, MeasuringOptions), **_values(options, ReferenceOptions))


def _leave_out(options: EvaluateOptions, kind: type, why: str) -> None:
    """Raises UsageError if an option of the other kind of evaluation is given."""
    shared = {f.name for f in fields(MeasuringOptions)}
    for f in fields(kind):
        if f.name not in shared and getattr(options, f.name) != f.default:
            name = f.name.replace("_", "-")
            raise UsageError(f"evaluate: --{name} {why}; leave one of them out")


def _values(options: EvaluateOptions, kind: type) -> dict[str, Any]:
    return {f.name: getattr(options, f.name) for f in fields(kind)}


main = Command(
    "evaluate",
    EvaluateOptions,
    _evaluate,
    __doc__,
    important=(
        *("run", "capture", "output", "frames", "max_seconds", "cross_speaker_audio", "weights"),
        *("video", "reference", "audio", "offset"),
        *("device", "precision"),
    ),
    renamed={"foreign-audio": "cross-speaker-audio"},
    check=_check,
    interrupted="interrupted; no results were written. The same command starts the evaluation again",
)
