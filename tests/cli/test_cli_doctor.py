"""What the doctor finds: each check sound, and each failing for real; what it says to do, and what it never does."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import nursery
import pytest
from harness import Site, all_stopped
from tls_kit import behind_tls, make_authority

from pix4d_watcher.core import errors
from pix4d_watcher.core.model import HoldCode
from pix4d_watcher.doctor import findings
from pix4d_watcher.doctor.examination import examine
from pix4d_watcher.host import lock
from pix4d_watcher.journal import database, service


class Patient(Site):
    """A site whose requests may take as long as the doctor ever waits: a busy machine is not what is looked for."""

    def configure(self, *, advanced=None, **more):
        """Write the configuration."""
        super().configure(advanced={"request_timeout": "1m", **(advanced or {})}, **more)


@pytest.fixture
def site(tmp_path):
    """An installation with its emulator, configured, and never started."""
    with Patient(tmp_path / "site") as made:
        made.configure(results=True)
        yield made


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A throw-away CA and certificates of several kinds."""
    return make_authority(tmp_path_factory.mktemp("ca"))


def found(site, *, upload=False):
    """Give the findings of an examination in this process by name, the worst of each."""
    worst = {}
    for finding in examine(site.config, {}, upload=upload):
        known = worst.get(finding.name)
        rank = ["ok", "warn", "fail"]
        if known is None or rank.index(finding.level) > rank.index(known.level):
            worst[finding.name] = finding
    return worst


def doctor(site, *options, privileged=True, **environment):
    """Run the command as people do; give its exit code and what it printed."""
    with (site.directory / "out").open("wb") as out, (site.directory / "err").open("wb") as err:
        child = nursery.Child(
            ["doctor", "--config", site.config, *options],
            stdout=out,
            stderr=err,
            cwd=site.directory,
            environment={**os.environ, **environment},
            privileged=privileged,
        )
    try:
        code = child.wait(90)
    finally:
        child.kill()
    assert "Traceback" not in (site.directory / "err").read_text()
    return code, (site.directory / "out").read_text()


def is_bad(finding, level, *words):
    """Check the level, what is said of it, and that something to do stands with it."""
    assert finding.level == level, finding
    for word in words:
        assert word in f"{finding.text} {finding.remedy}", finding
    assert finding.remedy


def all_files(directory):
    return sorted(path for path in directory.rglob("*") if path.name not in {"out", "err"})


# --- the command


def test_all_in_order(site):
    """Where nothing is wrong nothing fails, and nothing is changed: no journal, no lock, no request but questions."""
    before = all_files(site.directory)
    code, text = doctor(site)
    assert code == 0, text
    assert not re.search("^fail", text, re.MULTILINE)
    lines = text.splitlines()
    for name in ("configuration", "client secret", "drop directory survey", "API connection", "token", "projects"):
        assert [line for line in lines if re.match(f"ok    {name} ", line)], text
    assert all_files(site.directory) == before
    ledger = site.cloud.ledger()
    assert ledger["projects"] == []
    assert set(ledger["requests"]) <= {"token", "list", "other"}


def test_json_for_monitoring(site):
    """--json prints JSON alone, of the promised form, and the same exit code."""
    site.drops.rmdir()
    code, text = doctor(site, "--json")
    told = json.loads(text)
    assert code == 1
    assert told["version"] == 1
    assert all(set(check) == {"name", "level", "text", "remedy"} for check in told["checks"])
    (gone,) = [check for check in told["checks"] if check["level"] == "fail"]
    assert gone["name"] == "drop directory survey"
    assert "mkdir" in gone["remedy"]


def test_beside_a_running_service(site):
    """While the service runs it says so, and disturbs nothing: the service goes on, and holds its lock."""
    site.start()
    site.until(site.vitals, "the service gives signs of life")
    told = found(site)
    assert told["service"].level == "ok"
    assert str(site.process.pid) in told["service"].text
    assert told["journal"].level == "ok", told["journal"]
    assert told["journal permissions"].level == "ok"
    assert "of the service" in told["descriptors"].text
    assert site.stop() == 0


