"""An adapter payload as a folder that `PeftModel.from_pretrained(base, folder)` loads unchanged.

The wire form is a safetensors file with PEFT's names, so the payload is written as it came; only
adapter_config.json is made. The folder appears whole or not at all.
"""

import shutil
import tempfile
from pathlib import Path

from p2pfed.config import NetworkConfig
from p2pfed.errors import ExitCode, LocalError
from p2pfed.train.adapter import lora_config


def write_peft_folder(folder: Path, network: NetworkConfig, payload: bytes) -> None:
    """`payload` has been admitted. Raises LocalError where the folder exists or can not be written."""
    config = lora_config(network)
    config.base_model_name_or_path = network.model.base
    config.revision = network.model.revision or None
    config.inference_mode = True
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        config.save_pretrained(temporary)
        (temporary / "adapter_model.safetensors").write_bytes(payload)
        if folder.exists():
            raise LocalError(f"{folder} exists already; name another folder or remove it", ExitCode.DISK)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except OSError as error:
        raise LocalError(f"{folder} can not be written: {error.strerror or error}", ExitCode.DISK) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
