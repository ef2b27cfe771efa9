"""Speak to systemd by its notification socket (sd_notify), without any library.

Owns the datagram and the watchdog's interval; decides nothing about when the service is ready or alive.
Protocol: man sd_notify(3), sd_watchdog_enabled(3). Without NOTIFY_SOCKET every call does nothing.
"""

from __future__ import annotations

import os
import socket

SEND_TIMEOUT = 1.0  # seconds: systemd reads at once; a full queue must not stop the caller


def notify(*lines: str) -> bool:
    """Send lines such as `READY=1` in one datagram; False where nobody listens or nothing could be sent."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # A leading @ names an abstract socket, written with a zero byte for the kernel.
    target = os.fsencode(address if address.startswith("/") else f"\0{address[1:]}")
    message = "\n".join(lines).encode("utf-8", errors="backslashreplace")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(SEND_TIMEOUT)
            sender.sendto(message, target)
    except OSError:
        # Not worth a failure: where it matters (READY, WATCHDOG) systemd's own time-outs act.
        return False
    return True


def ready() -> bool:
    """Say that start-up is finished."""
    return notify("READY=1")


def status(text: str) -> bool:
    """Show one line in `systemctl status`; control characters become spaces, so that no text can add a field."""
    return notify("STATUS=" + "".join(char if char.isprintable() else " " for char in text))


def stopping() -> bool:
    """Say that the service is on its way out."""
    return notify("STOPPING=1")


def watchdog() -> bool:
    """Say that the service is alive."""
    return notify("WATCHDOG=1")


def watchdog_interval() -> float | None:
    """Tell how often to call `watchdog`, in seconds: half of systemd's limit; None where systemd does not watch us."""
    pid = os.environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / 2_000_000
