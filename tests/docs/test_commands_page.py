"""The page of commands names every command and renamed option, and the command lines of all pages can be parsed."""

import re
import shlex
from pathlib import Path

import pytest

from ernerf_ti.cli.main import COMMANDS
from ernerf_ti.cli.renamed_options import commands, markdown_table

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "commands.md").read_text()
BY_NAME = commands()


def command_lines() -> list[str]:
    """Command lines with arguments in blocks and in running text, without `ernerf-ti`."""
    found = set()
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = path.read_text()
        found |= set(re.findall(r"^ernerf-ti (\w.*? .+)$", text, re.MULTILINE))
        found |= set(re.findall(r"`ernerf-ti ([a-z-]+ [^-`][^`]*)`", text))  # not those that name an option alone
    return sorted(found)


def test_every_command_has_a_section_with_its_help():
    for name in COMMANDS:
        assert re.search(rf"^## {name}$", PAGE, re.MULTILINE), name
    for name in BY_NAME:
        assert f"{{{{ help {name} }}}}" in PAGE, name


def test_the_table_of_renamed_options_is_that_of_the_code():
    table = markdown_table()
    assert table in PAGE, f"docs/commands.md: expected this table in the section Renamed options:\n{table}"


@pytest.mark.parametrize("line", command_lines())
def test_command_line_of_the_documentation(line, capsys):
    words = shlex.split(line, comments=True)
    assert words[0] in COMMANDS
    name = " ".join(words[:2]) if words[0] == "bench" else words[0]
    arguments = words[len(name.split()) :]
    if name in BY_NAME and arguments:
        BY_NAME[name].parse(arguments)
    assert capsys.readouterr().err == "", "an old option name"
