"""A real link between the service and the cloud: two network namespaces and a cable, all of it the test's own.

The cloud's sockets are made inside its namespace, the service is started in its own: nothing of this is on the network
of the machine, so that tests run side by side. A link can be pulled, filtered by nft and slowed down by tc.
"""

import contextlib
import ctypes
import subprocess
import threading
import uuid
from pathlib import Path

from nursery import CLONE_NEWNET

CLOUD, STATION = "10.77.0.1", "10.77.0.2"
"""The addresses of the two ends, the same in every test: nobody else sees them."""

HERE = Path("/proc/thread-self/ns/net")


class Link:
    """The cable, from entering to leaving it."""

    def __init__(self):
        number = uuid.uuid4()
        self.cloud = f"pix4d-{number}-cloud"
        self.station = f"pix4d-{number}-station"

    def __enter__(self):
        """Make both ends and plug them together."""
        try:
            for name in (self.cloud, self.station):
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
            _ip(
                "-n", self.cloud, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", self.station
            )
            for name, address in ((self.cloud, CLOUD), (self.station, STATION)):
                _ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
                _ip("-n", name, "link", "set", "cable", "up")
            self.nft("add table ip faults", "add chain ip faults input { type filter hook input priority 0; }")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """Take everything away, the cable with its ends."""
        for name in (self.cloud, self.station):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    @contextlib.contextmanager
    def at_the_cloud(self):
        """Have sockets that this thread makes meanwhile stand in the cloud's namespace."""
        with HERE.open("rb") as here, Path("/run/netns", self.cloud).open("rb") as there:
            _move(there)
            try:
                yield
            finally:
                _move(here)

    def pull(self):
        """Pull the cable."""
        _ip("-n", self.station, "link", "set", "cable", "down")

    def plug(self):
        """Plug it in again."""
        _ip("-n", self.station, "link", "set", "cable", "up")

    def nft(self, *commands):
        """Run commands of nft where the cloud is, and give what they print."""
        arguments = ["ip", "netns", "exec", self.cloud, "nft", "--file", "-"]
        done = subprocess.run(arguments, input="\n".join(commands), check=True, capture_output=True, text=True)
        return done.stdout

    def rule(self, rule):
        """Filter what arrives at the cloud's port by one more rule, such as `drop`."""
        self.nft(f"add rule ip faults input meta l4proto tcp {rule}")

    def clear(self):
        """Take all rules away."""
        self.nft("flush chain ip faults input")

    def bury(self, ports):
        """Have connections swallow everything from now on; `ports` are their ends at the service."""
        self.rule(f"tcp sport {{ {', '.join(map(str, ports))} }} drop")

    def met(self):
        """Count the packets that met the first rule, which has a counter."""
        words = self.nft("list chain ip faults input").split()
        return int(words[words.index("packets") + 1])

    def slow(self, rate):
        """Let the service send only so much, such as `1mbit`."""
        queue = ["qdisc", "add", "dev", "cable", "root", "tbf", "rate", rate, "burst", "16k", "latency", "400ms"]
        subprocess.run(["tc", "-n", self.station, *queue], check=True, capture_output=True)

    def ports(self):
        """List the service's ends of the connections that stand."""
        lines = subprocess.run(
            ["ip", "netns", "exec", self.station, "cat", "/proc/net/tcp"], check=True, capture_output=True, text=True
        ).stdout.splitlines()[1:]
        established = [line.split()[1] for line in lines if line.split()[3] == "01"]
        return [int(local.partition(":")[2], 16) for local in established]


def _move(namespace):
    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns in {threading.current_thread().name}")


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
