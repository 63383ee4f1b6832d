"""`p2pfed demo`: four real nodes on this machine, and what they learn from each other."""

from pathlib import Path
from typing import Annotated

import typer

from p2pfed.cli.output import Format, FormatOption


def demo(
    steps: Annotated[int | None, typer.Option(metavar="N", help="Local steps of each node.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where adapter and report go. Default: ./p2pfed-demo.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the nodes' state folders as well.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the network's initial factors.")] = 0,
    output: FormatOption = Format.TEXT,
) -> None:
    """One bootstrap peer and four nodes, each with the data of another trade, learn together; then a report.

    Needs about 8 GB of memory and 10 minutes on two cores. Ctrl-C ends all of it cleanly.
    With [cyan]--format json[/cyan] the report is printed at the end, and progress goes to stderr.
    """
    from p2pfed.demo.run import run_demo

    run_demo(steps=steps, out=out, keep=keep, seed=seed, as_json=output is Format.JSON)
