"""The summary of a batch: summary.json and index.html."""

import json
import time
from collections.abc import Sequence

from ernerf_ti.batch.page import page
from ernerf_ti.batch.row import read_record
from ernerf_ti.batch.sources import PAGE, SUMMARY, LocalOutput, RemoteOutput
from ernerf_ti.batch.speakers import Speaker

_INTERVAL = 30.0  # s between versions of the page while rows run


class Summary:
    """Gathers the records of rows, and writes them now and then and at the end.

    Args:
        output: folder of the batch.
        speakers: all rows.
    """

    def __init__(self, output: LocalOutput | RemoteOutput, speakers: Sequence[Speaker]) -> None:
        self._output, self._speakers = output, speakers
        self._records: dict[str, dict] = {}
        self._written = time.monotonic()

    def add(self, record: dict) -> None:
        """Take the record of a row that is over."""
        self._records[record["name"]] = record
        if time.monotonic() - self._written > _INTERVAL:
            self.write(others="unfinished")

    def write(self, others: str = "interrupted") -> list[dict]:
        """Write both files.

        Args:
            others: state of the rows that are not over: those that run, were stopped, or were not begun.

        Returns:
            The records in the order of the table.
        """
        records = [self._records.get(speaker.name) or self._unfinished(speaker, others) for speaker in self._speakers]
        counts = {state: sum(row["status"] == state for row in records) for state in ("done", "failed", others)}
        content = json.dumps({**counts, "rows": records}, indent=2) + "\n"
        self._output.write(SUMMARY, content.encode())
        self._output.write(PAGE, page(records, self._output.read).encode())
        self._written = time.monotonic()
        return records

    def _unfinished(self, speaker: Speaker, status: str) -> dict:
        record = read_record(self._output, speaker.name)
        return {"seconds": 0.0, "message": "", **record, "name": speaker.name, "status": status}
