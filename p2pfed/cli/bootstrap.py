"""`p2pfed bootstrap`: the peer that newcomers find first."""

from pathlib import Path
from typing import Annotated

import typer

from p2pfed.cli.homes import HomeOption, NameOption, ask_home, running
from p2pfed.cli.node import (
    BootstrapOption,
    ConfigOption,
    ListenOption,
    LogOption,
    in_use_explained,
    node_config_of,
    render_peers,
    render_status,
    stop_running,
)
from p2pfed.cli.output import Format, FormatOption, show
from p2pfed.errors import LocalError

app = typer.Typer(
    no_args_is_help=True,
    help="Run a bootstrap peer: it introduces newcomers to each other, never trains and needs no torch.",
)

NetworksOption = Annotated[
    list[Path],
    typer.Option("--network", metavar="FILE", help="A network.toml to serve; may be repeated.", show_default=False),
]

PublicAddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="MULTIADDR",
        help="What others dial where a router or a DNS name stands before it, /dns4/HOST/tcp/PORT: only printed.",
    ),
]

PORT = 4001
"""A fixed one, so that the address given to others stays; the usual one of libp2p."""
LISTEN = f"/ip4/0.0.0.0/tcp/{PORT}"


@app.command()
def start(
    network: Annotated[
        list[Path],
        typer.Option(
            "--network", metavar="FILE", help="A network.toml it serves; may be repeated.", show_default=False
        ),
    ],
    listen: ListenOption = None,
    config: ConfigOption = None,
    home: Annotated[Path | None, typer.Option(metavar="DIR", help="State folder: identity and known peers.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What others see.")] = None,
    public_address: PublicAddressOption = None,
    bootstrap: BootstrapOption = None,
    no_mdns: Annotated[bool, typer.Option("--no-mdns", help="Do not announce it on the LAN.")] = False,
    log_format: LogOption = Format.TEXT,
) -> None:
    """Print the address to hand out, then introduce newcomers until Ctrl-C, SIGTERM or [cyan]bootstrap stop[/cyan].

    It listens on port 4001 unless told otherwise. Keep the state folder: with it goes its identity, and so its address.
    One bootstrap peer serves many networks: give --network for each.

    Example: [cyan]p2pfed bootstrap start --network network.toml
    --public-address /dns4/peers.example.org/tcp/4001[/cyan]
    """
    from dataclasses import replace

    from p2pfed.config import NodeConfig
    from p2pfed.config_file import load_network

    loaded = [load_network(each) for each in network]
    node_config = node_config_of(
        config,
        listen=listen,
        home=str(home) if home is not None else None,
        name=name,
        bootstrap=bootstrap,
        mdns=False if no_mdns else None,
    )
    if node_config.listen == NodeConfig().listen and not listen:
        node_config = replace(node_config, listen=(LISTEN,))
    if public_address is not None:
        from p2pfed.net.address import parse_address

        public_address = str(parse_address(public_address))
    from p2pfed.api import Bootstrap
    from p2pfed.cli.log import make_log

    peer = Bootstrap(loaded, node_config, log=make_log(log_format is Format.JSON))

    def tell_addresses() -> None:
        own = peer.addresses()
        told = [f"{public_address}/p2p/{own[0].rpartition('/')[2]}"] if public_address and own else own
        for address in told:
            typer.echo(address)

    try:
        peer.run(tell_addresses)
    except LocalError as error:
        raise in_use_explained(error) from error


@app.command()
def status(home: HomeOption = None, name: NameOption = None, output: FormatOption = Format.TEXT) -> None:
    """What the running bootstrap peer does, and its addresses."""
    show(running(home, name, ("bootstrap",)).status, output, render_status)


@app.command()
def peers(home: HomeOption = None, name: NameOption = None, output: FormatOption = Format.TEXT) -> None:
    """Every peer the running bootstrap peer knows."""
    found = running(home, name, ("bootstrap",))
    show(ask_home(found.home, "peers"), output, render_peers)


@app.command()
def stop(home: HomeOption = None, name: NameOption = None, output: FormatOption = Format.TEXT) -> None:
    """Ask the running bootstrap peer to stop, and wait until it has."""
    stop_running(home, name, ("bootstrap",), output)
