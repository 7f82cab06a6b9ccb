"""Options that were renamed since version 0.1, of all commands, as the documentation lists them.

`python -m ernerf_ti.cli.renamed_options` prints the table.
"""

import dataclasses
import typing
from importlib import import_module

from ernerf_ti.cli.bench import BENCHMARKS
from ernerf_ti.cli.main import COMMANDS
from ernerf_ti.cli.options import OLD_VALUES, Command
from ernerf_ti.train.config import TrainConfig


def commands() -> dict[str, Command]:
    """All commands by name, benchmarks as `bench NAME`. Loads no torch."""
    found = {}
    for name, (module, _) in COMMANDS.items():
        if name != "bench":
            found[name] = import_module(module).main
    return found | {f"bench {name}": command for name, command in BENCHMARKS.items()}


def renamed_options() -> list[tuple[str, str, str]]:
    """Command, old and present option for each that was renamed; `X` stands for any option of a group."""
    settings = sorted(_renamed_settings(TrainConfig))
    old_settings = {old for old, _ in settings}
    rows = [
        ("all", f"--{option} {old}", f"--{option} {new}")
        for option, pair in OLD_VALUES.items()
        for old, new in pair.items()
    ]
    rows += [("train, convert", f"--{old}", f"--{new}") for old, new in settings]
    for name, command in commands().items():
        for old, new in command.renamed.items():
            if "." not in old and _hyphens(old) not in old_settings:
                rows.append((name, f"--{_hyphens(old)}", f"--{_hyphens(new)}" if new else "first argument"))
    return rows


def markdown_table() -> str:
    """The renamed options as a table in Markdown."""
    lines = ["| command | old | new |", "|---|---|---|"]
    for command, old, new in renamed_options():
        lines.append(f"| {command} | `{old}` | {f'`{new}`' if new.startswith('--') else new} |")
    return "\n".join(lines)


def _renamed_settings(kind: type, prefix: str = "") -> set[tuple[str, str]]:
    rows = set()
    renamed = getattr(kind, "_renamed", {})
    for name, hint in typing.get_type_hints(kind).items():
        if name == "_renamed":
            continue
        records = [record for record in (hint, *typing.get_args(hint)) if isinstance(record, type)]
        records = [record for record in records if dataclasses.is_dataclass(record)]
        of_group = ".X" if records else ""
        for old in (old for old, new in renamed.items() if new == name):
            rows.add((_hyphens(f"{prefix}{old}{of_group}"), _hyphens(f"{prefix}{name}{of_group}")))
        for record in records:
            rows |= _renamed_settings(record, f"{prefix}{name}.")
    return rows


def _hyphens(name: str) -> str:
    return name.replace("_", "-")


if __name__ == "__main__":
    print(markdown_table())
