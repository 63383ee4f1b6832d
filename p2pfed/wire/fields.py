"""The kinds of field a frame is made of: each turns a value into its wire form and back.

`write` takes what this program made; `read` takes what a stranger sent, trusts nothing (`True` is
no int here, NaN no number) and raises RemoteError with one sentence. `read` never shows more than
a few characters of what it refuses: the sentence ends up in logs and on terminals.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from p2pfed.errors import RemoteError

INTEGER_MAX = 2**63 - 1
SHOWN_CHARS_MAX = 40
"""Of a refused value in an error: enough to recognise it."""


class Field(Protocol):
    """`value` is whatever the message's dataclass holds there; the table in `codec` keeps them in step."""

    def write(self, value: Any) -> object: ...

    def read(self, name: str, wire: object) -> Any: ...


@dataclass(frozen=True, slots=True)
class Integer:
    minimum: int = 0
    maximum: int = INTEGER_MAX

    def write(self, value: Any) -> object:
        return value

    def read(self, name: str, wire: object) -> int:
        if type(wire) is not int:
            raise RemoteError(f"{name} is {shown(wire)}, not an integer")
        if not self.minimum <= wire <= self.maximum:
            raise RemoteError(f"{name} is {wire}, not within {self.minimum} to {self.maximum}")
        return wire


@dataclass(frozen=True, slots=True)
class Flag:
    def write(self, value: Any) -> object:
        return value

    def read(self, name: str, wire: object) -> bool:
        if type(wire) is not bool:
            raise RemoteError(f"{name} is {shown(wire)}, not true or false")
        return wire


@dataclass(frozen=True, slots=True)
class Number:
    """A finite float; always travels as a float."""

    minimum: float
    maximum: float

    def write(self, value: Any) -> object:
        return float(value)

    def read(self, name: str, wire: object) -> float:
        if type(wire) is not float or not math.isfinite(wire):
            raise RemoteError(f"{name} is {shown(wire)}, not a finite float")
        if not self.minimum <= wire <= self.maximum:
            raise RemoteError(f"{name} is {wire}, not within {self.minimum} to {self.maximum}")
        return wire


@dataclass(frozen=True, slots=True)
class Text:
    """Printable text (no control character reaches a terminal), optionally of one alphabet and start."""

    minimum: int
    maximum: int
    alphabet: frozenset[str] | None = None
    start: str = ""

    def write(self, value: Any) -> object:
        return value

    def read(self, name: str, wire: object) -> str:
        if type(wire) is not str:
            raise RemoteError(f"{name} is {shown(wire)}, not text")
        if not self.minimum <= len(wire) <= self.maximum:
            raise RemoteError(f"{name} has {len(wire)} characters, not {self.minimum} to {self.maximum}")
        if not wire.isprintable():
            raise RemoteError(f"{name} has a character that is not printable: {shown(wire)}")
        if self.alphabet is not None and not self.alphabet.issuperset(wire):
            raise RemoteError(f"{name} has a character that may not be there: {shown(wire)}")
        if not wire.startswith(self.start):
            raise RemoteError(f"{name} does not start with {self.start!r}: {shown(wire)}")
        return wire


@dataclass(frozen=True, slots=True)
class Words:
    """Text for people (a name, a reason): made to fit when written, never a cause to fail."""

    maximum: int

    def write(self, value: Any) -> object:
        return "".join(char if char.isprintable() else " " for char in str(value)[: self.maximum])

    def read(self, name: str, wire: object) -> str:
        return Text(0, self.maximum).read(name, wire)


@dataclass(frozen=True, slots=True)
class Choice:
    kind: type[StrEnum]

    def write(self, value: Any) -> object:
        return str(value)

    def read(self, name: str, wire: object) -> StrEnum:
        if type(wire) is str:
            for member in self.kind:
                if member.value == wire:
                    return member
        raise RemoteError(f"{name} is {shown(wire)}, not one of {', '.join(self.kind)}")


@dataclass(frozen=True, slots=True)
class Binary:
    minimum: int
    maximum: int

    def write(self, value: Any) -> object:
        return value

    def read(self, name: str, wire: object) -> bytes:
        if type(wire) is not bytes:
            raise RemoteError(f"{name} is {shown(wire)}, not bytes")
        if not self.minimum <= len(wire) <= self.maximum:
            raise RemoteError(f"{name} has {len(wire)} bytes, not {self.minimum} to {self.maximum}")
        return wire