def test_the_trial_upload(site):
    """--upload makes a project of that name, never started, puts, looks, aborts and deletes, and tells what is left."""
    told = found(site, upload=True)
    trials = {name: finding.level for name, finding in told.items() if name.startswith("trial")}
    assert trials == dict.fromkeys(
        ["trial project", "trial upload", "trial look", "trial multipart", "trial removal"], "ok"
    )
    (project,) = site.cloud.ledger()["projects"]
    assert re.fullmatch(r"pix4d-watcher doctor, may be deleted \[[0-9a-f]{12}\]", project["name"])
    assert (project["starts"], project["registered"], site.cloud.ledger()["objects"]) == (0, {}, {})
    assert [upload["state"] for upload in site.cloud.ledger()["uploads"]] == ["aborted"]
    assert str(project["id"]) in told["trial project"].text
    assert "stays in the cloud" in told["trial project"].text


@pytest.mark.parametrize(
    ("op", "name", "level"),
    [
        ("create", "trial project", "fail"),
        ("put", "trial upload", "fail"),
        ("head", "trial look", "warn"),
        ("initiate", "trial upload", "fail"),
        ("delete", "trial removal", "warn"),
    ],
)
def test_a_trial_that_is_refused(site, op, name, level):
    """What the account may not do is told with the step; not being allowed to look or delete does no harm."""
    body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>" if op != "create" else "{}"
    site.fault(op, "status", code=403, body=body, times=None)
    is_bad(found(site, upload=True)[name], level, "403")


def test_no_trial_without_a_token(site):
    """--upload creates nothing where the client is not let in."""
    (site.directory / "secret").write_text("wrong\n")
    told = found(site, upload=True)
    assert told["trial upload"].level == "warn"
    assert site.cloud.ledger()["projects"] == []


@pytest.mark.parametrize(
    ("causes", "code"),
    [
        (["unreachable"], 75),
        (["unreachable", "other"], 1),
        (["unreachable", "other", "permission"], 77),
        (["unreachable", "other", "permission", "configuration"], 78),
        ([], 0),
    ],
)
def test_exit_codes(causes, code):
    """Of several failures the one counts that waiting helps least; warnings count as good."""
    from pix4d_watcher.cli.doctor import _code

    failures = [findings.fail("x", "", "", findings.Cause(cause)) for cause in causes]
    assert _code([*failures, findings.warn("y", "", ""), findings.ok("z", "")]) == code


# --- how checks run


def test_a_check_that_hangs_is_one_line():
    """Checks run side by side; one that never answers costs its own limit, and what it found before is kept."""
    never = threading.Event()

    def hangs():
        yield findings.ok("first", "found before")
        never.wait()

    checks = [findings.Check(f"hangs {n}", hangs, 4.0, "look") for n in range(20)]
    checks.append(findings.Check("quick", lambda: [findings.ok("quick", "")], 60.0, ""))
    begun = time.monotonic()
    told = list(findings.run(checks))
    never.set()
    assert time.monotonic() - begun < 40
    assert [finding.level for finding in told] == ["ok", "fail"] * 20 + ["ok"]
    assert "no answer within" in told[1].text


def test_errors_of_the_system_are_findings():
    """What a check could not foresee is told with its words and its kind."""

    def breaks(error):
        raise error

    told = [
        next(findings.run([findings.Check("x", lambda error=error: breaks(error), 5.0, "look")]))
        for error in (PermissionError(13, "Permission denied", "/a\n"), OSError(5, "I/O error"), errors.NotSent("n"))
    ]
    assert [finding.cause for finding in told] == ["permission", "other", "unreachable"]
    assert told[0].text == "/a\\x0a: Permission denied"


