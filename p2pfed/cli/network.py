"""`p2pfed network`: make a network file, look at one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pfed.cli.output import Format, FormatOption, pairs, show
from p2pfed.errors import ConfigError

if TYPE_CHECKING:
    from p2pfed.config import NetworkConfig

app = typer.Typer(
    no_args_is_help=True,
    help="Define a network: one file that everybody who joins has. Its contents make the network id.",
)

NetworkFile = Annotated[Path, typer.Argument(metavar="FILE", help="A network.toml.", show_default=False)]


EncodingOption = Annotated[
    str | None,
    typer.Option(
        metavar="FORM", help="How adapter values travel: int4, int8, float16 or float32. Default: the preset's."
    ),
]
MomentumOption = Annotated[
    str | None,
    typer.Option(metavar="RULE", help="What a mix does to momentum: quasi-global (default), local or gossip."),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it: letters, digits, '.', '_', '-'.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The base model: a preset (prometheus-7b, prometheus-7b-v1, smollm2-135m, glassllm-en), "
            "a hub id (owner/name), or a local folder.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to put NAME.toml.")] = Path(),
    bootstrap: Annotated[
        list[str] | None,
        typer.Option(metavar="MULTIADDR", help="A peer newcomers try first (/ip4/../tcp/../p2p/..); may be repeated."),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank; alpha grows with it. Default: the preset's.")] = None,
    alpha: Annotated[
        float | None, typer.Option(help="LoRA scaling. Default: in the preset's proportion to rank.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draws the initial factors, equal on every node.")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEMPLATE", help="Template id of the training text.")] = None,
    steps_between_swaps: Annotated[
        int | None, typer.Option(help="Local steps a node makes for each swap it takes part in.")
    ] = None,
    encoding: EncodingOption = None,
    momentum: MomentumOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write NAME.toml, every key with a comment. Never overwrites.

    Edit it before you give it away: any change but that of [bold]bootstrap[/bold] makes another network.

    Example: [cyan]p2pfed network create greenhouses --model prometheus-7b[/cyan]
    """
    from p2pfed.config_file import dump_network
    from p2pfed.net.seeds import parse_seed_address
    from p2pfed.presets import create_network

    for address in bootstrap or ():
        parse_seed_address(address)
    network = create_network(
        name,
        model,
        bootstrap=tuple(bootstrap or ()),
        rank=rank,
        alpha=alpha,
        seed=seed,
        prompt=prompt,
        steps_between_swaps=steps_between_swaps,
        encoding=encoding,
        momentum=momentum,
    )
    path = out / f"{name}.toml"
    _write_new(path, dump_network(network))
    described = {"file": str(path), "name": name, "network_id": network.network_id}
    show(described, output, lambda _: _created(network, path))


@app.command("show")
def show_file(file: NetworkFile, output: FormatOption = Format.TEXT) -> None:
    """Check a network file and print its id and every value."""
    from p2pfed.config_file import load_network

    network = load_network(file)
    described: dict[str, Any] = {
        "file": str(file),
        "network_id": network.network_id,
        "bootstrap": list(network.bootstrap),
        "fields": network.values(),
    }
    show(described, output, lambda _: _shown(network))


def _write_new(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists and is not overwritten; choose another folder with --out DIR") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _created(network: "NetworkConfig", path: Path) -> str:
    start = f"p2pfed node start --network {path} --data YOUR.jsonl"
    return (
        f"{path}: network {network.name}, id {network.network_id}, base model {network.model.base}\n\n"
        "Next:\n"
        f"  p2pfed data check YOUR.jsonl --network {path}   what your data looks like to the model\n"
        f"  p2pfed doctor --network {path}                  whether this device can train it\n"
        f"  {start}   on every device; on one LAN they find each other\n"
        f"  p2pfed bootstrap start --network {path}         on a public address, for devices elsewhere"
    )


def _shown(network: "NetworkConfig") -> str:
    rows: dict[str, object] = {"network id": network.network_id}
    rows |= {name: _plain(value) for name, value in network.values().items()}
    return pairs(
        rows
        | {"bootstrap": "\n".join(network.bootstrap) or "(none: peers are found on the LAN, or given by --bootstrap)"}
    )


def _plain(value: object) -> str:
    words = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return words or "(none)"
