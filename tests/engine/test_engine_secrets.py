"""Secrets reach nothing that others could read: the whole installation is searched after a life full of faults."""

from pathlib import Path

import pytest
from harness import Site

FAULTS = (
    {"op": "create", "do": "html"},
    {"op": "credentials", "do": "not_json"},
    {"op": "put", "do": "expire_credentials"},
    {"op": "put", "do": "status", "code": 403, "body": "<Error><Code>AccessDenied</Code></Error>"},
    {"op": "put", "do": "cut_body", "bytes": 10, "times": 2},
    {"op": "register", "do": "drop_after"},
    {"op": "project", "do": "expire_token"},
    {"op": "start", "do": "status_after", "code": 500},
    {"op": "get", "do": "cut", "bytes": 100},
)


def secrets_of(site):
    state = site.cloud.state
    keys = [key for issued in state.credentials.values() for key in (issued.secret_key, issued.session_token)]
    return {secret.encode() for secret in ["demo-secret", *state.tokens, *keys]}


def readable(pid):
    """Give what every user of the machine may read of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize("where", ["file", "environment"])
def test_no_secret_anywhere(tmp_path, where, monkeypatch):
    """After refusals, lost answers and expiries, no file but the secret's own holds it, nor any token or S3 key."""
    with Site(tmp_path / "site", credentials_lifetime=4) as site:
        site.configure(results=True, advanced={"doubt_wait": "3s", "request_timeout": "2s"})
        if where == "environment":
            (site.directory / "secret").unlink()
            text = site.config.read_text().replace(f"client_secret_file: {site.directory}/secret", "ca_file: null")
            site.config.write_text(text)
            monkeypatch.setenv("PIX4D_CLIENT_SECRET", "demo-secret")
        site.cloud.faults.add(*FAULTS)
        site.drop(count=12)
        site.start()
        site.until(site.look, "the folder is known")
        assert b"demo-secret" not in readable(site.process.pid)
        # A refusal in mid-life needs a person; whatever it was, it goes on when asked to.
        site.until(lambda: retried(site) or site.look()["state"] == "delivered", "delivered", 60)
        assert site.stop() == 0
        secrets = secrets_of(site)
        assert len(secrets) >= 6
        for path in site.directory.rglob("*"):
            if path.is_file() and path.name != "secret":
                content = path.read_bytes()
                assert not [secret for secret in secrets if secret in content], path
        for path in (site.directory / "state").rglob("*"):
            assert not path.stat().st_mode & 0o077, path


def retried(site):
    if site.look().get("hold"):
        site.ask("retry")
    return False
