"""`p2pfed identity`."""

import stat
from pathlib import Path

import pytest

from p2pfed.errors import ExitCode
from p2pfed.net.identity import load_or_create_identity
from tests.cli.shell import Shell

PASSPHRASE = "correct horse battery"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "state" / "p2pfed" / "trial" / "node"
    load_or_create_identity(home / "identity.key")
    return home


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\nsecond line\n")
    return path


def test_show_finds_the_only_one(shell: Shell, home: Path) -> None:
    shown = shell("identity", "show", "--format", "json").json
    assert shown == {
        "peer": load_or_create_identity(home / "identity.key").peer_id,
        "file": str(home / "identity.key"),
    }
    assert shell("identity", "show", "--home", home).out.startswith(shown["peer"])


def test_show_refuses(shell: Shell, tmp_path: Path) -> None:
    assert "no identity below" in shell.refused(ExitCode.IDENTITY, "identity", "show")
    assert "no identity at" in shell.refused(ExitCode.IDENTITY, "identity", "show", "--home", tmp_path)
    for name in ("a", "b"):
        load_or_create_identity(tmp_path / "state" / "p2pfed" / "trial" / name / "identity.key")
    assert "2 identities" in shell.refused(ExitCode.USAGE, "identity", "show")
    assert shell("identity", "show", "--name", "b").code == 0


def test_export_and_import(shell: Shell, home: Path, passphrase: Path, network: Path, tmp_path: Path) -> None:
    peer = shell("identity", "show", "--format", "json").json["peer"]
    out = tmp_path / "backup"
    exported = shell("identity", "export", out, "--passphrase-file", passphrase)
    assert exported.code == 0 and peer in exported.out
    assert (home / "identity.key").read_bytes() not in out.read_bytes()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    exists = ("identity", "export", out, "--passphrase-file", passphrase)
    assert "exists" in shell.refused(ExitCode.IDENTITY, *exists)

    imported = shell("identity", "import", out, "--home", tmp_path / "new", "--passphrase-file", passphrase)
    assert imported.code == 0
    assert load_or_create_identity(tmp_path / "new" / "identity.key").peer_id == peer
    again = ("identity", "import", out, "--home", tmp_path / "new", "--passphrase-file", passphrase)
    assert "already an identity" in shell.refused(ExitCode.IDENTITY, *again)
    by_network = ("identity", "import", out, "--network", network, "--name", "spare", "--passphrase-file", passphrase)
    assert shell(*by_network).code == 0
    assert shell("identity", "show", "--name", "spare", "--format", "json").json["peer"] == peer


def test_import_refuses(shell: Shell, home: Path, passphrase: Path, tmp_path: Path) -> None:
    out = tmp_path / "backup"
    assert shell("identity", "export", out, "--passphrase-file", passphrase).code == 0
    new = ("--home", str(tmp_path / "new"))
    passphrase.write_text("wrong one\n")
    wrong = shell.refused(ExitCode.IDENTITY, "identity", "import", out, *new, "--passphrase-file", passphrase)
    assert "wrong passphrase" in wrong
    assert not (tmp_path / "new" / "identity.key").exists()
    nowhere = shell.refused(ExitCode.USAGE, "identity", "import", out, "--passphrase-file", passphrase)
    assert "--home DIR, or --network FILE" in nowhere
    none = ("identity", "import", out, *new, "--passphrase-file", tmp_path / "none")
    assert "cannot be read" in shell.refused(ExitCode.IDENTITY, *none)
    passphrase.write_text("short\n")
    short = ("identity", "export", tmp_path / "other", "--passphrase-file", passphrase)
    assert "fewer than 8" in shell.refused(ExitCode.IDENTITY, *short)


def test_no_passphrase_on_the_command_line(shell: Shell) -> None:
    assert shell("identity", "export", "out", "--passphrase", "secret").code == ExitCode.USAGE
