"""`p2pfed`: the command line. This module imports nothing heavy; commands import what they need.

What a command raises on purpose ends in one sentence and its exit code. A traceback means a bug of
ours, or that P2PFED_DEBUG=1 asked for it.
"""

import inspect
import os
import sys
import threading
import warnings
from types import MappingProxyType
from typing import Annotated

import typer

from p2pfed import __version__
from p2pfed.cli import bootstrap, data, demo, doctor, identity, network, node, simulate, snapshot
from p2pfed.errors import ExitCode, P2pfedError

DEBUG_VARIABLE = "P2PFED_DEBUG"

HELP = """Federated learning of LoRA adapters by gossip, without a server.

Every device trains an adapter of one language model on data that never leaves it, \
and averages that adapter with a few neighbours it finds by itself.

[bold]The usual way:[/bold] one person makes a network file ([cyan]network create[/cyan]) and gives it to the \
others; everybody starts a node on it ([cyan]node start[/cyan]); anybody takes what all have learnt \
([cyan]snapshot take[/cyan]). [cyan]p2pfed demo[/cyan] shows all of it on this machine, \
[cyan]p2pfed doctor[/cyan] says whether this device can do it.
"""


def _application() -> typer.Typer:
    app = typer.Typer(
        name="p2pfed",
        help=HELP,
        pretty_exceptions_enable=False,
        context_settings=dict(_HELP_OPTIONS),
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    app.callback()(_options)
    for name, group in (
        ("network", network.app),
        ("node", node.app),
        ("bootstrap", bootstrap.app),
        ("identity", identity.app),
        ("data", data.app),
        ("snapshot", snapshot.app),
    ):
        app.add_typer(group, name=name)
        _unwrap_help(group)
    app.command("doctor")(doctor.doctor)
    app.command("demo")(demo.demo)
    app.command("simulate")(simulate.simulate)
    _unwrap_help(app)
    return app


def _unwrap_help(app: typer.Typer) -> None:
    """Docstrings are wrapped for the source; the terminal wraps at its own width."""
    for command in app.registered_commands:
        paragraphs = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(each.split()) for each in paragraphs.split("\n\n"))


_HELP_OPTIONS = MappingProxyType({"help_option_names": ("-h", "--help")})


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"p2pfed {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Only --version: everything else belongs to a command."""


def explain(error: P2pfedError) -> str:
    """One line: what is wrong, the exit status, and the page that says how to resolve it."""
    code = error.exit_code
    page = f"docs/exit-codes/{code.value:02d}-{code.name.lower().replace('_', '-')}.md"
    return f"p2pfed: {' '.join(str(error).split())} [exit {code.value}, {page}]"


def run(arguments: list[str] | None = None) -> int:
    """The exit status; usage errors are told by typer."""
    if os.environ.get(DEBUG_VARIABLE) != "1":
        # Libraries' notes to those who program with them.
        warnings.simplefilter("ignore", FutureWarning)
    try:
        _application()(args=arguments)
    except P2pfedError as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        print(explain(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            raise
        code = ExitCode.OK if end.code is None else end.code  # type: ignore[assignment]
    if code == ExitCode.INTERRUPTED:
        print("p2pfed: interrupted", file=sys.stderr)
    return code


def main() -> None:
    """The entry point."""
    code = run()
    if threading.active_count() > 1:
        # A learner may still be inside a step that nobody waits for; the interpreter's teardown under it crashes.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
