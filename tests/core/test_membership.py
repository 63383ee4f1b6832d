"""Neighbours: links that count, crossing dials, restarts, copied identities, refusals, back-off."""

import random
from itertools import pairwise

import pytest

from p2pfed.core.dialling import DIALS_AT_ONCE, REACH_OUT_INTERVAL_S, REACH_OUT_URGENT_S, ROTATE_SWAPS
from p2pfed.core.events import (
    CloseLink,
    Dial,
    DialFailed,
    Effect,
    FoundBy,
    LinkDown,
    LinkUp,
    MessageReceived,
    PeerFound,
    PeerRefused,
    Remember,
    Report,
    Send,
    SetTimer,
    Started,
    StopAsked,
    Timer,
    TimerFired,
    TimerKind,
)
from p2pfed.core.introductions import SHUFFLE_PEERS
from p2pfed.core.liveness import MISSES_MAX, SILENCE_MAX_S
from p2pfed.core.membership import PROBE_S, REFUSED_FOR_S, MembershipSettings
from p2pfed.core.messages import (
    PROTOCOL_VERSION,
    Goodbye,
    Hello,
    IdentityInUse,
    Message,
    PeerRecord,
    PeersAsk,
    PeersTold,
    Ping,
    Pong,
    Role,
    SwapOffer,
)
from p2pfed.core.peer import PeerSettings, PeerState
from p2pfed.core.version import version_of
from p2pfed.core.view import DIAL_BACKOFF_MAX_S
from p2pfed.ports import Encoding, PeerId
from tests.core.pair import TERMS, hello


class Node:
    """One PeerState and what it asked for."""

    def __init__(self, name: str = "m", target: int = 8, links_max: int = 32, role: Role = Role.NODE) -> None:
        settings = PeerSettings(membership=MembershipSettings(target, links_max))
        self.state = PeerState(hello(name, role=role), PeerId(name), settings, random.Random(name))
        self.now = 0.0
        self.effects: list[Effect] = []
        self.timers: list[SetTimer] = []

    def handle(self, event: object) -> list[Effect]:
        effects = self.state.handle(event, self.now)  # type: ignore[arg-type]
        self.effects += effects
        self.timers += [effect for effect in effects if isinstance(effect, SetTimer)]
        return effects

    def up(self, link: int, name: str, instance: int = 1, outbound: bool = False, **other: object) -> list[Effect]:
        own = Hello(**{**as_fields(hello(name, instance)), **other})  # type: ignore[arg-type]
        return self.handle(LinkUp(link, PeerId(name), own, outbound, f"/dns4/{name}/tcp/1"))

    def says(self, link: int, message: Message) -> list[Effect]:
        return self.handle(MessageReceived(link, message))

    def found(self, name: str, found_by: FoundBy = FoundBy.MDNS) -> list[Effect]:
        return self.handle(PeerFound(PeerId(name), (f"/dns4/{name}/tcp/1",), found_by))

    def wait(self, seconds: float) -> list[Effect]:
        """Timers fire at their times."""
        end, before = self.now + seconds, len(self.effects)
        while due := [timer for timer in self.timers if timer.at <= end]:
            timer = min(due, key=lambda timer: timer.at)
            self.timers.remove(timer)
            self.now = max(self.now, timer.at)
            self.handle(TimerFired(timer.timer))
        self.now = end
        return self.effects[before:]

    @property
    def links(self) -> dict[int, PeerId]:
        return self.state.membership.links


def as_fields(own: Hello) -> dict[str, object]:
    return {name: getattr(own, name) for name in Hello.__dataclass_fields__}


def closed(effects: list[Effect]) -> list[int]:
    return [effect.link for effect in effects if isinstance(effect, CloseLink)]


def dialled(effects: list[Effect]) -> list[str]:
    return [effect.peer for effect in effects if isinstance(effect, Dial)]


def reports(effects: list[Effect]) -> list[str]:
    return [effect.kind for effect in effects if isinstance(effect, Report)]


def told(effects: list[Effect], kind: type) -> list[int]:
    return [effect.link for effect in effects if isinstance(effect, Send) and isinstance(effect.message, kind)]