@dataclass(frozen=True, slots=True)
class Several:
    """A tuple of things of one kind; `distinct`: none may come twice."""

    item: Field
    minimum: int
    maximum: int
    distinct: bool = False

    def write(self, value: Any) -> object:
        return tuple(self.item.write(each) for each in value)

    def read(self, name: str, wire: object) -> tuple[Any, ...]:
        if type(wire) is not tuple:
            raise RemoteError(f"{name} is {shown(wire)}, not an array")
        if not self.minimum <= len(wire) <= self.maximum:
            raise RemoteError(f"{name} has {len(wire)} elements, not {self.minimum} to {self.maximum}")
        values = tuple(self.item.read(name, each) for each in wire)
        if self.distinct and len(set(values)) != len(values):
            raise RemoteError(f"{name} has an element twice")
        return values


@dataclass(frozen=True, slots=True)
class Pairs:
    """Sorted (field, value) pairs, each field once."""

    maximum: int
    text: Text

    def write(self, value: Any) -> object:
        return tuple((key, text) for key, text in value)

    def read(self, name: str, wire: object) -> tuple[tuple[str, str], ...]:
        if type(wire) is not tuple:
            raise RemoteError(f"{name} is {shown(wire)}, not an array")
        if len(wire) > self.maximum:
            raise RemoteError(f"{name} has {len(wire)} pairs, more than {self.maximum}")
        pairs: list[tuple[str, str]] = []
        for each in wire:
            if type(each) is not tuple or len(each) != 2:
                raise RemoteError(f"{name} has {shown(each)}, not a pair")
            key = self.text.read(f"a field of {name}", each[0])
            if pairs and key <= pairs[-1][0]:
                raise RemoteError(f"{name} is not sorted, or names a field twice: {shown(key)}")
            pairs.append((key, self.text.read(f"a value of {name}", each[1])))
        return tuple(pairs)


@dataclass(frozen=True, slots=True)
class Chunks:
    """A tuple of byte strings of one length, sent as one byte string: one header instead of thousands."""

    length: int
    minimum: int
    maximum: int

    def write(self, value: Any) -> object:
        return b"".join(value)

    def read(self, name: str, wire: object) -> tuple[bytes, ...]:
        blob = Binary(self.minimum * self.length, self.maximum * self.length).read(name, wire)
        if len(blob) % self.length:
            raise RemoteError(f"{name} has {len(blob)} bytes, not a multiple of {self.length}")
        return tuple(blob[start : start + self.length] for start in range(0, len(blob), self.length))


@dataclass(frozen=True, slots=True)
class Record:
    """A dataclass as an array of its fields in order."""

    kind: type
    fields: Mapping[str, Field]

    def write(self, value: Any) -> object:
        return tuple(form.write(getattr(value, name)) for name, form in self.fields.items())

    def read(self, name: str, wire: object) -> Any:
        if type(wire) is not tuple:
            raise RemoteError(f"{name} is {shown(wire)}, not an array")
        return self.read_elements(name, wire)

    def read_elements(self, name: str, wire: tuple[object, ...]) -> Any:
        if len(wire) != len(self.fields):
            raise RemoteError(f"{name} has {len(wire)} fields, not {len(self.fields)}")
        named = zip(self.fields.items(), wire, strict=True)
        return self.kind(**{key: form.read(f"{name}.{key}", each) for (key, form), each in named})


@dataclass(frozen=True, slots=True)
class Maybe:
    """The thing or nil."""

    field: Field

    def write(self, value: Any) -> object:
        return None if value is None else self.field.write(value)

    def read(self, name: str, wire: object) -> Any:
        return None if wire is None else self.field.read(name, wire)


def shown(value: object) -> str:
    """A refused value in a few characters; containers and bytes by kind and length only."""
    if isinstance(value, tuple | list | dict | bytes):
        return f"{type(value).__name__} of length {len(value)}"
    if isinstance(value, str):
        return repr(value[:SHOWN_CHARS_MAX]) + ("..." if len(value) > SHOWN_CHARS_MAX else "")
    return repr(value)[:SHOWN_CHARS_MAX]
