"""A batch as one self-contained HTML page: a row for each speaker."""

import base64
import html
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from ernerf_ti.batch.findings import METRICS

_ALWAYS_COUNTED, _OTHER_STATES = ("done", "failed"), ("interrupted", "unfinished")
_STYLE = """
:root { color-scheme: light dark; --text: #222; --quiet: #666; --line: #ddd; --back: #fff; --good: #176b2c;
  --bad: #b3261e; --warn: #8a4b00; --link: #0b57a4 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --quiet: #a0a0a0; --line: #3a3a3a; --back: #16181b; --good: #7fd394; --bad: #ff9a90;
    --warn: #f0b866; --link: #8ec1ff }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1300px; margin: 2em auto; padding: 0 1em; color: var(--text);
  background: var(--back) }
a { color: var(--link) } .wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; width: 100% }
th { text-align: left; font-weight: normal; color: var(--quiet); white-space: nowrap }
th, td { padding: .5em 1em .5em 0; vertical-align: top; border-bottom: 1px solid var(--line) }
td { font-variant-numeric: tabular-nums } td.number { white-space: nowrap }
img { display: block; max-height: 96px; border-radius: 4px }
ul { margin: 0; padding-left: 1.2em } .quiet { color: var(--quiet) } .name { font-weight: 600 }
.done { color: var(--good) } .failed { color: var(--bad) } .warning, .interrupted { color: var(--warn) }
"""


def page(records: Sequence[dict], read: Callable[[str], bytes | None]) -> str:
    """HTML of the page.

    Args:
        records: of the rows, in the order of the table.
        read: content of a file by its path in the output folder.
    """
    numbers = {s: sum(row["status"] == s for row in records) for s in (*_ALWAYS_COUNTED, *_OTHER_STATES)}
    counts = ", ".join(
        f'<span class="{state}">{number} {state}</span>'
        for state, number in numbers.items()
        if number or state in _ALWAYS_COUNTED
    )
    names = [name for name in METRICS if any(name in row.get("metrics", {}) for row in records)]
    head = ["", "name", "state", "time", *names, "warnings", "results"]
    lines = "".join(_line(row, names, read) for row in records)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Portraits</title><style>{_STYLE}</style></head><body>
<h1>{len(records)} portrait{"s" if len(records) != 1 else ""}</h1>
<p>{counts}</p>
<div class="wide"><table><tr>{"".join(f"<th>{html.escape(text)}</th>" for text in head)}</tr>{lines}</table></div>
<p class="quiet">Metrics are means over held-out frames; each evaluation has their intervals and says how they are
computed.</p>
</body></html>
"""


def duration(seconds: float) -> str:
    """Seconds as text in the unit that suits them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _line(row: dict, metrics: list[str], read: Callable[[str], bytes | None]) -> str:
    name, found = row["name"], row.get("metrics", {})
    picture = read(f"{name}/{row['thumbnail']}") if row.get("thumbnail") else None
    shown = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">' if picture else ""
    values = "".join(f'<td class="number">{_value(found[m]) if m in found else "-"}</td>' for m in metrics)
    warnings = "".join(f'<li class="warning">{html.escape(text)}</li>' for text in row.get("warnings", []))
    links = "".join(f"<li>{_link(name, path, text)}</li>" for text, path in row.get("links", {}).items())
    message = f"<br>{html.escape(row['message'])}" if row.get("message") else ""
    return (
        f'<tr><td>{shown}</td><td class="name">{html.escape(name)}</td>'
        f'<td><span class="{row["status"]}">{row["status"]}</span>{message}</td>'
        f'<td class="number">{duration(row.get("seconds", 0.0)) if row["stages"] else "-"}{_stages(row)}</td>{values}'
        f"<td>{f'<ul>{warnings}</ul>' if warnings else '-'}</td><td>{f'<ul>{links}</ul>' if links else '-'}</td></tr>"
    )


def _stages(row: dict) -> str:
    """Time of each stage, with a link to its log."""
    lines = []
    for stage in row["stages"]:
        label = _link(row["name"], stage["log"], stage["stage"]) if "log" in stage else html.escape(stage["stage"])
        note = "" if stage["status"] == "done" else f' <span class="{stage["status"]}">{stage["status"]}</span>'
        lines.append(f'<br><span class="quiet">{label} {duration(stage["seconds"])}</span>{note}')
    return "".join(lines)


def _value(metric: dict[str, Any]) -> str:
    unit = "" if metric["unit"] == "r" else metric["unit"]
    return html.escape(f"{metric['value']:.4g} {unit}".strip())


def _link(name: str, path: str, text: str) -> str:
    return f'<a href="{quote(f"{name}/{path}")}">{html.escape(text)}</a>'