@pytest.mark.parametrize("outbound_first", [True, False])
@pytest.mark.parametrize(("name", "other"), [("a", "b"), ("b", "a")])
def test_crossing_dials_keep_the_link_of_the_smaller_id_at_both_ends(
    name: str, other: str, outbound_first: bool
) -> None:
    node = Node(name)
    mine, theirs = 1, 2
    for link in (mine, theirs) if outbound_first else (theirs, mine):
        node.up(link, other, outbound=link == mine)
        node.now += 1.0
    assert list(node.links) == [mine if name < other else theirs]
    assert closed(node.effects) == [theirs if name < other else mine]


def test_a_later_link_of_the_same_instance_takes_the_place_of_the_older() -> None:
    node = Node()
    node.up(1, "p")
    node.now += 20.0
    assert closed(node.up(2, "p")) == [1]
    assert node.links == {2: "p"}
    assert reports(node.handle(LinkDown(1, "gone"))) == []
    assert node.links == {2: "p"}


def test_a_restart_takes_over_after_the_old_link_kept_silent() -> None:
    node = Node()
    node.handle(Started())
    node.up(1, "p", instance=1)
    node.now = 20.0
    assert told(node.up(2, "p", instance=2), Ping) == [1]
    assert node.links == {1: "p"}
    effects = node.wait(PROBE_S + 0.1)
    assert closed(effects) == [1] and node.links == {2: "p"}
    assert "identity-copied" not in reports(node.effects)


@pytest.mark.parametrize("ending", ["down", "goodbye"])
def test_a_restart_takes_over_at_once_where_the_old_link_ends(ending: str) -> None:
    node = Node()
    node.up(1, "p", instance=1)
    node.now = 20.0
    node.up(2, "p", instance=2)
    node.handle(LinkDown(1, "reset")) if ending == "down" else node.says(1, Goodbye("stopping"))
    assert node.links == {2: "p"}
    assert "identity-copied" not in reports(node.effects)
    node.up(3, "p", instance=3)
    assert 3 not in closed(node.effects), "the doubt is over, another restart may be doubted"


def test_a_copied_identity_is_told_to_both() -> None:
    node = Node()
    node.up(1, "p", instance=1)
    node.now = 20.0
    node.up(2, "p", instance=2)
    effects = node.says(1, Pong(1))
    assert sorted(told(effects, IdentityInUse)) == [1, 2] and closed(effects) == [2]
    assert reports(effects) == ["identity-copied"] and node.links == {1: "p"}
    assert node.wait(2.0 * PROBE_S) == [] and node.links == {1: "p"}


def test_the_old_instance_shaking_hands_again_proves_the_copy() -> None:
    node = Node()
    node.up(1, "p", instance=1)
    node.now = 20.0
    node.up(2, "p", instance=2)
    effects = node.up(3, "p", instance=1)
    assert closed(effects) == [2, 1] and node.links == {3: "p"}
    assert reports(effects)[0] == "identity-copied"


def test_a_doubt_lasts_its_full_time_for_each_rival() -> None:
    node = Node()
    node.handle(Started())
    node.up(1, "p", instance=1)
    node.up(2, "p", instance=2)
    node.handle(LinkDown(2, "gone"))
    node.wait(PROBE_S - 0.5)
    node.up(3, "p", instance=3)
    node.wait(1.0)
    assert node.links == {1: "p"}, "the first rival's timer does not end the doubt of the second"
    node.wait(PROBE_S)
    assert node.links == {3: "p"}


def test_one_doubted_link_at_a_time() -> None:
    node = Node()
    node.up(1, "p", instance=1)
    node.up(2, "p", instance=2)
    assert closed(node.up(3, "p", instance=3)) == [3]


def test_told_of_a_copy_it_says_so_once() -> None:
    node = Node()
    node.up(1, "p")
    assert reports(node.says(1, IdentityInUse(7))) == ["identity-in-use"]
    assert reports(node.says(1, IdentityInUse(7))) == []


def test_answering_oneself_closes_and_another_instance_of_oneself_is_told() -> None:
    node = Node("m")
    assert closed(node.up(1, "m", instance=1)) == [1] and reports(node.effects) == []
    effects = node.up(2, "m", instance=9)
    assert told(effects, IdentityInUse) == [2] and closed(effects) == [2] and reports(effects) == ["identity-in-use"]


