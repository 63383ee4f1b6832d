"""Learners of a real small model for the simulator: one frozen base in memory, an adapter for each node.

A node's memory is its factors, moments and rows; the base is held once, however many nodes there are. That is safe
because a base is never written to: training changes factors alone. torch is loaded only when learners are made.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from p2pfed.config import NetworkConfig

if TYPE_CHECKING:
    from p2pfed.train.base_model import BaseModel
    from p2pfed.train.data import DataReport
    from p2pfed.train.learner import LoraLearner


def real_learners(network: NetworkConfig, shards: Sequence["DataReport"], *, cache: Path) -> list["LoraLearner"]:
    """One learner for each shard, on the CPU: as a node makes it, from the same rows, template and start.

    Raises LearnerError, as opening one learner does; nothing is fetched.
    """
    import torch

    from p2pfed.train.base_model import base_folder, load_base, load_config, load_tokenizer
    from p2pfed.train.examples import tokenise
    from p2pfed.train.learner import LoraLearner
    from p2pfed.train.prompts import load_template

    folder = base_folder(network.model, cache=cache, offline=True)
    tokens_max = min(network.model.sequence_tokens_max, load_config(folder).max_position_embeddings)
    template, tokenizer = load_template(network.model.prompt), load_tokenizer(folder)
    # Before the weights are loaded: data without a usable row is the commoner mistake.
    done = [tokenise(shard.rows, shard.lines, tokenizer, template, tokens_max) for shard in shards]
    base = load_base(network.model, folder, cache=cache, device=torch.device("cpu"), tokenizer=tokenizer)
    return [LoraLearner(network, share_base(base), each.examples) for each in done]


def share_base(base: "BaseModel") -> "BaseModel":
    """A base of its own modules, so that an adapter can be put into it, around the same weights and buffers."""
    tensors = [*base.model.parameters(), *base.model.buffers()]
    kept: dict[int, object] = {id(tensor): tensor for tensor in tensors}
    return replace(base, model=copy.deepcopy(base.model, kept))
