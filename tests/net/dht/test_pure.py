"""Table, providers, lookup and messages: no network, no clock, a seed for every failure."""

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfed.core.messages import PeerRecord
from p2pfed.errors import RemoteError
from p2pfed.net.address import base58_decode
from p2pfed.net.dht import providers as providers_module
from p2pfed.net.dht.key import network_cid, network_key, place_of, place_of_peer
from p2pfed.net.dht.lookup import AT_ONCE, CANDIDATES_MAX, NEAREST, QUERIES_MAX, Lookup
from p2pfed.net.dht.messages import PEERS_MAX, DhtMessage, Kind, decode, encode
from p2pfed.net.dht.providers import KEY_PROVIDERS_MAX, PEER_KEYS_MAX, PROVIDED_S, PROVIDERS_MAX, ProviderStore
from p2pfed.net.dht.server import DhtServer
from p2pfed.net.dht.table import ADDRESSES_KEPT_MAX, BUCKET_PEERS_MAX, FAILURES_MAX, TABLE_PEERS_MAX, RoutingTable
from p2pfed.net.identity import Identity
from p2pfed.ports import PeerId

ADDRESS = "/ip4/192.0.2.1/tcp/4001"


def peer(number: int) -> PeerId:
    return Identity(random.Random(number).randbytes(32)).peer_id


PEERS = [peer(number) for number in range(400)]
OWN, OTHER = PEERS[0], PEERS[1]


def record(peer: PeerId, *addresses: str) -> PeerRecord:
    return PeerRecord(peer, addresses or (ADDRESS,))


def test_the_key_of_a_network_is_the_hash_of_a_fixed_text() -> None:
    key = network_key("0123456789abcdef")
    assert key.hex() == "12204c183dde6a8c8d58999df23b1c73f9f585eece06f888a8dd26781478a49d0923"
    assert network_cid("0123456789abcdef").startswith("bafkrei")
    assert network_key("0123456789abcdee") != key


def test_a_table_knows_the_nearest_and_never_itself() -> None:
    table = RoutingTable(OWN)
    for each in PEERS[:50]:
        table.hear(each, (ADDRESS,))
    target = place_of_peer(PEERS[99])
    nearest = [each.peer for each in table.closest(target, 5)]
    assert nearest == sorted((each.peer for each in table.servers()), key=lambda p: place_of_peer(p) ^ target)[:5]
    assert table.get(OWN) is None


def test_a_table_is_bounded_and_a_flood_displaces_nobody_who_answers() -> None:
    table = RoutingTable(OWN)
    for each in PEERS[1:60]:
        if table.hear(each, (ADDRESS,)):
            table.answered(each, ADDRESS, 0.0)
    before = {each.peer for each in table.servers()}
    for each in PEERS[60:]:
        table.hear(each, (ADDRESS,))
    assert before <= {each.peer for each in table.servers()}
    assert len(table) <= TABLE_PEERS_MAX
    far = [each for each in table.servers() if (each.place ^ place_of_peer(OWN)).bit_length() == 256]
    assert len(far) == BUCKET_PEERS_MAX


def test_who_fails_makes_room_and_is_forgotten_in_the_end() -> None:
    table = RoutingTable(OWN)
    far = [each for each in PEERS[1:] if (place_of_peer(each) ^ place_of_peer(OWN)).bit_length() == 256]
    for each in far[:BUCKET_PEERS_MAX]:
        table.hear(each, (ADDRESS,))
        table.answered(each, ADDRESS, 0.0)
    newcomer = far[BUCKET_PEERS_MAX]
    assert not table.hear(newcomer, (ADDRESS,))
    table.failed(far[3])
    assert table.closest(place_of_peer(far[3]), 99)[-1].peer == far[3], "who fails is asked last"
    assert table.hear(newcomer, (ADDRESS,))
    assert table.get(far[3]) is None
    for _ in range(FAILURES_MAX):
        table.failed(newcomer)
    assert table.get(newcomer) is None


def test_a_named_server_is_never_forgotten_but_not_told_before_it_answered() -> None:
    table = RoutingTable(OWN)
    table.name(OTHER, (ADDRESS,))
    for _ in range(10 * FAILURES_MAX):
        table.failed(OTHER)
    assert [each.peer for each in table.closest(0, 9)] == [OTHER]
    assert table.proven(0, 9) == []
    table.answered(OTHER, ADDRESS, 1.0)
    assert table.proven(0, 9) == [record(OTHER)]
    assert table.unheard(2.0) == [record(OTHER)] and table.unheard(1.0) == []


