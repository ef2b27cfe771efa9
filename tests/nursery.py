"""Starts `pix4d-watcher` as real processes, quickly: forked from one process that has imported everything already.

Importing costs most of a second of processor time, and hundreds of tests start the service. Each child is a process of
its own session, with its own files, environment and signals, and can be killed like any other. The nursery itself has
one thread only, so that forking is safe whatever threads the tests have.
"""

import array
import atexit
import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import clocks

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_BIND, MS_REC, MS_SLAVE, MNT_DETACH = 0x1000, 0x4000, 0x80000, 2
"""Of sched.h and sys/mount.h; `os` knows them from Python 3.12 on."""


WITH_THE_TESTS = ("setpriv", "--pdeathsig", "KILL", "--")
"""What commands begin with that the tests start without the nursery, so that they end when the tests are killed."""


class Child:
    """A running command, in the manner of subprocess.Popen: `pid`, `poll`, `wait`, `send_signal`, `kill`.

    Without `privileged`, permissions count for it as for anybody, also where root runs the tests. `first` names a
    module beside this one that is loaded in the new process before the command begins. `clock` is a file that says by
    how much its wall clock is off, see `clocks`. `network` names a network namespace made by `ip netns add`; the files
    in the directory `etc` then stand in place of those in /etc.
    """

    def __init__(
        self,
        arguments,
        *,
        stdout,
        stderr,
        cwd,
        environment=None,
        privileged=True,
        first=None,
        clock=None,
        network=None,
        etc=None,
    ):
        self.args = [str(argument) for argument in arguments]
        self.returncode = None
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._line.connect(_address(clock is not None))
        request = {"args": self.args, "cwd": str(cwd), "env": dict(environment or os.environ)}
        request |= {"privileged": privileged, "first": first, "network": network, "etc": etc and str(etc)}
        if clock is not None:
            request["env"] |= clocks.environment(clock)
        handles = array.array("i", [stdout.fileno(), stderr.fileno()])
        self._line.sendmsg([json.dumps(request).encode() + b"\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)])
        self.pid = int(self._read())

    def _read(self):
        """Read one line, and no byte of the next: a short command ends before its number is read."""
        data = b""
        while not data.endswith(b"\n"):
            byte = self._line.recv(1)
            if not byte:
                raise RuntimeError("the nursery ended")
            data += byte
        return data

    def poll(self):
        """Give the exit code, None while it runs."""
        if self.returncode is None and select.select([self._line], [], [], 0)[0]:
            self.returncode = int(self._read())
            self._line.close()
        return self.returncode

    def wait(self, timeout=None):
        """Wait for the end and give the exit code; raises subprocess.TimeoutExpired."""
        if self.returncode is None and not select.select([self._line], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()

    def send_signal(self, number):
        """Send a signal unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


_started = {}


def _address(clock):
    """Start the nursery of this process when it is first needed, and give the name of its socket.

    Processes with a clock of their own come from another nursery: libfaketime must be there before the interpreter.
    """
    if (os.getpid(), clock) not in _started:
        name = f"\0pix4d-watcher-nursery-{os.getpid()}-{time.monotonic_ns()}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(name)
        listener.listen(64)
        process = subprocess.Popen(
            [sys.executable, __file__, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            start_new_session=True,
            env={**os.environ, **(clocks.environment(os.devnull) if clock else {})},
        )
        listener.close()
        atexit.register(clocks.clear_up, process.pid)  # the last of the three
        atexit.register(process.wait)
        atexit.register(process.kill)
        _started[os.getpid(), clock] = name
    return _started[os.getpid(), clock]


# --- in the nursery itself

LOOK = 2.0
"""Seconds between two looks whether the tests are still there."""


def _serve(listener):
    import pix4d_watcher.cli.app
    import pix4d_watcher.cloud.bucket
    import pix4d_watcher.cloud.credentials
    import pix4d_watcher.service  # noqa: F401

    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        # A child takes over what its clock was seen to be last, and looks at its own file when that is old.
        select.select([], [], [], clocks.SEEN_WITHIN)
    lines = {}
    waker, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    tests = os.getppid()
    while True:
        ready, _, _ = select.select([listener, waker], [], [], LOOK)
        if os.getppid() != tests:  # they were killed: nobody else ends what they started
            for pid in lines:
                os.kill(pid, signal.SIGKILL)
            return
        if waker in ready:
            os.read(waker, 4096)
            _tell(lines)
        if listener in ready:
            line = listener.accept()[0]
            pid = _fork(line, [listener, *lines.values()], (waker, wake))
            if pid:
                line.sendall(b"%d\n" % pid)
                lines[pid] = line


def _tell(lines):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        line = lines.pop(pid)
        with contextlib.suppress(OSError):
            line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        line.close()


def _fork(line, others, pipes):
    data, handles = b"", []
    while not data.endswith(b"\n"):
        piece, sent, _, _ = socket.recv_fds(line, 1 << 16, 4)
        if not piece:  # who asks was killed meanwhile
            return 0
        data, handles = data + piece, handles + sent
    pid = os.fork()
    if pid:
        for handle in handles:
            os.close(handle)
        return pid
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for other in [line, *others]:
        other.close()
    for pipe in pipes:
        os.close(pipe)
    _become(json.loads(data), handles)
    return 0


def _become(request, handles):
    """Turn this process into the command; never returns."""
    code = 70
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for target, handle in enumerate([null, *handles]):
            os.dup2(handle, target)
        os.closerange(3, 256)
        if request["network"]:
            _enter(request["network"], request["etc"])
        if not request["privileged"]:
            _give_up_capabilities()
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        if request["first"]:
            importlib.import_module(request["first"])
        sys.argv = ["pix4d-watcher", *request["args"]]
        from pix4d_watcher.cli.app import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does at the end of a program
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _enter(network, etc):
    """Move to a network namespace, and lay the files of `etc` over those in /etc, for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name, *arguments):
        if getattr(libc, name)(*arguments):
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")

    with Path("/run/netns", network).open("rb") as namespace:
        call("setns", namespace.fileno(), CLONE_NEWNET)
    if etc:
        call("unshare", CLONE_NEWNS)
        call("mount", b"none", b"/", None, MS_REC | MS_SLAVE, None)
        # Cards that other tests have in readers would stay in use until this process ends, though they are pulled.
        for line in reversed(Path("/proc/self/mountinfo").read_bytes().splitlines()):
            if b" - ext4 /dev/loop" in line:
                call("umount2", line.split()[4], MNT_DETACH)
        for file in Path(etc).iterdir():
            call("mount", os.fsencode(file), b"/etc/" + os.fsencode(file.name), None, MS_BIND, None)


def _give_up_capabilities():
    """Keep the user, and lose what lets root pass by permissions; see capset(2)."""
    version_3 = 0x20080522
    header, nothing = (ctypes.c_uint32 * 2)(version_3, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
