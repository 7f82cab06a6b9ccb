"""The program `ernerf-ti`: its commands, their help, and what they load for it."""

import json
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import ernerf_ti
import taichi_kernels
from ernerf_ti.cli.bench import BENCHMARKS
from ernerf_ti.cli.main import COMMANDS, main
from ernerf_ti.cli.options import OLD_VALUES
from ernerf_ti.cli.renamed_options import commands, markdown_table, renamed_options
from ernerf_ti.run.serialization import old_option_names
from ernerf_ti.train.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
NAMES = list(commands())
HEAVY = "torch", "taichi", "tensorboard", "librosa", "mediapipe", "transformers"
"""Packages that take long to import."""


def loaded_after(lines: list[list[str]]) -> list[tuple[int, list[str]]]:
    """Exit status, and the heavy packages loaded so far, after each command line, in one new process."""
    program = textwrap.dedent(f"""
        import contextlib, json, os, sys
        from ernerf_ti.cli.main import main
        results = []
        for line in json.loads(sys.argv[1]):
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                try:
                    status = main(line)
                except SystemExit as left:
                    status = left.code
            results.append((status, [name for name in {HEAVY} if name in sys.modules]))
        print(json.dumps(results))
    """)
    command = [sys.executable, "-c", program, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return [(status, loaded) for status, loaded in json.loads(done.stdout)]


def test_help_loads_nothing_heavy():
    lines = [["--help"], ["--version"], ["bench", "--help"]]
    lines += [[*name.split(), option] for name in NAMES for option in ("--help", "--help-all")]
    for line, result in zip(lines, loaded_after(lines), strict=True):
        assert result == (0, []), line


def test_wrong_input_loads_nothing_heavy(tmp_path):
    (tmp_path / "empty").mkdir()
    empty, none, out = str(tmp_path / "empty"), str(tmp_path / "none"), str(tmp_path / "out")
    expected = {
        2: [
            ["trian"],
            ["train", empty],
            ["train", empty, out, "--head.iteratoins", "3"],
            ["synthesize", empty],
            ["bench", "kernel"],
            ["bench", "cuda", "--device", "cpu"],
            ["bench", "cuda", "--minutes", "0"],
            ["bench", "render", none, "--frames", "0"],
            *(["bench", "viewer", none, "--seconds", value] for value in ("inf", "nan", "-1", "1e300")),
            ["bench", "viewer", none, "--target-rate", "nan"],
            *(["bench", "threads", none, "--seconds", value] for value in ("inf", "nan", "-1", "1e300")),
            ["bench", "live", none, "--simulated-seconds", "1e300"],
            ["bench", "cuda", "--quick", "--device", "cpu", "--minutes", "inf"],
            ["bench", "memory", "--image", "100000000"],
            ["bench", "soak", "--seconds", "1e300"],
            ["bench", "kernels", "--repeats", "0"],
            ["bench", "kills", "--kills", "0"],
            ["fit-image", "--steps", "0"],
            ["synthetic"],
        ],
        1: [
            ["train", none, out],
            ["train", none, out, "--device", "tpu"],
            ["train", empty, out, "--resume"],
            ["preprocess", none, out],
            ["preprocess", empty, out],
            ["synthesize", empty, "--audio", none, "-o", out],
            ["evaluate", none],
            ["convert", none, out],
            ["ablate", none, out],
            ["bench", "render", none],
            ["bench", "threads", none],
            ["fit-image", none],
            ["study-audio", none],
        ],
    }
    lines = [line for of_status in expected.values() for line in of_status]
    results = dict(zip(map(tuple, lines), loaded_after(lines), strict=True))
    for status, of_status in expected.items():
        for line in of_status:
            assert results[tuple(line)] == (status, []), line
    assert not (tmp_path / "out").exists()


def test_overview_and_version(capsys):
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(f"\n  {name} " in overview for name in COMMANDS)
    assert main([]) == 0
    assert capsys.readouterr().out == overview
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ernerf-ti {ernerf_ti.__version__}\n"
    assert ernerf_ti.__version__ == taichi_kernels.__version__
    assert main(["trian"]) == 2
    assert "expected a command, one of preprocess, train, " in capsys.readouterr().err


def test_scripts_call_the_commands(monkeypatch):
    called = []
    monkeypatch.setattr("ernerf_ti.cli.main.main", called.append)
    monkeypatch.setattr(sys, "argv", ["script", "--help"])
    for path in sorted((ROOT / "tools").glob("*.py")):
        with pytest.raises(SystemExit):
            runpy.run_path(str(path), run_name="__main__")
    names = [" ".join(arguments[:-1]) for arguments in called]
    assert len(names) == len(set(names)) and set(names) <= {*COMMANDS, *(f"bench {name}" for name in BENCHMARKS)}
    assert all(arguments[-1] == "--help" for arguments in called)


def test_options_are_spelled_alike():
    """One spelling for the same thing in all commands, and a sentence of help for each option."""
    aliases = {"out": "output", "json": "output", "extractor": "features", "optimiser": "optimizer"}
    for name, command in commands().items():
        fields = set(command.options.__dataclass_fields__)
        assert not fields & set(aliases), name
        default = command.options.__dataclass_fields__.get("device")
        assert default is None or default.default in ("auto", "cpu"), name


def rewritten(setting: str) -> str:
    """Present name of a setting by the rows of the table alone."""
    for command, old, new in renamed_options():
        if command != "train, convert":
            continue
        if old.endswith(".X"):
            group, present = old[2:-1], new[2:-1]
            if setting.startswith(group):
                return rewritten(present + setting.removeprefix(group))
        elif setting == old[2:]:
            return rewritten(new[2:])
    return setting


def test_renamed_options_are_accepted():
    known = commands()
    settings = old_option_names(TrainConfig)
    assert set(settings) <= set(known["train"].renamed) and set(settings) <= set(known["convert"].renamed)
    for name, old, new in renamed_options():
        if ".X" in old or name == "all":
            continue
        for command in name.split(", "):
            if new == "--help-all":
                continue
            spelled = known[command]._present_spellings([old, "1"])
            assert spelled == ([new, "1"] if new.startswith("--") else ["1"]), (command, old)
    for old, new in settings.items():
        assert rewritten(old.replace("_", "-")) == new.replace("_", "-"), old
    assert OLD_VALUES["stages"] == {"fine": "finetune"}


@pytest.mark.skipif(not (ROOT / "docs" / "commands.md").is_file(), reason="no page of commands yet")
def test_the_documentation_lists_the_renamed_options():
    page = (ROOT / "docs" / "commands.md").read_text()
    missing = [row for row in markdown_table().splitlines() if row not in page]
    assert not missing, "paste the output of `python -m ernerf_ti.cli.renamed_options` into docs/commands.md"


def test_a_current_folder_that_was_removed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert main(["train", "a", "b"]) == 1
    assert capsys.readouterr().err == "the current folder was removed; change to another one\n"