def test_hearsay_pushes_out_no_address_that_worked() -> None:
    table = RoutingTable(OWN)
    table.hear(OTHER, (ADDRESS,))
    table.answered(OTHER, ADDRESS, 0.0)
    table.hear(OTHER, tuple(f"/ip4/198.51.100.{n}/tcp/1" for n in range(99)))
    known = table.get(OTHER)
    assert known is not None and known.addresses == (ADDRESS,)


def test_providers_are_told_until_they_are_too_old() -> None:
    store = ProviderStore(random.Random(1))
    store.add(b"key", OTHER, (ADDRESS,), 0.0)
    assert store.of(b"key", 9, PROVIDED_S - 1.0) == [record(OTHER)]
    assert store.find(OTHER, PROVIDED_S - 1.0) == record(OTHER)
    assert store.of(b"key", 9, PROVIDED_S) == [] and store.find(OTHER, PROVIDED_S) is None
    assert store.of(b"other", 9, 0.0) == []
    store.expire(PROVIDED_S)
    assert len(store) == 0


def test_a_renewed_provider_stays_with_its_new_addresses() -> None:
    store = ProviderStore(random.Random(1))
    store.add(b"key", OTHER, (ADDRESS,), 0.0)
    store.add(b"key", OTHER, ("/ip4/192.0.2.9/tcp/1",), PROVIDED_S - 1.0)
    assert store.of(b"key", 9, PROVIDED_S + 1.0) == [record(OTHER, "/ip4/192.0.2.9/tcp/1")]
    assert len(store) == 1


def test_a_sample_of_many_providers_is_told_another_time_another_one() -> None:
    store = ProviderStore(random.Random(1))
    for each in PEERS[:100]:
        store.add(b"key", each, (ADDRESS,), 0.0)
    told = {each.peer for _ in range(30) for each in store.of(b"key", PEERS_MAX, 0.0)}
    assert len(store.of(b"key", PEERS_MAX, 0.0)) == PEERS_MAX and len(told) > 90


def test_a_full_key_forgets_its_own_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers_module, "KEY_PROVIDERS_MAX", 10)
    store = ProviderStore(random.Random(1))
    store.add(b"quiet", PEERS[0], (ADDRESS,), 0.0)
    for number in range(30):
        store.add(b"busy", PEERS[number], (ADDRESS,), float(number))
    assert {each.peer for each in store.of(b"busy", 99, 30.0)} == set(PEERS[20:30])
    assert store.of(b"quiet", 9, 30.0) == [record(PEERS[0])]


def test_a_full_store_takes_from_the_largest_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers_module, "PROVIDERS_MAX", 20)
    store = ProviderStore(random.Random(1))
    store.add(b"quiet", PEERS[0], (ADDRESS,), 0.0)
    for number in range(60):
        store.add(b"busy", PEERS[number], (ADDRESS,), float(number))
    assert len(store) == 20 and store.of(b"quiet", 9, 60.0) == [record(PEERS[0])]


def test_one_peer_provides_few_keys() -> None:
    store = ProviderStore(random.Random(1))
    kept = [store.add(bytes([number]), OTHER, (ADDRESS,), 0.0) for number in range(2 * PEER_KEYS_MAX)]
    assert sum(kept) == len(store) == PEER_KEYS_MAX
    assert PROVIDERS_MAX > KEY_PROVIDERS_MAX


class World:
    """Servers that each know some others, by peer id."""

    def __init__(self, size: int, known: int, seed: int) -> None:
        rng = random.Random(seed)
        self.peers = PEERS[1 : size + 1]
        self.tables = {each: RoutingTable(each) for each in self.peers}
        for table in self.tables.values():
            for other in rng.sample(self.peers, known):
                if table.hear(other, (ADDRESS,)):
                    table.answered(other, ADDRESS, 0.0)

    def search(self, place: int, dead: frozenset[PeerId] = frozenset()) -> tuple[Lookup, int]:
        lookup = Lookup(OWN, place, [record(self.peers[0])])
        asked = 0
        while not lookup.over:
            batch = []
            while (each := lookup.next()) is not None:
                batch.append(each.peer)
            assert 0 < len(batch) <= AT_ONCE
            for each in batch:
                asked += 1
                if each in dead:
                    lookup.failed(each)
                else:
                    lookup.answered(each, self.tables[each].proven(place, PEERS_MAX))
        return lookup, asked


@pytest.mark.parametrize("seed", range(5))
def test_a_lookup_finds_the_nearest_of_many(seed: int) -> None:
    world = World(size=300, known=60, seed=seed)
    place = place_of(network_key(f"network {seed}"))
    lookup, asked = world.search(place)
    nearest = sorted(world.peers, key=lambda each: place_of_peer(each) ^ place)[:NEAREST]
    found = [each.peer for each in lookup.found()]
    assert found[:5] == nearest[:5]
    assert asked <= QUERIES_MAX


