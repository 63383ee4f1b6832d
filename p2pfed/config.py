"""network.toml (equal everywhere, hashed into the network id) and node.toml (this device's own).

Frozen dataclasses; every field has a default where one makes sense; `config_file` reads and writes TOML.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field

NETWORK_FORMAT = 1
FIELD_CHARS_MAX = 256
"""A longer value goes into the network id, and over the wire, as its SHA-256."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The frozen base all nodes share."""

    base: str
    """Hub id, local folder, or a packaged model ("package:smollm2-135m", "package:glassllm-en")."""
    revision: str = ""
    quantisation: str = "none"
    """"none" or "nf4" (bitsandbytes, double quantisation)."""
    prompt: str = "p2pfed-absolute/1"
    """Template id: p2pfed-absolute/1, p2pfed-relative/1, p2pfed-compact/1, prometheus-eval/absolute or -/relative."""
    sequence_tokens_max: int = 1024
    base_sha256: str = ""
    """Digest of the weights, checked at start where given."""
    tokenizer_sha256: str = ""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """LoRA shape. A and B of every target are what travels."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    seed: int = 0
    """Of the initial factors, through the network id they are drawn from: equal start everywhere."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    learning_rate: float = 2e-4
    batch_rows: int = 2
    warmup_steps: int = 10
    weight_decay: float = 0.0
    gradient_norm_max: float = 1.0


@dataclass(frozen=True, slots=True)
class GossipConfig:
    steps_between_swaps: int = 4
    """Local steps a node makes for each swap it takes part in."""
    encoding: str = "int4"
    """"int4", "int8", "float16" or "float32": the finest form in which adapter values travel."""
    clip: float = 3.0
    """Longest neighbour's difference that is mixed whole, in own steps (`mixer`); 0: none is clipped. At one swap a
    round honest neighbours differ by 3.0 of them (median), 1.3 to 3.5 (5 to 95 %): docs/lab-notes.md."""
    momentum: str = "local"
    """"local", "quasi-global", or "gossip" (the optimizer's first moment travels along)."""
    weighting: str = "uniform"
    """"uniform", or "examples": the consensus weighs each node by its rows of data."""
    swap_interval_s: float = 10.0
    """Between two swaps of a node that is not training."""
    members: tuple[str, ...] = ()
    """Peer ids of a fixed membership, which then swaps by a seeded schedule; empty: anybody, at random."""


@dataclass(frozen=True, slots=True)
class AdmissionConfig:
    mode: str = "open"


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """One network. Two nodes work together only if `network_id` is equal."""

    name: str
    model: ModelConfig
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    gossip: GossipConfig = field(default_factory=GossipConfig)
    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    bootstrap: tuple[str, ...] = ()
    """Multiaddrs with /p2p/ of bootstrap peers, /dnsaddr/HOST, or files of these. Not part of the id: they may move."""
    format: int = NETWORK_FORMAT

    def values(self) -> dict[str, object]:
        """Dotted name -> value of everything that must be equal, by name."""
        values = asdict(self)
        del values["bootstrap"]
        return dict(sorted(_flatten("", values)))

    def fields(self) -> tuple[tuple[str, str], ...]:
        """Sorted (dotted name, canonical JSON value) of the same; of a long value its digest."""
        return tuple((name, _canonical(value)) for name, value in self.values().items())

    @property
    def network_id(self) -> str:
        """First 16 hex digits of SHA-256 over the canonical fields: part of every protocol id."""
        text = json.dumps(self.fields(), separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What may differ from device to device."""

    data: str = ""
    name: str = ""
    home: str = ""
    """State folder; default from platformdirs, by network and node name."""
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0")
    interfaces: tuple[str, ...] = ()
    """Whose addresses are told, and where mDNS runs; empty: all but container bridges."""
    bootstrap: tuple[str, ...] = ()
    mdns: bool = True
    portmap: bool = True
    """Ask the router for a port, where others cannot dial this device."""
    device: str = "auto"
    """"auto", "cpu", "cuda"."""
    threads: int = 1
    """torch threads; more than one only where this node has the cores to itself."""
    steps_max: int = 0
    """Stop training (not gossiping) after so many local steps; 0: never."""
    checkpoint_interval_s: float = 60.0
    """Between two checkpoints on disk: flash wears."""
    offline: bool = False
    """Never reach for a model hub."""
    gradient_checkpointing: bool = False
    neighbours_max: int = 8
    encoding: str = ""
    """The finest form this device wants on its links; of two wishes the coarser counts; empty: the network's."""
    swap_day_bytes: int = 0
    """Bytes of swaps a day, both ways, over all links; 0: as many as come."""
    link_day_bytes: int = 0
    """The same for each neighbour."""


def _flatten(prefix: str, value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flatten(f"{prefix}.{key}" if prefix else key, inner)]
    return [(prefix, value)]


def _canonical(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return text if len(text) <= FIELD_CHARS_MAX else "sha256:" + hashlib.sha256(text.encode()).hexdigest()
