"""Where the client credentials come from, and that they show nowhere."""

import os
from pathlib import Path

import pytest

from pix4d_watcher.config import ClientCredentials, Settings, explain, load_client
from pix4d_watcher.core.errors import ConfigError


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "client secret"
    path.write_text("from-file\n")
    path.chmod(0o600)
    return path


def settings(secret_file=None, **more):
    cloud = {"client_id": "id-of-config", "client_secret_file": secret_file}
    return Settings.model_validate({"cloud": cloud, "watch": [{"name": "a", "path": "/x"}], **more})


def refused(secret_file, environ=()):
    with pytest.raises(ConfigError) as caught:
        load_client(settings(secret_file).cloud, dict(environ))
    (problem,) = caught.value.problems
    return problem


def test_the_order_is_systemd_then_environment_then_file(secret_file, tmp_path):
    """Each source wins over the next, for id and secret by themselves, and is named."""
    client = load_client(settings(secret_file).cloud, {})
    assert (client.client_id, client.id_from) == ("id-of-config", "cloud.client_id")
    assert (client.client_secret, client.secret_from) == ("from-file", str(secret_file))
    environ = {"PIX4D_CLIENT_ID": "id-of-env", "PIX4D_CLIENT_SECRET": "of-env"}
    client = load_client(settings(secret_file).cloud, environ)
    assert (client.client_id, client.client_secret) == ("id-of-env", "of-env")
    assert client.secret_from == "$PIX4D_CLIENT_SECRET"
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "client_secret").write_text("of-systemd\r\n")
    client = load_client(
        settings(secret_file).cloud, {**environ, "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    )
    assert (client.client_id, client.client_secret) == ("id-of-env", "of-systemd")
    assert client.secret_from == "systemd credential client_secret"


def test_a_systemd_credential_may_show_group_permissions(tmp_path):
    """Systemd gives a service's user its credential by an ACL, which shows as mode 440: no reason to refuse it."""
    credential = tmp_path / "client_secret"
    credential.write_text("of-systemd")
    credential.chmod(0o440)
    assert load_client(settings().cloud, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).client_secret == "of-systemd"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610])
def test_a_file_that_others_may_use_is_refused_with_the_chmod_to_run(secret_file, mode):
    """Any right of group or others refuses the file; the command to run is quoted for a shell."""
    secret_file.chmod(mode)
    problem = refused(secret_file)
    assert f"(mode {mode:o})" in problem
    assert problem.endswith(f"run: chmod 600 '{secret_file}'")
    assert "from-file" not in problem


def test_an_unsafe_file_does_not_matter_where_it_is_not_used(secret_file):
    """The environment wins, and the file is not opened."""
    secret_file.chmod(0o644)
    assert load_client(settings(secret_file).cloud, {"PIX4D_CLIENT_SECRET": "of-env"}).client_secret == "of-env"


def test_files_that_hold_no_secret_are_told_apart(secret_file, tmp_path):
    """Missing, a directory, a FIFO, empty, binary, several lines, endless: each has its text, none blocks."""
    assert "does not exist" in refused(tmp_path / "none")
    assert "is no regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "is no regular file" in refused(tmp_path / "fifo")
    assert "is no regular file" in refused(Path(os.devnull))
    for content, text in (
        (b"\n", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b"\xff\xfe", "is no text"),
        (b"a\nb\n", "more than one line"),
        (b"a\rb\n", "more than one line"),
        (b"hush\0hush", "cannot be shown"),
        ("hush\u00a0".encode(), "cannot be shown"),
    ):
        secret_file.write_bytes(content)
        assert text in refused(secret_file)
        assert "hush" not in refused(secret_file)
    secret_file.write_bytes(b"x" * 100_000)
    assert "more than one line" in refused(secret_file)


def test_only_the_line_end_is_taken_away(secret_file):
    """Spaces at the ends belong to a secret, the mark of an encoding before it does not."""
    for mark in (b"", b"\xef\xbb\xbf"):
        secret_file.write_bytes(mark + b" two words \r\n")
        assert load_client(settings(secret_file).cloud, {}).client_secret == " two words "


