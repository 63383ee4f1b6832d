"""Networks one can start from by a word: a model with settings that suit it."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from p2pfed.config import AdapterConfig, GossipConfig, ModelConfig, NetworkConfig, TrainingConfig
from p2pfed.config_file import dump_network, parse_network
from p2pfed.errors import ConfigError

_JUDGE_TRAINING = TrainingConfig(learning_rate=1e-4, batch_rows=1, warmup_steps=20)
"""Learning rate of Prometheus 2's own LoRA experts."""
_GOSSIP = GossipConfig(momentum="quasi-global")
"""Momentum that learns more for no bytes (docs/benchmarks.md). A bare GossipConfig has the one any learner can do."""
_JUDGE_GOSSIP = replace(_GOSSIP, swap_interval_s=30.0)
"""6.8 million values: 3.6 MB each way a swap in int4, 15 s at 2 Mbit/s."""


def _judge(base: str) -> NetworkConfig:
    return NetworkConfig(
        name="preset",
        # A prompt with a reference answer takes 1,000 to 1,200 tokens, long ones 2,800.
        model=ModelConfig(base, quantisation="nf4", prompt="prometheus-eval/absolute", sequence_tokens_max=2048),
        adapter=AdapterConfig(rank=16, alpha=32.0, targets=("q_proj", "v_proj")),
        training=_JUDGE_TRAINING,
        gossip=_JUDGE_GOSSIP,
    )


PRESETS: Mapping[str, NetworkConfig] = MappingProxyType(
    {
        "prometheus-7b": _judge("prometheus-eval/prometheus-7b-v2.0"),
        "prometheus-7b-v1": _judge("prometheus-eval/prometheus-7b-v1.0"),
        "smollm2-135m": NetworkConfig(
            name="preset",
            model=ModelConfig("package:smollm2-135m", prompt="p2pfed-compact/1", sequence_tokens_max=384),
            training=TrainingConfig(learning_rate=2e-3, batch_rows=2, warmup_steps=5),
            gossip=replace(_GOSSIP, swap_interval_s=5.0),
        ),
        "glassllm-en": NetworkConfig(
            name="preset",
            # That model has 128 positions.
            model=ModelConfig("package:glassllm-en", prompt="p2pfed-compact/1", sequence_tokens_max=128),
            adapter=AdapterConfig(rank=8, alpha=16.0),
            training=TrainingConfig(learning_rate=1e-2, batch_rows=4, warmup_steps=5),
            gossip=replace(_GOSSIP, swap_interval_s=1.0),
        ),
    }
)


def network_of_preset(name: str, model: str) -> NetworkConfig:
    """A network called `name` on a preset, a hub id ("owner/name") or a local folder.

    Raises ConfigError where `model` is none of them. `name` is not checked: whoever loads the file does.
    """
    if model in PRESETS:
        return replace(PRESETS[model], name=name)
    if "/" in model or model.startswith("."):
        return NetworkConfig(name=name, model=ModelConfig(model), gossip=_GOSSIP)
    near = difflib.get_close_matches(model, PRESETS, 1)
    hint = f', the nearest preset is "{near[0]}"' if near else ""
    raise ConfigError(f'model "{model}" is not a preset ({", ".join(PRESETS)}), hub id or local folder{hint}')


def create_network(
    name: str,
    model: str,
    *,
    bootstrap: Sequence[str] = (),
    rank: int | None = None,
    alpha: float | None = None,
    seed: int | None = None,
    prompt: str | None = None,
    steps_between_swaps: int | None = None,
    encoding: str | None = None,
    momentum: str | None = None,
) -> NetworkConfig:
    """A network on a preset (`presets.PRESETS`), a hub id or a local folder. Raises ConfigError.

    For anything more, `dataclasses.replace` the result; `config_file.dump_network` gives the text of its file.
    """
    network = network_of_preset(name, model)
    adapter, gossip, base = network.adapter, network.gossip, network.model
    if rank is not None:
        # The usual convention, alpha = 2 r, unless told otherwise: the adapter acts with alpha / rank.
        adapter = replace(adapter, rank=rank, alpha=adapter.alpha / adapter.rank * rank)
    if alpha is not None:
        adapter = replace(adapter, alpha=alpha)
    if seed is not None:
        adapter = replace(adapter, seed=seed)
    if prompt is not None:
        base = replace(base, prompt=prompt)
    if steps_between_swaps is not None:
        gossip = replace(gossip, steps_between_swaps=steps_between_swaps)
    if encoding is not None:
        gossip = replace(gossip, encoding=encoding)
    if momentum is not None:
        gossip = replace(gossip, momentum=momentum)
    network = replace(network, adapter=adapter, gossip=gossip, model=base, bootstrap=tuple(bootstrap))
    return parse_network(dump_network(network), "the new network")
