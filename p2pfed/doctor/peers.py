"""What a survey means: which peers are there by which means, what is wrong with each, and what to do about it."""

import statistics
from collections.abc import Iterator
from pathlib import Path

import trio

from p2pfed.config import NetworkConfig, NodeConfig
from p2pfed.core.compatibility import difference
from p2pfed.doctor.asking import Answer, short
from p2pfed.doctor.finding import Finding, fail, ok, warn
from p2pfed.doctor.multicast import multicast_findings
from p2pfed.doctor.probes import DhtLook, DialBack
from p2pfed.doctor.reach import verdict_of
from p2pfed.doctor.survey import Survey, survey
from p2pfed.errors import ConfigError, ExitCode
from p2pfed.net.interfaces import missing_interfaces
from p2pfed.ports import PeerId

SKEW_MAX_S = 60.0
"""Clocks without a time server drift by seconds a week; a minute means that nothing sets this one."""
HOUR_S = 3600.0


def check_network(network: NetworkConfig, config: NodeConfig, home: Path) -> Iterator[Finding]:
    """Everything about other peers. Takes up to 14 s where some do not answer."""
    try:
        found = trio.run(survey, network, config, home, (DialBack(), DhtLook()))
    except ConfigError as error:
        yield fail("bootstrap", str(error), "correct it in network.toml or node.toml", error.exit_code)
        return
    if missing := missing_interfaces(config.interfaces):
        yield warn("interfaces", missing, "correct interfaces in node.toml")
    if found.heard is not None:
        yield from multicast_findings(found.heard)
    else:
        yield ok("multicast", "not used: mdns = false")
    yield from identity_findings(found)
    yield from own_node_findings(found)
    yield from lan_findings(found, network)
    yield from seed_findings(found)
    yield from remembered_findings(found)
    yield from found.probed
    yield from clock_findings(found.answers())
    if not found.answers() and not found.own:
        yield warn(
            "peers",
            "no peer of this network is reachable: a node here would train alone",
            "start a second node, and where it is not on this LAN give --bootstrap with the multiaddr it prints",
        )


def lan_findings(found: Survey, network: NetworkConfig) -> Iterator[Finding]:
    if found.heard is None:
        return
    where = _where(found)
    for each in sorted(found.lan, key=lambda each: each.target.peer):
        yield from _peer("LAN", each, found, f"heard by mDNS on {', '.join(where[each.target.peer])}")
    ours = [each for each in found.lan if each.hello is None or each.hello.network_id == network.network_id]
    if not ours:
        yield ok("LAN", f'no other peer of network "{network.name}" ({network.network_id}) was heard')
    others = {each.announcement.peer for each in found.heard.sightings if not each.announcement.network_id}
    if others:
        yield ok("LAN", f"{_many(len(others), 'other libp2p program')} heard, nothing to do with p2pfed")


def seed_findings(found: Survey) -> Iterator[Finding]:
    for each in found.seeds:
        yield from _peer("seed", each, found, "named as a bootstrap peer")
    if found.seeds and all(each.hello is None for each in found.seeds):
        yield warn("seeds", f"none of {len(found.seeds)} answers", "check this device's way out: DNS, router, firewall")


def remembered_findings(found: Survey) -> Iterator[Finding]:
    """A sum: peers come and go, and one that is gone is no trouble."""
    if not found.remembered:
        return
    known = len(found.remembered)
    answered = sum(each.hello is not None for each in found.remembered)
    if answered:
        yield ok("remembered peers", f"{answered} of {known} answer")
    else:
        message = f"none of {known} answers; {found.remembered[0].problem}"
        yield warn("remembered peers", message, "give a peer that runs now with --bootstrap MULTIADDR")


