"""The libp2p host that p2pfed runs: TCP, Noise that asks who may come in, Yamux; its limits."""

from collections.abc import Callable

from p2pfed.net import hardening  # before libp2p: it leaves out parts of it

# isort: split
from libp2p import new_host
from libp2p.abc import IRawConnection, ISecureConn
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as new_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux

from p2pfed.net.identity import Identity
from p2pfed.ports import PeerId

UPGRADE_S = 10.0
"""For a stranger's half of the handshake; a silent socket is dropped after it."""
LIMITS = hardening.Limits(
    connections_max=128,  # a node has 8 neighbours, a bootstrap peer serves short visits
    connections_per_peer_max=4,  # both sides dialling at once make two; more is a mistake or a flood
    handshakes_max=128,  # each lasts UPGRADE_S at most
    streams_max=512,
    streams_per_peer_max=32,  # a gossip link, a hello, a few swaps, and of a relay the circuits it carries
)


def make_host(identity: Identity, allowed: Callable[[PeerId], bool], limits: hardening.Limits) -> BasicHost:
    private = Ed25519PrivateKey.new(identity.seed)
    key_pair = KeyPair(private, private.get_public_key())
    host = new_host(
        key_pair=key_pair,
        sec_opt={TProtocol(NOISE): _GatedNoise(key_pair, allowed)},
        muxer_opt={TProtocol(YAMUX): Yamux},
        disable_identify_address_discovery=True,
        connection_config=ConnectionConfig(
            max_connections=limits.connections_max,
            min_connections=0,
            low_watermark=0,
            high_watermark=limits.connections_max,
            inbound_upgrade_timeout=UPGRADE_S,
        ),
    )
    assert isinstance(host, BasicHost)
    hardening.harden(host, limits)
    return host


class _GatedNoise(NoiseTransport):
    """Noise that refuses a peer who is not admitted, before a multiplexer exists."""

    def __init__(self, key_pair: KeyPair, allowed: Callable[[PeerId], bool]) -> None:
        super().__init__(key_pair, noise_privkey=new_noise_key_pair().private_key)
        self._allowed = allowed

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        return await self._admit(await super().secure_inbound(conn))

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        """`peer_id` may be None: whoever answers."""
        return await self._admit(await super().secure_outbound(conn, peer_id))

    async def _admit(self, secured: ISecureConn) -> ISecureConn:
        peer = str(secured.get_remote_peer())
        if not self._allowed(PeerId(peer)):
            await secured.close()
            raise HandshakeFailure(f"peer {peer} is not admitted")
        return secured
