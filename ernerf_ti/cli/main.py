"""`ernerf-ti COMMAND`: find the command's module and run it."""

import sys
from importlib import import_module

COMMANDS = {
    "preprocess": ("ernerf_ti.cli.preprocess", "turn a video of one speaker into a training capture"),
    "train": ("ernerf_ti.cli.train", "train a portrait on a capture"),
    "synthesize": ("ernerf_ti.cli.synthesize", "render a trained portrait speaking, as a video with sound"),
    "evaluate": ("ernerf_ti.cli.evaluate", "measure a trained portrait on held-out frames"),
    "view": ("ernerf_ti.cli.view", "open a portrait in the interactive viewer"),
    "demo": ("ernerf_ti.cli.demo", "train and evaluate a portrait of a synthetic person, without footage"),
    "convert": ("ernerf_ti.cli.convert", "convert checkpoints of the public ER-NeRF code to runs and back"),
    "ablate": ("ernerf_ti.cli.ablate", "compare variants of the head field"),
    "synthetic": ("ernerf_ti.cli.synthetic", "make a capture or a video of a synthetic person"),
    "fit-image": ("ernerf_ti.experiments.fit_image", "fit an image with one hash grid, the smallest example"),
    "study-audio": ("ernerf_ti.experiments.audio_feature_study", "compare audio features on your own clips"),
    "bench-kernels": ("ernerf_ti.experiments.bench_kernels", "time every kernel against its torch twin"),
    "bench-render": ("ernerf_ti.experiments.bench_render", "time rendering and training steps of a portrait"),
    "bench-viewer": ("ernerf_ti.experiments.bench_viewer", "time the viewer"),
}
"""Module and one-line description of each command."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: ernerf-ti COMMAND ...\n")
        for name, (_, description) in COMMANDS.items():
            print(f"  {name:{width}}  {description}")
        print("\nernerf-ti COMMAND --help lists the options of a command.")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"ernerf-ti: expected a command, one of {', '.join(COMMANDS)}, got {name!r}", file=sys.stderr)
        return 2
    return import_module(COMMANDS[name][0]).main(rest)
