"""Seeds: what a person may write, names asked of a small DNS server on loopback, files that change."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
import trio

from p2pfed.config import ModelConfig, NetworkConfig
from p2pfed.config_file import dump_network, load_network
from p2pfed.errors import ConfigError, TransportError
from p2pfed.net import seeds as net_seeds
from p2pfed.net.identity import Identity, new_identity
from p2pfed.net.seeds import (
    ADDRESSES_MAX,
    FILE_BYTES_MAX,
    NESTED_MAX,
    RETRY_FIRST_S,
    RETRY_MAX_S,
    Seeds,
    SeedState,
    keep,
    parse_seed,
    resolve_all,
)
from p2pfed.net.txt import resolve_txt
from p2pfed.ports import PeerId

ONE, TWO, OWN = (Identity(bytes([number]) * 32).peer_id for number in (1, 2, 3))
AT = "/ip4/192.0.2.1/tcp/4001"
LATER = 1_000_000.0


def answers(records: dict[str, list[str]]) -> net_seeds.ResolveTxt:
    """A resolver from a table; a missing name does not resolve."""

    def resolve(name: str) -> list[str]:
        if name not in records:
            raise TransportError(f"the name {name} does not resolve")
        return records[name]

    return resolve


def found_by(texts: list[str], records: dict[str, list[str]]) -> list[tuple[PeerId, str]]:
    return trio.run(resolve_all, texts, answers(records))


@contextmanager
def dns_server(records: dict[str, list[str]]) -> Iterator[dns.resolver.Resolver]:
    """A resolver that asks a server of its own, over UDP; "" as a text: no answer at all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.05)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    data, client = server.recvfrom(4096)
                except TimeoutError:
                    continue
                query = dns.message.from_wire(data)
                response = dns.message.make_response(query)
                response.flags |= dns.flags.RA
                name = query.question[0].name
                texts = records.get(name.to_text(omit_final_dot=True))
                if texts == [""]:
                    continue
                if texts is None:
                    response.set_rcode(dns.rcode.NXDOMAIN)
                elif texts:
                    quoted = [f'"{text}"' for text in texts]
                    response.answer.append(dns.rrset.from_text_list(name, 60, "IN", "TXT", quoted))
                server.sendto(response.to_wire(), client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            resolver = dns.resolver.Resolver(configure=False)
            resolver.nameservers, resolver.port = ["127.0.0.1"], server.getsockname()[1]
            yield resolver
        finally:
            over.set()
            thread.join()


def test_txt_records_come_over_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pfed.net.txt.ASK_S", 0.3)
    records = {
        "_dnsaddr.peers.example": [f"dnsaddr={AT}/p2p/{ONE}", "v=spf1 -all"],
        "_dnsaddr.bare.example": [],
        "_dnsaddr.silent.example": [""],
    }
    with dns_server(records) as resolver:
        assert sorted(resolve_txt("_dnsaddr.peers.example", resolver)) == sorted(records["_dnsaddr.peers.example"])
        for name, words in (("nobody", "does not resolve"), ("bare", "no TXT record"), ("silent", "no name server")):
            with pytest.raises(TransportError, match=words):
                resolve_txt(f"_dnsaddr.{name}.example", resolver)

        async def main() -> None:
            got = await resolve_all(["/dnsaddr/peers.example"], lambda name: resolve_txt(name, resolver))
            assert got == [(ONE, AT)]

        trio.run(main)


def test_a_name_leads_to_peers_and_one_level_of_names() -> None:
    records = {
        "_dnsaddr.a.example": [
            f"dnsaddr={AT}/p2p/{ONE}",
            "dnsaddr=/dnsaddr/b.example",
            f"dnsaddr=/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{ONE}",
            "dnsaddr=/ip4/192.0.2.9/tcp/4001",
            "something else",
        ],
        "_dnsaddr.b.example": [f"dnsaddr=/dns4/b.example/tcp/4001/p2p/{TWO}", "dnsaddr=/dnsaddr/c.example"],
        "_dnsaddr.c.example": [f"dnsaddr={AT}/p2p/{OWN}"],
    }
    both = [(ONE, AT), (TWO, "/dns4/b.example/tcp/4001")]
    assert found_by(["/dnsaddr/a.example"], records) == both
    assert found_by([f"/dnsaddr/a.example/p2p/{TWO}"], records) == both[1:], "this peer and no other"


def test_what_a_name_leads_to_is_bounded() -> None:
    many = {
        "_dnsaddr.a.example": [f"dnsaddr=/dnsaddr/{n}.example" for n in range(3 * NESTED_MAX)],
        **{
            f"_dnsaddr.{n}.example": [f"dnsaddr=/ip4/192.0.{n}.{m}/tcp/1/p2p/{ONE}" for m in range(200)]
            for n in range(3 * NESTED_MAX)
        },
    }
    asked: list[str] = []

    def resolve(name: str) -> list[str]:
        asked.append(name)
        return answers(many)(name)

    assert len(trio.run(resolve_all, ["/dnsaddr/a.example"], resolve)) == ADDRESSES_MAX
    assert len(asked) == 1 + NESTED_MAX


def test_a_name_server_cannot_make_us_read_a_file(tmp_path: Path) -> None:
    file = tmp_path / "seeds"
    file.write_text(f"{AT}/p2p/{ONE}\n")
    with pytest.raises(TransportError, match="name no peer"):
        found_by(["/dnsaddr/a.example"], {"_dnsaddr.a.example": [f"dnsaddr={file}"]})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/ip4/192.0.2.1/tcp/4001", "no /p2p/ID"),
        ("/dnsaddr/", "is not of the form /dnsaddr/HOST"),
        ("/dnsaddr/a.example/tcp/4001", "is not of the form /dnsaddr/HOST"),
        ("/dnsaddr/a b", "is not of the form /dnsaddr/HOST"),
        ("/dnsaddr/a.example/p2p/nobody", "is not a peer id"),
        ("nowhere.txt", "no multiaddr .* and no file"),
    ],
)
def test_what_is_no_seed_is_a_config_error(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_seed(text)


def test_a_file_has_an_address_a_line(tmp_path: Path) -> None:
    file = tmp_path / "seeds.txt"
    file.write_text(f"# ours\n{AT}/p2p/{ONE}  # the old one\n\n/dnsaddr/a.example\n")
    records = {"_dnsaddr.a.example": [f"dnsaddr=/ip6/2001:db8::1/tcp/1/p2p/{TWO}"]}
    assert found_by([str(file)], records) == [(ONE, AT), (TWO, "/ip6/2001:db8::1/tcp/1")]
    assert Seeds([str(file)]).known() == ((ONE, AT),), "what needs no name is there at once"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"/ip4/192.0.2.1/tcp/4001\n", r":1: bootstrap address .* has no /p2p/ID"),
        (b"\n/etc/passwd\n", r":2: multiaddr '/etc/passwd' is not of the form"),
        (b"\xff\n", "not UTF-8"),
        (b"#" * (FILE_BYTES_MAX + 1), "more than"),
        (f"{AT}/p2p/{ONE}\n".encode() * (ADDRESSES_MAX + 1), "more than 64"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "seeds.txt"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        Seeds([str(file)])


def test_a_file_beside_the_configuration_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seeds.txt").write_text(f"{AT}/p2p/{ONE}\n")
    network = NetworkConfig("n", ModelConfig("package:glassllm-en"), bootstrap=("seeds.txt", "/dnsaddr/a.example"))
    (tmp_path / "network.toml").write_text(dump_network(network))
    monkeypatch.chdir("/")
    loaded = load_network(tmp_path / "network.toml")
    assert loaded.bootstrap == (str(tmp_path / "seeds.txt"), "/dnsaddr/a.example")
    assert loaded.network_id == network.network_id


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "seeds.txt"
    file.write_text(f"{AT}/p2p/{ONE}\n")

    async def main() -> None:
        seeds = Seeds([str(file)])
        await seeds.refresh(0.0, failing=False)
        assert not await seeds.refresh(1.0, failing=False)
        file.write_text(f"{AT}/p2p/{ONE}\n{AT}/p2p/{TWO}\n")
        assert await seeds.refresh(2.0, failing=False)
        assert seeds.known() == ((ONE, AT), (TWO, AT))
        file.write_text("nonsense\n")
        assert await seeds.refresh(3.0, failing=False)
        assert seeds.known() == ((ONE, AT), (TWO, AT))
        assert ":1:" in (seeds.sentence(lambda _: SeedState(), OWN) or "")
        file.unlink()
        assert not await seeds.refresh(4.0, failing=False)
        assert await seeds.refresh(LATER, failing=True)
        assert seeds.known() == ((ONE, AT), (TWO, AT))

    trio.run(main)


def test_a_name_is_resolved_anew_only_while_no_seed_is_reached_and_ever_less_often() -> None:
    records = {"_dnsaddr.a.example": [f"dnsaddr={AT}/p2p/{ONE}"]}

    async def main() -> None:
        seeds = Seeds(["/dnsaddr/a.example"], answers(records))
        assert await seeds.refresh(0.0, failing=True)
        assert seeds.known() == ((ONE, AT),)
        assert not await seeds.refresh(LATER, failing=False)
        records["_dnsaddr.a.example"] = [f"dnsaddr=/ip4/192.0.2.7/tcp/1/p2p/{ONE}"]  # it moved
        assert await seeds.refresh(LATER, failing=True)
        assert seeds.known() == ((ONE, "/ip4/192.0.2.7/tcp/1"),)
        tries, now = 0, LATER
        while now < LATER + 3600.0:
            now += RETRY_FIRST_S
            tries += await seeds.refresh(now, failing=True)
        assert 3600.0 / RETRY_MAX_S - 2 <= tries <= 3600.0 / RETRY_MAX_S + 6

    trio.run(main)


def test_a_name_that_fails_is_a_sentence_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net_seeds, "LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(net_seeds, "RETRY_FIRST_S", 0.01)
    records: dict[str, list[str]] = {}
    said: list[str | None] = []
    found: list[tuple[PeerId, str]] = []

    async def main() -> None:
        def states(_: PeerId) -> SeedState:
            return SeedState(reached=bool(found))

        seeds = Seeds(["/dnsaddr/a.example"], answers(records))
        for entry in seeds.entries:
            entry.retry_s = 0.01
        with trio.fail_after(10.0):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep, seeds, OWN, states, lambda *each: found.append(each), said.append)
                while not said:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                words = "/dnsaddr/a.example: the name _dnsaddr.a.example does not resolve"
                assert said[-1] is not None and words in said[-1]
                records["_dnsaddr.a.example"] = [f"dnsaddr={AT}/p2p/{ONE}"]
                while said[-1] is not None:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                assert found[0] == (ONE, AT)
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_sentence_is_short_and_leaves_oneself_out() -> None:
    seeds = Seeds([f"/ip4/192.0.2.{n}/tcp/1/p2p/{new_identity().peer_id}" for n in range(1, 9)] + [f"{AT}/p2p/{OWN}"])
    sentence = seeds.sentence(lambda _: SeedState(failure="x" * 5000), OWN)
    assert sentence is not None and len(sentence) < 800 and sentence.endswith("and 5 more.")
    assert Seeds([f"{AT}/p2p/{OWN}"]).sentence(lambda _: SeedState(failure="x"), OWN) is None
    assert seeds.sentence(lambda _: SeedState(), OWN) is None, "nothing has been tried yet"