def test_a_secret_in_foreign_words_is_hidden():
    """Should a secret come back in anybody's words, it is not printed."""
    told = list(findings.hidden([findings.fail("x", "not hush-hush", "try hush-hush")], "hush-hush"))
    assert "hush" not in str(told)


# --- configuration and secret


def test_a_wrong_configuration(site):
    """All problems with their lines, and what does not need it is checked all the same; 78."""
    site.config.write_text(
        site.config.read_text().replace("settle: 500ms", "settel: 500ms").replace("journal:", "jornal:")
    )
    code, text = doctor(site)
    assert code == 78
    assert text.count("fail  configuration") == 2
    assert "did you mean 'settle'" in text
    assert "program" in text


def test_no_configuration(site):
    """A file that is not there is told, with the command that goes on."""
    site.config.unlink()
    code, text = doctor(site)
    assert code == 78
    assert "no such file" in text


def test_a_secret_for_everybody(site):
    """A secret file that others may read fails with the chmod to run, and is not shown; nothing is asked with it."""
    (site.directory / "secret").chmod(0o644)
    told = found(site)
    is_bad(told["client secret"], "fail", "chmod 600")
    assert told["token"].level == "warn"
    assert doctor(site)[0] == 78


def test_a_wrong_secret(site):
    """A client that is refused is told as that, with where to get another; 77, and the secret is nowhere."""
    (site.directory / "secret").write_text("wr0ng-s3cret\n")
    code, text = doctor(site)
    assert code == 77
    assert "refused by the service" in text
    assert "account.pix4d.com" in text
    assert "wr0ng" not in text


def test_no_secret_is_printed(site):
    """Neither form shows the secret or a password of a proxy."""
    proxy = "http://pilot:hush-hush@127.0.0.1:1"
    for options in ((), ("--json",)):
        code, text = doctor(site, *options, HTTP_PROXY=proxy)
        assert code == 75
        assert "127.0.0.1:1" in text
        assert not re.search("hush|demo-secret", text)


# --- the service


def test_the_link_is_down(site):
    """Nobody listens: the connection fails, nothing further is asked, and waiting may help: 75."""
    site.unplug()
    try:
        code, text = doctor(site)
    finally:
        site.plug()
    assert code == 75
    assert re.search("^fail  API connection", text, re.MULTILINE)
    assert re.search("^warn  token", text, re.MULTILINE)
    assert "curl -v" in text


def test_an_unknown_name(site):
    """A name without an address is told as that, before any connection."""
    site.configure(cloud={"url": "https://no-such-host.invalid"})
    told = found(site)
    is_bad(told["API name"], "fail", "no-such-host.invalid", "resolv.conf")
    assert "API connection" not in told


def test_a_service_that_is_silent(site):
    """A server that takes the connection and says nothing costs the patience, not for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        site.configure(cloud={"url": url, "s3_endpoint": url}, advanced={"request_timeout": "500ms"})
        told = found(site)
    is_bad(told["API connection"], "fail", "curl -v")
    is_bad(told["S3 connection"], "fail", "curl -v")


@pytest.mark.parametrize(
    ("skew", "level", "words"),
    [(5, "ok", "agrees"), (-120, "warn", "ahead of"), (3600, "fail", "RequestTimeTooSkewed")],
)
def test_clocks(site, skew, level, words):
    """The service's Date shows how far this machine's clock is off, and from when on S3 refuses it."""
    site.cloud.change(clock_skew=float(skew))
    told = found(site)
    assert told["API clock"].level == level
    assert words in told["API clock"].text
    assert told["token"].level == "ok", "a wrong clock hides nothing else"


def test_a_service_that_answers_nonsense(site):
    """A login page in the API's place and a list that is refused are told apart from a refused client."""
    site.fault("token", "html", times=1)
    assert found(site)["token"].level == "fail"
    site.cloud.change(project_list="off")
    is_bad(found(site)["projects"], "warn", "create_in_doubt")


