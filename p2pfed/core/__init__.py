"""The protocol as pure state machines: no clock, no sockets, no torch, no global randomness.

`PeerState.handle(event, now) -> effects`. Standard library only; `now` and `rng` are parameters.
Two interpreters carry the effects out: `p2pfed.net.driver` and `p2pfed.sim`.
"""