DIFFERENCES = [
    {"version": PROTOCOL_VERSION + 1},
    {"network": (("name", '"other"'),)},
    {"network": (("adapter.rank", "8"), ("name", '"pair"'))},
    {"network_id": "def"},
]


@pytest.mark.parametrize("other", DIFFERENCES, ids=lambda other: next(iter(other)))
def test_a_peer_that_differs_is_refused_and_named_once(other: dict[str, object]) -> None:
    node = Node()
    effects = node.up(1, "p", **other)
    assert closed(effects) == [1] and reports(effects) == ["peer-refused"] and node.links == {}
    effects = node.up(2, "p", **other)
    assert closed(effects) == [2] and reports(effects) == []
    assert reports(node.handle(PeerRefused(PeerId("p"), "rank is 8 there and 16 here"))) == ["peer-refused"]
    assert reports(node.handle(PeerRefused(PeerId("p"), "rank is 8 there and 16 here"))) == []
    assert dialled(node.found("p", FoundBy.PEERS)) == []
    node.handle(Started())
    node.now = REFUSED_FOR_S + 1.0
    assert dialled(node.wait(1.0)) == ["p"], "somebody may have upgraded it"


def test_fingerprints_are_compared_where_both_have_them() -> None:
    node = Node()
    own = hello("m")
    node.state.membership._own = Hello(**{**as_fields(own), "fingerprint": (("base", "aa"),)})  # type: ignore[arg-type]
    assert node.up(1, "observer", fingerprint=()) and list(node.links) == [1]
    assert closed(node.up(2, "p", fingerprint=(("base", "bb"),))) == [2]


def test_flapping_links_back_off() -> None:
    """A peer whose links die at once is dialled less and less, like one that does not answer."""
    node = Node()
    node.handle(Started())
    node.found("p")
    dials = 0
    link = 0
    while node.now < 600.0:
        entry = node.state.membership.view.get(PeerId("p"))
        assert entry is not None
        if entry.dialling:
            dials += 1
            link += 1
            node.up(link, "p", outbound=True)
            node.now += 0.5
            node.handle(LinkDown(link, "reset"))
        node.wait(1.0)
    assert 600.0 / DIAL_BACKOFF_MAX_S <= dials <= 600.0 / DIAL_BACKOFF_MAX_S * 2.0 + 8


def test_dead_hearsay_is_forgotten_and_a_known_peer_is_not() -> None:
    node = Node()
    node.handle(Started())
    node.found("hearsay", FoundBy.PEERS)
    node.up(1, "known")
    node.handle(LinkDown(1, "gone"))
    for _ in range(400):
        for entry in node.state.membership.view.entries():
            if entry.dialling:
                node.handle(DialFailed(entry.peer, "nobody answers"))
        node.wait(1.0)
    assert [entry.peer for entry in node.state.membership.view.entries()] == ["known"]


def test_dials_at_once_are_few_and_stop_when_there_are_neighbours_enough() -> None:
    node = Node(target=6)
    node.handle(Started())
    for number in range(30):
        node.found(f"p{number}", FoundBy.PEERS)
    node.wait(1.0)
    assert len(dialled(node.effects)) == DIALS_AT_ONCE
    for link, peer in enumerate(dialled(node.effects), start=1):
        node.up(link, peer, outbound=True)
    node.wait(1.0)
    assert len(dialled(node.effects)) == 6
    assert dialled(Node(target=0).found("p")) == [], "a bootstrap peer only answers"


def test_links_are_bounded() -> None:
    node = Node(links_max=3)
    for link in range(1, 6):
        node.up(link, f"p{link}")
    assert len(node.links) == 3 and closed(node.effects) == [4, 5]


def test_a_silent_link_is_pinged_then_closed() -> None:
    node = Node()
    node.handle(Started())
    node.up(1, "p")
    effects = node.wait(SILENCE_MAX_S + 2.0)
    assert told(effects, Ping) == [1] * MISSES_MAX and closed(effects) == [1] and node.links == {}
    assert reports(effects) == ["neighbour-suspected", "neighbour-lost"]


def test_a_suspected_link_that_is_heard_again_stays() -> None:
    node = Node()
    node.handle(Started())
    node.up(1, "p")
    while "neighbour-suspected" not in reports(node.effects):
        node.wait(0.5)
    node.says(1, PeersTold(()))
    node.wait(5.0)
    entry = node.state.membership.view.get(PeerId("p"))
    assert entry is not None and entry.misses == 0 and node.links == {1: "p"}


