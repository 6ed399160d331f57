"""Whether other programs need the CPUs."""

from __future__ import annotations

import threading

CROWDED = threading.Event()
"""Set while they do (see `runtime.sharing`): a phase is then computed by one thread, which waits for nobody."""
