"""`p2pfed node`: start one, ask the running one, stop it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pfed.cli.homes import HomeOption, NameOption, ask_home, running
from p2pfed.cli.output import Format, FormatOption, columns, duration, number, pairs, show, size
from p2pfed.errors import ConfigError, ExitCode, LocalError

if TYPE_CHECKING:
    from p2pfed.config import NodeConfig

SWAP_COUNTS = ("finished", "begun", "answered", "adopted", "aborted", "half_done", "faults")

app = typer.Typer(no_args_is_help=True, help="Run a node on this device, or ask the one that runs.")

NetworkOption = Annotated[
    Path, typer.Option("--network", metavar="FILE", help="The network.toml everybody has.", show_default=False)
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A node.toml; options given here override it.")
]
BootstrapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--bootstrap",
        metavar="MULTIADDR",
        help="A peer to try first, /ip4/HOST/tcp/PORT/p2p/ID; may be repeated.",
    ),
]
ListenOption = Annotated[
    list[str] | None,
    typer.Option("--listen", metavar="MULTIADDR", help="Where to listen, /ip4/HOST/tcp/PORT; may be repeated."),
]
LogOption = Annotated[Format, typer.Option("--log-format", help="Lines for people, or one JSON object a line.")]


@app.command()
def start(
    network: NetworkOption,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Training data: JSONL, CSV or Parquet, or a hub data set (owner/name)."),
    ] = None,
    bootstrap: BootstrapOption = None,
    config: ConfigOption = None,
    no_mdns: Annotated[bool, typer.Option("--no-mdns", help="Do not look for peers on the LAN.")] = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What others see; tells nodes of one device apart.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(metavar="DIR", help="State folder: identity, checkpoints, event log.")
    ] = None,
    listen: ListenOption = None,
    steps_max: Annotated[
        int | None, typer.Option(metavar="N", help="Stop training, not gossiping, after N local steps.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu or cuda.")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="torch threads.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never reach for a model hub.")] = False,
    log_format: LogOption = Format.TEXT,
) -> None:
    """Train on this device's data and gossip, until Ctrl-C, SIGTERM or [cyan]p2pfed node stop[/cyan].

    Stopping keeps a checkpoint: the next start goes on from there. So does one after a crash or a power cut.

    Example: [cyan]p2pfed node start --network network.toml --data grades.jsonl[/cyan]
    """
    from p2pfed.config_file import load_network

    loaded = load_network(network)
    node_config = node_config_of(
        config,
        data=data,
        bootstrap=bootstrap,
        mdns=False if no_mdns else None,
        name=name,
        home=str(home) if home is not None else None,
        listen=listen,
        steps_max=steps_max,
        device=device,
        threads=threads,
        offline=True if offline else None,
    )
    if not node_config.data:
        raise ConfigError("a node needs data: give --data PATH, or data = in node.toml")
    from p2pfed.api import Node
    from p2pfed.cli.log import make_log

    log = make_log(log_format is Format.JSON)
    node = Node(loaded, node_config, log=log)
    try:
        node.run()
    except LocalError as error:
        raise in_use_explained(error) from error


@app.command()
def status(home: HomeOption = None, name: NameOption = None, output: FormatOption = Format.TEXT) -> None:
    """What the running node does: steps, loss, neighbours, swaps, bytes, and what needs you."""
    show(running(home, name, ("node",)).status, output, render_status)


@app.command()
def peers(home: HomeOption = None, name: NameOption = None, output: FormatOption = Format.TEXT) -> None:
    """Every peer the running node knows: linked or not, how it was found, and why it was refused."""
    found = running(home, name, ("node",))
    show(ask_home(found.home, "peers"), output, render_peers)


@app.command()
def stop(home: HomeOption = None, name: NameOption = None, output: FormatOption = Format.TEXT) -> None:
    """Ask the running node to stop, and wait until it has. It keeps a checkpoint."""
    stop_running(home, name, ("node",), output)


STOP_S = 10.0
"""A stop takes 5 s at most, a bit more where the disk is slow."""


def stop_running(home: Path | None, name: str | None, roles: tuple[str, ...], output: Format) -> None:
    """Returns when its socket is silent. Raises LocalError where it is still there after STOP_S."""
    import time

    found = running(home, name, roles)
    ask_home(found.home, "stop")
    deadline = time.monotonic() + STOP_S
    while _answers(found.home):
        if time.monotonic() > deadline:
            raise LocalError(f"the node in {found.home} still answers after {STOP_S:g} s", ExitCode.BUG)
        _pause()
    described = {"stopped": found.status.get("name"), "home": str(found.home), "steps": found.status.get("steps")}
    show(described, output, lambda _: f"{described['stopped']} has stopped; its state is in {found.home}")


def node_config_of(file: Path | None, **overrides: Any) -> "NodeConfig":
    """The file's values, or the defaults, with the options that were given. Raises ConfigError."""
    from dataclasses import replace

    from p2pfed.config import NodeConfig
    from p2pfed.config_file import load_node
    from p2pfed.config_keys import NODE_KEYS

    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in overrides.items()
        if value is not None and value != []
    }
    for name, value in given.items():
        if wanted := NODE_KEYS[name].rule(value):
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{option} {_words(value)}: must be {wanted}")
    return replace(load_node(file) if file is not None else NodeConfig(), **given)


