"""Rows of the CUDA check: what was measured, as a Markdown table and as JSON."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any


class OutOfTimeError(RuntimeError):
    """The time that is left is too short for a measurement."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    part: str
    """Part of the check."""
    what: str
    """What was measured."""
    value: float | None = None
    """A single figure."""
    off: float | None = None
    """Median with a setting off."""
    on: float | None = None
    """Median with it on, in turns with `off` in one process."""
    unit: str = ""
    target: float | None = None
    """Bound that `value` should keep on an H100 at the full sizes."""
    at_most: bool = True
    """Whether the target is an upper bound rather than a lower one."""
    judged: bool = True
    """Whether `value` may be held against the target: false for a rehearsal in small sizes."""
    note: str = ""
    failed: bool = False

    @property
    def ratio(self) -> float | None:
        """off / on."""
        return None if self.off is None or not self.on else self.off / self.on

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or a figure."""
        if self.value is None or self.target is None or not self.judged:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    @property
    def judgment(self) -> str:
        """The target, and whether it is met; "" without one."""
        if self.target is None:
            return ""
        bound = f"{'at most' if self.at_most else 'at least'} {with_unit(self.target, self.unit)}"
        return bound if self.met is None else f"{bound}: {'met' if self.met else 'not met'}"

    def as_json(self) -> dict[str, Any]:
        values = asdict(self) | {"ratio": self.ratio, "met": self.met}
        # JSON has no NaN, which a training that diverges gives.
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


class Budget:
    """The time of the whole check, in seconds from its construction."""

    def __init__(self, seconds: float):
        self._begin, self.seconds = perf_counter(), seconds

    def spent(self) -> float:
        return perf_counter() - self._begin

    def left(self) -> float:
        return self.seconds - self.spent()

    def need(self, seconds: float) -> None:
        """Raises OutOfTimeError if less time is left."""
        if self.left() < seconds:
            raise OutOfTimeError(f"needs about {seconds:.0f} s, {max(0, self.left()):.0f} s are left")


def isolated(part: str, what: str, measure: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of a measurement; one that fails, or has no time left, ends in a row that says so."""
    try:
        yield from measure()
    except OutOfTimeError as error:
        yield Row(part, what, note=f"skipped: {error}")
    except (Exception, SystemExit) as error:  # whatever it is, the other measurements go on
        text = " ".join(str(error).split())
        yield Row(part, what, note=f"failed: {type(error).__name__}: {text[:300]}", failed=True)


def as_table(rows: Iterable[Row]) -> str:
    """All rows in Markdown."""
    lines = ["| part | what | value | off | on | off / on | target | note |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        cells = [row.part, row.what, *(with_unit(x, row.unit) for x in (row.value, row.off, row.on)), ratio]
        cells += [row.judgment, row.note]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)


def with_unit(value: float | None, unit: str) -> str:
    """A figure for the table; "" for None."""
    return "" if value is None else f"{_number(value)} {unit}".rstrip()


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
