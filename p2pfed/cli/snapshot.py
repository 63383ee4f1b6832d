"""`p2pfed snapshot`: what the network knows now, as a PEFT folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from p2pfed.cli.node import NetworkOption
from p2pfed.cli.output import Format, FormatOption, columns, number, show
from p2pfed.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Take what all nodes have learnt, as an adapter PEFT can load.")


@app.command()
def take(
    network: NetworkOption,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; must not exist.", show_default=False)],
    bootstrap: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MULTIADDR",
            help="A bootstrap peer or node to ask first; may be repeated. Default: those of the network file.",
        ),
    ] = None,
    by_examples: Annotated[
        bool, typer.Option("--by-examples", help="Weigh nodes by the examples they trained on, not equally.")
    ] = False,
    settle: Annotated[float, typer.Option(metavar="SECONDS", help="End when no new node appeared for so long.")] = 5.0,
    deadline: Annotated[float, typer.Option(metavar="SECONDS", help="End in any case after so long.")] = 300.0,
    output: FormatOption = Format.TEXT,
) -> None:
    """Read the adapter of every node that can be reached and write their mean.

    Nobody is disturbed: nodes go on training. The folder has adapter_model.safetensors and adapter_config.json,
    for PeftModel.from_pretrained, and p2pfed.json, which says from whom it came.
    """
    from p2pfed.config_file import load_network

    loaded = load_network(network)
    first = tuple(bootstrap or ()) or loaded.bootstrap
    if not first:
        raise ConfigError(f"{network} names no bootstrap peer: give --bootstrap MULTIADDR, of a node or bootstrap peer")
    from p2pfed.api import take_snapshot

    snapshot = take_snapshot(loaded, first, out, by_examples=by_examples, settle_s=settle, deadline_s=deadline)
    total = sum(each.weight for each in snapshot.contributions)
    described: dict[str, Any] = {
        "folder": str(snapshot.folder),
        "adapter_sha256": snapshot.sha256,
        "consensus_distance": snapshot.consensus_distance,
        "steps": snapshot.steps,
        "examples": snapshot.examples,
        "nodes": [
            {
                "peer": each.peer,
                "name": each.name,
                "steps": each.version.steps,
                "examples": each.version.examples,
                "weight": each.weight / total,
            }
            for each in snapshot.contributions
        ],
        "not_read": dict(snapshot.failures),
    }
    show(described, output, _render)


def _render(described: dict[str, Any]) -> str:
    table = columns(
        ("NAME", "STEPS", "EXAMPLES", "WEIGHT", "PEER"),
        [
            (each["name"], each["steps"], each["examples"], f"{each['weight']:.1%}", each["peer"])
            for each in described["nodes"]
        ],
    )
    missing = "".join(f"\nnot read: {peer}: {reason}" for peer, reason in described["not_read"].items())
    return (
        f"{described['folder']}: mean of {len(described['nodes'])} nodes, {described['steps']} steps, "
        f"{described['examples']} examples, consensus distance {number(described['consensus_distance'])}\n\n"
        f"{table}{missing}"
    )