def in_use_explained(error: LocalError) -> LocalError:
    """A state folder in use is most often a second peer on one device: say what to do."""
    if error.exit_code is not ExitCode.HOME_LOCKED:
        return error
    return LocalError(f"{error}; a second one on this device needs another --name or --home", error.exit_code)


def render_status(status: dict[str, Any]) -> str:
    rows: dict[str, object] = {
        "name": status["name"],
        "doing": status["doing"],
        "network": f"{status['network']} ({status['network_id']})",
        "up": duration(status["uptime_s"]),
    }
    if status["steps"] is not None:
        rows |= {
            "steps": f"{status['steps']} ({status['examples']} examples)",
            "loss": number(status["loss"]),
            "swaps": _swaps(status),
            "network-wide": estimate_words(status["estimate"]),
        }
    rows |= {
        "peers": f"{status['neighbours']} neighbours, {status['linked']} linked, {status['known']} known",
        "moved": f"{size(status['bytes_sent'])} up, {size(status['bytes_received'])} down",
        "address": "\n".join(status["addresses"]),
        "home": status["home"],
    }
    if status["partition"]:
        rows["partition"] = status["partition"]
    if status["notices"]:
        rows["needs you"] = "\n".join(status["notices"])
    return pairs(rows)


def render_peers(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no peer is known yet"
    return columns(
        ("NAME", "ROLE", "STATE", "FOUND BY", "PATH", "RTT", "UP", "DOWN", "FORM", "SWAPPED", "ADDRESS", "PEER"),
        [
            (
                row["name"] or None,
                row["role"],
                _peer_state(row),
                row["found_by"],
                row["path"],
                f"{1000.0 * row['rtt_s']:.0f} ms" if row["rtt_s"] is not None else None,
                size(row["bytes_sent"]),
                size(row["bytes_received"]),
                row["encoding"],
                f"{duration(row['swapped_s_ago'])} ago" if row["swapped_s_ago"] is not None else None,
                row["address"],
                row["peer"],
            )
            for row in rows
        ],
    )


def _peer_state(row: dict[str, Any]) -> str:
    if row["linked"]:
        return "suspected: a ping is unanswered" if row["suspected"] else "linked"
    if row["refusal"]:
        return f"refused: {row['refusal']}"
    return f"not linked: {row['last_failure']}" if row["last_failure"] else "not linked"


def _swaps(status: dict[str, Any]) -> str:
    """`12 finished, 9 begun, 4 declined (1 budget, 3 busy); in int4; 31 mixes in the adapter, ...`"""
    swaps = status["swaps"]
    counts = [f"{swaps[name]} {name.replace('_', ' ')}" for name in SWAP_COUNTS if swaps[name]]
    if swaps["declined"]:
        # Where two offers crossed, one gives way: no neighbour said so, but it was not taken.
        crossing = swaps["declined"] - sum(swaps["declined_by"].values())
        reasons = sorted(swaps["declined_by"].items()) + ([("crossing", crossing)] if crossing > 0 else [])
        counts.append(f"{swaps['declined']} declined ({', '.join(f'{count} {reason}' for reason, count in reasons)})")
    parts = [", ".join(counts) or "none yet", f"in {status['encoding']}"]
    if swaps["kept"] is not None:
        parts.append(
            f"{status['mixes']} mixes in the adapter, {100.0 * (1.0 - swaps['kept']):.0f} % of differences clipped"
        )
    return "; ".join(parts)


def estimate_words(estimate: dict[str, Any] | None) -> str:
    """The network-wide figures with their error: `12 nodes, give or take 3 %; mean loss 2.31; ...`"""
    if estimate is None:
        return "nothing known before the first swap"
    if estimate["error"] >= 1.0:
        return "not known yet: its error is still 100 %"
    nodes = f"{estimate['size']:.0f} nodes, give or take {100.0 * estimate['error']:.0f} %"
    loss = f"mean loss {number(estimate['loss'], 3)}"
    relative = estimate["relative_distance"]
    learnt = f" ({100.0 * relative:.1f} % of the way learnt)" if relative is not None else ""
    distance = f"consensus distance {number(estimate['consensus_distance'], 3)}{learnt}"
    return "; ".join((nodes, loss, f"{estimate['examples']:,.0f} examples", distance))


def _words(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _answers(home: Path) -> bool:
    try:
        ask_home(home, "status")
    except LocalError:
        return False
    return True


def _pause() -> None:
    import threading

    threading.Event().wait(0.1)
