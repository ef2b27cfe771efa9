"""Nothing that is secret gets out, and nothing hostile gets in: whole lives with hostile names, answers and hosts."""

import ast
import contextlib
import json
import os
import re
import select
import socket
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from harness import Site
from nursery import WITH_THE_TESTS, Child
from tls_kit import behind_tls, make_authority

from pix4d_watcher.cloud.answers import safe_name
from pix4d_watcher.cloud.bucket import Bucket
from pix4d_watcher.cloud.credentials import Credentials
from pix4d_watcher.cloud.rest import Rest, S3Grant
from pix4d_watcher.cloud.wire import Line
from pix4d_watcher.core import errors
from pix4d_watcher.emulator import projects
from pix4d_watcher.journal import people
from pix4d_watcher.journal.change import Stale

PRODUCT = Path(__file__).parents[2] / "pix4d_watcher"

FAULTS = (
    {"op": "token", "do": "html"},
    {"op": "create", "do": "status_after", "code": 502},
    {"op": "credentials", "do": "not_json"},
    {"op": "put", "do": "expire_credentials"},
    {"op": "put", "do": "cut_body", "bytes": 10, "times": 2},
    {"op": "part", "do": "expire_credentials"},
    {"op": "register", "do": "drop_after"},
    {"op": "project", "do": "expire_token"},
    {"op": "start", "do": "status_after", "code": 500},
    {"op": "get", "do": "cut", "bytes": 100},
)

HOOK = """\
import os, sys
with open(sys.argv[1], "ab") as file:
    for place in ("self", str(os.getppid())):
        for name in ("environ", "cmdline"):
            if (place, name) != (str(os.getppid()), "environ"):
                file.write(open(f"/proc/{place}/{name}", "rb").read() + b"\\n")
"""

HOSTILE = [
    "a\x1b[31mred\x1b[0m",
    "b\nforged level=error",
    "<script>alert(1)</script>",
    "%s%n{0}{folder}{__class__}",
    "[bold red]markup[/bold red]",
    "\u202egpj.exe",
    "-rf",
    "$(touch pwned)`touch pwned`;touch pwned",
    "'quoted\"",
]


