"""Tables of speakers whose commands are a stand-in."""

import sys
from pathlib import Path

import pytest

from ernerf_ti.batch.row import Work
from ernerf_ti.batch.speakers import read_speakers

PREFIX = (sys.executable, "-S", str(Path(__file__).with_name("stand_in.py")))


class Batch:
    """A table, and the folder for its results."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.table, self.output = folder, folder / "speakers.csv", folder / "out"
        (folder / "hello.wav").write_text("hello")

    def write(self, rows: dict[str, str], train: str = "") -> None:
        """Rows by name, with what their videos hold."""
        lines = ["name,video,sounds,train"]
        for name, content in rows.items():
            (self.folder / f"{name}.mp4").write_text(content)
            lines.append(f"{name},{name}.mp4,hello.wav,{train}")
        self.table.write_text("\n".join(lines) + "\n")

    def speakers(self):
        return read_speakers(self.table, lambda command, options: None)

    def work(self, output: str | None = None) -> Work:
        return Work(output or str(self.output), PREFIX)

    def starts(self, name: str) -> list[str]:
        """Commands that were started for a row, in order."""
        path = self.output / name / "starts.txt"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.is_file() else []

    def weights(self, name: str) -> str:
        return (self.output / name / "run" / "weights.txt").read_text()


@pytest.fixture
def batch(tmp_path):
    return Batch(tmp_path)
