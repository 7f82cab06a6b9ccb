"""Convert configuration records to JSON values and back."""

import dataclasses
import sys
import types
import typing
from typing import Any, Literal, TypeVar, cast

Record = TypeVar("Record")


def config_to_dict(config: Any) -> Any:
    """Encode a record as JSON values. A record from a union of records gets its class name as `kind`."""
    if not dataclasses.is_dataclass(config):
        return [config_to_dict(value) for value in config] if isinstance(config, (list, tuple)) else config
    result = {}
    for name, hint in _hints(type(config)).items():
        value = getattr(config, name)
        result[name] = config_to_dict(value)
        if _choices(hint):
            result[name] = {"kind": type(value).__name__, **result[name]}
    return result


def config_from_dict(kind: type[Record], values: Any, path: str = "config") -> Record:
    """Decode a record. Missing fields take their defaults.

    Args:
        kind: the record's class.
        values: JSON values; fields may have the names that they had in earlier versions.
        path: prefix of the field names in messages.

    Raises:
        ValueError: a field that is unknown, has another type or a value that the record refuses, or is missing and has
            no default. The message names it.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected the fields of {kind.__name__}, got {values!r}; see its documentation")
    hints, renamed = _hints(kind), getattr(kind, "_renamed", {})
    values = {renamed.get(name, name): value for name, value in values.items()}
    unknown = sorted(map(str, set(values) - set(hints)))
    if unknown:
        raise ValueError(
            f"{path}: expected only the fields {', '.join(hints)}, got also {', '.join(unknown)}; "
            "use the version of ernerf-ti that wrote it, or a newer one"
        )
    fields = {}
    for field in dataclasses.fields(cast(Any, kind)):
        if field.name in values:
            fields[field.name] = _decode(hints[field.name], values[field.name], f"{path}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{path}: expected the field {field.name}, got none; add it")
    try:
        return kind(**fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def old_option_names(kind: Any, prefix: str = "") -> dict[str, str]:
    """Dotted names that fields had in earlier versions -> current names, of a record and its nested records."""
    names = {}
    renamed = getattr(kind, "_renamed", {})
    for name, hint in _hints(kind).items():
        spellings = [name, *(old for old, new in renamed.items() if new == name)]
        records = [hint] if dataclasses.is_dataclass(hint) else list(_choices(hint).values())
        inner = {old: new for record in records for old, new in old_option_names(record).items()}
        leaves = [field for record in records for field in _leaves(record)]
        for spelling in spellings:
            if spelling != name and not records:
                names[prefix + spelling] = prefix + name
            for old, new in inner.items():
                names[f"{prefix}{spelling}.{old}"] = f"{prefix}{name}.{new}"
            if spelling != name:
                names |= {f"{prefix}{spelling}.{leaf}": f"{prefix}{name}.{leaf}" for leaf in leaves}
    return names


def _leaves(kind: Any) -> list[str]:
    leaves = []
    for name, hint in _hints(kind).items():
        records = [hint] if dataclasses.is_dataclass(hint) else list(_choices(hint).values())
        leaves += [f"{name}.{leaf}" for record in records for leaf in _leaves(record)] if records else [name]
    return leaves


def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _decode(hint: Any, value: Any, path: str) -> Any:
    choices = _choices(hint)
    if choices:
        chosen = value.get("kind") if isinstance(value, dict) else None
        if chosen not in choices:
            raise ValueError(f"{path}: expected kind one of {', '.join(choices)}, got {chosen!r}; choose one of these")
        return config_from_dict(choices[chosen], {key: v for key, v in value.items() if key != "kind"}, path)
    if dataclasses.is_dataclass(hint):
        return config_from_dict(cast(Any, hint), value, path)
    return _plain(hint, value, path)


def _plain(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        fits = value in arguments
    elif origin is tuple:
        variadic = arguments[-1] is Ellipsis
        if not isinstance(value, (list, tuple)) or not (variadic or len(value) == len(arguments)):
            raise ValueError(f"{path}: expected {hint}, got {value!r}; see the documentation of the field")
        kinds = [arguments[0]] * len(value) if variadic else arguments
        return tuple(_plain(kind, item, path) for kind, item in zip(kinds, value, strict=True))
    elif origin in (typing.Union, types.UnionType):
        fits = any(_is_a(value, kind) for kind in arguments)
    else:
        fits = _is_a(value, hint)
    if not fits:
        raise ValueError(f"{path}: expected {hint}, got {value!r}; see the documentation of the field")
    return float(value) if hint is float else value


def _is_a(value: Any, kind: type) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # neither NaN nor infinite
    return isinstance(value, kind)


def _choices(hint: Any) -> dict[str, Any]:
    """The records of a union by class name; empty if the type is not a union of records."""
    kinds = typing.get_args(hint)
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return {kind.__name__: kind for kind in kinds} if is_union and all(map(dataclasses.is_dataclass, kinds)) else {}
