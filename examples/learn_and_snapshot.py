"""A bootstrap peer and two nodes with a real (very small) language model learn; the consensus is loaded with PEFT.

Needs `pip install 'p2pfed[node]' glassllm`. With another preset (smollm2-135m, prometheus-7b) nothing else changes.

    python examples/learn_and_snapshot.py [FOLDER]
"""

import json
import os
import sys
import tempfile
import threading
from pathlib import Path

from p2pfed import api

SENTENCES = {
    "lift": "The door was near the landing and the brake was good.",
    "greenhouse": "The vent was near the lamp and the soil was good.",
}
STEPS = 40
LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def write_data(folder: Path) -> None:
    for trade, sentence in SENTENCES.items():
        lines = [json.dumps({"text": sentence}) for _ in range(8)]
        (folder / f"{trade}.jsonl").write_text("\n".join(lines) + "\n")


def learn(network: api.NetworkConfig, folder: Path) -> api.Snapshot:
    """Everything runs in this process here; usually each node is a device of its own."""
    introducer = api.Bootstrap(network, api.NodeConfig(home=str(folder / "introducer"), listen=LOOPBACK, mdns=False))
    with introducer:
        nodes = [
            api.Node(
                network,
                api.NodeConfig(
                    name=trade,
                    data=str(folder / f"{trade}.jsonl"),
                    home=str(folder / trade),
                    listen=LOOPBACK,
                    bootstrap=introducer.addresses(),
                    mdns=False,
                    steps_max=STEPS,
                ),
            )
            for trade in SENTENCES
        ]
        try:
            for node in nodes:
                node.start()
            poll = threading.Event()
            while not all(node.status()["training_over"] and node.status()["swaps"]["finished"] >= 3 for node in nodes):
                poll.wait(0.2)
            return api.take_snapshot(network, introducer.addresses(), folder / "consensus", settle_s=2.0)
        finally:
            for node in nodes:
                node.stop()


def loss_of(network: api.NetworkConfig, adapter: Path | None) -> float:
    """Mean loss a token over both trades, with the adapter or without."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from p2pfed.train.packaged import cache_folder, packaged_folder

    base = packaged_folder(network.model.base, cache_folder(os.environ))
    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    tokenizer = AutoTokenizer.from_pretrained(base)
    losses = []
    for sentence in SENTENCES.values():
        ids = tokenizer(f"{tokenizer.bos_token}{sentence}", return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            losses.append(float(model(input_ids=ids, labels=ids).loss))
    return sum(losses) / len(losses)


def main(folder: Path) -> None:
    network = api.create_network("two-trades", "glassllm-en")
    write_data(folder)
    snapshot = learn(network, folder)
    print(f"{snapshot.folder}: mean of {len(snapshot.contributions)} nodes after {snapshot.steps} steps")
    print(f"loss over both trades: {loss_of(network, None):.2f} before, {loss_of(network, snapshot.folder):.2f} now")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