def test_s3_of_the_newest_project(site):
    """Without an s3_endpoint of ours, S3 is looked for where the service says that the newest project lies."""
    site.configure(cloud={"s3_endpoint": None})
    assert "--upload" in found(site)["S3"].text
    site.cloud.change(endpoint_override=site.cloud.url)
    site.drop()
    site.start()
    site.delivered()
    site.kill()
    requests = dict(site.cloud.ledger()["requests"])
    told = found(site)
    assert told["S3 connection"].level == "ok", told
    assert told["S3 clock"].level == "ok"
    after = site.cloud.ledger()["requests"]
    assert {op for op in after if after[op] != requests.get(op)} <= {"token", "list", "credentials", "other"}


# --- TLS


def test_tls_that_is_trusted(site, authority):
    """With the authority named, both planes are reached, and the certificate's days are told: two are few."""
    url = behind_tls(site.cloud, authority)
    site.configure(cloud={"url": url, "s3_endpoint": url, "ca_file": str(authority / "ca.pem")})
    told = found(site)
    assert told["token"].level == "ok"
    for plane in ("API", "S3"):
        assert told[f"{plane} connection"].level == "ok"
        is_bad(told[f"{plane} certificate"], "warn", "TLSv1.3", "days left")


@pytest.mark.parametrize(
    ("kind", "ca", "words"),
    [
        ("server", None, "cloud.ca_file"),
        ("server", "stranger", "cloud.ca_file"),
        ("expired", "ca", "clock"),
        ("elsewhere", "ca", "another"),
    ],
)
def test_tls_that_is_not(site, authority, kind, ca, words):
    """An unknown authority, another one, an expired certificate, another name: refused, each with its own remedy."""
    url = behind_tls(site.cloud, authority, kind)
    ca_file = None if ca is None else str(authority / f"{ca}.pem")
    site.configure(cloud={"url": url, "s3_endpoint": url, "ca_file": ca_file})
    told = found(site)
    for plane in ("API", "S3"):
        is_bad(told[f"{plane} certificate"], "fail", words)
    assert site.cloud.ledger()["requests"].get("token", 0) == 0


def test_a_proxy(site, monkeypatch):
    """A proxy that does not answer is named without its login, and where it is set."""
    monkeypatch.setenv("HTTP_PROXY", "http://pilot:hush@127.0.0.1:1")
    told = found(site)["API connection"]
    is_bad(told, "fail", "HTTPS_PROXY", "http://127.0.0.1:1")
    assert "hush" not in str(told)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://[::1]:1", ["curl -v -x http://[::1]:1 "]),
        ("http://pilot:pa#hush@127.0.0.1:1", ["HTTP_PROXY names no proxy", "Environment="]),
        ("socks5h://pilot:hush@127.0.0.1:1", ["HTTP_PROXY names no proxy", "Environment="]),
        ("http://[::1", ["HTTP_PROXY names no proxy", "Environment="]),
    ],
)
def test_what_is_no_proxy(site, address, words):
    """Whatever the variable holds, it is one line with a remedy for each plane, and no part of a password is shown."""
    code, text = doctor(site, "--json", HTTP_PROXY=address)
    told = {check["name"]: findings.Finding(**check) for check in json.loads(text)["checks"]}
    assert code == 75
    for plane in ("API", "S3"):
        is_bad(told[f"{plane} connection"], "fail", *words)
    assert not re.search("hush|'pa'|://pilot", text + (site.directory / "err").read_text())


# --- directories


def test_directories_without_permission(site):
    """What this user may not read or write is told with the command that gives it; 77."""
    site.configure(results=True, after="delete")
    site.results.mkdir(mode=0o500)
    site.drops.chmod(0o500)
    try:
        code, text = doctor(site, privileged=False)
        flat = " ".join(text.split())
        assert code == 77
        assert "drop directory survey" in flat
        assert flat.count("may not be written by this user") == 2
        site.drops.chmod(0)
        flat = " ".join(doctor(site, privileged=False)[1].split())
        assert "may not be read by this user" in flat
        assert "setfacl" in flat
    finally:
        site.drops.chmod(0o700)
        site.results.chmod(0o700)


