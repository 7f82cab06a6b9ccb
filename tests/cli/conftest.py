"""Commands as modules, by the names of the scripts in tools/."""

from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
