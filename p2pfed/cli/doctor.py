"""`p2pfed doctor`: can this device take part?"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pfed.cli.node import ConfigOption
from p2pfed.cli.output import Format, FormatOption, show
from p2pfed.errors import LocalError

if TYPE_CHECKING:
    from p2pfed.config import NetworkConfig, NodeConfig
    from p2pfed.doctor.finding import Finding


def doctor(
    network: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A network.toml: also its peers, and if its model fits."),
    ] = None,
    config: ConfigOption = None,
    home: Annotated[Path | None, typer.Option(metavar="DIR", help="The state folder to look at.")] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Try what a node needs on this device, and say what stands in the way and how to clear it.

    Python and packages, clock, disk, state folder, ports, multicast on each interface (a packet is sent and must be
    heard), the torch device and a 4-bit multiplication. With --network also: which peers are there and by which means
    (LAN, bootstrap peers, remembered ones), whether a node that runs here can be reached, how far clocks differ, and
    memory against what the network's model needs. Changes nothing.

    Ends with the exit code of the first failure, 0 where there is none.
    """
    from dataclasses import asdict

    from p2pfed.cli.node import node_config_of
    from p2pfed.config_file import load_network
    from p2pfed.doctor.finding import Level

    loaded = load_network(network) if network is not None else None
    node_config = node_config_of(config, home=str(home) if home is not None else None)
    findings = []
    for finding in _findings(loaded, node_config):
        findings.append(finding)
        if output is Format.TEXT:
            typer.echo(_line(finding))
    described: list[dict[str, Any]] = [asdict(each) for each in findings]
    if output is Format.JSON:
        show(described, output, str)
    failed = [each for each in findings if each.level is Level.FAIL]
    if failed:
        names = ", ".join(each.subject for each in failed)
        raise LocalError(f"{len(failed)} of {len(findings)} checks failed: {names}", failed[0].exit_code)


def _findings(network: "NetworkConfig | None", config: "NodeConfig") -> "Iterator[Finding]":
    from p2pfed.cli.homes import state_root
    from p2pfed.doctor.device import check_clock, check_home, check_packages, check_ports, check_python
    from p2pfed.doctor.model import check_model
    from p2pfed.doctor.multicast import check_multicast
    from p2pfed.doctor.peers import check_network
    from p2pfed.node import node_home

    yield from check_python()
    yield from check_packages()
    yield from check_clock()
    yield from check_home(Path(config.home).expanduser() if config.home else state_root())
    yield from check_ports()
    if network is not None:
        yield from check_network(network, config, node_home(network, config))
    elif config.mdns:
        yield from check_multicast(config.interfaces)
    yield from check_model(network, config.device, config.gradient_checkpointing)


def _line(finding: "Finding") -> str:
    """Wrapped for people only: what is piped stays one line to grep."""
    import shutil
    import sys
    import textwrap

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10**6
    line = f"{finding.level.value:<5} {finding.subject}: {finding.message}"
    lines = textwrap.wrap(line, width, subsequent_indent=" " * 6, break_on_hyphens=False)
    if finding.remedy:
        lines += textwrap.wrap(
            f"-> {finding.remedy}", width, initial_indent=" " * 6, subsequent_indent=" " * 9, break_on_hyphens=False
        )
    return "\n".join(lines)
