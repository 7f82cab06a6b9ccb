"""The framework of the commands' options, on a small command."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Literal

import pytest

from ernerf_ti.cli.options import Command, Device, Flat, Output, Positional, option_value
from ernerf_ti.cli.running import UsageError


@dataclass(frozen=True)
class Shade:
    """Shading."""

    depth: float = 1.5
    """Depth of the
    shading."""
    soft: bool = True
    """Blur the shading."""


@dataclass(frozen=True)
class Paint:
    """Painting."""

    coat: Shade = field(default_factory=Shade)
    size: int = 7
    """Size in pixels."""


@dataclass(frozen=True)
class Given:
    """Options of the small command."""

    source: Positional[Path]
    """File to read."""
    output: Output = Path("out")
    """File to write."""
    device: Device = "auto"
    """Device to compute on."""
    stages: tuple[Literal["head", "finetune"], ...] = ("head",)
    """Stages to run."""
    fast: bool = False
    """Skip the slow part."""
    limit: int | None = None
    """Largest number; by default none."""
    paint: Flat[Paint] = field(default_factory=Paint)


@pytest.fixture
def small():
    seen = []
    command = Command(
        "small",
        Given,
        seen.append,
        "Do a small thing.\n\n    ernerf-ti small FILE\n\nNothing else.",
        important=("source", "output", "size"),
        renamed={
            "coat.deepness": "coat.depth",
            "coat.sharp_less": "coat.soft",
            "out": "output",
            "from": "",
            "old": "limit",
        },
        bare_values={"limit": "12"},
    )

    def run(*arguments: str) -> Given:
        assert command(list(arguments)) == 0
        return seen.pop()

    run.command = command
    return run


def test_values_reach_the_function(small):
    assert small("a") == Given(Path("a"))
    given = small("a", "-o", "b", "--stages", "finetune", "head", "--fast", "--coat.depth", "2", "--size", "3")
    assert given == Given(Path("a"), Path("b"), stages=("finetune", "head"), fast=True, paint=Paint(Shade(2.0), size=3))
    assert small("a", "--coat.no-soft").paint.coat == Shade(soft=False)


def test_underscores_are_hyphens(small):
    assert small("a", "--coat.sharp-less").paint.coat.soft
    assert small("a", "--coat.sharp_less").paint.coat.soft


def test_old_spellings_work_and_are_noted(small, capsys):
    given = small("--from", "a", "--coat.deepness=3", "--coat.no-sharp-less", "--out", "b", "--stages", "fine", "head")
    assert given == Given(Path("a"), Path("b"), stages=("finetune", "head"), paint=Paint(Shade(depth=3.0, soft=False)))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "note: --from is now the first argument",
        "note: --coat.deepness is now --coat.depth",
        "note: --coat.no-sharp-less is now --coat.no-soft",
        "note: --out is now --output",
        "note: --stages fine is now --stages finetune",
    ]
    assert small("fine").source == Path("fine")  # a value of no renamed option


def test_an_option_without_its_value(small):
    assert small("a", "--limit").limit == 12
    assert small("a", "--limit", "--fast").limit == 12
    assert small("a", "--limit", "4").limit == 4
    assert small("a", "--old").limit == 12


def test_help_lists_the_main_options(small, capsys):
    with pytest.raises(SystemExit) as left:
        small.command(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Do a small thing.\n\n    ernerf-ti small FILE\n\nNothing else.\n")
    assert "SOURCE" in shown and "--output" in shown and "(default: out)" in shown and "--size INT" in shown
    assert "--coat.depth" not in shown and "--fast" not in shown and "--stages" not in shown
    assert "`ernerf-ti small --help-all` lists all" in shown


def test_help_all_lists_everything(small, capsys):
    with pytest.raises(SystemExit):
        small.command(["a", "--size", "3", "--help-all"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--coat.depth FLOAT Depth of the shading. (default: 1.5)" in shown
    assert "--coat.soft, --coat.no-soft Blur the shading. (default: True)" in shown
    assert "--fast Skip the slow part. (default: False)" in shown
    assert "--limit INT Largest number; by default none." in shown and "None" not in shown
    assert "--device auto|cpu|cuda Device to compute on. (default: auto)" in shown
    assert "--help-all" not in shown


def test_defaults_that_depend_on_arguments(small):
    command = Command(
        "small",
        Given,
        lambda options: None,
        "",
        defaults=lambda arguments: {"paint": Paint(size=1 if option_value(arguments, "limit") == "1" else 2)},
    )
    assert command.parse(["a", "--limit", "1"]).paint.size == 1
    assert command.parse(["a"]).paint.size == 2
    assert command.parse(["a", "--size", "5"]).paint.size == 5
    assert command.parse(["a", "--limit", "1"], paint=Paint(size=9)).paint.size == 9


@pytest.mark.parametrize("arguments", [[], ["a", "--sizes", "3"], ["a", "--size", "x"], ["a", "--stages", "tail"]])
def test_wrong_arguments_end_with_2(small, arguments, capsys):
    with pytest.raises(SystemExit) as left:
        small.command(arguments)
    assert left.value.code == 2
    assert "ernerf-ti small" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["a", "-o", ""], ["a", "--out", ""], ["a", "--output="], ["", "-o", "b"]])
def test_empty_values_end_with_2(small, arguments, capsys):
    assert small.command(arguments) == 2
    assert "expected a value next, got an empty one" in capsys.readouterr().err.splitlines()[-1]


def test_usage_errors_end_with_2(capsys):
    def refuse(options):
        raise UsageError("--fast: expected --limit with it, got none")

    assert Command("small", Given, refuse, "")(["a"]) == 2
    assert capsys.readouterr().err == "--fast: expected --limit with it, got none\n"


@pytest.mark.parametrize("seed", ["-1", str(1 << 62)])
@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("synthesize", ["run", "--audio", "a.wav", "-o", "a.mp4"]),
        ("evaluate", ["run"]),
        ("demo", []),
        ("synthetic", ["out"]),
        ("fit_image", []),
    ],
)
def test_seeds_that_are_none_are_refused_before_any_work(command, arguments, seed, capsys):
    assert import_module(f"ernerf_ti.cli.{command}").main([*arguments, "--seed", seed]) == 2
    assert capsys.readouterr().err == f"--seed: expected 0 or more, below 2^62, got {seed}; pass e.g. 0\n"


@pytest.mark.parametrize(
    ("command", "arguments", "text"),
    [
        ("train", ["c", "r", "--head.iterations", "-5"], "head: expected iterations >= 0 and n_rays >= 1, got -5 and"),
        ("demo", ["--seconds", "1"], "--seconds: expected 2 to 86400, got 1.0"),
    ],
)
def test_values_that_no_training_takes_are_refused_before_any_work(
    command, arguments, text, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert import_module(f"ernerf_ti.cli.{command}").main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
    assert list(tmp_path.iterdir()) == []
