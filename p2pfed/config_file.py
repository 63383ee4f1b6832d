"""network.toml and node.toml: read with errors that name the line, written with a comment a key.

The dataclasses in `config` say which keys there are and of what type, `config_keys` what each may be.
Types are exact: `true` is no number, "8" no integer; only an integer where a float belongs is taken.
"""

import difflib
import json
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.config_keys import NETWORK_KEYS, NODE_KEYS, Key
from p2pfed.errors import ConfigError

FILE_BYTES_MAX = 256 * 1024
"""A hundred times a file with every key and long lists."""
VALUE_CHARS_SHOWN = 60

Config = TypeVar("Config", NetworkConfig, NodeConfig)


def load_network(path: Path | str) -> NetworkConfig:
    """Raises ConfigError that names file, line, key, value and remedy."""
    return _rooted(parse_network(_read(Path(path)), str(path)), Path(path))


def parse_network(text: str, source: str) -> NetworkConfig:
    return _Reader(source, text, NETWORK_KEYS).config(NetworkConfig)


def load_node(path: Path | str) -> NodeConfig:
    """Raises ConfigError that names file, line, key, value and remedy."""
    return _rooted(parse_node(_read(Path(path)), str(path)), Path(path))


def parse_node(text: str, source: str) -> NodeConfig:
    return _Reader(source, text, NODE_KEYS).config(NodeConfig)


def dump_network(config: NetworkConfig, comments: bool = True) -> str:
    """The file's text. With comments it also says what the network id is."""
    head = f"# A p2pfed network. Give this file to everybody who joins. Network id: {config.network_id}\n"
    return (head if comments else "") + _dump(config, NETWORK_KEYS, comments)


def dump_node(config: NodeConfig, comments: bool = True) -> str:
    head = "# One p2pfed node: what may differ from device to device.\n"
    return (head if comments else "") + _dump(config, NODE_KEYS, comments)


def _rooted(config: Config, path: Path) -> Config:
    """Files named in `bootstrap` lie beside the file that names them."""
    entries = (each if each.startswith(("/", "~")) else str(path.absolute().parent / each) for each in config.bootstrap)
    return replace(config, bootstrap=tuple(entries))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: more than {FILE_BYTES_MAX} bytes, too long for a configuration file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8") from error


@dataclass(frozen=True, slots=True)
class _Reader:
    source: str
    text: str
    keys: Mapping[str, Key]

    def config(self, kind: type[Config]) -> Config:
        try:
            table = tomllib.loads(self.text.replace("\r\n", "\n"))
        except ValueError as error:
            raise ConfigError(f"{self.source}: not TOML: {error}") from error
        except RecursionError as error:
            raise ConfigError(f"{self.source}: nested too deep") from error
        config: Config = self.table(kind, table, "")
        return config

    def table(self, kind: Any, table: dict[str, object], prefix: str) -> Any:
        """A dataclass from its table; `prefix` is the table's dotted name with a dot, or empty."""
        known = {field.name: field for field in fields(kind)}
        types = typing.get_type_hints(kind)
        for name, value in table.items():
            if name not in known:
                raise self.error(prefix + name, f"{_shown(value)}: unknown key{self.nearest(prefix, name, known)}")
        values: dict[str, Any] = {}
        for name, field in known.items():
            if name in table:
                values[name] = self.value(types[name], table[name], prefix + name)
            elif field.default is MISSING and field.default_factory is MISSING:
                if is_dataclass(types[name]):
                    values[name] = self.table(types[name], {}, prefix + name + ".")
                else:
                    raise self.error(prefix + name, "is missing and has no default")
        return kind(**values)

    def value(self, kind: Any, value: object, name: str) -> Any:
        if is_dataclass(kind):
            if not isinstance(value, dict):
                raise self.error(name, f"{_shown(value)}: is not a table; write [{name}] and its keys below")
            return self.table(kind, value, name + ".")
        if kind is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if typing.get_origin(kind) is tuple:
            if type(value) is not list or any(type(each) is not str for each in value):
                raise self.error(name, f'{_shown(value)}: is not a list of texts such as ["a", "b"]')
            value = tuple(value)
        elif type(value) is not kind:
            raise self.error(name, f"{_shown(value)}: is not {_KIND_WORDS[kind]}")
        if wanted := self.keys[name].rule(value):
            near = difflib.get_close_matches(value, re.findall(r'"([^"]*)"', wanted), 1) if kind is str else []
            hint = f'; the nearest is "{near[0]}"' if near else ""
            raise self.error(name, f"{_shown(value)}: must be {wanted}{hint}")
        return value

    def nearest(self, prefix: str, name: str, known: Mapping[str, object]) -> str:
        """Words about the right key: in the same table, or of that name in another one."""
        if near := difflib.get_close_matches(name, known, 1):
            return f', the nearest known one is "{prefix}{near[0]}"'
        lasts = {dotted.rpartition(".")[2]: dotted for dotted in self.keys}
        if near := difflib.get_close_matches(name, lasts, 1):
            return f', the nearest known one is "{lasts[near[0]]}"'
        return ", known here are " + ", ".join(known)

    def error(self, name: str, words: str) -> ConfigError:
        line = _line_of(self.text, name)
        joint = " = " if ": " in words else " "
        return ConfigError(f"{self.source}{f':{line}' if line else ''}: {name}{joint}{words}")


_KIND_WORDS: Mapping[type, str] = {
    str: 'a text in "quotes"',
    int: "an integer",
    float: "a number",
    bool: "true or false",
}

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_ASSIGNMENT = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


def _line_of(text: str, name: str) -> int | None:
    """Where `name` is set, or else the nearest table around it; a guess inside multi-line strings."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _plain(header[1])
            found.setdefault(table, number)
            table += "."
        elif assignment := _ASSIGNMENT.match(line):
            found.setdefault(table + _plain(assignment[1]), number)
    while name and name not in found:
        name = name.rpartition(".")[0]
    return found.get(name)


def _plain(dotted: str) -> str:
    return re.sub(r"""\s*\.\s*|["']""", lambda match: "." if "." in match[0] else "", dotted)


def _shown(value: object) -> str:
    words = "a table" if isinstance(value, dict) else _toml(value)
    return words if len(words) <= VALUE_CHARS_SHOWN else words[:VALUE_CHARS_SHOWN] + "..."


def _dump(config: Any, keys: Mapping[str, Key], comments: bool, prefix: str = "") -> str:
    """Plain keys first: what follows a [table] belongs to it."""
    lines: list[str] = []
    tables: list[str] = []
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            dotted = prefix + field.name
            tables.append(f"\n[{dotted}]\n" + _dump(value, keys, comments, dotted + "."))
            continue
        if comments:
            lines.append(f"# {keys[prefix + field.name].comment}\n")
        lines.append(f"{field.name} = {_toml(value)}\n")
    return "".join(lines + tables)


def _toml(value: object) -> str:
    """A value of a config, or of a TOML file, as TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # A JSON string is a TOML one, but for this one character that TOML wants escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case tuple() | list():
            return "[" + ", ".join(_toml(each) for each in value) + "]"
        case dict():
            return "{...}"
        case int() if abs(value) >= 2**64:
            return "an integer of more than 64 bits"
        case _:
            return str(value)
