"""The manual lists every key, setting and command."""

import re
from pathlib import Path

from ernerf_ti.viewer.state import CHOICES, COMMANDS, KEYS, LIMITS, MODES

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "viewer.md"


def test_manual_has_every_key():
    table = MANUAL.read_text().split("## Keys")[1].split("\n## ")[0]
    found = dict(re.findall(r"\| `([^`]+)` \| ([^|]+?) (?=\|)", table))
    assert found == {name: key.help for name, key in KEYS.items()}


def test_manual_has_every_word_of_a_script():
    text = MANUAL.read_text()
    script = text.split("## Without a window")[1]
    assert all(f"`{name}`" in script for name in [*COMMANDS, *LIMITS, *CHOICES])
    assert all(mode in text.split("## Debug views")[1] for mode in MODES[1:])
