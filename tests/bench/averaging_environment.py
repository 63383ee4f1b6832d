"""The environment that hivemind runs in: made once in the user's cache folder, never p2pfed's own.

Needs pip's index, 1.4 GB of disk, and on Linux some GB more, as pip's own torch brings CUDA along: with
PIP_EXTRA_INDEX_URL set to the index of PyTorch's CPU wheels, pip takes the same version without.
hivemind names no upper bounds, and these versions were tried together: numpy 2.4 breaks its 8-bit codecs.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import platformdirs

REQUIREMENTS = (
    "hivemind==1.1.12",
    "torch==2.13.0",
    "bitsandbytes==0.50.2",
    "base58==2.1.1",
    "blake3==1.0.11",
    "cffi==2.1.1",
    "ConfigArgParse==1.9.0",
    "cryptography==50.0.2",
    "grpcio==1.85.1",
    "grpcio-tools==1.85.1",
    "mmh3==5.3.1",
    "msgpack==1.2.4",
    "netaddr==1.3.0",
    "numpy==2.3.5",
    "prefetch_generator==1.0.3",
    "protobuf==7.36.2",
    "py-cid==0.5.0",
    "py-multibase==2.0.0",
    "py-multicodec==1.0.0",
    "py-multihash==3.0.0",
    "pydantic==2.14.3",
    "PyYAML==6.0.3",
    "scipy==1.17.1",
    "sortedcontainers==2.4.0",
    "uvloop==0.23.0",
    "varint==1.0.2",
)
"""hivemind's own requirements, pinned; what torch brings besides is free."""
INSTALL_S = 1800.0
SAID_CHARS = 400
"""Of what pip said when it failed."""


def hivemind_python() -> tuple[Path | None, str]:
    """The interpreter of the environment, made where it is missing; or None, and why."""
    mark = hashlib.sha256("\n".join((sys.version, *REQUIREMENTS)).encode()).hexdigest()[:12]
    folder = platformdirs.user_cache_path("p2pfed") / f"bench-hivemind-{mark}"
    python = folder / "bin" / "python"
    done = folder / "installed"
    if done.exists():
        return python, ""
    print(f"installing {REQUIREMENTS[0]} in {folder}, once", file=sys.stderr, flush=True)
    try:
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS])
        _run([str(python), "-c", "import hivemind.averaging"])
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        return None, f"hivemind could not be installed: {error}"
    done.touch()
    return python, ""


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_S, env=_environment())
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:4])}: {done.stderr.strip()[-SAID_CHARS:]}")


def _environment() -> dict[str, str]:
    """Without PYTHONPATH: the bench's own packages are none of hivemind's."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
