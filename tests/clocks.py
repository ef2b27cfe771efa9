"""Wall clocks that tests set: libfaketime changes what a process sees, and leaves its monotonic clock alone.

Under it every `time.sleep` fails, so that it also shows that the product has none.
"""

import platform
from pathlib import Path

SEEN_WITHIN = 2.5
"""Seconds after which a process has seen that its clock was set: reading the file at every look costs too much."""


def library():
    """Find libfaketime of Debian's package `faketime`, on whatever architecture; skip where it is not installed."""
    places = (f"{platform.machine()}-linux-*", "*")
    found = [path for place in places for path in Path("/usr/lib").glob(f"{place}/faketime/libfaketime.so.1")]
    if not found:
        import pytest  # the nursery, which forks all services, does without it

        pytest.skip("libfaketime is missing; see PACKAGES in the Makefile")
    return found[0]


def environment(clock):
    """Give the environment variables of a process whose wall clock is what the file `clock` says."""
    return {
        "LD_PRELOAD": str(library()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",  # files keep their times, as on a real machine
        "TZ": "UTC",
    }


def clear_up(pid):
    """Remove what libfaketime left in memory of a process that was killed."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        Path("/dev/shm", name).unlink(missing_ok=True)


def write(clock, how):
    """Set a clock, also while processes run by it: `+0`, `+1d`, `-1h`, or `@1970-01-01 00:05:00`, which runs on."""
    new = clock.with_name(f"{clock.name}.new")
    new.write_text(how)
    new.replace(clock)