def test_what_a_drop_directory_is_like(site):
    """Loose images, the filesystem and a directory that is no directory are told."""
    (site.drops / "DJI_0001.JPG").write_bytes(b"x")
    told = found(site)
    is_bad(told["drop directory survey"], "warn", "1 image lies directly")
    site.results.write_bytes(b"")
    is_bad(found(site)["results"], "fail", "is a file")


def test_a_medium_that_comes_and_goes(site):
    """A drop directory that is away fails where it never was there, and is a warning where the service knows it."""
    site.drop("few", 3)
    site.run()
    site.drops.rename(site.directory / "away")
    is_bad(found(site)["drop directory survey"], "warn", "plug the medium in")


def test_an_archive_is_looked_at_too(site):
    """The archive that delivered folders go to must be writable as well."""
    site.configure(after="archive", archive_to=str(site.directory / "archive"))
    assert found(site)["archive of survey"].level == "ok"


@pytest.mark.check  # mounts a small disk
def test_small_disk_of_the_journal(site):
    """The journal's disk fails below the mark at which the service pauses, and not above it."""
    place = site.directory / "state"
    place.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", place], check=True)
    try:
        is_bad(found(site)["journal directory"], "fail", "needs 17 MB", "df -h")
        subprocess.run(["mount", "-o", "remount,size=40m", place], check=True)
        is_bad(found(site)["journal directory"], "warn", "which is little", "df -h")
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.check  # mounts a small disk
def test_small_and_read_only_disks(site):
    """A full disk for the results, and one that was mounted read-only by the kernel, fail with what to do."""
    site.results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", site.results], check=True)
    try:
        is_bad(found(site)["results"], "fail", "needs 67 MB", "df -h")
        subprocess.run(["mount", "-o", "remount,ro", site.results], check=True)
        is_bad(found(site)["results"], "fail", "read-only", "remount,rw")
        (site.directory / "state").symlink_to(site.results)
        subprocess.run(["mount", "-o", "remount,rw", site.results], check=True)
        is_bad(found(site)["journal directory"], "fail", "needs 17 MB", "df -h")
    finally:
        subprocess.run(["umount", "-l", site.results], check=True)


@pytest.mark.check  # mounts through bindfs
def test_a_share_that_hangs(site):
    """A drop directory that never answers is a line, all other checks are made, and the command ends."""
    if shutil.which("bindfs") is None or os.geteuid() != 0:
        pytest.skip("needs root and bindfs")
    source = site.directory / "source"
    source.mkdir()
    bindfs = subprocess.Popen(["bindfs", "-f", source, site.drops])
    try:
        site.until(lambda: os.path.ismount(site.drops), "mounted")
        bindfs.send_signal(signal.SIGSTOP)
        # A request that it has read already cannot be taken back, and the doctor's process could not end.
        site.until(lambda: all_stopped(bindfs.pid), "bindfs stands")
        code, text = doctor(site, "--json")
        told = {check["name"]: check for check in json.loads(text)["checks"]}
        assert code != 0
        assert "no answer within" in told["drop directory survey"]["text"]
        assert told["token"]["level"] == "ok"
        assert told["results"]["level"] == "ok"
    finally:
        bindfs.send_signal(signal.SIGCONT)
        subprocess.run(["umount", "-l", site.drops], check=False)
        bindfs.kill()
        bindfs.wait()


# --- the journal and the service


def journal_of(site):
    return database.open_journal(site.directory / "state" / "journal.db")


