"""How much memory this process has held."""

import re
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_bytes() -> int:
    """Return the most resident memory that this program has held so far.

    Linux's ``getrusage`` would say how much whoever started the process had held, where
    that was more: its figure outlives ``exec``, that of ``/proc`` does not.

    Source: proc_pid_status(5), ``VmHWM``; getrusage(2), ``ru_maxrss``.
    """
    try:
        found = PEAK.search(STATUS.read_text("utf-8"))
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
