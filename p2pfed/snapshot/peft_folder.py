"""A snapshot on disk: a folder `PeftModel.from_pretrained` loads, and a manifest that says what is in it.

Needs no torch and no peft: the wire form of an adapter is a .safetensors file with PEFT's own names, and
adapter_config.json is ten lines. Written beside its place and renamed: it is there whole, or not at all.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from p2pfed.config import NetworkConfig
from p2pfed.core.collection import Contribution
from p2pfed.errors import ExitCode, LocalError
from p2pfed.snapshot.collect import Collection

MANIFEST_FORMAT = 1
ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
MANIFEST_FILE = "p2pfed.json"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was written: where, of whom, and how far the nodes were from their mean (L2)."""

    folder: Path
    contributions: tuple[Contribution, ...]
    failures: tuple[tuple[str, str], ...]
    """(peer, why it could not be read)"""
    consensus_distance: float
    sha256: str
    """Of adapter_model.safetensors."""

    @property
    def steps(self) -> int:
        """Local steps of all nodes together."""
        return sum(each.version.steps for each in self.contributions)

    @property
    def examples(self) -> int:
        return sum(each.version.examples for each in self.contributions)


def write_peft_folder(network: NetworkConfig, collection: Collection, folder: Path) -> Snapshot:
    """Raises LocalError (disk) where the folder exists or cannot be written."""
    if folder.exists():
        raise LocalError(f"{folder} exists; choose another folder for the snapshot", ExitCode.DISK)
    digest = hashlib.sha256(collection.payload).hexdigest()
    snapshot = Snapshot(
        folder,
        collection.contributions,
        tuple((str(peer), reason) for peer, reason in collection.failures.items()),
        collection.consensus_distance,
        digest,
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            (fresh / ADAPTER_FILE).write_bytes(collection.payload)
            (fresh / CONFIG_FILE).write_text(_json(peft_config(network)), encoding="utf-8")
            (fresh / MANIFEST_FILE).write_text(_json(manifest(network, snapshot)), encoding="utf-8")
            fresh.chmod(0o755)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise LocalError(
            f"snapshot folder {folder} cannot be written: {error.strerror or error}", ExitCode.DISK
        ) from error
    return snapshot


def peft_config(network: NetworkConfig) -> dict[str, object]:
    """adapter_config.json. A packaged base has no name others know: its folder is given at loading."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": network.model.base,
        "revision": network.model.revision or None,
        "r": network.adapter.rank,
        "lora_alpha": network.adapter.alpha,
        "target_modules": sorted(network.adapter.targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def manifest(network: NetworkConfig, snapshot: Snapshot) -> dict[str, object]:
    """p2pfed.json: of which network, from whom, with what weight."""
    return {
        "format": MANIFEST_FORMAT,
        "network": network.name,
        "network_id": network.network_id,
        "fields": network.values(),
        "adapter_sha256": snapshot.sha256,
        "consensus_distance": snapshot.consensus_distance,
        "contributions": [
            {
                "peer": each.peer,
                "name": each.name,
                "steps": each.version.steps,
                "examples": each.version.examples,
                "version": each.version.digest.hex(),
                "weight": each.weight,
            }
            for each in snapshot.contributions
        ],
        "failures": dict(snapshot.failures),
    }


def _json(value: dict[str, object]) -> str:
    return json.dumps(value, indent=2) + "\n"
