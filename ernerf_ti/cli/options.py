"""Command-line options: how every command declares, parses and explains them.

A command is a module without torch that holds a frozen dataclass of options, a function that does the work, and a
:class:`Command` that joins the two:

    @dataclass(frozen=True)
    class ShrinkOptions:
        image: Positional[Path]
        \"\"\"Image file to read.\"\"\"
        output: Output = Path("small.png")
        \"\"\"Image file to write.\"\"\"
        device: Device = "auto"
        \"\"\"Device to compute on: auto, cpu or cuda.\"\"\"
        quality: int = 90
        \"\"\"JPEG quality, 1 to 100.\"\"\"

    def shrink(options: ShrinkOptions) -> None:
        existing_file(options.image, "an image")  # arguments and paths first
        import torch  # then whatever takes long to load

    main = Command("shrink", ShrinkOptions, shrink, __doc__, important=("image", "output", "device"))

The docstring under a field is its help. `--help` lists the options in `important` (all if it is empty) and `--help-all`
every one. `main(arguments)` parses, runs, turns expected errors and Ctrl-C into one line, and returns the exit status.
"""

import contextlib
import dataclasses
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, cast

import docstring_parser
import tyro
from tyro.conf import Positional

from ernerf_ti.cli.running import UsageError, run_reporting_errors

__all__ = [
    "OLD_VALUES",
    "Command",
    "Device",
    "Flat",
    "OptionalOutput",
    "Output",
    "Positional",
    "check_range",
    "option_value",
]

Output = Annotated[Path, tyro.conf.arg(aliases=("-o",))]
"""Type of a required option `-o/--output`, or of one with a default path."""
OptionalOutput = Annotated[Path | None, tyro.conf.arg(aliases=("-o",))]
"""Type of an option `-o/--output` that may be left out."""
Device = Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")]
"""Type of the option `--device`."""
Nested = TypeVar("Nested")
Flat = Annotated[Nested, tyro.conf.arg(name="")]
"""`Flat[Record]` is the type of a record whose fields are options without a prefix."""

OLD_VALUES = {"stages": {"fine": "finetune"}, "stage": {"fine": "finetune"}, "features": {"senone": "ppg"}}
"""By option, values in earlier versions -> present ones; the same in all commands."""

_MARKERS = (
    tyro.conf.AvoidSubcommands,
    tyro.conf.DisallowNone,
    tyro.conf.PositionalMetavarFromFieldName,
    tyro.conf.SuppressFixed,
)
_VARIANT = re.compile(r"[\w.-]+:[\w-]+-config")
"""Chooses one of several record types for a field, as `portrait.head.position-encoder:hash-grid-config`."""
Options = TypeVar("Options")


@dataclass(frozen=True)
class Command(Generic[Options]):
    """One command of `ernerf-ti`; calling it with a list of arguments runs it."""

    name: str
    """Name after `ernerf-ti`."""
    options: type[Options]
    """Frozen dataclass of the options."""
    run: Callable[[Options], int | None]
    """Does the work; returns the exit status, None for 0."""
    description: str
    """Text above the options in the help: a sentence, and examples in indented lines."""
    important: tuple[str, ...] = ()
    """Dotted names of the options that plain `--help` lists; all if empty."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Options in earlier versions -> present ones, as dotted names without hyphens in front. An empty name stands for
    the first positional argument."""
    bare_values: Mapping[str, str] = field(default_factory=dict)
    """Values of options that are given without one."""
    check: Callable[[Options], None] | None = None
    """Raises ValueError for values that can't be used on any machine, whatever files there are; part of parsing, which
    makes a UsageError of it."""
    defaults: Callable[[list[str]], Mapping[str, Any]] | None = None
    """From the arguments, defaults that depend on them."""
    interrupted: str = "interrupted; nothing was written"
    """What is printed on Ctrl-C: what was kept, and how to go on."""

    def __call__(self, arguments: list[str] | None = None) -> int:
        """Run the command line.

        Args:
            arguments: without the command's name; those of the process if None.

        Returns:
            The exit status: 0, 1 after an error, 2 after one of the options, 128 + n after signal n.

        Raises:
            SystemExit: with 2 for arguments that can't be parsed, with 0 after help.
        """
        given = sys.argv[1:] if arguments is None else arguments
        return run_reporting_errors(lambda: self.run(self.parse(given)), self.interrupted)

    def parse(self, arguments: list[str], **defaults: Any) -> Options:
        """Options from arguments, with other defaults than those of the class where given.

        Raises:
            SystemExit: as for calls.
            UsageError: an empty argument: as a path it would be the current folder; a seed that is none; and what
                :attr:`check`, or the constructor of a record of options, refuses.
        """
        arguments = self._present_spellings(list(arguments))
        if "" in arguments:
            place = " ".join([f"ernerf-ti {self.name}", *arguments[: arguments.index("")]])
            raise UsageError(
                f"{place}: expected a value next, got an empty one; fill it in, or leave it out "
                "(a shell variable may be unset)"
            )
        if self.defaults is not None:
            defaults = {**self.defaults(arguments), **defaults}
        values = {f.name: _default(f) for f in dataclasses.fields(cast(Any, self.options))} | defaults
        default = _bare(self.options, values)
        show_all = "--help-all" in arguments
        if show_all or "--help" in arguments or "-h" in arguments:
            print(f"{self.description.strip()}\n")
            if self.important and not show_all:
                print(f"The main options are listed below; `ernerf-ti {self.name} --help-all` lists all of them.\n")
            arguments = ["--help"]
            default = _explained(default, () if show_all else self.important)
        markers = _MARKERS
        if any(_VARIANT.fullmatch(argument) for argument in arguments):
            markers = tuple(marker for marker in markers if marker is not tyro.conf.AvoidSubcommands)
        with _usage_errors():  # of records whose constructors refuse values
            parsed = tyro.cli(
                type(default),
                prog=f"ernerf-ti {self.name}",
                description="",
                args=arguments,
                default=default,
                config=markers,
            )
        seed = getattr(parsed, "seed", 0)
        if not 0 <= seed < 1 << 62:  # NumPy, torch and those that derive others from it have different limits
            raise UsageError(f"--seed: expected 0 or more, below 2^62, got {seed}; pass e.g. 0")
        if self.check is not None:
            with _usage_errors():
                self.check(parsed)
        return parsed

    def _present_spellings(self, arguments: list[str]) -> list[str]:
        """Replace options and values of earlier versions, with a note on stderr for each."""
        renamed = {_key(old): new for old, new in self.renamed.items()}
        front, result, option = [], [], ""
        remaining = list(arguments)
        while remaining:
            token = remaining.pop(0)
            if not token.startswith("--"):
                option = "" if token.startswith("-") else option
                present = OLD_VALUES.get(option, {}).get(token, token)
                if present != token:
                    _note(f"--{option} {token} is now --{option} {present}")
                result.append(present)
                continue
            name, equals, value = token[2:].partition("=")
            if equals:
                remaining.insert(0, value)
            option = _key(name)
            new = _renamed(option, renamed)
            if new is None:
                result.append(f"--{name}")
            elif new:
                _note(f"--{name} is now --{new}")
                result.append(f"--{new}")
                option = new
            else:
                _note(f"--{name} is now the first argument")
                front += remaining[:1]
                remaining = remaining[1:]
            if option in self.bare_values and (not remaining or remaining[0].startswith("-")):
                result.append(self.bare_values[option])
        return front + result


