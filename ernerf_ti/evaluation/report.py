"""Evaluate a run and write the results to a folder."""

from pathlib import Path

from ernerf_ti.evaluation.evaluation import Evaluation, evaluate
from ernerf_ti.evaluation.frames_folder import remove_frames_folder
from ernerf_ti.evaluation.options import EvaluationOptions
from ernerf_ti.evaluation.page import page
from ernerf_ti.evaluation.results_text import as_json
from ernerf_ti.media.files import write_json, write_text
from ernerf_ti.run.folder import RunFolder


def evaluate_and_report(options: EvaluationOptions) -> tuple[Evaluation, list[Path]]:
    """Evaluate a run, and write metrics.json and evaluation.html.

    Args:
        options: what to evaluate, and where the results go.

    Returns:
        The results, and the files that were written. The rendered frames are gone unless `keep_frames` is set.

    Raises as :func:`ernerf_ti.evaluation.evaluation.evaluate`.
    """
    folder = options.output or RunFolder.find(options.run).evaluation
    frames = folder / "frames"
    metrics, report = folder / "metrics.json", folder / "evaluation.html"
    keep = False
    try:
        evaluation = evaluate(options, frames)
        write_json(metrics, as_json(evaluation))
        write_text(report, page(evaluation))
        keep = options.keep_frames
    finally:
        if not keep:
            remove_frames_folder(frames)
    return evaluation, [metrics, report]