def test_an_answering_link_stays() -> None:
    node = Node()
    node.handle(Started())
    node.up(1, "p")
    for _ in range(100):
        for effect in node.wait(1.0):
            if isinstance(effect, Send) and isinstance(effect.message, Ping):
                node.says(1, Pong(effect.message.nonce))
    assert node.links == {1: "p"} and 5 <= len(told(node.effects, Ping)) <= 8


def test_only_proven_peers_are_told_and_never_the_asker() -> None:
    node = Node()
    node.up(1, "asker")
    node.up(2, "proven")
    node.up(3, "observer", role=Role.OBSERVER)
    node.found("hearsay", FoundBy.PEERS)
    answers = [effect.message for effect in node.says(1, PeersAsk(32)) if isinstance(effect, Send)]
    assert [message.peers for message in answers if isinstance(message, PeersTold)] == [
        (PeerRecord(PeerId("proven"), ("/dns4/proven/tcp/1",)),)
    ]


def test_hearsay_does_not_push_out_addresses_that_were_proven() -> None:
    node = Node()
    node.up(1, "liar")
    node.up(2, "p")
    node.handle(LinkDown(2, "gone"))
    flood = tuple(f"/dns4/x{number}/tcp/1" for number in range(16))
    node.says(1, PeersTold((PeerRecord(PeerId("p"), flood),)))
    node.handle(PeerFound(PeerId("p"), flood, FoundBy.DHT))
    entry = node.state.membership.view.get(PeerId("p"))
    assert entry is not None and entry.addresses[0] == "/dns4/p/tcp/1"


def test_a_goodbye_is_no_hurry_and_no_suspicion() -> None:
    node = Node()
    node.handle(Started())
    node.up(1, "p")
    node.now = 10.0
    effects = node.says(1, Goodbye("stopping"))
    assert closed(effects) == [1] and reports(effects) == ["neighbour-left"] and node.links == {}
    assert dialled(node.wait(5.0)) == []
    assert dialled(node.wait(5.0)) == ["p"]


def test_a_stop_says_goodbye_to_all_and_remembers() -> None:
    node = Node()
    links_of(node, 4)
    node.up(5, "p")
    node.up(6, "q")
    effects = node.handle(StopAsked("test"))
    assert told(effects, Goodbye) == [1, 2, 3, 4, 5, 6]
    remembered = [effect.peers for effect in effects if isinstance(effect, Remember)]
    assert [record.peer for record in remembered[0]] == ["p1", "p2", "p3", "p4", "p", "q"]
    assert node.handle(StopAsked("again")) == []


def test_remembered_peers_are_dialled_at_the_start() -> None:
    node = Node()
    assert dialled(node.handle(Started((PeerRecord(PeerId("p"), ("/dns4/p/tcp/1",)),)))) == ["p"]


def test_enough_neighbours_and_a_lost_one_means_a_dial_now_and_then() -> None:
    """Else the halves of a network that was cut would each be content for ever."""
    node = Node(target=2)
    node.handle(Started())
    for link, name in enumerate(("p", "q", "r"), start=1):
        node.up(link, name)
    node.now = 20.0
    node.handle(LinkDown(3, "cut"))
    for _ in range(300):
        for entry in node.state.membership.view.entries():
            if entry.dialling:
                node.handle(DialFailed(entry.peer, "nobody answers"))
        node.wait(1.0)
        for link in (1, 2):
            node.says(link, Pong(0))
    dials = dialled(node.effects)
    assert 300.0 / REACH_OUT_INTERVAL_S - 2 <= len(dials) <= 300.0 / REACH_OUT_INTERVAL_S + 1
    assert [each for each in dials if each != "r"] == []