@contextlib.contextmanager
def _usage_errors() -> Iterator[None]:
    """Make a UsageError of a ValueError."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from None


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Raise UsageError for the value of an option that is not from `least` to `most`, or no number."""
    if not least <= value <= most:
        raise UsageError(f"--{name}: expected {least} to {most}, got {value}; pass another value")


def option_value(arguments: list[str], name: str) -> str | None:
    """Value of an option among arguments that are not parsed yet; None if it is not given."""
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        if argument == f"--{name}":
            return following
    return None


def _renamed(option: str, renamed: Mapping[str, str]) -> str | None:
    """Present name of an option; None if it has not changed. Options without a value may begin with `no-`."""
    if option in renamed:
        new = renamed[option]
        return _key(new)
    prefix, dot, leaf = option.rpartition(".")
    positive = prefix + dot + leaf.removeprefix("no-")
    if positive == option or positive not in renamed:
        return None
    prefix, dot, leaf = _key(renamed[positive]).rpartition(".")
    return f"{prefix}{dot}no-{leaf}"


def _key(name: str) -> str:
    return name.replace("_", "-")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _default(f: dataclasses.Field) -> Any:
    if f.default is not dataclasses.MISSING:
        return f.default
    return tyro.MISSING if f.default_factory is dataclasses.MISSING else f.default_factory()


def _bare(kind: type, values: Mapping[str, Any]) -> Any:
    """A record with these values, which its own checks have not seen: some may be missing still."""
    record: Any = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(record, name, value)
    return record


def _explained(record: Any, important: tuple[str, ...], prefix: str = "") -> Any:
    """The same values as a record for the help: other options than the important ones are hidden."""
    kind = type(record)
    hints = typing.get_type_hints(kind, include_extras=True)
    texts = _field_docstrings(kind)
    values, fields = {}, []
    for f in dataclasses.fields(kind):
        hint, value = hints[f.name], getattr(record, f.name)
        if dataclasses.is_dataclass(value):
            extras = getattr(hint, "__metadata__", ())
            inner = prefix if any(getattr(extra, "name", None) == "" for extra in extras) else f"{prefix}{f.name}."
            value = _explained(value, important, inner)
            hint = type(value)
            for extra in extras:
                hint = Annotated[hint, extra]
        else:
            behavior = "" if value is None or value == () else None
            hint = Annotated[hint, tyro.conf.arg(help=texts.get(f.name, ""), help_behavior_hint=behavior)]
            if value is False:
                hint = Annotated[hint, tyro.conf.FlagCreatePairsOff]  # without --no-NAME in the help
            if important and prefix + f.name not in important:
                hint = Annotated[hint, tyro.conf.Suppress]
        values[f.name] = value
        fields.append((f.name, hint, dataclasses.field(default=None)))
    namespace = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    explained = dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True, namespace=namespace)
    return _bare(explained, values)


def _field_docstrings(kind: type) -> dict[str, str]:
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        if dataclasses.is_dataclass(base):
            found = docstring_parser.parse_from_object(base).params
            texts |= {text.arg_name: " ".join((text.description or "").split()) for text in found}
    return texts
