"""Dataclasses from the plain values of a TOML table: whatever does not fit is a ConfigError that says what would."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from typing import Any, TypeVar, get_type_hints

from p2pfed.errors import ConfigError

NEARNESS_MIN = 0.5
"""How alike two words must be for one to be offered for the other."""

Built = TypeVar("Built")


def build(kind: type[Built], table: Mapping[str, Any], where: str, **given: object) -> Built:
    """A dataclass of a table: unknown keys, missing keys and wrong types are ConfigErrors."""
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind) if each.name not in given]  # type: ignore[arg-type]
    refuse_unknown(table, names, where)
    values = {name: _plain(hints[name], value, f"{where}.{name}") for name, value in table.items()}
    for each in fields(kind):  # type: ignore[arg-type]
        wanted = each.default is MISSING and each.default_factory is MISSING
        if wanted and each.name not in values and each.name not in given:
            raise ConfigError(f"{where} lacks {each.name}")
    return kind(**values, **given)


def _plain(hint: object, value: object, name: str) -> object:
    if isinstance(hint, type) and issubclass(hint, StrEnum) and value in list(hint):
        return hint(str(value))
    if hint in (float, float | None) and type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    if hint in (int, int | None) and type(value) is int:
        return value
    if hint in (bool, str) and type(value) is hint:
        return value
    if hint == tuple[str, ...] and isinstance(value, list) and all(type(item) is str for item in value):
        return tuple(value)
    if hint == tuple[tuple[str, str], ...] and isinstance(value, dict):
        return tuple(sorted((str(key), str(item)) for key, item in value.items()))
    raise ConfigError(f"{name} is {value!r}, {_wanted(hint)}")


def _wanted(hint: object) -> str:
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return f"none of {', '.join(hint)}"
    return f"which is of another type, not {getattr(hint, '__name__', hint)}"


def refuse_unknown(table: Mapping[str, Any], known: list[str] | tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{where} has no key {key!r}; {nearest(key, known)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """What was meant, or all there is."""
    near = difflib.get_close_matches(word, known, 1, NEARNESS_MIN)
    return f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known)}"
