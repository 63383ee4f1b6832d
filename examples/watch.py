"""Look at a node that runs on this device, from another program: its status, its peers, its event log.

python examples/watch.py STATE_FOLDER       (`p2pfed node status` prints it as "home")
"""

import sys
from collections import Counter
from pathlib import Path

from p2pfed import api


def main(home: Path) -> None:
    try:
        status = api.status_of(home)
    except api.P2pfedError as error:
        print(error)
    else:
        print(f"{status['name']}: {status['doing']}, {status['swaps']['finished']} swaps, loss {status['loss']}")
        for peer in api.peers_of(home):
            print(f"  knows {peer['name'] or peer['peer']}, {'linked' if peer['linked'] else 'not linked'}")
    # The event log stays when the node is gone. One line of JSON an event: {"time_s": ..., "kind": ..., ...}
    events = list(api.events_of(home))
    print("events:", ", ".join(f"{count} {kind}" for kind, count in Counter(each.kind for each in events).items()))
    losses = [each.fields["loss"] for each in events if each.kind == "trained"]
    if losses:
        print(f"loss: first {losses[0]:.3f}, last {losses[-1]:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
