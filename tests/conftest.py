"""What all tests share: a clean environment, the emulator in this process, real commands, the rule about skips."""

import contextlib
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import nursery
import pytest

ROOT = Path(__file__).resolve().parent.parent

# What would lead a test away from this machine, make it believe that systemd started it, or change what programs print.
UNWANTED_STARTS = ("PIX4D_", "AWS_")
UNWANTED = {
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"),
    *("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY"),
    *("FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
    *("PYTHONDEVMODE", "PYTHONWARNINGS", "PYTHONIOENCODING", "PYTHONUNBUFFERED"),
}


def pytest_configure(config):
    """Clean the environment before any module of the product is imported; `config.machine` keeps what was there."""
    told = getattr(config, "workerinput", {})  # a worker of pytest-xdist is started when all is clean already
    config.machine = {**os.environ, **told.get("machine", {})}
    for name in list(os.environ):
        if name.startswith(UNWANTED_STARTS) or name in UNWANTED or name.lower().endswith("_proxy"):
            del os.environ[name]
    # Tests say who may read what they make, by the usual mask.
    os.umask(0o022)
    # Processes that tests start find the product wherever they run.
    os.environ["PYTHONPATH"] = str(ROOT)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Tell a worker of pytest-xdist which of our variables the machine had."""
    ours = {name: value for name, value in node.config.machine.items() if name.startswith("PIX4D_")}
    node.workerinput["machine"] = ours


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Count a skipped check as failed in CI: there it must be possible, and nobody reads the reasons of skips."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and item.get_closest_marker("check") and not is_xfail(report):
        report.outcome = "failed"
        report.longrepr = f"skipped, and in CI a check may not be: {report.longrepr[-1]}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Count a file that skips itself as failed in CI, for the same reason."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, and in CI a file may not be: {report.longrepr[-1]}"
    return report


def is_xfail(report):
    return hasattr(report, "wasxfail")


def pytest_terminal_summary(terminalreporter):
    """Print what tests counted by `record_property("count", ...)`: a text as it is, pairs (what, number) as sums."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "when")]
    called = [report for report in reports if report.when == "call"]
    found = [value for report in called for name, value in report.user_properties if name == "count"]
    sums = Counter()
    for what, number in (value for value in found if not isinstance(value, str)):
        sums[what] += number
    lines = [
        *(f"{what}: {number}" for what, number in sums.items()),
        *(text for text in found if isinstance(text, str)),
    ]
    if lines:
        terminalreporter.section("counts")
        for line in sorted(lines):
            terminalreporter.line(line)


@pytest.fixture
def emulator():
    """PIX4Dengine Cloud and its S3 in this process, on a free port of 127.0.0.1."""
    from pix4d_watcher.emulator.server import Emulator

    with Emulator() as running:
        yield running


class Running:
    """A command that is still running: `text()` is what it wrote so far."""

    def __init__(self, arguments, directory, environment, *, privileged=True):
        self.stdout = directory / "stdout"
        self.stderr = directory / "stderr"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = nursery.Child(
                arguments,
                stdout=out,
                stderr=err,
                cwd=directory.parent,
                environment={**os.environ, "XDG_CONFIG_HOME": str(directory), **environment},
                privileged=privileged,
            )

    def text(self):
        """Give what it wrote until now, standard output first."""
        return (self.stdout.read_bytes() + self.stderr.read_bytes()).decode("utf-8", errors="backslashreplace")

    def wait(self, timeout=60):
        """Wait for the end and give the exit code; a command that does not end in time fails with its output."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"{self.process.args} did not end within {timeout} s:\n{self.text()}")

    def stop(self, timeout=30):
        """Ask it to end by SIGTERM, as systemd does, and give the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self):
        """End it as a power cut would: it and what it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


class CommandLine:
    """Starts `pix4d-watcher` as people do: a process of its own, in `directory`, without anybody's configuration."""

    def __init__(self, directory):
        self.directory = directory
        self.started = []

    def start(self, *arguments, privileged=True, **environment):
        """Start a command and come back while it runs; further keyword arguments are environment variables."""
        place = self.directory / f"command-{len(self.started)}"
        place.mkdir()
        self.started.append(Running(arguments, place, environment, privileged=privileged))
        return self.started[-1]

    def __call__(self, *arguments, timeout=60, **environment):
        """Run a command to its end: `returncode`, `stdout` and `stderr` as text."""
        running = self.start(*arguments, **environment)
        code = running.wait(timeout)
        texts = [file.read_text(encoding="utf-8") for file in (running.stdout, running.stderr)]
        return subprocess.CompletedProcess(running.process.args, code, *texts)


@pytest.fixture
def run_cli(tmp_path_factory):
    """Run the command line in real processes; whatever still runs at the end of the test is killed."""
    commands = CommandLine(Path(tmp_path_factory.mktemp("cli")))
    yield commands
    for running in commands.started:
        running.kill()


@pytest.fixture
def site(tmp_path):
    """A site with its emulator running and the service not yet; its report is added where a story fails."""
    from harness import Site

    with Site(tmp_path / "site") as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Add to a failure what a person would look at: the status, the end of the log, the ledger."""
    try:
        return (yield)
    except BaseException as error:
        made = pyfuncitem.funcargs.get("site")
        if hasattr(made, "report"):
            error.add_note(made.report())
        raise
