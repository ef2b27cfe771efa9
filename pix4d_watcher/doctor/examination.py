"""Which checks there are, in which order they are told, and how long each may take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pix4d_watcher.doctor import account, configured, findings, health, machine, places, trial
from pix4d_watcher.doctor.findings import Check, Level

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pix4d_watcher.config import ClientCredentials, RootSettings, Settings
    from pix4d_watcher.doctor.findings import Finding
    from pix4d_watcher.journal.records import Root

QUICK, DISK, WAY, TRIAL = 10.0, 60.0, 75.0, 120.0
"""Seconds for what only asks the kernel; for a check of a large journal; for name, connection, token and list; for the
trial upload over a slow link."""

_HANGS = "a disk or share hangs: look at sudo dmesg and mount; a reboot may be needed"
_SILENT = "something on the way swallows packets: is the link up, does a firewall stand between?"


def examine(file: Path | None, environ: Mapping[str, str], *, upload: bool) -> Iterator[Finding]:
    """Yield all findings: the configuration's first, since the rest needs it, and then all others side by side."""
    settings, found = configured.settings(file, environ)
    yield from found
    if settings is None:
        yield from findings.run(
            [Check("program", machine.program, QUICK, ""), Check("clock", machine.clock, QUICK, "")]
        )
        return
    client, found = configured.client(settings, environ)
    yield from found
    yield from findings.hidden(_rest(settings, client, upload=upload), client.client_secret if client else "")


def _rest(settings: Settings, client: ClientCredentials | None, *, upload: bool) -> Iterator[Finding]:
    newest, roots = health.last_known(settings)
    checks = [
        *_machine(settings),
        Check("journal", lambda: health.journal(settings), DISK, _HANGS),
        Check("service", lambda: health.condition(settings), DISK, _HANGS),
        *(_root(root, roots.get(root.name), settings) for root in settings.watch),
        *_targets(settings),
        Check("API", lambda: account.api(settings, client, newest), WAY, _SILENT),
    ]
    if settings.cloud.s3_endpoint is not None:
        checks.append(Check("S3", lambda: account.s3(settings), WAY, _SILENT))
    let_in = False
    for finding in findings.run(checks):
        let_in = let_in or (finding.name == "token" and finding.level is Level.OK)
        yield finding
    if upload and client is not None and let_in:
        yield from findings.run([Check("trial upload", lambda: trial.upload(settings, client), TRIAL, _SILENT)])
    elif upload:
        yield findings.warn("trial upload", "not tried, since there is no token", "mend that first")


def _machine(settings: Settings) -> Iterator[Check]:
    running = health.holder(settings)
    yield Check("program", machine.program, QUICK, "")
    yield Check("user", lambda: machine.user(settings.journal), QUICK, _HANGS)
    yield Check("clock", machine.clock, QUICK, "")
    yield Check("descriptors", lambda: machine.descriptors(running), QUICK, "")
    yield Check("inotify", lambda: machine.inotify(settings, running=running is not None), QUICK, _HANGS)


def _root(root: RootSettings, seen: Root | None, settings: Settings) -> Check:
    running = health.holder(settings) is not None
    return Check(f"drop directory {root.name}", lambda: places.root(root, seen, running=running), QUICK, _HANGS)


def _targets(settings: Settings) -> Iterator[Check]:
    if settings.results is not None:
        results = settings.results
        yield Check("results", lambda: places.target("results", results), QUICK, _HANGS)
    for root in settings.watch:
        if root.after == "archive" and root.archive_to is not None:
            name, path = f"archive of {root.name}", root.archive_to
            yield Check(name, lambda name=name, path=path: places.target(name, path), QUICK, _HANGS)  # type: ignore[misc]
