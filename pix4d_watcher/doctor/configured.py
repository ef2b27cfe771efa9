"""The configuration and the client's credentials: do they load, and where do they come from. Shows no secret."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pix4d_watcher.config import find_config, load, load_client
from pix4d_watcher.core.errors import ConfigError
from pix4d_watcher.doctor.findings import Cause, Finding, fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pix4d_watcher.config import ClientCredentials, Settings

NAME, SECRET = "configuration", "client secret"

_BY_SYSTEMD = (
    "; where the service gets it from systemd, run as systemd does: sudo systemd-run --pipe --wait "
    "-p User=pix4d-watcher -p LoadCredential=client_id:/etc/pix4d-watcher/client_id "
    "-p LoadCredential=client_secret:/etc/pix4d-watcher/client_secret /opt/pix4d-watcher/bin/pix4d-watcher doctor"
)


def settings(file: Path | None, environ: Mapping[str, str]) -> tuple[Settings | None, list[Finding]]:
    """Find and load the configuration; None where it cannot be used, one finding for each problem."""
    try:
        found = load(find_config(file, environ))
    except ConfigError as error:
        remedy = "correct this place, then: pix4d-watcher check-config"
        return None, [fail(NAME, problem, remedy, Cause.CONFIGURATION) for problem in error.problems]
    roots = ", ".join(root.name for root in found.watch)
    warnings = [warn(NAME, text, "correct it, unless it is meant so") for text in found.warnings]
    return found, [ok(NAME, f"{found.file} is good; drop directories: {roots}"), *warnings]


def client(found: Settings, environ: Mapping[str, str]) -> tuple[ClientCredentials | None, list[Finding]]:
    """Load the client's credentials; None where there are none that may be used."""
    try:
        pair = load_client(found.cloud, environ)
    except ConfigError as error:
        hint = _BY_SYSTEMD if Path("/run/systemd/system").is_dir() and "CREDENTIALS_DIRECTORY" not in environ else ""
        remedy = f"do what the text says{hint}"
        return None, [fail(SECRET, problem, remedy, Cause.CONFIGURATION) for problem in error.problems]
    text = f"set, from {pair.secret_from}; client id {pair.client_id} from {pair.id_from}"
    return pair, [ok(SECRET, text)]