def test_a_bootstrap_peer_answers_and_neither_trains_nor_swaps() -> None:
    node = Node("boot", target=0, role=Role.BOOTSTRAP)
    assert all(isinstance(effect, SetTimer) for effect in node.handle(Started()))
    node.up(1, "p")
    node.up(2, "q")
    answers = [effect.message for effect in node.says(1, PeersAsk(8)) if isinstance(effect, Send)]
    assert [record.peer for message in answers if isinstance(message, PeersTold) for record in message.peers] == ["q"]
    effects = node.says(1, SwapOffer(1, version_of(b"x", Encoding.FLOAT32, 0, 0), TERMS))
    assert [type(effect.message).__name__ for effect in effects if isinstance(effect, Send)] == ["SwapDecline"]
    node.wait(700.0)
    assert dialled(node.effects) == []
    assert [timer.timer.kind for timer in node.timers] == [TimerKind.MAINTAIN]


def test_the_first_neighbour_is_remembered_at_once() -> None:
    """A kill in the first minute must not cost a node its neighbours."""
    node = Node()
    node.handle(Started())
    assert Remember((PeerRecord(PeerId("a"), ("/dns4/a/tcp/1",)),)) in node.up(1, "a", addresses=("/dns4/a/tcp/1",))
    links_of(node, 8)
    remembered = [effect.peers for effect in node.effects if isinstance(effect, Remember)]
    assert [len(peers) for peers in remembered] == [1, 2, 3, 4], "and the next few; then once a minute"


def test_what_is_good_on_one_link_only_is_told_to_nobody() -> None:
    node = Node()
    node.up(1, "asker")
    node.up(2, "near", addresses=("/ip6/fe80::2%eth0/tcp/1", "/dns4/near/tcp/1"))
    node.up(3, "nearer", addresses=("/ip6/fe80::3%eth0/tcp/1",))
    answers = [effect.message for effect in node.says(1, PeersAsk(32)) if isinstance(effect, Send)]
    assert answers == [PeersTold((PeerRecord(PeerId("near"), ("/dns4/near/tcp/1",)),))]


def test_what_is_remembered_is_not_replaced_by_nobody_while_all_are_away() -> None:
    node = Node()
    node.handle(Started())
    node.found("a", FoundBy.REMEMBERED)
    node.handle(DialFailed(PeerId("a"), "away"))
    for second in range(1, 600):
        node.now = float(second)
        if any(isinstance(effect, Dial) for effect in node.handle(TimerFired(Timer(TimerKind.MAINTAIN)))):
            node.handle(DialFailed(PeerId("a"), "away"))
    remembered = [effect for effect in node.effects if isinstance(effect, Remember)]
    assert remembered == [Remember((PeerRecord(PeerId("a"), ("/dns4/a/tcp/1",)),))], "once: flash wears"
    assert any(isinstance(effect, Dial) for effect in node.effects[-200:]), "and it is dialled on and on"


def test_who_wants_neighbours_asks_again_soon_and_then_less_and_less() -> None:
    node = Node()
    node.handle(Started())
    node.up(1, "p")
    asks = [0.0]
    for _ in range(160):
        node.says(1, Pong(0))
        asks += [node.now] * len(told(node.wait(1.0), PeersAsk))
    gaps = [later - earlier for earlier, later in pairwise(asks)]
    assert gaps[0] <= 3.0 and max(gaps) <= 32.0 and gaps == sorted(gaps), gaps


def links_of(node: Node, count: int) -> None:
    for link in range(1, count + 1):
        node.up(link, f"p{link}")


def test_neighbours_that_fall_silent_together_are_dialled_often_until_one_is_back() -> None:
    node = Node(target=4)
    node.handle(Started())
    links_of(node, 8)
    node.now = 20.0
    for link in (5, 6, 7, 8):
        node.handle(LinkDown(link, "silent"))
    assert reports(node.effects).count("partition-suspected") == 1
    before = len(node.effects)
    for _ in range(60):
        for entry in node.state.membership.view.entries():
            if entry.dialling:
                node.handle(DialFailed(entry.peer, "nobody answers"))
        node.wait(1.0)
        for link in (1, 2, 3, 4):
            node.says(link, Pong(0))
    dials = dialled(node.effects[before:])
    assert 60.0 / REACH_OUT_URGENT_S - 2 <= len(dials) <= 60.0 / REACH_OUT_URGENT_S + 1
    assert {*dials} == {"p5", "p6", "p7", "p8"}
    assert "partition-over" in reports(node.up(9, "p6", outbound=True))
    assert node.state.membership.watch.suspicion is None


