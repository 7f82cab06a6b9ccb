"""Results of an ablation as a table and as a plot."""

from pathlib import Path

from ernerf_ti.experiments.ablation import METRICS
from ernerf_ti.media.whole_files import replacing

_HEADINGS = {
    "PSNR frame": "PSNR dB",
    "PSNR lips": "lips dB",
    "SSIM lips": "lips SSIM",
    "LPIPS alex": "LPIPS",
    "LMD": "LMD px",
    "mesh AUE upper": "AUE upper %",
    "mesh AUE lower": "AUE lower %",
    "mouth-opening correlation": "mouth corr.",
    "SyncNet confidence": "Sync",
}
_PLOTTED = "PSNR frame", "PSNR lips", "LMD", "mouth-opening correlation"


def ablation_table(rows: list[dict]) -> str:
    """Markdown table with a line per variant; metrics that no variant has are left out."""
    metrics = _known(rows)
    head = ["encoder", "conditioning", *(_HEADINGS[name] for name in metrics), "parameters", "ms/step", "frames/s"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        values = [f"{row['metrics'][name]['value']:.3f}" if name in row["metrics"] else "-" for name in metrics]
        step = "-" if row["ms_per_step"] is None else f"{row['ms_per_step']:.0f}"
        lines.append(
            [row["encoder"], row["conditioning"], *values, f"{row['parameters']:,}", step]
            + [f"{row['frames_per_second']:.1f}"]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def plot_ablation(rows: list[dict], path: Path) -> None:
    """Write a PNG: one panel per metric, with a point and its 95 % confidence interval per variant.

    Raises ImportError if matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    metrics = [name for name in _known(rows) if name in _PLOTTED]
    figure, axes = pyplot.subplots(
        *(1, len(metrics)), figsize=(2.5 + 2.6 * len(metrics), 1 + 0.45 * len(rows)), sharey=True, squeeze=False
    )
    names = [f"{row['encoder']}, {row['conditioning']}" for row in rows]
    for axis, metric in zip(axes[0], metrics, strict=True):
        found = [row["metrics"].get(metric) for row in rows]
        lows, highs = [], []
        for index, result in enumerate(found):
            if result is None:
                continue
            low, high = result["interval_95"] or (result["value"], result["value"])
            lows.append(low)
            highs.append(high)
            axis.plot([low, high], [index, index], color="#88a", linewidth=2)
            axis.plot(result["value"], index, "o", color="#236")
        margin = 0.08 * (max(highs) - min(lows)) or 0.1
        axis.set_xlim(min(lows) - margin, max(highs) + margin)
        axis.set_title(_HEADINGS[metric], fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(rows)), names, fontsize=8)
    axes[0][0].invert_yaxis()
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    pyplot.close(figure)


def _known(rows: list[dict]) -> list[str]:
    return [name for name in METRICS if any(name in row["metrics"] for row in rows)]
