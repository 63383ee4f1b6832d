"""Key files: made once, kept private, never replaced by mistake; peer ids equal libp2p's."""

import stat
import sys
from pathlib import Path

import pytest

from p2pfed.errors import ConfigError, ExitCode, LocalError
from p2pfed.net import identity
from p2pfed.net.address import base58_decode, base58_encode, parse_bootstrap, parse_peer
from p2pfed.net.identity import Identity, export_identity, import_identity, load_or_create_identity, new_identity

PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "SCRYPT_N", 2**10)


def test_it_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "home" / "identity.key"
    first = load_or_create_identity(path)
    assert load_or_create_identity(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert first.seed.hex() not in repr(first)


def test_the_peer_id_and_the_key_are_libp2ps() -> None:
    from p2pfed.net.libp2p import Libp2pTransport  # isort: split
    from libp2p.crypto.ed25519 import Ed25519PrivateKey
    from libp2p.peer.id import ID

    for number in range(5):
        own = Identity(bytes([number + 1]) * 32)
        assert own.peer_id == str(ID.from_pubkey(Ed25519PrivateKey.new(own.seed).get_public_key()))
        assert Libp2pTransport(own).peer == own.peer_id


@pytest.mark.parametrize("damage", [b"", b"\x08\x01\x12\x40" + b"x" * 64, b"x" * 68, b"x" * 69])
def test_a_damaged_file_is_named_and_kept(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(damage)
    path.chmod(0o600)
    with pytest.raises(LocalError, match="damaged") as caught:
        load_or_create_identity(path)
    assert caught.value.exit_code == ExitCode.IDENTITY
    assert path.read_bytes() == damage


def test_a_file_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    load_or_create_identity(path)
    path.chmod(0o640)
    with pytest.raises(LocalError, match=r"0640.*chmod 600"):
        load_or_create_identity(path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError) as caught:
        load_or_create_identity(tmp_path / "file" / "identity.key")
    assert caught.value.exit_code == ExitCode.IDENTITY


def test_export_and_import(tmp_path: Path) -> None:
    path, out, other = tmp_path / "a.key", tmp_path / "a.export", tmp_path / "b.key"
    own = load_or_create_identity(path)
    assert export_identity(path, out, PASSPHRASE) == own.peer_id
    assert own.seed not in out.read_bytes()
    assert import_identity(out, other, PASSPHRASE) == own.peer_id
    assert load_or_create_identity(other) == own
    for refused in (
        lambda: import_identity(out, tmp_path / "c.key", PASSPHRASE + "x"),
        lambda: import_identity(out, other, PASSPHRASE),
        lambda: import_identity(path, tmp_path / "c.key", PASSPHRASE),
        lambda: import_identity(tmp_path / "none", tmp_path / "c.key", PASSPHRASE),
        lambda: export_identity(path, out, PASSPHRASE),
        lambda: export_identity(path, tmp_path / "d.export", "short"),
        lambda: export_identity(tmp_path / "none", tmp_path / "d.export", PASSPHRASE),
    ):
        with pytest.raises(LocalError) as caught:
            refused()
        assert caught.value.exit_code == ExitCode.IDENTITY
    assert not (tmp_path / "c.key").exists()


@pytest.mark.parametrize("position", [0, 20, 40, 60, -1])
def test_a_changed_export_is_refused(tmp_path: Path, position: int) -> None:
    path, out = tmp_path / "a.key", tmp_path / "a.export"
    load_or_create_identity(path)
    export_identity(path, out, PASSPHRASE)
    raw = bytearray(out.read_bytes())
    raw[position] ^= 1
    out.write_bytes(raw)
    with pytest.raises(LocalError):
        import_identity(out, tmp_path / "b.key", PASSPHRASE)


def test_the_identity_needs_no_libp2p(tmp_path: Path) -> None:
    import subprocess

    code = "import sys, p2pfed.net.identity; sys.exit('libp2p' in sys.modules or 'trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_base58_round_trip() -> None:
    for raw in (b"", b"\0", b"\0\0a", bytes(range(40)), b"\xff" * 40):
        assert base58_decode(base58_encode(raw)) == raw


def test_bootstrap_addresses() -> None:
    peer = new_identity().peer_id
    assert parse_bootstrap(f"/dns4/boot.example.org/tcp/4001/p2p/{peer}") == (peer, "/dns4/boot.example.org/tcp/4001")
    assert parse_bootstrap(f"/ip6/2001:DB8::1/tcp/1/p2p/{peer}") == (peer, "/ip6/2001:db8::1/tcp/1")
    for bad in (
        "",
        "/ip4/1.2.3.4/tcp/1",
        f"/ip4/1.2.3.400/tcp/1/p2p/{peer}",
        f"/ip4/1.2.3.4/tcp/70000/p2p/{peer}",
        f"/ip4/1.2.3.4/tcp/-1/p2p/{peer}",
        f"/ip4/1.2.3.4/tcp/\uff11/p2p/{peer}",
        f"/ip4/1.2.3.4/udp/1/p2p/{peer}",
        f"/dns4/a b/tcp/1/p2p/{peer}",
        f"/ip4/1.2.3.4/tcp/1/p2p/{peer}x",
        "/ip4/1.2.3.4/tcp/1/p2p/QmNope",
        "/ip4/1.2.3.4/tcp/1/p2p/" + "1" * 10_000,
    ):
        with pytest.raises(ConfigError):
            parse_bootstrap(bad)


def test_a_peer_id_of_another_key_type_is_one() -> None:
    assert parse_peer("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
