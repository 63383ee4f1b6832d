"""The doctor's questions about a network, in a process of its own: one JSON line a finding, the last says how long."""

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from p2pfed.config import NodeConfig
from p2pfed.config_file import load_network
from p2pfed.doctor.peers import check_network

if __name__ == "__main__":
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(sys.argv[2]).items()}
    config = replace(NodeConfig(), **given)
    begun = time.monotonic()
    for finding in check_network(load_network(sys.argv[1]), config, Path(config.home)):
        print(json.dumps(asdict(finding)))
    print(json.dumps({"level": "ok", "subject": "took", "message": str(time.monotonic() - begun), "remedy": ""}))
