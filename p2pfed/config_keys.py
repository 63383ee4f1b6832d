"""Every key of network.toml and node.toml: what it is for (written into generated files) and what it may be.

A rule takes a value of the right type and gives None, or what the value should have been. The types
themselves are those of the dataclasses in `config`.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from p2pfed.config import NETWORK_FORMAT
from p2pfed.ports import Encoding

Rule = Callable[[Any], str | None]

PROMPTS = (
    "p2pfed-absolute/1",
    "p2pfed-relative/1",
    "p2pfed-compact/1",
    "prometheus-eval/absolute",
    "prometheus-eval/relative",
)
PACKAGED_MODELS = ("package:smollm2-135m", "package:glassllm-en")
QUANTISATIONS = ("none", "nf4")
ENCODINGS = tuple(encoding.value for encoding in Encoding)
MOMENTA = ("local", "quasi-global", "gossip")
WEIGHTINGS = ("uniform", "examples")
CLIP_MIN = 1.5
"""Own steps. Honest neighbours differ by 1.5 to 3.5 of them: a tighter clip cuts all, and consensus is lost."""
CLIP_MAX = 100.0
MEMBERS_MAX = 64
"""Each meets each other within an hour at a swap a minute; a larger network does not know all its members."""
ADMISSION_MODES = ("open",)
DEVICES = ("auto", "cpu", "cuda")
ADDRESS_STARTS = ("ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr")
UNLIKELY_FILE = re.compile(r"/(ip|dns|tcp|udp|p2p)|.*:\d+$|.*\s")
"""More likely a multiaddr or an address that somebody mistyped."""
NAME_CHARS_MAX = 64
"""A name becomes part of a folder's name."""
ADDRESS_CHARS_MAX = 256
"""Of one multiaddr (core.messages.ADDRESS_CHARS_MAX)."""
BASE_CHARS_MAX = 200
TEXT_CHARS_MAX = 4096
"""Longest path a file system takes."""
ADDRESSES_MAX = 64
INTERFACES_MAX = 16
"""Of 15 characters each, which is Linux's own bound (IFNAMSIZ)."""
TARGETS_MAX = 16
INTEGER_MAX = 2**63 - 1
COUNT_MAX = 10**9


@dataclass(frozen=True, slots=True)
class Key:
    comment: str
    rule: Rule


def one_of(*allowed: str) -> Rule:
    return lambda value: None if value in allowed else "one of " + ", ".join(f'"{each}"' for each in allowed)


def within(minimum: float, maximum: float) -> Rule:
    def rule(value: float) -> str | None:
        return None if math.isfinite(value) and minimum <= value <= maximum else f"within {minimum:g} to {maximum:g}"

    return rule


def above(minimum: float, maximum: float) -> Rule:
    def rule(value: float) -> str | None:
        inside = math.isfinite(value) and minimum < value <= maximum
        return None if inside else f"above {minimum:g} and at most {maximum:g}"

    return rule


def integer(minimum: int, maximum: int) -> Rule:
    return lambda value: None if minimum <= value <= maximum else f"within {minimum} to {maximum}"


def text(maximum: int, minimum: int = 0) -> Rule:
    def rule(value: str) -> str | None:
        fits = minimum <= len(value) <= maximum and value.isprintable()
        return None if fits else f"{minimum} to {maximum} printable characters"

    return rule


def name(empty: bool) -> Rule:
    pattern = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_CHARS_MAX - 1}}}")

    def rule(value: str) -> str | None:
        if (empty and not value) or pattern.fullmatch(value):
            return None
        return f"1 to {NAME_CHARS_MAX} letters, digits, '.', '_' or '-', the first a letter or a digit"

    return rule


def base(value: str) -> str | None:
    if value.startswith("package:"):
        return one_of(*PACKAGED_MODELS)(value)
    return text(BASE_CHARS_MAX, 1)(value)


def sha256(value: str) -> str | None:
    return None if not value or re.fullmatch(r"[0-9a-f]{64}", value) else "64 lower-case hex digits, or empty"


def targets(value: tuple[str, ...]) -> str | None:
    right = all(re.fullmatch(r"[A-Za-z0-9_.]{1,64}", each) for each in value)
    if right and 1 <= len(value) <= TARGETS_MAX and len(set(value)) == len(value):
        return None
    return f"1 to {TARGETS_MAX} different module names such as q_proj"