def test_a_journal_that_is_damaged(site):
    """A damaged journal is told with the way back to its backup; the doctor mends nothing."""
    path = site.directory / "state" / "journal.db"
    journal = journal_of(site)
    service.put(journal, "facts", "x" * 200_000)
    journal.close()
    data = bytearray(path.read_bytes())
    data[8192:40960] = os.urandom(32768)
    path.write_bytes(data)
    is_bad(found(site)["journal"], "fail", "pix4d-watcher restore")
    assert path.read_bytes() == data
    path.write_bytes(b"no database at all" * 1000)
    is_bad(found(site)["journal"], "fail", "pix4d-watcher restore")


def test_a_newer_journal(site):
    """A journal of a newer version fails with 78: the service would not start either."""
    journal_of(site).close()
    with sqlite3.connect(site.directory / "state" / "journal.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    code, text = doctor(site)
    assert code == 78
    assert "newer" in text


def test_a_journal_for_everybody(site):
    """Files of the journal that others may read are named with the chmod."""
    journal_of(site).close()
    (site.directory / "state").chmod(0o755)
    is_bad(found(site)["journal permissions"], "warn", "chmod go=")


def test_a_journal_of_somebody_else(site):
    """A user who may not read the journal is told whose command it is; 77."""
    journal_of(site).close()
    (site.directory / "state" / "journal.db").chmod(0)
    code, text = doctor(site, privileged=False)
    assert code == 77
    assert "this user may not use the journal" in " ".join(text.split())


def test_the_end_of_the_last_run_and_backups(site):
    """An unclean end, no backup and an old one are warnings."""
    journal = journal_of(site)
    service.put(journal, service.RUNNING, value=True)
    told = found(site)
    is_bad(told["journal"], "warn", "did not end by itself")
    is_bad(told["backup"], "warn", "none yet", "pix4d-watcher backup")
    copy = database.backup_path(journal.path)
    database.backup(journal, copy)
    assert found(site)["backup"].level == "ok"
    old = time.time() - 5 * 86400
    os.utime(copy, (old, old))
    is_bad(found(site)["backup"], "warn", "5 days old")
    journal.close()


def test_a_service_that_hangs(site):
    """A service that holds its lock and gives no sign of life fails with the command that ends it."""
    journal = journal_of(site)
    service.put(journal, service.VITALS, {"pid": os.getpid(), "at": time.time() - 600, "pause": None})
    with lock.hold(lock.lock_path(journal.path)):
        is_bad(found(site)["service"], "fail", "sign of life", "systemctl restart")
        pause = {"kind": "network", "text": "no route", "since": time.time()}
        service.put(journal, service.VITALS, {"pid": os.getpid(), "at": time.time(), "pause": pause})
        is_bad(found(site)["pause"], "warn", "the link to the cloud: no route")
    journal.close()


def test_what_waits_for_people(site):
    """Holds are counted and a pause is named, with the commands that say more."""
    site.drop("few", 3)
    assert site.run() == 0
    assert site.look("few")["hold"]["code"] == HoldCode.TOO_FEW_IMAGES
    site.pause_all(paused=True)
    told = found(site)
    is_bad(told["folders"], "warn", "1 held", "pix4d-watcher status")
    is_bad(told["pause"], "warn", "resume --all")


# --- the machine


def limited(site, what, number):
    """Run the doctor where the kernel grants fewer inotify things: in a user namespace of its own."""
    script = f"echo {number} > /proc/sys/user/max_inotify_{what} && exec $1 -m pix4d_watcher doctor --json --config $0"
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", script, site.config, sys.executable],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}["inotify"]


@pytest.mark.parametrize(("what", "number"), [("watches", 0), ("watches", 20), ("instances", 0)])
def test_inotify_limits(site, what, number):
    """Limits that are used up, or too low for what is needed, are told with the line for sysctl."""
    if subprocess.run(["unshare", "-Ur", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    told = limited(site, what, number)
    assert told["level"] == "warn", told
    assert "polling" in told["text"]
    assert f"fs.inotify.max_user_{what}=" in told["remedy"]


def test_few_descriptors(site):
    """A low limit of open files is a warning."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
    try:
        is_bad(found(site)["descriptors"], "warn", "LimitNOFILE")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