def test_a_lookup_goes_round_the_dead_and_ends() -> None:
    world = World(size=100, known=40, seed=7)
    place = place_of(b"key")
    nearest = sorted(world.peers[1:], key=lambda each: place_of_peer(each) ^ place)
    dead = frozenset(nearest[:10])
    lookup, asked = world.search(place, dead)
    found = {each.peer for each in lookup.found()}
    assert found and not found & dead and asked <= QUERIES_MAX
    assert nearest[10] in found


def test_a_lookup_without_anybody_is_over_at_once() -> None:
    lookup = Lookup(OWN, 0, [])
    assert lookup.over and lookup.next() is None and lookup.found() == []


def test_servers_that_lead_on_and_on_end_with_the_budget() -> None:
    towards = sorted(PEERS[1:], key=place_of_peer, reverse=True)
    lookup = Lookup(OWN, 0, [record(towards[0])])
    asked = 0
    while not lookup.over:
        each = lookup.next()
        assert each is not None
        lookup.answered(each.peer, [record(nearer) for nearer in towards[8 * asked : 8 * asked + 8]])
        assert len(lookup._candidates) <= CANDIDATES_MAX
        asked += 1
    assert asked == QUERIES_MAX


def test_messages_cross() -> None:
    message = DhtMessage(
        Kind.GET_PROVIDERS, network_key("a"), (record(OWN),), (record(OTHER, "/ip6/2001:db8::1/tcp/9"),)
    )
    assert decode(encode(message)) == message


def test_addresses_nobody_here_can_dial_are_left_out() -> None:
    told = record(
        OTHER, "/ip4/192.0.2.1/udp/4001/quic-v1", ADDRESS, f"{ADDRESS}/p2p/{OTHER}", "/ip4/192.0.2.1/tcp/80/ws"
    )
    assert decode(encode(DhtMessage(Kind.FIND_NODE, providers=(told,)))).providers == (record(OTHER),)


def test_lists_are_capped() -> None:
    many = tuple(record(each, *(f"/ip4/192.0.2.{n}/tcp/1" for n in range(1, 60))) for each in PEERS[:60])
    (first, *rest) = decode(encode(DhtMessage(Kind.FIND_NODE, closer=many))).closer
    assert len(rest) == PEERS_MAX - 1 and len(first.addresses) == ADDRESSES_KEPT_MAX


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_remote_error(data: bytes) -> None:
    with contextlib.suppress(RemoteError):
        decode(data)


@pytest.mark.parametrize("data", [b"\x08\x63", b"\xff" * 9, encode(DhtMessage(Kind.FIND_NODE, b"x" * 129))])
def test_bad_messages_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        decode(data)


@pytest.fixture
def server() -> DhtServer:
    table = RoutingTable(OWN)
    for each in PEERS[2:6]:
        table.hear(each, (ADDRESS,))
        table.answered(each, ADDRESS, 0.0)
    return DhtServer(table, ProviderStore(random.Random(1)))


def test_a_provider_registers_itself_only(server: DhtServer) -> None:
    add = DhtMessage(Kind.ADD_PROVIDER, b"key", providers=(record(OTHER), record(PEERS[9])))
    assert server.answer(add, OTHER, 0.0) is None
    answer = server.answer(DhtMessage(Kind.GET_PROVIDERS, b"key"), PEERS[9], 1.0)
    assert answer is not None
    assert answer.providers == (record(OTHER),)
    assert {each.peer for each in answer.closer} == set(PEERS[2:6])


def test_find_node_tells_servers_and_the_peer_itself_but_not_the_asker(server: DhtServer) -> None:
    server.answer(DhtMessage(Kind.ADD_PROVIDER, b"key", providers=(record(OTHER),)), OTHER, 0.0)
    answer = server.answer(DhtMessage(Kind.FIND_NODE, base58_decode(OTHER)), PEERS[2], 1.0)
    assert answer is not None
    assert {each.peer for each in answer.closer} == {OTHER, *PEERS[3:6]}


def test_the_rest_is_answered_politely_and_nothing_is_kept(server: DhtServer) -> None:
    assert server.answer(DhtMessage(Kind.PING), OTHER, 0.0) == DhtMessage(Kind.PING)
    for kind in (Kind.GET_VALUE, Kind.PUT_VALUE):
        answer = server.answer(DhtMessage(kind, b"/pk/x"), OTHER, 0.0)
        assert answer is not None and (answer.kind, answer.key, answer.providers) == (kind, b"/pk/x", ())
    assert len(server.providers) == 0