def test_goodbyes_are_no_partition() -> None:
    node = Node(target=4)
    node.handle(Started())
    links_of(node, 6)
    node.now = 20.0
    for link in range(1, 7):
        node.says(link, Goodbye("stopping"))
    assert "partition-suspected" not in reports(node.effects)


def test_a_swap_tells_and_asks_some_peers() -> None:
    node = Node()
    links_of(node, 8)
    effects = node.state.membership.swapped(1, 1, 0.0)
    messages = [effect.message for effect in effects if isinstance(effect, Send)]
    assert [type(message) for message in messages] == [PeersTold, PeersAsk]
    assert isinstance(messages[0], PeersTold) and len(messages[0].peers) == SHUFFLE_PEERS
    assert PeerId("p1") not in [record.peer for record in messages[0].peers]


def test_now_and_then_a_neighbour_is_exchanged_for_a_stranger() -> None:
    node = Node(target=4)
    links_of(node, 4)
    node.found("stranger", FoundBy.PEERS)
    membership = node.state.membership
    assert dialled(membership.swapped(1, ROTATE_SWAPS - 1, 1.0)) == []
    assert dialled(membership.swapped(1, ROTATE_SWAPS, 2.0)) == ["stranger"]
    assert dialled(membership.swapped(1, ROTATE_SWAPS + 1, 3.0)) == []
    effects = node.up(9, "stranger", outbound=True)
    assert len(told(effects, Goodbye)) == 1 == len(closed(effects)) and 9 not in closed(effects)
    assert reports(effects) == ["neighbour-linked", "neighbour-exchanged"]
    assert len(node.links) == 4 and 9 in node.links
    assert len(node.up(10, "another")) and len(node.links) == 5, "who comes by itself costs nobody its place"


def test_a_full_bootstrap_peer_makes_room_for_a_newcomer() -> None:
    boot = Node("boot", target=0, links_max=2, role=Role.BOOTSTRAP)
    boot.up(1, "p")
    boot.up(2, "q")
    assert closed(boot.up(3, "r")) == [3], "who came just now has not been introduced yet"
    boot.now = 60.0
    effects = boot.up(4, "s")
    assert len(told(effects, Goodbye)) == 1 and 4 in boot.links and len(boot.links) == 2
    node = Node(links_max=2)
    node.up(1, "p")
    node.up(2, "q")
    node.now = 60.0
    assert closed(node.up(3, "r")) == [3], "a node keeps its neighbours"


def test_a_content_node_visits_its_bootstrap_peer_less_and_less() -> None:
    node = Node(target=2)
    node.handle(Started())
    links_of(node, 3)
    visits = []
    node.found("boot", FoundBy.BOOTSTRAP)
    for _ in range(8640):
        for entry in node.state.membership.view.entries():
            if entry.dialling:
                visits.append(node.now)
                node.handle(DialFailed(entry.peer, "nobody answers"))
        for link in (1, 2, 3):
            node.says(link, Pong(0))
        node.wait(10.0)
    assert 4 <= len(visits) <= 12, "of a day"
    gaps = [later - earlier for earlier, later in pairwise(visits)]
    assert gaps[0] >= 300.0 and max(gaps) <= 22_000.0
    for link in (1, 2, 3):
        node.handle(LinkDown(link, "gone"))
    assert "boot" in dialled(node.wait(70.0)), "without neighbours it is sought at once"


def test_a_view_full_of_peers_once_met_still_takes_newcomers() -> None:
    node = Node("boot", target=0, links_max=64, role=Role.BOOTSTRAP)
    for number in range(400):
        node.now = float(number)
        node.up(number, f"p{number}")
        node.says(number, Goodbye("stopping"))
        assert node.state.membership.view.get(PeerId(f"p{number}")) is not None
    assert len(node.state.membership.view) <= 128


def test_strangers_of_other_networks_push_out_no_acquaintance() -> None:
    node = Node("boot", target=0, links_max=16, role=Role.BOOTSTRAP)
    for number in range(60):
        node.up(number, f"p{number}")
        node.says(number, Goodbye("stopping"))
    for number in range(1000, 1300):
        node.up(number, f"x{number}", network_id="def")
    view = node.state.membership.view
    assert all(view.get(PeerId(f"p{number}")) is not None for number in range(60)) and len(view) <= 128