class Tap:
    """A door before the emulator that writes down what clients say: every byte of every request."""

    def __init__(self, url):
        self.heard = []
        self._target = "127.0.0.1", int(url.rpartition(":")[2])
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                inside = self._server.accept()[0]
                heard = bytearray()
                self.heard.append(heard)
                threading.Thread(target=self._join, args=(inside, heard), daemon=True).start()

    def _join(self, inside, heard):
        with inside, contextlib.suppress(OSError), socket.create_connection(self._target) as outside:
            ways = {inside: outside, outside: inside}
            while True:
                for source in select.select(list(ways), [], [], 60)[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is inside:
                        heard += data
                    ways[source].sendall(data)

    def lines(self):
        """List the request lines, method and target."""
        found = [re.findall(rb"(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1\.1\r\n", bytes(heard)) for heard in self.heard]
        return [line for some in found for line in some]

    def close(self):
        """Take nobody any more."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A throw-away CA and certificates of several kinds."""
    return make_authority(tmp_path_factory.mktemp("ca"))


def secrets_of(site):
    state = site.cloud.state
    keys = [key for issued in state.credentials.values() for key in (issued.secret_key, issued.session_token)]
    return {secret.encode() for secret in ["demo-secret", *state.tokens, *keys]}


def command(site, *arguments):
    """Run a command as people do and give all it said."""
    with (site.directory / "said").open("wb") as said:
        child = Child([*arguments, "--config", site.config], stdout=said, stderr=said, cwd=site.directory)
    assert child.wait(60) is not None
    return (site.directory / "said").read_bytes()


def large(place):
    """Make an image that is sent in parts larger than the threshold: what follows the image does not matter."""
    image = next(place.iterdir())
    with image.open("ab") as file:
        file.write(os.urandom(9 << 20))


# --- a whole life


def test_a_whole_life_full_of_faults_tells_nothing(tmp_path):
    """Started with umask 000: no secret in any file, line, URL or process, and only own prefixes are written."""
    with contextlib.ExitStack() as told:
        site = told.enter_context(Site(tmp_path / "site", credentials_lifetime=4))
        tap = told.enter_context(contextlib.closing(Tap(site.cloud.url)))
        script = site.directory / "hook.py"
        script.write_text(HOOK)
        site.configure(
            results=True,
            cloud={"url": tap.url, "s3_endpoint": tap.url},
            advanced={"doubt_wait": "3s", "request_timeout": "2s"},
            upload={"multipart_threshold": "8MiB"},
        )
        settings = yaml.safe_load(site.config.read_text())
        seen = [sys.executable, str(script), str(site.directory / "seen")]
        site.config.write_text(yaml.safe_dump({**settings, "hooks": {"on_delivered": seen, "on_held": seen}}))
        notify = told.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(tmp_path / "notify"))
        site.cloud.faults.add(*FAULTS)
        place = site.prepare(count=8)
        large(place)
        place.rename(site.drops / "flight")
        with site.log.open("wb") as log:
            process = subprocess.Popen(
                [
                    *WITH_THE_TESTS,
                    "sh",
                    "-c",
                    'umask 000; exec "$0" -X dev -m pix4d_watcher run --config "$1"',
                    sys.executable,
                    site.config,
                ],
                stdout=log,
                stderr=log,
                cwd=site.directory,
                env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            )
        try:
            site.until(lambda: retried(site) or site.look().get("state") == "delivered", "delivered", 90)
            site.until((site.directory / "seen").exists, "the hook has run")
            for kind in ("cmdline", "environ"):
                assert b"demo-secret" not in Path(f"/proc/{process.pid}/{kind}").read_bytes()
            said = b"".join(
                command(site, *words)
                for words in (
                    ["status"],
                    ["status", "flight"],
                    ["status", "--json"],
                    ["explain", "flight"],
                    ["log", "flight"],
                    ["doctor"],
                    ["check-config"],
                    ["backup", "copy"],
                )
            )
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
        assert b"survey/flight" in said
        messages = b"".join(iter(lambda: heard(notify), b""))
        assert b"READY=1" in messages
        secrets = secrets_of(site)
        assert len(secrets) >= 6, "tokens and keys were renewed on the way"
        looked = {
            path: path.read_bytes() for path in site.directory.rglob("*") if path.is_file() and path.name != "secret"
        }
        looked |= {"output": said, "notify": messages, "request lines": repr(tap.lines()).encode()}
        assert not [(place, secret) for place, content in looked.items() for secret in secrets if secret in content]
        private_state(site)
        only_own_prefixes(site, tap)
        site.once(images=8, held=True)
        text = site.log.read_text()
        assert "Traceback" not in text
        assert "Warning" not in text, "of Python's development mode: what was left open"


