"""`p2pfed identity`: who this device is, and how to move that to another one."""

from pathlib import Path
from typing import Annotated

import typer

from p2pfed.cli.homes import HomeOption, NameOption, identity_file
from p2pfed.cli.output import Format, FormatOption, show
from p2pfed.errors import ConfigError, ExitCode, LocalError

app = typer.Typer(
    no_args_is_help=True,
    help="A device's identity: one private key in its state folder, and the peer id that follows from it.",
)

PASSPHRASE_BYTES_MAX = 4096

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="First line is the passphrase; without it you are asked. Never on the command line: others see that.",
    ),
]


@app.command("show")
def show_identity(home: HomeOption = None, name: NameOption = None, output: FormatOption = Format.TEXT) -> None:
    """Print the peer id and where its key is."""
    from p2pfed.net.identity import load_identity

    path = identity_file(home, name)
    try:
        identity = load_identity(path)
    except FileNotFoundError:
        raise LocalError(f"there is no identity at {path}; the first start makes one", ExitCode.IDENTITY) from None
    described = {"peer": identity.peer_id, "file": str(path)}
    show(described, output, lambda _: f"{identity.peer_id}\nkept in {path}")


@app.command("export")
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, encrypted; never overwritten.")],
    home: HomeOption = None,
    name: NameOption = None,
    passphrase_file: PassphraseFile = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write the identity to OUT, encrypted with a passphrase, as a backup or to move it to another device.

    Never run two devices with one identity: others refuse the second.
    """
    from p2pfed.net.identity import export_identity

    path = identity_file(home, name)
    peer = export_identity(path, out, _passphrase(passphrase_file, confirm=True))
    show({"peer": peer, "file": str(out)}, output, lambda _: f"{peer} is in {out}, encrypted")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An exported identity.")],
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="State folder that gets it; must have none.")
    ] = None,
    network: Annotated[
        Path | None, typer.Option("--network", metavar="FILE", help="Instead of --home: the network it is for.")
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="With --network: the node's name.")] = "node",
    passphrase_file: PassphraseFile = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Put an exported identity into a state folder. Stop the device it came from first."""
    from p2pfed.net.identity import import_identity

    if (home is None) == (network is None):
        raise ConfigError("say where it goes: --home DIR, or --network FILE (and --name NAME)", ExitCode.USAGE)
    if home is None:
        assert network is not None
        from p2pfed.cli.homes import state_root
        from p2pfed.config_file import load_network
        from p2pfed.config_keys import NODE_KEYS

        if wanted := NODE_KEYS["name"].rule(name):
            raise ConfigError(f"--name {name}: must be {wanted}")
        home = state_root() / load_network(network).name / name
    path = home.expanduser() / "identity.key"
    peer = import_identity(file, path, _passphrase(passphrase_file, confirm=False))
    show({"peer": peer, "file": str(path)}, output, lambda _: f"{peer} is now the identity in {path}")


def _passphrase(file: Path | None, confirm: bool) -> str:
    if file is None:
        passphrase: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
        return passphrase
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.readline(PASSPHRASE_BYTES_MAX).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"passphrase file {file} cannot be read: {error}", ExitCode.IDENTITY) from error
