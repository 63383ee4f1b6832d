"""What dial-back answers mean: how others reach this device, and one sentence a person can act on. Pure."""

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from p2pfed.net.address import Address, parse_address
from p2pfed.net.dialback import Answer


class Verdict(StrEnum):
    UNKNOWN = "unknown"
    """Nobody has answered yet, or nobody outside was asked."""
    DIRECT = "direct"
    """Others dial an address that one of this device's own interfaces has."""
    MAPPED = "mapped"
    """Behind a NAT that passes on what is dialled at its own address."""
    RELAY_ONLY = "relay-only"
    UNREACHABLE = "unreachable"
    """Others cannot dial it, and no relay stands in: it has the links it dials itself."""


class Nat(StrEnum):
    UNKNOWN = "unknown"
    NONE = "none"
    """Others see an address of this device's own."""
    ONE_PORT = "one port for all"
    """Endpoint independent: holes can be punched."""
    SYMMETRIC = "another port for each"
    """Nobody can say which port the next peer will see."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a round of answers shows. Addresses without /p2p/."""

    answers: int = 0
    reached: tuple[str, ...] = ()
    """Addresses that most of those who tried them reached: worth telling others."""
    failed: tuple[str, ...] = ()
    """Addresses that were tried and not reached."""
    seen: tuple[str, ...] = ()
    """Where others see dials from the listening port come from; the way to punch a hole."""
    nat: Nat = Nat.UNKNOWN
    external: Address | None = None
    """The address others see, where they agree; the port is the listening one's, if any was seen."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The verdict with what explains it."""

    verdict: Verdict = Verdict.UNKNOWN
    nat: Nat = Nat.UNKNOWN
    external: str | None = None
    """Host (and port, where others can dial it) at which others see this device."""
    relays: tuple[str, ...] = ()
    """Hosts of the relays that hold a reservation."""
    mapped_by: str | None = None
    """UPnP or NAT-PMP, where the router passes the port on because it was asked to."""
    port: int = 0
    """That this device listens on."""

    @property
    def sentence(self) -> str:
        host = parse_address(self.external).host if self.external else "an unknown address"
        relays = f"relayed through {' and '.join(self.relays)}" if self.relays else "no relay stands in yet"
        match self.verdict:
            case Verdict.UNKNOWN:
                return "not known: nobody outside was asked"
            case Verdict.DIRECT:
                return f"direct: others dial this device at {_place(self.external)}"
            case Verdict.MAPPED:
                how = f" ({self.mapped_by} asked the router for it)" if self.mapped_by else ""
                return f"behind a NAT at {host}, which passes on what others dial at {_place(self.external)}{how}"
        if self.nat is Nat.NONE:
            return f"a firewall keeps out what others dial at {host}: {relays}; to be direct, let TCP {self.port} in"
        kind = " that gives each peer another port" if self.nat is Nat.SYMMETRIC else ""
        return (
            f"behind a NAT at {host}{kind}: {relays}; to be direct, forward TCP {self.port} to this device "
            "or allow UPnP on the router"
        )


def find(answers: Sequence[Answer], own_hosts: frozenset[str]) -> Observation:
    """Answers from the internet count, where there are any; those of one's own segment only where there are not."""
    outside = [answer for answer in answers if ipaddress.ip_address(answer.observed.host).is_global]
    counted = outside or list(answers)
    if not counted:
        return Observation()
    votes = Counter(address for answer in counted for address in answer.reached)
    against = Counter(address for answer in counted for address, _ in answer.failed)
    from_port = list(dict.fromkeys(answer.observed for answer in counted if answer.from_listening_port))
    [(host, _)] = Counter((answer.observed.kind, answer.observed.host) for answer in counted).most_common(1)
    port = next((seen.port for seen in from_port if (seen.kind, seen.host) == host), 0)
    return Observation(
        answers=len(counted),
        reached=tuple(address for address, yes in votes.items() if yes > against[address]),
        failed=tuple(address for address, no in against.items() if no >= votes[address]),
        seen=tuple(str(seen) for seen in from_port),
        nat=_nat(counted, own_hosts),
        external=Address(*host, port),
    )


def _nat(answers: Sequence[Answer], own_hosts: frozenset[str]) -> Nat:
    if all(answer.observed.host in own_hosts for answer in answers):
        return Nat.NONE
    kinds = set()
    for kind in ("ip4", "ip6"):
        seen = [answer.observed for answer in answers if answer.from_listening_port and answer.observed.kind == kind]
        if len(seen) > 1:
            kinds.add(Nat.ONE_PORT if len(set(seen)) == 1 else Nat.SYMMETRIC)
    if Nat.SYMMETRIC in kinds:
        return Nat.SYMMETRIC
    if not kinds and any(answer.from_listening_port and str(answer.observed) in answer.reached for answer in answers):
        return Nat.ONE_PORT  # a fresh connection came in by the port that one of our own went out by
    return Nat.ONE_PORT if kinds else Nat.UNKNOWN


def _place(address: str | None) -> str:
    if address is None:
        return "an unknown address"
    parsed = parse_address(address)
    return f"{parsed.host} port {parsed.port}"
