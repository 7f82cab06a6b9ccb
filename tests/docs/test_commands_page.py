"""The page of commands names every command, and every option and value that was renamed."""

import re
from pathlib import Path

from ernerf_ti.cli.renamed_options import commands, markdown_table

from ernerf_ti.cli.main import COMMANDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text()


def test_every_command_has_a_section_with_its_help():
    for name in COMMANDS:
        assert re.search(rf"^## {name}$", PAGE, re.MULTILINE), name
    for name in commands():
        assert f"{{{{ help {name} }}}}" in PAGE, name


def test_the_table_of_renamed_options_is_that_of_the_code():
    table = markdown_table()
    assert table in PAGE, f"docs/commands.md: expected this table in section Renamed options:\n{table}"