def multiaddrs(value: tuple[str, ...]) -> str | None:
    right = all(
        len(each) <= ADDRESS_CHARS_MAX and each.isascii() and each.isprintable() and " " not in each for each in value
    )
    starts = all(each.startswith("/") and each.split("/")[1] in ADDRESS_STARTS for each in value)
    if right and starts and len(value) <= ADDRESSES_MAX:
        return None
    return f"at most {ADDRESSES_MAX} multiaddrs that start with /" + ", /".join(ADDRESS_STARTS)


def interfaces(value: tuple[str, ...]) -> str | None:
    right = all(re.fullmatch(r"[^\s/%]{1,15}", each) for each in value)
    if right and len(value) <= INTERFACES_MAX and len(set(value)) == len(value):
        return None
    return f"at most {INTERFACES_MAX} different interface names such as eth0, as `ip address` shows them"


def seeds(value: tuple[str, ...]) -> str | None:
    """Multiaddrs, and files that list more of them."""
    files = tuple(each for each in value if not each.startswith("/") or each.split("/")[1] not in ADDRESS_STARTS)
    likely = all(text(TEXT_CHARS_MAX, 1)(each) is None and not UNLIKELY_FILE.match(each) for each in files)
    wanted = multiaddrs(tuple(each for each in value if each not in files))
    if likely and wanted is None and len(value) <= ADDRESSES_MAX:
        return None
    return (wanted or multiaddrs(("",)) or "") + ", or names of files with one of these a line"


def clip(value: float) -> str | None:
    fits = value == 0.0 or (math.isfinite(value) and CLIP_MIN <= value <= CLIP_MAX)
    return None if fits else f"0 (none is clipped), or within {CLIP_MIN:g} to {CLIP_MAX:g}"


def members(value: tuple[str, ...]) -> str | None:
    right = all(re.fullmatch(r"[1-9A-HJ-NP-Za-km-z]{32,64}", each) for each in value)
    if right and len(value) <= MEMBERS_MAX and len(set(value)) == len(value):
        return None
    return f"at most {MEMBERS_MAX} different peer ids such as 12D3KooW..., as `p2pfed identity show` prints them"


def anything(_value: object) -> str | None:
    return None


def network_format(value: int) -> str | None:
    return None if value == NETWORK_FORMAT else f"{NETWORK_FORMAT}; a later p2pfed wrote this file, upgrade this one"


