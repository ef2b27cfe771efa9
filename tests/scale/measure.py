"""What the kernel says of a process: memory, threads, descriptors, processor time."""

import os
import time
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def memory(pid):
    """Give the resident memory now and at its peak, in MiB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))


def threads(pid):
    """Count the threads."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid):
    """Count the open descriptors."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def processor(pid):
    """Give the processor time so far in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def timed(what):
    """Print how long something took; nothing is asserted about it."""
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.2f} s")
