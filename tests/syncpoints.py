"""Holds every flush to the disk until a test lets it happen: so the service can die at the Nth of the whole process.

Loaded by the nursery into the service's process, before its `main` runs (see `Child`); the tests' end of it is
`faults/test_crash_flushes.py`. `strace -e inject=…:when=N` counts the calls of each thread for itself, so that most
flushes of a program with threads are out of its reach. This is seccomp's user notification, see seccomp_unotify(2):
the kernel holds the thread in its call, tells whoever has the listener, and waits for the answer.

Must not touch anything else: all other calls pass as ever, and no program that the service starts gains privileges.
"""

import ctypes
import os
import platform
import socket
import struct

NUMBERS = {"x86_64": (74, 75, 317), "aarch64": (82, 83, 277)}
"""The numbers of the calls fsync, fdatasync and seccomp, by machine."""

LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
ASK, ALLOW = 0x7FC00000, 0x7FFF0000  # SECCOMP_RET_USER_NOTIF, SECCOMP_RET_ALLOW
NO_NEW_PRIVILEGES, SET_MODE_FILTER, NEW_LISTENER = 38, 1, 8


class Program(ctypes.Structure):
    """The kernel's struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(address):
    """Hold all flushes of this process, and of threads that it starts; whoever listens at `address` lets them go."""
    fsync, fdatasync, seccomp = NUMBERS[platform.machine()]
    lines = [
        (LOAD_NUMBER, 0, 0, 0),
        (JUMP_IF_EQUAL, 1, 0, fsync),
        (JUMP_IF_EQUAL, 0, 1, fdatasync),
        (RETURN, 0, 0, ASK),
        (RETURN, 0, 0, ALLOW),
    ]
    libc = ctypes.CDLL(None, use_errno=True)
    program = Program(len(lines), b"".join(struct.pack("HBBI", *line) for line in lines))
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    listener = libc.syscall(seccomp, SET_MODE_FILTER, NEW_LISTENER, ctypes.byref(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.connect(address)
        socket.send_fds(line, [b"."], [listener])
    os.close(listener)


install(os.environ["SYNC_SOCKET"].replace("@", "\0", 1))
