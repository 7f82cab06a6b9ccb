"""Evaluate a run or a video, and write the results to a folder."""

from pathlib import Path

from ernerf_ti.evaluation.evaluation import Evaluation, evaluate
from ernerf_ti.evaluation.frames_folder import FramesFolder
from ernerf_ti.evaluation.options import EvaluationOptions, VideoOptions
from ernerf_ti.evaluation.page import page
from ernerf_ti.evaluation.results_text import as_json
from ernerf_ti.evaluation.video_evaluation import evaluate_video
from ernerf_ti.media.files import write_json, write_text
from ernerf_ti.process.ranks import Ranks
from ernerf_ti.run.folder import RunFolder


def evaluate_and_report(options: EvaluationOptions, ranks: Ranks | None = None) -> tuple[Evaluation, list[Path]]:
    """Evaluate a run, and write metrics.json and evaluation.html.

    Args:
        options: what to evaluate, and where the results go.
        ranks: as of :func:`ernerf_ti.evaluation.evaluation.evaluate`; the first process writes the files.

    Returns:
        The results, and the files that were written. The images of the settings are gone.

    Raises as :func:`ernerf_ti.evaluation.evaluation.evaluate`.
    """
    folder = options.output or RunFolder.find(options.run).evaluation
    ranks = ranks or Ranks()
    with FramesFolder(folder / "frames", ranks) as frames:
        evaluation = evaluate(options, frames, ranks)
        written = []
        if ranks.is_first:
            written = _write(evaluation, folder)
            frames.replace(options.keep_frames)
    return evaluation, written


def evaluate_video_and_report(options: VideoOptions) -> tuple[Evaluation, list[Path]]:
    """Evaluate a video, and write metrics.json and evaluation.html.

    Args:
        options: what to evaluate, and where the results go: NAME_evaluation beside the video by default.

    Returns:
        The results, and the files that were written.

    Raises as :func:`ernerf_ti.evaluation.video_evaluation.evaluate_video`.
    """
    video = options.video
    folder = options.output or video.absolute().with_name(f"{video.absolute().stem}_evaluation")
    evaluation = evaluate_video(options)
    return evaluation, _write(evaluation, folder)


def _write(evaluation: Evaluation, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    metrics, report = folder / "metrics.json", folder / "evaluation.html"
    write_json(metrics, as_json(evaluation))
    write_text(report, page(evaluation))
    return [metrics, report]
