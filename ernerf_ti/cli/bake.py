"""Make one file of a portrait that renders faster on a CPU, and live.

    ernerf-ti bake runs/speaker -o speaker.eti
    ernerf-ti synthesize speaker.eti --audio speech.wav -o speaking.mp4

What neither speech nor blinks change is stored; the rest goes through the networks as before. The file is used like a
run: it can be rendered, evaluated and inspected, but not trained. On CUDA the networks render all of it.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ernerf_ti.cli.options import Command, Output, Positional
from ernerf_ti.cli.paths import capture_folder, make_parent, output_file, run_folder


@dataclass(frozen=True, kw_only=True)
class BakeCommandOptions:
    """Options of `ernerf-ti bake`."""

    run: Positional[Path]
    """Run folder of `ernerf-ti train`, or a checkpoint file."""
    output: Output
    """File to write, with the suffix .eti."""
    capture: Path | None = None
    """Capture that the run was trained on; by default the one that the run names."""
    variation: float = 0.1
    """How much speech or closing the eyes must change the color or alpha of a place, of 1, for the networks to be
    evaluated there: less is better and slower."""
    region: float = 0.35
    """The networks are evaluated around mouth and eyes alone, where places change by this part of the most on average;
    0 for everywhere."""
    view_axes: int = 0
    """Directions of the camera's motion that stored colors follow, 0 to 3."""


def _bake(options: BakeCommandOptions) -> None:
    run = run_folder(options.run)
    if options.output.suffix != ".eti":
        raise ValueError(f"{options.output}: expected a file name with the suffix .eti; add it")
    if not (options.variation >= 0 and 0 <= options.region <= 1 and 0 <= options.view_axes <= 3):
        raise ValueError(
            "bake: expected --variation of at least 0, --region from 0 to 1 and --view-axes from 0 to 3, got "
            f"{options.variation:g}, {options.region:g} and {options.view_axes}; change them"
        )
    output_file(options.output)
    capture = None if options.capture is None else capture_folder(options.capture)

    from ernerf_ti.bake.baking import BakeOptions
    from ernerf_ti.bake.variation import VariationOptions
    from ernerf_ti.synthesis.baking import bake_run

    chosen = BakeOptions(VariationOptions(options.variation, options.region), options.view_axes)
    make_parent(options.output)
    bake_run(run, options.output, capture, chosen, partial(print, file=sys.stderr))
    print(options.output)


main = Command("bake", BakeCommandOptions, _bake, __doc__)
