"""Peak memory of this process: what a file may take.

`getrusage` never says less than an earlier peak, or than the process had that began this one: it
hides what comes later.
"""

import re
from pathlib import Path


def reset_peak() -> int:
    """Forgets earlier peaks; MiB in use now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mebibytes()


def peak_mebibytes() -> int:
    """Most MiB in use since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024