NETWORK_KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "name": Key("What people call this network; part of its id.", name(empty=False)),
        "bootstrap": Key(
            "Peers that newcomers try first: multiaddrs with /p2p/ID, /dnsaddr/HOST, or a file with one a line. "
            "Not part of the id: they may move.",
            seeds,
        ),
        "format": Key("Version of this file's form.", network_format),
        "model.base": Key(
            'Hub id ("owner/name"), local folder, or a packaged model ("package:smollm2-135m").',
            base,
        ),
        "model.revision": Key("Commit or tag on the hub; empty: its main branch.", text(BASE_CHARS_MAX)),
        "model.quantisation": Key(
            'How the frozen weights are held: "none", or "nf4" (4 bits, bitsandbytes).', one_of(*QUANTISATIONS)
        ),
        "model.prompt": Key("Template of the training text: " + ", ".join(PROMPTS) + ".", one_of(*PROMPTS)),
        "model.sequence_tokens_max": Key(
            "Longest example in tokens, prompt and completion; longer ones are left out.", integer(16, 131072)
        ),
        "model.base_sha256": Key("Digest of the weights, checked at start; empty: not checked.", sha256),
        "model.tokenizer_sha256": Key("Digest of the tokenizer, checked at start; empty: not checked.", sha256),
        "adapter.rank": Key("LoRA rank r. Bytes a swap moves grow with it.", integer(1, 1024)),
        "adapter.alpha": Key("LoRA scaling: the adapter acts with alpha / rank.", above(0, 65536)),
        "adapter.targets": Key("Linear layers that get an adapter, by the end of their name.", targets),
        "adapter.seed": Key(
            "Draws the initial factors, equal on every node, as part of the network id.", integer(0, INTEGER_MAX)
        ),
        "training.learning_rate": Key("AdamW's, after the warm-up.", above(0, 1)),
        "training.batch_rows": Key("Examples in one local step.", integer(1, 4096)),
        "training.warmup_steps": Key(
            "Local steps over which the learning rate rises from zero.", integer(0, COUNT_MAX)
        ),
        "training.weight_decay": Key("AdamW's.", within(0, 1)),
        "training.gradient_norm_max": Key("Gradients longer than this are scaled down to it.", above(0, 1e6)),
        "gossip.steps_between_swaps": Key(
            "Local steps a node makes for each swap it takes part in: fewer mean closer nodes and more bytes.",
            integer(1, COUNT_MAX),
        ),
        "gossip.encoding": Key(
            'The finest form in which adapter values travel: "int4" (4.25 bits each), "int8", "float16" or "float32".',
            one_of(*ENCODINGS),
        ),
        "gossip.clip": Key(
            "Longest neighbour's difference that is mixed whole, in own steps between two swaps; 0: none is clipped.",
            clip,
        ),
        "gossip.momentum": Key(
            'AdamW\'s first moment: "local", "quasi-global" (steered by what the mixes moved, no bytes), or "gossip" '
            "(averaged too, twice the bytes).",
            one_of(*MOMENTA),
        ),
        "gossip.weighting": Key(
            'The consensus: "uniform", the mean of all nodes, or "examples", weighed by each node\'s rows of data.',
            one_of(*WEIGHTINGS),
        ),
        "gossip.swap_interval_s": Key("Seconds between two swaps of a node that is not training.", above(0, 86400)),
        "gossip.members": Key(
            "Peer ids of a fixed membership, which swaps by a seeded schedule; empty: anybody, at random.", members
        ),
        "admission.mode": Key('Who may join: "open", everybody with this file.', one_of(*ADMISSION_MODES)),
    }
)

NODE_KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "data": Key("Training data: a JSONL, CSV or Parquet file, a folder, or a hub data set.", text(TEXT_CHARS_MAX)),
        "name": Key("What other peers see; empty: the host's name.", name(empty=True)),
        "home": Key("State folder; empty: the platform's place for application data.", text(TEXT_CHARS_MAX)),
        "listen": Key("Multiaddrs to listen on; port 0: any free one, the same for all.", multiaddrs),
        "interfaces": Key(
            "Network interfaces whose addresses are told and where mDNS runs; empty: all but container bridges.",
            interfaces,
        ),
        "bootstrap": Key(
            "More peers to try first, besides those of the network file: multiaddrs with /p2p/ID, /dnsaddr/HOST, or a "
            "file with one a line.",
            seeds,
        ),
        "mdns": Key("Look for peers on the local network, and be found there.", anything),
        "portmap": Key("Ask the router (UPnP, NAT-PMP) to let peers in, where they cannot dial this device.", anything),
        "device": Key('Where to train: "auto", "cpu" or "cuda".', one_of(*DEVICES)),
        "threads": Key("torch threads; more than one only where this node has the cores to itself.", integer(1, 1024)),
        "steps_max": Key("Stop training, not gossiping, after so many local steps; 0: never.", integer(0, COUNT_MAX)),
        "checkpoint_interval_s": Key(
            "Seconds between two checkpoints on disk: each one wears flash.", above(0, 7 * 86400)
        ),
        "offline": Key("Never reach for a model hub; use what is cached.", anything),
        "gradient_checkpointing": Key("Less memory for activations, more time a step.", anything),
        "neighbours_max": Key("Peers to hold a link with at once.", integer(1, 64)),
        "encoding": Key(
            'The finest form this device wants on its links, such as "int4"; the coarser of two wishes counts; '
            "empty: the network's.",
            one_of("", *ENCODINGS),
        ),
        "swap_day_bytes": Key(
            "Bytes of swaps a day, both ways, over all links; 0: as many as come.", integer(0, INTEGER_MAX)
        ),
        "link_day_bytes": Key(
            "Bytes of swaps a day, both ways, with one neighbour; 0: as many as come.", integer(0, INTEGER_MAX)
        ),
    }
)