@pytest.mark.parametrize("given", ["hush\nhush", "hush\r", "hush\0", "hu\udce9sh", "  "])
def test_a_variable_that_can_be_no_secret(secret_file, given):
    """Several lines, what cannot be shown and blanks alone are told by the variable's name, and not repeated."""
    with pytest.raises(ConfigError) as caught:
        load_client(settings(secret_file).cloud, {"PIX4D_CLIENT_ID": f"a{given}b", "PIX4D_CLIENT_SECRET": f"{given} "})
    assert all("$PIX4D_CLIENT_" in problem for problem in caught.value.problems)
    assert any("$PIX4D_CLIENT_SECRET" in problem for problem in caught.value.problems)
    assert "hu" not in str(caught.value)


def test_a_variable_of_a_line_end_is_not_set(secret_file):
    """A variable that was filled from an empty file counts as empty, and the file is read."""
    assert load_client(settings(secret_file).cloud, {"PIX4D_CLIENT_SECRET": "\n"}).client_secret == "from-file"


def test_without_any_credentials_both_are_told():
    """Id and secret that are nowhere are two problems, each with all the places; empty variables count as not set."""
    bare = Settings.model_validate({"watch": [{"name": "a", "path": "/x"}]})
    with pytest.raises(ConfigError) as caught:
        load_client(bare.cloud, {"PIX4D_CLIENT_ID": "", "PIX4D_CLIENT_SECRET": ""})
    no_id, no_secret = caught.value.problems
    assert all(word in no_id for word in ("cloud.client_id", "PIX4D_CLIENT_ID", "systemd credential"))
    assert all(word in no_secret for word in ("client_secret_file", "PIX4D_CLIENT_SECRET", "LoadCredential"))


def test_a_secret_shows_in_no_representation(secret_file):
    """repr, str and the explanation say where the secret is from, and not what it is."""
    client = load_client(settings(secret_file).cloud, {})
    for text in (repr(client), str(client), f"{client}", explain(settings(secret_file), client)):
        assert "from-file" not in text
        assert str(secret_file) in text


def test_explain_says_what_was_understood():
    """Each part of the configuration appears in words, and values that smell of secrets are masked."""
    more = {
        "journal": "/j/journal.db",
        "results": "/r",
        "watch": [
            {
                "name": "a",
                "path": "/drop/a",
                "settle": "90s",
                "poll": "30s",
                "existing": "ask",
                "start": "manual",
                "ready_file": ".ready",
                "include": ["*_V.JPG"],
                "exclude": ["*_T.JPG"],
                "outputs": ["dsm"],
                "checks": {"duplicates": "off"},
                "project": {"name": "{root} {folder}", "create": {"project_type": "pro"}},
                "processing": {"nested": [{"api_token": "hush"}]},
            },
            {"name": "b", "path": "/drop/b", "outputs": []},
        ],
    }
    text = explain(settings(**more), ClientCredentials("me", "hush", "cloud.client_id", "/secret"))
    for line in (
        "client id: me, from cloud.client_id",
        "client secret: set, from /secret",
        "journal: /j/journal.db",
        "results: /r/<root>/<folder>/",
        "drop directory a: /drop/a",
        "a folder is complete: 1m30s after its last change, or at once with .ready",
        "folders at the first scan: held until approved",
        "images: *_V.JPG but *_T.JPG",
        "checks: duplicates off, the rest by default",
        "project name: {root} {folder}",
        'extra fields at creation: {"project_type": "pro"}',
        'processing body: {"nested": [{"api_token": "***"}]}',
        "start: by a person",
        "asks for the state: every 30s",
        "results: dsm, waits 30m for late ones",
        "images after the start: a person is asked",
        "delivered folders: stay",
        "drop directory b: /drop/b",
        "results: none",
        "upload: 4 images at a time, in parts above 32MiB",
    ):
        assert f"{line}\n" in text
    assert "hush" not in text
    assert "client id and secret: not complete\n" in explain(settings(), None)
