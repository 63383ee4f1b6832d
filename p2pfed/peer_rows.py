"""What `p2pfed node peers` shows of each known peer: plain values."""

from collections.abc import Mapping

from p2pfed.core.events import LinkId
from p2pfed.core.messages import Role
from p2pfed.core.peer import PeerState
from p2pfed.core.view import PeerEntry
from p2pfed.net.session import Session
from p2pfed.ports import PeerId


def peer_rows(
    state: PeerState, sessions: Mapping[LinkId, Session], swapped_at: Mapping[PeerId, float], now: float
) -> list[dict[str, object]]:
    """Linked ones first. `swapped_at`: when the last swap with a peer was finished."""
    entries = sorted(state.membership.view.entries(), key=lambda entry: entry.link is None)
    return [
        _row(
            state,
            entry,
            sessions.get(entry.link) if entry.link is not None else None,
            swapped_at.get(entry.peer),
            now,
        )
        for entry in entries
    ]


def _row(
    state: PeerState, entry: PeerEntry, session: Session | None, swapped_at: float | None, now: float
) -> dict[str, object]:
    return {
        "peer": entry.peer,
        "name": entry.name,
        "role": entry.role.value if entry.role is not None else None,
        "linked": entry.link is not None,
        "encoding": _encoding(state, entry),
        "address": session.link.address if session is not None else next(iter(entry.addresses), None),
        "found_by": entry.found_by.value,
        "path": path_of(session.link.address) if session is not None else None,
        "suspected": entry.misses > 0,
        "rtt_s": round(entry.rtt_s, 4) if entry.rtt_s is not None else None,
        "heard_s_ago": round(now - entry.heard_at, 1) if entry.linked_at is not None else None,
        "swapped_s_ago": round(now - swapped_at, 1) if swapped_at is not None else None,
        "bytes_sent": session.bytes_sent if session is not None else 0,
        "bytes_received": session.bytes_received if session is not None else 0,
        "refusal": entry.refusal,
        "last_failure": entry.last_failure,
    }


def _encoding(state: PeerState, entry: PeerEntry) -> str | None:
    """None where nothing is swapped: no link, or one of the two is no node."""
    if entry.link is None or state.own.role is not Role.NODE or entry.role is not Role.NODE:
        return None
    return state.link_encoding(entry.peer).value


def path_of(address: str) -> str:
    """`direct`, or through which relay: the multiaddr up to the circuit."""
    relay, circuit, _ = address.partition("/p2p-circuit")
    return f"relayed through {relay}" if circuit else "direct"
