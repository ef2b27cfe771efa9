"""The client credentials: from a systemd credential, the environment or a file that nobody else can read.

Owns where secrets come from. Must not log them, show them, or put them into the text of an error.
"""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pix4d_watcher.config.settings import CloudSettings

ID_VARIABLE = "PIX4D_CLIENT_ID"
SECRET_VARIABLE = "PIX4D_CLIENT_SECRET"  # noqa: S105  the name of a variable

_LARGEST_SECRET = 16 * 1024  # bytes; a larger file is another file by mistake


@dataclass(frozen=True, slots=True, repr=False)
class ClientCredentials:
    """Client id and secret, and where each came from; the secret shows in no representation."""

    client_id: str
    client_secret: str
    id_from: str = ""
    secret_from: str = ""

    def __repr__(self) -> str:
        return f"ClientCredentials(client_id={self.client_id!r}, client_secret='***', secret_from={self.secret_from!r})"


def load_client(cloud: CloudSettings, environ: Mapping[str, str]) -> ClientCredentials:
    """Load the client credentials; systemd credential wins over environment, environment over the configuration.

    Raises ConfigError with every problem: none given, unsafe permissions, no file, empty. A text about something that
    the configuration names begins with its key.
    """
    problems: list[str] = []
    client_id, id_from = _first(_client_id, cloud, environ, problems)
    client_secret, secret_from = _first(_client_secret, cloud, environ, problems)
    if problems:
        raise ConfigError(problems)
    return ClientCredentials(client_id, client_secret, id_from, secret_from)


def _first(
    find: Callable[[CloudSettings, Mapping[str, str]], tuple[str, str]],
    cloud: CloudSettings,
    environ: Mapping[str, str],
    problems: list[str],
) -> tuple[str, str]:
    try:
        return find(cloud, environ)
    except ConfigError as error:
        problems += error.problems
        return "", ""


def _client_id(cloud: CloudSettings, environ: Mapping[str, str]) -> tuple[str, str]:
    found = _given("client_id", ID_VARIABLE, environ)
    if found is None and cloud.client_id is not None:
        found = _checked(cloud.client_id, "cloud.client_id"), "cloud.client_id"
    if found is None:
        raise ConfigError([f"no client id: set cloud.client_id, ${ID_VARIABLE} or the systemd credential client_id"])
    return found


def _client_secret(cloud: CloudSettings, environ: Mapping[str, str]) -> tuple[str, str]:
    found = _given("client_secret", SECRET_VARIABLE, environ)
    if found is None and cloud.client_secret_file is not None:
        path = cloud.client_secret_file
        found = _read(path, "cloud.client_secret_file", private=True), str(path)
    if found is None:
        text = (
            "no client secret: put it into a file with mode 600 and name it with cloud.client_secret_file, or set "
            f"${SECRET_VARIABLE} or the systemd credential client_secret (LoadCredential=client_secret:FILE)"
        )
        raise ConfigError([text])
    return found


def _given(name: str, variable: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Look for a systemd credential, then for an environment variable; an empty variable counts as not set."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if directory and os.path.exists(Path(directory, name)):  # noqa: PTH110  Path.exists raises where it may not look
        # No look at permissions: systemd guards the directory, and its ACL for the service's user shows as mode 440.
        return _read(Path(directory, name), f"systemd credential {name}", private=False), f"systemd credential {name}"
    value = environ.get(variable, "").rstrip("\r\n")
    return (_checked(value, f"${variable}"), f"${variable}") if value else None


def _read(path: Path, what: str, *, private: bool) -> str:
    """Read a file of one line; where `private`, refuse it when anybody but its owner may do anything with it."""
    try:
        # Not blocking, so that a FIFO named by mistake is told and not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            raw = os.read(descriptor, _LARGEST_SECRET + 1) if stat.S_ISREG(mode) else b""
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ConfigError([f"{what}: {path} does not exist"]) from None
    except PermissionError:
        text = f"{what}: {path} cannot be read by this user; let it belong to the user of the service: chown USER"
        raise ConfigError([f"{text} {shlex.quote(str(path))}"]) from None
    except OSError as error:
        raise ConfigError([f"{what}: {path} cannot be read: {error.strerror}"]) from None
    if not stat.S_ISREG(mode):
        raise ConfigError([f"{what}: {path} is no regular file"])
    if private and mode & 0o077:
        others = f"others may use it (mode {stat.S_IMODE(mode):o})"
        raise ConfigError([f"{what}: {path}: {others}; run: chmod 600 {shlex.quote(str(path))}"])
    return _one_line(raw, f"{what}: {path}")


def _one_line(raw: bytes, place: str) -> str:
    try:
        text = raw.decode("utf-8-sig").rstrip("\r\n")  # some editors begin a file with a mark of its encoding
    except UnicodeDecodeError:
        raise ConfigError([f"{place} is no text; is it the right file?"]) from None
    if len(raw) > _LARGEST_SECRET:
        raise ConfigError([f"{place} holds more than one line; is it the right file?"])
    return _checked(text, place)


def _checked(text: str, place: str) -> str:
    """Return a secret or id as it is; raises ConfigError, without it, for what can be none."""
    if not text.strip():
        raise ConfigError([f"{place} is empty"])
    if "\n" in text or "\r" in text:
        raise ConfigError([f"{place} holds more than one line; is it the right one?"])
    if not text.isprintable():
        raise ConfigError([f"{place} holds characters that cannot be shown; was it copied whole, and nothing else?"])
    return text