def heard(notify):
    try:
        return notify.recv(65536, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


def retried(site):
    if site.look().get("hold"):
        with contextlib.suppress(people.Refusal, Stale):  # the service was quicker
            site.ask("retry")
    return False


def private_state(site):
    """Check the modes: the journal and all beside it for nobody else, results never for others to write."""
    state = site.directory / "state"
    for path in (state, *state.rglob("*"), site.directory / "copy"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    for path in (site.results, *site.results.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o002, path


def only_own_prefixes(site, tap):
    """Check each line that changes something: API calls about our projects, and objects below their prefixes."""
    ledger = site.cloud.ledger()
    bucket = site.cloud.state.settings.bucket
    own = [f"/{bucket}/{project['prefix']}/".encode() for project in ledger["projects"]]
    writing = [target for method, target in tap.lines() if method not in {b"GET", b"HEAD"}]
    to_s3 = [target for target in writing if not target.startswith((b"/project/api/v3/projects/", b"/oauth2/token/"))]
    assert len(to_s3) >= 10, "8 images, one of them in parts"
    assert [target for target in to_s3 if not target.startswith(tuple(own))] == []


def test_hostile_names_stay_names(site):
    """Folders and images with names that attack terminals, logs, formats, markup and shells are sent like any other."""
    seen = site.directory / "seen"
    script = site.directory / "hook.py"
    script.write_text("import json, os, sys\nopen(sys.argv[1], 'a').write(json.dumps(dict(os.environ)) + '\\n')\n")
    site.configure(results=True)
    settings = yaml.safe_load(site.config.read_text())
    hook = {"on_delivered": [sys.executable, str(script), str(seen)]}
    site.config.write_text(yaml.safe_dump({**settings, "hooks": hook}))
    for number, name in enumerate(HOSTILE):
        place = site.prepare(f"plain{number}")
        for image, other in zip(sorted(place.iterdir()), HOSTILE, strict=False):
            image.rename(place / (other.replace("/", "_") + ".JPG"))
        place.rename(site.drops / name.replace("/", "_"))
    assert site.run() == 0
    assert [row["state"] for row in site.status()] == ["delivered"] * len(HOSTILE)
    ledger = site.cloud.ledger()
    assert all(re.fullmatch(r"[A-Za-z0-9._/-]+", key) for key in ledger["objects"])
    assert all(project["name"].isprintable() for project in ledger["projects"])
    titles = [f"{row['root']}/{row['folder']}" for row in site.status()]
    assert all(title.isprintable() for title in titles)
    said = [command(site, "status", "--all"), command(site, "status", "--json")]
    for title in titles:
        said += [command(site, "explain", title), command(site, "log", title), command(site, "status", title)]
    said.append(site.log.read_bytes())
    for text in said:
        assert b"Traceback" not in text
        assert all(line.isprintable() for line in text.decode().splitlines())
    shown = b"".join(said).decode()
    for plain in ("[bold red]markup[_bold red]", "%s%n{0}{folder}{__class__}", "<script>"):
        assert plain in shown, "neither taken for markup nor for a format"
    told = {json.loads(line)["PIX4D_FOLDER"] for line in seen.read_text().splitlines()}
    assert told == {name.replace("/", "_") for name in HOSTILE}
    assert not list(site.directory.rglob("pwned"))
    assert len(list(site.results.glob("survey/*/.complete"))) == len(HOSTILE)


# --- results


NAMES = [
    "../../evil",
    "/etc/passwd",
    "a/../../evil",
    "report.json",
    "PIX4D-receipt.JSON",
    ".complete",
    "x" * 5000 + ".tif",
    "nul\0line\nfeed\x1b[2J",
]


def with_names(site, names):
    """Have the service name the results of the one used project so; from then on processing is done."""
    site.cloud.change(processing_seconds=60.0, outputs_endpoint="off")
    site.drop()
    site.start()
    site.reach("started")
    site.suspend()  # else it may ask between the two and see the names that the results have without this
    site.cloud.change(processing_seconds=0.0)
    detail = projects.detail(site.cloud.state, site.cloud.state.projects[site.used()["id"]], site.cloud.url)
    left = iter(names)
    for group in detail["outputs"].values():
        for leaf in group.values():
            if "s3_key" in leaf:
                leaf |= {"name": next(left, leaf["name"]), "url": "file:///etc/passwd"}
                leaf["request_url"] = "http://169.254.169.254/latest/meta-data/"
    site.fault("project", "status", code=200, body=json.dumps(detail), content_type="application/json", times=None)
    site.resume()


def test_names_of_results_lead_nowhere(site):
    """Names with paths, ours, endless and unprintable ones become files of their own in the folder of the results."""
    site.configure(results=True)
    outside = {path for path in site.directory.rglob("*") if path.is_file()}
    with_names(site, NAMES)
    site.delivered()
    place = site.results / "survey" / "flight"
    names = sorted(path.name for path in place.iterdir())
    assert len(names) == len(NAMES) + 3
    assert all(name.isprintable() and len(name.encode()) <= 220 for name in names)
    assert json.loads((place / "report.json").read_text())["version"] == 1
    assert json.loads((place / "pix4d-receipt.json").read_text())["version"] == 1
    assert (place / ".complete").read_text().startswith("flight [")
    new = {path for path in site.directory.rglob("*") if path.is_file()} - outside
    beside = [path for path in new if place not in path.parents and path.parent.name not in {"state", "flight"}]
    assert set(beside) <= {site.log}


def test_links_in_the_results_are_not_written_through(site):
    """Links that lie where results, our papers or their temporary files will be are replaced, not followed."""
    site.configure(results=True)
    place = site.results / "survey" / "flight"
    place.mkdir(parents=True)
    precious = {}
    for name in ("ortho.tif", ".ortho.tif.part", ".complete", "report.json", ".report.json.part", ".complete.part"):
        precious[name] = site.directory / f"precious-{name}"
        precious[name].write_text("mine")
        (place / name).symlink_to(precious[name])
    site.drop()
    site.start()
    # The link at .complete reads as the results of somebody else: those are never written over.
    site.delivered()
    assert {path.read_text() for path in precious.values()} == {"mine"}
    (place / ".complete").unlink()
    for name in ("ortho.tif", ".ortho.tif.part", "report.json", ".report.json.part", ".complete.part"):
        (site.results / "survey" / "second").mkdir(exist_ok=True)
        (site.results / "survey" / "second" / name).symlink_to(precious[name])
    site.drop("second")
    site.delivered("second")
    assert {path.read_text() for path in precious.values()} == {"mine"}
    written = list((site.results / "survey" / "second").iterdir())
    assert not [path for path in written if path.is_symlink() and path.name in {"ortho.tif", "report.json"}]
    assert (site.results / "survey" / "second" / ".complete").is_file()


def test_any_name_is_safe():
    """Whatever a name is made of, what is left is one plain file name."""
    odd = [
        "",
        ".",
        "..",
        "...",
        "/",
        "\\",
        "a/..",
        "..\\..\\x",
        "~",
        "-rf",
        "CON",
        " ",
        "\0",
        "\u202ex",
        "a" * 9999,
        "é" * 500,
    ]
    for one in odd:
        for other in odd:
            name = safe_name(one, other, "kind")
            assert "/" not in name
            assert "\0" not in name
            assert not name.startswith(".")
            assert 0 < len(name.encode()) <= 220


# --- places in the cloud


def created_at(site, prefix, bucket="prod-pix4d-cloud-default"):
    body = json.dumps({"id": 4711, "name": "x", "bucket_name": bucket, "s3_base_path": prefix})
    site.fault("create", "status", code=201, body=body, content_type="application/json", times=None)


@pytest.mark.parametrize("prefix", ["user-1/../user-2/project-9", "a//b", "user-1/./x", "user\nx/project-1"])
def test_a_place_that_is_none(site, prefix):
    """A project whose place in S3 is no plain one of its own is held, and no byte is sent there."""
    created_at(site, prefix)
    site.cloud.change(project_list="off")
    site.drop()
    site.start()
    assert "nothing is sent there" in site.held("cloud_refused")
    assert site.requests("put") == 0
    assert site.requests("credentials") == 0


def test_a_place_of_another_project(site):
    """A place that another project of ours has, or one around it, is held; what lies there stays as it was sent."""
    site.drop("first")
    site.start()
    site.delivered("first")
    objects, place = site.cloud.ledger()["objects"], site.used("first")["prefix"]
    site.cloud.change(project_list="off")
    for name, prefix in (("same", place), ("around", place.partition("/")[0]), ("below", f"{place}/below")):
        site.cloud.faults.clear()
        created_at(site, prefix)
        site.drop(name)
        assert "another project" in site.held("cloud_refused", name)
    assert site.cloud.ledger()["objects"] == objects


# --- TLS


def planes(url, ca):
    """Ask the API for a token, and S3 for an object, at an https address; give both errors."""
    ca_file = None if ca is None else str(ca)
    rest = Rest(url=url, client_id="demo-client", client_secret="demo-secret", timeout=10.0, ca_file=ca_file)
    found = []
    with contextlib.closing(rest), contextlib.closing(Line()) as line:
        bucket = Bucket(Credentials(lambda: GRANT), s3_endpoint=url, ca_file=ca_file, timeout=10.0)
        for call in (rest.token.value, lambda: bucket.head(line, "user/project/a.jpg")):
            try:
                call()
            except errors.RemoteError as error:
                found.append(error)
            else:
                found.append(None)
    return found


GRANT = S3Grant("AKIDEXAMPLE", "s", "t", 3600.0, 0.0, "prod-pix4d-cloud-default", "user/project", region="eu-central-1")


@pytest.mark.parametrize(
    ("kind", "ca"), [("server", None), ("server", "stranger"), ("expired", "ca"), ("elsewhere", "ca")]
)
def test_what_is_not_trusted_gets_nothing(site, authority, kind, ca):
    """Unknown authorities, expired certificates, those of another host: nothing leaves on either plane."""
    url = behind_tls(site.cloud, authority, kind)
    for error in planes(url, ca and authority / f"{ca}.pem"):
        assert type(error) is errors.NotSent
        assert "certificate" in str(error)
    assert site.cloud.ledger()["requests"] == {}


def test_old_tls_is_refused(site, authority):
    """A server that knows nothing newer than TLS 1.1 is not spoken to; with 1.2 it is."""
    old = behind_tls(site.cloud, authority, newest=ssl.TLSVersion.TLSv1_1)
    assert [type(error) for error in planes(old, authority / "ca.pem")] == [errors.NotSent] * 2
    with Site(site.directory / "newer") as newer:
        url = behind_tls(newer.cloud, authority, newest=ssl.TLSVersion.TLSv1_2)
        token, head = planes(url, authority / "ca.pem")
        assert token is None
        assert isinstance(head, errors.Refused), "the emulator knows no such key: it was asked"


def test_nothing_turns_verification_off():
    """No line of the product weakens TLS: no verify=False, CERT_NONE, check_hostname or unverified context."""
    weak = {"CERT_NONE", "CERT_OPTIONAL", "_create_unverified_context", "check_hostname", "disable_warnings"}
    files = list(PRODUCT.rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.keyword) and node.arg in {"verify", "check_hostname"}:
                assert not (isinstance(node.value, ast.Constant) and not node.value.value), file
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            assert name not in weak, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert (node.func.attr, getattr(node.func.value, "id", "")) != ("load", "yaml"), file
                assert node.func.attr not in {"unsafe_load", "full_load"}, file


class Redirecting:
    """A host that redirects every GET to `target`, and every POST too where `posts`; keeps who came."""

    def __init__(self, target, authority=None, *, posts=False, body=b'{"access_token": "abc", "expires_in": 3600}'):
        self._posts, self._body = posts, body
        self._server = socket.create_server(("127.0.0.1", 0))
        self._target, self.asked = target, []
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(authority / "server.pem", authority / "server.key")
            self._server = context.wrap_socket(self._server, server_side=True)
            self.url = self.url.replace("http://", "https://")
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                visitor = self._server.accept()[0]
            except ssl.SSLError:
                continue
            except OSError:
                return
            with visitor, contextlib.suppress(OSError):
                data = b""
                while b"\r\n\r\n" not in data or (data.startswith(b"POST /oauth2") and b"token_format" not in data):
                    data += visitor.recv(65536)
                self.asked.append(data)
                away = self._posts or not data.startswith(b"POST")
                status, more = ("302 F", f"Location: {self._target}\r\n") if away else ("200 OK", "")
                length = f"Connection: close\r\nContent-Length: {len(self._body)}\r\n\r\n"
                visitor.sendall(f"HTTP/1.1 {status}\r\n{more}{length}".encode() + self._body)

    def close(self):
        """Take nobody any more."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.mark.parametrize("tls", [True, False])
def test_no_redirect_leads_away(authority, tls):
    """An answer that sends us to another host, another port or out of TLS is not followed, and no token goes there."""
    with contextlib.closing(Redirecting("unused")) as elsewhere:
        targets = [elsewhere.url, "http://169.254.169.254/latest/", "file:///etc/passwd", "//[broken"]
        for target in targets:
            with contextlib.closing(Redirecting(target, authority if tls else None)) as server:
                rest = Rest(
                    url=server.url,
                    client_id="demo-client",
                    client_secret="demo-secret",
                    timeout=10.0,
                    ca_file=str(authority / "ca.pem"),
                )
                with contextlib.closing(rest), pytest.raises(errors.Unanswered, match="sends us to"):
                    rest.project(1)
                assert len([head for head in server.asked if head.startswith(b"GET")]) == 1
        assert elsewhere.asked == []


@pytest.mark.parametrize("target", ["//[broken", "http://[::1/", "http://x:y/"])
def test_a_broken_redirect_is_an_answer_like_any_other(target):
    """An address that is none, in the answer to a call, is nonsense of the service and never a defect of ours."""
    with contextlib.closing(Redirecting(target, posts=True)) as server:
        rest = Rest(url=server.url, client_id="c", client_secret="demo-secret", timeout=10.0)
        with contextlib.closing(rest):
            rest.token._value, rest.token._renew_at = "abc", float("inf")
            with pytest.raises(errors.Refused):
                rest.create("a", {})
            with pytest.raises(errors.Unanswered):
                rest.project(1)


def test_a_redirect_without_end():
    """The body of a redirect is bounded like any other."""
    with contextlib.closing(Redirecting("/x", posts=True, body=bytes(17 << 20))) as server:
        rest = Rest(url=server.url, client_id="c", client_secret="demo-secret", timeout=10.0)
        with contextlib.closing(rest), pytest.raises(errors.NotSent, match="longer than 16 MiB"):
            rest.token.value()


def test_a_redirect_to_the_same_host_is_followed(authority):
    """A path that the service corrects is asked there with the token; a circle of them ends."""
    with contextlib.closing(Redirecting("/project/api/v3/projects/2/")) as server:
        rest = Rest(url=server.url, client_id="c", client_secret="demo-secret", timeout=10.0)
        with contextlib.closing(rest), pytest.raises(errors.Refused):
            rest.project(1)
        gets = [head for head in server.asked if head.startswith(b"GET")]
        assert 2 <= len(gets) <= 10
        assert all(b"Bearer abc" in head for head in gets)


def test_images_never_go_out_of_tls(site, authority):
    """A service that is spoken to by TLS and names an S3 address without it gets no image."""
    site.cloud.change(endpoint_override="http://127.0.0.1:9")
    url = behind_tls(site.cloud, authority)
    ca_file = str(authority / "ca.pem")
    rest = Rest(url=url, client_id="demo-client", client_secret="demo-secret", timeout=10.0, ca_file=ca_file)
    with contextlib.closing(rest):
        project = rest.create("a [m]", {})
        with pytest.raises(errors.Unanswered, match="without TLS"):
            rest.s3_grant(project.id)
        site.cloud.change(endpoint_override="127.0.0.1:9")
        assert rest.s3_grant(project.id).endpoint_override == "127.0.0.1:9"
