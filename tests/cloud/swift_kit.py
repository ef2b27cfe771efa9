"""OpenStack Swift with its s3api on loopback: an S3 that is not ours, and that verifies what it is sent.

Five processes: memcached, and the account, container, object and proxy servers, with one device. Everything lies in
one directory, whose filesystem must have extended attributes: Swift keeps what it knows of an object there.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from nursery import WITH_THE_TESTS

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = ROOT / ".venv" / "swift" / "bin"
STORES = ("account", "container", "object")
ACCESS_KEY, SECRET_KEY = "test:tester", "testing"
REGION = "eu-west-1"
"""Not us-east-1, so that a client that ignores the region is found out."""

STARTING = 200.0
"""Seconds within which all servers answer; they take two, and half a minute where others use the same cores."""

DEFAULTS = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {conf}
devices = {devices}
mount_check = false
workers = 0
log_level = WARNING
log_address = {conf}/no-syslog
# Patience among themselves: else a disk that hangs for some seconds is a 503, or an object that no list shows.
conn_timeout = 60
node_timeout = 60
container_update_timeout = 60
"""

STORE = """[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""

PROXY = """[pipeline:main]
pipeline = catch_errors healthcheck cache s3api tempauth slo dlo copy proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache}
[filter:s3api]
use = egg:swift#s3api
location = {region}
s3_acl = false
max_upload_part_num = 10000
check_bucket_owner = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:copy]
use = egg:swift#copy
"""

RINGS = """
import sys
from swift.common.ring import RingBuilder
directory, *ports = sys.argv[1:]
for name, port in zip(("account", "container", "object"), ports):
    builder = RingBuilder(2, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d", "weight": 1.0})
    builder.rebalance()
    builder.get_ring().save(f"{directory}/{name}.ring.gz")
"""


def missing():
    """Say what is not installed; empty when all is."""
    lacks = [] if (BIN / "swift-proxy-server").exists() else ["swift in .venv/swift (`make check` puts it there)"]
    return ", ".join(lacks + ([] if shutil.which("memcached") else ["memcached"]))


def place_with_attributes(*candidates):
    """Make a directory where files can have extended attributes; None where there is no such place."""
    for candidate in candidates:
        with contextlib.suppress(OSError):
            directory = Path(tempfile.mkdtemp(prefix="swift-", dir=candidate))
            try:
                os.setxattr(directory, "user.swift.metadata", b"x" * 1000)
            except OSError:
                directory.rmdir()
                continue
            return directory
    return None


class Swift:
    """A running Swift, from entering to leaving it; `url` is where its S3 is."""

    def __init__(self, directory):
        self.directory = directory
        self.held = reserved_ports(5)
        self.ports = {
            name: held.getsockname()[1] for name, held in zip((*STORES, "proxy", "cache"), self.held, strict=True)
        }
        self.url = f"http://127.0.0.1:{self.ports['proxy']}"
        self.running = []

    def __enter__(self):
        """Write the configuration, start everything, wait until it answers."""
        conf, devices = self.directory / "conf", self.directory / "devices"
        conf.mkdir()
        (devices / "d").mkdir(parents=True)
        (conf / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n")
        for name in (*STORES, "proxy"):
            more = PROXY if name == "proxy" else STORE
            facts = {"name": name, "port": self.ports[name], "conf": conf, "devices": devices, "region": REGION}
            text = (DEFAULTS + more).format(**facts, cache=self.ports["cache"], secret=SECRET_KEY)
            (conf / f"{name}.conf").write_text(text)
        try:
            ports = [str(self.ports[name]) for name in STORES]
            subprocess.run([BIN / "python", "-c", RINGS, conf, *ports], check=True, timeout=STARTING, env=environment())
            self._start("memcached", "-u", "root", "-l", "127.0.0.1", "-U", "0", "-p", str(self.ports["cache"]))
            for name in (*STORES, "proxy"):
                self._start(BIN / f"swift-{name}-server", conf / f"{name}.conf")
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """End everything that was started."""
        for process in self.running:
            process.kill()
        for process in self.running:
            process.wait(30)
        for held in self.held:
            held.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self, *command):
        with (self.directory / "log").open("ab") as log:
            command = [*WITH_THE_TESTS, *command]
            started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment())
        self.running.append(started)

    def _wait(self):
        end = time.monotonic() + STARTING
        while True:
            log = (self.directory / "log").read_text(errors="replace")
            assert all(process.poll() is None for process in self.running), f"a server of Swift ended:\n{log}"
            if all(answers(self.ports[name], path) for name, path in HEALTH):
                return
            assert time.monotonic() < end, f"Swift did not start within {STARTING:.0f} s:\n{log}"
            time.sleep(0.1)


HEALTH = (*((name, "/recon/version") for name in STORES), ("proxy", "/healthcheck"))


def answers(port, path):
    """Say whether a server answers at all, be it with an error."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


def reserved_ports(count):
    """Bind sockets to so many free ports: while these are open nobody gets one by chance, and a server may name it."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
    return held


def environment():
    """Leave out what is ours: Swift is to find its own modules only."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
