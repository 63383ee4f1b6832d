"""A child for tests: writes its pid to a file and lives on, deaf to SIGTERM where asked to."""

import os
import signal
import sys
import threading
from pathlib import Path

if sys.argv[2:] == ["deaf"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(sys.argv[1]).write_text(str(os.getpid()), encoding="ascii")
print("alive")
threading.Event().wait()
