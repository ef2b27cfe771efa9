"""A real systemd to test in: booted by systemd-nspawn on a throw-away copy of this machine's own system."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = "/usr/src/pix4d-watcher"  # where the checkout lies in the box
DATA = ("pyproject.toml", "README.md", "LICENSE", "pix4d_watcher", "config", "deploy")

# In a mount namespace of its own: when the box is gone, so is everything that it mounted and wrote (all in memory).
# The system below is only read. Units that would touch the devices or the network of the real machine are masked.
BOOT = r"""
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=755 box /run/systemd/nspawn
mount -t tmpfs -o mode=755 box "$1"
cd "$1"
mkdir upper work root
mount -t overlay box -o lowerdir=/,upperdir=upper,workdir=work root
units=root/etc/systemd/system
rm -rf $units/*.wants root/etc/fstab root/var/log/journal
mkdir -p $units root/var/log/journal root/tmp
chmod 1777 root/tmp
wanted='basic.target dbus.service'
printf "[Unit]\nRequires=$wanted\nAfter=$wanted\nAllowIsolate=yes\n" > $units/box.target
ln -sf box.target $units/default.target
for unit in systemd-udev-trigger systemd-udev-settle systemd-resolved systemd-timesyncd systemd-networkd; do
    ln -sf /dev/null $units/$unit.service
done
: > root/etc/machine-id
exec systemd-nspawn --quiet --directory=root --boot --register=no --keep-unit --machine="$2" --resolv-conf=off \
    --console=pipe --link-journal=no --kill-signal=SIGRTMIN+3
"""
ENTER = ("nsenter", "--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup", "--root", "--wd", "--target")
BASICS = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")


class Box:
    """A running system; `run` runs a command in it, `path` is a path in it as seen from outside."""

    def __init__(self, directory, environment):
        self.environment = environment
        self.log = directory / "box.log"
        place = directory / "box"
        place.mkdir()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "unshare",
                    "--mount",
                    "--propagation",
                    "private",
                    "sh",
                    "-euc",
                    BOOT,
                    "sh",
                    place,
                    f"box{os.getpid()}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.leader = 0

    def boot(self):
        """Wait until systemd is up."""
        self.leader = self.until(self._find_leader, self._words)
        # Not every unit of the machine's own system can start in here: degraded is as good as running.
        states = {"running", "degraded"}
        self.until(lambda: self.run("systemctl is-system-running", check=False).stdout.strip() in states, self._words)

    def _words(self):
        return f"the box does not boot:\n{self.log.read_text(errors='replace')}"

    def _find_leader(self):
        assert self.process.poll() is None, self._words()
        found = subprocess.run(
            ["pgrep", "--parent", str(self.process.pid), "--exact", "systemd"],
            capture_output=True,
            text=True,
            check=False,
        )
        return int(found.stdout.split()[0]) if found.stdout.strip() else 0

    def run(self, script, *, check=True, timeout=60, user=None, **environment):
        """Run a shell script in the box, as root or as another user; gives its output as text."""
        if user:
            script = f"runuser -u {user} -- sh -euc {shlex.quote(script)}"
        variables = [f"{name}={value}" for name, value in (self.environment | environment).items()]
        done = subprocess.run(
            [*ENTER, str(self.leader), "env", "--ignore-environment", *BASICS, *variables, "sh", "-euc", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done

    @staticmethod
    def until(found, what, timeout=60.0):
        """Ask again until `found()` is true and give its answer; fails after `timeout` seconds with `what()`."""
        end = time.monotonic() + timeout
        while not (answer := found()):
            assert time.monotonic() < end, f"not within {timeout} s: {what()}"
            time.sleep(0.1)
        return answer

    def path(self, inside):
        """Translate a path of the box."""
        return Path(f"/proc/{self.leader}/root", inside.lstrip("/"))

    def write(self, inside, text, mode=0o644):
        """Write a file in the box, and its directory if need be."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode)
        path.chmod(mode)
        path.write_text(text)

    def show(self, unit, name):
        """Give one property of a unit."""
        return self.run(f"systemctl show {unit} --property={name} --value").stdout.strip()

    def journal(self, unit):
        """Give all log lines of a unit, those too that journald has not taken yet."""
        return self.run(f"journalctl --sync; journalctl --unit={unit} --output=cat --no-pager").stdout

    def stop(self):
        """Power off; pull the plug where that takes too long."""
        if self.leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader, signal.SIGRTMIN + 4)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20 if self.leader else 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


def to_packages(environment):
    """Pick what leads this machine to its packages: proxies, certificates, settings of pip."""
    names = {"REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    return {
        name: value
        for name, value in environment.items()
        if name in names or name.startswith("PIP_") or name.lower().endswith("_proxy")
    }


@pytest.fixture(scope="session")
def box(tmp_path_factory, request):
    """A booted system with the checkout in it: a machine of its own, but for the network."""
    if os.geteuid() != 0:
        pytest.skip("booting a system needs root")
    missing = [tool for tool in ("systemd-nspawn", "nsenter", "unshare", "pgrep") if not shutil.which(tool)]
    if missing:
        pytest.skip(
            f"not installed: {', '.join(missing)} (make check installs systemd-container, procps and util-linux)"
        )
    machine = Box(tmp_path_factory.mktemp("systemd"), to_packages(request.config.machine))
    try:
        machine.boot()
        for name in DATA:
            source, target = ROOT / name, machine.path(SOURCE) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        yield machine
    finally:
        machine.stop()
