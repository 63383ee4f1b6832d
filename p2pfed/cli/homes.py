"""Which state folder is meant: the one named, or the only one there is below the user's state folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from p2pfed.errors import ExitCode, LocalError

HomeOption = Annotated[
    Path | None, typer.Option("--home", metavar="DIR", help="Its state folder. Default: the only one there is.")
]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Its name, where several run on this device.")
]

STATUS_S = 5.0
"""A running peer answers in milliseconds; one that swaps memory may take seconds."""


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that answered: its state folder and its status."""

    home: Path
    status: dict[str, Any]


def state_root() -> Path:
    """The user's state folder; homes lie below it as NETWORK/NAME."""
    import platformdirs

    return platformdirs.user_state_path("p2pfed")


def homes_below(root: Path) -> list[Path]:
    """State folders that were used, in order of name."""
    return sorted(path.parent for path in root.glob("*/*/identity.key"))


def running(home: Path | None, name: str | None, roles: Sequence[str]) -> Running:
    """The running peer of that role: in `home`, or called `name`, or the only one. Raises LocalError otherwise."""
    what = roles[0] if roles[0] != "bootstrap" else "bootstrap peer"
    if home is not None:
        return Running(home, ask_home(home, "status"))
    root = state_root()
    answering = _answering(root)
    found = [each for each in answering if each.status.get("role") in roles]
    if name is not None:
        found = [each for each in found if name in (each.status.get("name"), each.home.name)]
    if len(found) == 1:
        return found[0]
    if not found:
        silent = set(homes_below(root)) - {each.home for each in answering}
        for each in sorted(silent):
            if name in (None, each.name) and (holder := _holder(each)):
                raise LocalError(
                    f"{each.name} is still starting (process {holder}): ask again when its model is loaded",
                    ExitCode.NOT_RUNNING,
                )
        called = f" called {name}" if name is not None else ""
        raise LocalError(
            f"no {what}{called} is running below {root}; one started with --home DIR is found with --home DIR",
            ExitCode.NOT_RUNNING,
        )
    listed = ", ".join(f"{each.status.get('name')} ({each.home})" for each in found)
    raise LocalError(f"{len(found)} are running, say which with --name or --home: {listed}", ExitCode.USAGE)


def ask_home(home: Path, command: str) -> Any:
    """What the peer in that state folder answers. Raises LocalError (not running)."""
    import os

    from p2pfed.control import ask, socket_path

    home = home.expanduser()
    if not home.is_dir():
        raise LocalError(f"there is no state folder {home}, so nothing runs there", ExitCode.NOT_RUNNING)
    return ask(socket_path(home, os.environ), command, STATUS_S)


def _answering(root: Path) -> list[Running]:
    found = []
    for home in homes_below(root):
        try:
            found.append(Running(home, ask_home(home, "status")))
        except LocalError:
            continue  # not running, or somebody else's
    return found


def _holder(home: Path) -> str:
    """Process id of whoever holds the state folder, or empty."""
    import fcntl

    try:
        with (home / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return (home / "lock").read_text().strip() or "unknown"
    except OSError:
        pass
    return ""


def identity_file(home: Path | None, name: str | None) -> Path:
    """The identity meant: of `home`, of the node called `name`, or the only one. Raises LocalError otherwise."""
    if home is not None:
        return home.expanduser() / "identity.key"
    root = state_root()
    found = [each for each in homes_below(root) if name is None or each.name == name]
    if len(found) == 1:
        return found[0] / "identity.key"
    if not found:
        called = f" called {name}" if name is not None else ""
        raise LocalError(
            f"no identity{called} below {root}; the first start of a node makes one, or say where with --home DIR",
            ExitCode.IDENTITY,
        )
    raise LocalError(
        f"{len(found)} identities, say which with --name or --home: {', '.join(map(str, found))}", ExitCode.USAGE
    )
