"""Compare variants of the head field on one capture with equal training: encoders, and region attention.

    ernerf-ti ablate captures/speaker ablation --preset small
    ernerf-ti ablate captures/speaker ablation --preset small --iterations 1000 --variants hash3d triplane_hash

The variants are those of tables 4 and 5 of the ER-NeRF paper. Each is trained in a folder of its own and evaluated on
held-out frames; the results are a table, ablation.json and a plot. The same command continues after an interruption.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ernerf_ti.cli.options import Command, Device, Positional
from ernerf_ti.cli.paths import capture_folder, output_folder
from ernerf_ti.experiments.ablation_options import AblationOptions
from ernerf_ti.media.files import write_json
from ernerf_ti.process.device import resolve_device
from ernerf_ti.process.interruption import StopRequest
from ernerf_ti.train.config import PRESETS, TrainConfig, default_preset


@dataclass(frozen=True)
class AblateOptions:
    """Options of `ernerf-ti ablate`."""

    capture: Positional[Path]
    """Capture folder to train on."""
    output: Positional[Path]
    """Folder for the runs, the table and the plot."""
    preset: Literal["auto", "paper", "released", "small"] = "auto"
    """Training settings, as for `ernerf-ti train`; auto is paper on CUDA and small on a CPU."""
    iterations: int | None = None
    """Training steps of the stage head; by default the preset's."""
    stages: tuple[Literal["head", "finetune"], ...] = ("head",)
    """Stages to train."""
    perceptual: Literal["auto", "st-lpips", "lpips", "dssim", "none"] | None = None
    """Perceptual loss of the stage finetune; by default the preset's."""
    variants: tuple[str, ...] = ()
    """Compare only the variants whose names start with one of these; by default all. An unknown name lists all."""
    frames: int | None = None
    """Evaluate this many held-out frames, evenly spaced; by default all."""
    seed: int = 0
    """Seed of all random numbers."""
    device: Device = "auto"
    """Device to train on; auto is CUDA if torch can use it, else the CPU."""


def _ablate(options: AblateOptions) -> int | None:
    capture_path, folder = capture_folder(options.capture), output_folder(options.output)
    device = resolve_device(options.device)
    config = _config(options, default_preset(device.type) if options.preset == "auto" else options.preset)

    ablation = AblationOptions(
        capture_path, folder, config, options.stages, options.variants, options.frames, str(device)
    )

    from ernerf_ti.experiments.ablation import run_ablation
    from ernerf_ti.experiments.ablation_report import ablation_table, plot_ablation

    with StopRequest() as stop:
        rows = run_ablation(ablation, stop)
    if rows is None:
        print("stopped; the same command continues", file=sys.stderr)
        return stop.exit_status
    write_json(folder / "ablation.json", rows)
    print(ablation_table(rows))
    plot_ablation(rows, folder / "ablation.png")
    for name in ("ablation.json", "ablation.png"):
        print(folder / name)
    return None


def _config(options: AblateOptions, preset: str) -> TrainConfig:
    config = replace(PRESETS[preset], seed=options.seed)
    if options.iterations is not None:
        config = replace(config, head=replace(config.head, iterations=options.iterations))
    if options.perceptual is not None:
        config = replace(config, finetune=replace(config.finetune, perceptual=options.perceptual))
    return config


main = Command(
    "ablate",
    AblateOptions,
    _ablate,
    __doc__,
    renamed={"only": "variants"},
    interrupted="interrupted; the same command continues",
)