def identity_findings(found: Survey) -> Iterator[Finding]:
    """Two records of one peer id with different instances are two processes."""
    instances: dict[PeerId, dict[int, str]] = {}
    for each in found.heard.sightings if found.heard is not None else ():
        heard = each.announcement
        if heard.network_id:
            instances.setdefault(heard.peer, {})[heard.instance] = heard.addresses[0]
    own_runs = found.status is not None
    for peer, places in instances.items():
        copies = len(places) if peer != found.peer or own_runs else len(places) + 1
        if copies < 2:
            continue
        words = f"{short(peer)} is announced from {' and from '.join(places.values())}"
        remedy = "stop one of the two, move its identity.key away and start it anew: it makes an identity of its own"
        if peer == found.peer:
            if not own_runs:
                words = f"the identity in this state folder runs on another device already: {words}"
            yield fail("identity", words, remedy, ExitCode.IDENTITY)
        else:
            yield warn("identity", f"two devices run with one identity: {words}", remedy)


def own_node_findings(found: Survey) -> Iterator[Finding]:
    """Whether the node that runs here answers at the addresses it tells others."""
    if found.status is None:
        return
    name = found.status.get("name")
    dead = [each for each in found.own if each.hello is None]
    for each in dead:
        port = each.address.rpartition("/")[2]
        yield warn(
            "own node",
            f"{name} runs here, but cannot be reached at its own address: {each.problem}",
            f"allow TCP port {port} into this device: a firewall on it blocks others too",
        )
    if not dead:
        yield ok("own node", f"{name} runs and answers at {', '.join(each.address for each in found.own)}")
    if (verdict := verdict_of(found.status)) is not None:
        yield verdict


def clock_findings(answers: list[Answer]) -> Iterator[Finding]:
    if not answers:
        return
    median_s = statistics.median(each.skew_s for each in answers)
    remedy = "set it by a time server, such as systemd-timesyncd"
    if len(answers) >= 2 and abs(median_s) > SKEW_MAX_S:
        yield warn("clock skew", f"{_loudly('this clock', -median_s)} that of {len(answers)} peers", remedy)
        return
    off = [each for each in answers if abs(each.skew_s) > SKEW_MAX_S]
    for each in off:
        words = _loudly(f"the clock of {each.who}", each.skew_s)
        remedy_there = f"on that device, {remedy}" if len(answers) > 1 else f"whichever of the two is wrong: {remedy}"
        yield warn("clock skew", f"{words} this device's", remedy_there)
    if not off:
        most_s = max(abs(each.skew_s) for each in answers)
        yield ok("clock skew", f"{most_s:.1f} s at most, against {_many(len(answers), 'peer')}")


def _peer(subject: str, answer: Answer, found: Survey, means: str) -> Iterator[Finding]:
    if answer.hello is None:
        yield warn(subject, f"{answer.who}, {means}: {answer.problem}", answer.remedy)
        return
    why = difference(found.hello, answer.hello)
    if why is None:
        took = f"{1000 * answer.round_trip_s:.0f} ms"
        yield ok(subject, f"{answer.who}, {means}, answers at {answer.address} in {took}")
        return
    yield warn(
        subject,
        f"{answer.who}, {means}, is in another network: {why}",
        "give both devices the same network.toml, if they should work together",
    )


def _where(found: Survey) -> dict[PeerId, list[str]]:
    """By peer, the interfaces and IP versions it was heard on."""
    places: dict[PeerId, dict[str, list[int]]] = {}
    for each in found.heard.sightings if found.heard is not None else ():
        versions = places.setdefault(each.announcement.peer, {}).setdefault(each.link.interface, [])
        if each.link.version not in versions:
            versions.append(each.link.version)
    return {
        peer: [f"{name} ({', '.join(f'IPv{each}' for each in sorted(versions))})" for name, versions in links.items()]
        for peer, links in places.items()
    }


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _loudly(whose: str, ahead_s: float) -> str:
    """By hours it is said in capitals: then a battery, or the time zone taken for the time, is the trouble."""
    seconds = abs(ahead_s)
    if seconds >= HOUR_S:
        amount = f"{seconds / HOUR_S:.0f} HOURS" if seconds >= 2 * HOUR_S else "AN HOUR"
    else:
        amount = f"{seconds / 60:.0f} minutes"
    return f"{whose} is {amount} {'ahead of' if ahead_s > 0 else 'behind'}"
