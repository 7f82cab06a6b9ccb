"""`ernerf-ti COMMAND`: find the command's module and run it."""

import os
import sys
from importlib import import_module

from ernerf_ti.cli.running import run_reporting_errors

COMMANDS = {
    "preprocess": ("ernerf_ti.cli.preprocess", "turn a video of one speaker into a training capture"),
    "train": ("ernerf_ti.cli.train", "train a portrait on a capture"),
    "synthesize": ("ernerf_ti.cli.synthesize", "render a trained portrait speaking, as a video with sound"),
    "bake": ("ernerf_ti.cli.bake", "make one file of a portrait that renders faster on a CPU, and live"),
    "evaluate": ("ernerf_ti.cli.evaluate", "measure a trained portrait on held-out frames"),
    "batch": ("ernerf_ti.cli.batch", "make many portraits from a table of speakers"),
    "view": ("ernerf_ti.cli.view", "open a portrait in the interactive viewer"),
    "live": ("ernerf_ti.cli.live", "serve a portrait that answers in real time, on a web page"),
    "inspect": ("ernerf_ti.cli.inspect", "show where a file comes from, and whether it was changed"),
    "demo": ("ernerf_ti.cli.demo", "train and evaluate a portrait of a synthetic person, without footage"),
    "convert": ("ernerf_ti.cli.convert", "convert checkpoints of the public ER-NeRF code to runs and back"),
    "ablate": ("ernerf_ti.cli.ablate", "compare variants of the head field"),
    "synthetic": ("ernerf_ti.cli.synthetic", "make a capture or a video of a synthetic person"),
    "fit-image": ("ernerf_ti.cli.fit_image", "fit an image with one hash grid, the smallest example"),
    "study-audio": ("ernerf_ti.cli.study_audio", "compare audio features on your own clips"),
    "bench": ("ernerf_ti.cli.bench", "check a GPU; time kernels, rendering, the viewer or threads"),
}
"""Module and one-line description of each command."""

_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
_ENVIRONMENT = {"": {"THP_MEM_ALLOC_ENABLE": "1"}, "view": _PASSIVE, "live": _PASSIVE}
"""Variables that torch reads when it starts, for all commands ("") and for one. Large pages for large buffers cost
fewer page faults. Threads that sleep while they wait leave their core to the viewer's window and sound, and to the
encoders of the server."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: without the program's name; those of the process if None.

    Returns:
        The exit status.

    Raises:
        SystemExit: with 2 for options that can't be parsed, with 0 after a command's help.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "--help-all"):
        return run_reporting_errors(lambda: print(_overview()))
    if arguments[0] == "--version":
        import ernerf_ti

        return run_reporting_errors(lambda: print(f"ernerf-ti {ernerf_ti.__version__}"))
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"ernerf-ti: expected a command, one of {', '.join(COMMANDS)}, got {name!r}", file=sys.stderr)
        return 2
    shows_viewer = name == "view" or (name, *rest[:1]) == ("bench", "viewer")
    for command in ("", "view" if shows_viewer else name):
        for variable, value in _ENVIRONMENT.get(command, {}).items():
            os.environ.setdefault(variable, value)
    return run_reporting_errors(lambda: _run(name, rest))


def _run(name: str, arguments: list[str]) -> int:
    try:
        os.getcwd()
    except FileNotFoundError:  # torch's libraries would abort the process
        raise FileNotFoundError("the current folder was removed; change to another one") from None
    status: int = import_module(COMMANDS[name][0]).main(arguments)
    return status


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {description}" for name, (_, description) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ernerf-ti COMMAND ...\n",
            *lines,
            "\n`ernerf-ti COMMAND --help` explains the main options of a command, `--help-all` every option,",
            "and `ernerf-ti --version` prints the version.",
        ]
    )
