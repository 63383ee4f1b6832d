"""What dial-back answers mean, and the sentence a person reads."""

import pytest

from p2pfed.net.address import parse_address
from p2pfed.net.dialback import Answer
from p2pfed.net.verdict import Nat, Observation, Reach, Verdict, find

OWN = frozenset({"192.168.1.10"})
OUTER = "/ip4/11.0.0.7/tcp/4001"
OTHER = "/ip4/11.0.0.7/tcp/4002"


def answer(observed: str = OUTER, reached: str = "", failed: str = "", from_port: bool = True) -> Answer:
    return Answer(
        parse_address(observed),
        frozenset(filter(None, [reached])),
        ((failed, "no answer"),) if failed else (),
        from_port,
    )


def test_most_of_those_who_tried_decide() -> None:
    yes, no, silent = answer(reached=OUTER), answer(failed=OUTER), answer()
    assert find([yes, yes, no, silent, silent], OWN).reached == (OUTER,)
    assert find([yes, no], OWN).reached == ()
    assert find([yes, no], OWN).failed == (OUTER,)
    assert find([yes, no, no], OWN).reached == ()
    assert find([silent], OWN).failed == ()
    assert find([], OWN) == Observation()


def test_the_kind_of_nat_takes_two_that_see_the_listening_port_or_a_way_in_by_it() -> None:
    assert find([answer()], OWN).nat is Nat.UNKNOWN
    assert find([answer(), answer()], OWN).nat is Nat.ONE_PORT
    assert find([answer(), answer(OTHER)], OWN).nat is Nat.SYMMETRIC
    assert find([answer(), answer(OTHER, from_port=False)], OWN).nat is Nat.UNKNOWN
    assert find([answer("/ip4/192.168.1.10/tcp/9")], OWN).nat is Nat.NONE
    assert find([answer(reached=OUTER)], OWN).nat is Nat.ONE_PORT, "or one that comes in by it"
    assert find([answer(reached=OTHER)], OWN).nat is Nat.UNKNOWN
    assert find([answer(reached=OUTER, from_port=False)], OWN).nat is Nat.UNKNOWN
    assert find([answer(), answer("/ip6/2600::1/tcp/4001")], OWN).nat is Nat.UNKNOWN  # one of each kind of address


def test_who_is_asked_on_the_same_segment_counts_only_alone() -> None:
    near = answer("/ip4/192.168.1.10/tcp/4001", reached="/ip4/192.168.1.10/tcp/4001")
    assert find([near, answer(failed=OUTER)], OWN).reached == ()
    assert find([near], OWN).reached == ("/ip4/192.168.1.10/tcp/4001",)


def test_where_a_hole_can_be_punched() -> None:
    finding = find([answer(), answer(OTHER), answer("/ip4/11.0.0.7/tcp/9", from_port=False)], OWN)
    assert finding.seen == (OUTER, OTHER)
    assert str(finding.external) == OUTER


@pytest.mark.parametrize(
    ("reach", "sentence"),
    [
        (Reach(), "not known: nobody outside was asked"),
        (
            Reach(Verdict.DIRECT, Nat.NONE, OUTER, port=4001),
            "direct: others dial this device at 11.0.0.7 port 4001",
        ),
        (
            Reach(Verdict.MAPPED, Nat.ONE_PORT, OUTER, mapped_by="UPnP", port=4001),
            "behind a NAT at 11.0.0.7, which passes on what others dial at 11.0.0.7 port 4001 "
            "(UPnP asked the router for it)",
        ),
        (
            Reach(Verdict.RELAY_ONLY, Nat.ONE_PORT, OUTER, ("11.0.0.1", "boot.example.org"), port=4001),
            "behind a NAT at 11.0.0.7: relayed through 11.0.0.1 and boot.example.org; "
            "to be direct, forward TCP 4001 to this device or allow UPnP on the router",
        ),
        (
            Reach(Verdict.RELAY_ONLY, Nat.SYMMETRIC, OUTER, ("11.0.0.1",), port=4001),
            "behind a NAT at 11.0.0.7 that gives each peer another port: relayed through 11.0.0.1; "
            "to be direct, forward TCP 4001 to this device or allow UPnP on the router",
        ),
        (
            Reach(Verdict.UNREACHABLE, Nat.NONE, OUTER, port=4001),
            "a firewall keeps out what others dial at 11.0.0.7: no relay stands in yet; to be direct, let TCP 4001 in",
        ),
    ],
)
def test_sentences(reach: Reach, sentence: str) -> None:
    assert reach.sentence == sentence
