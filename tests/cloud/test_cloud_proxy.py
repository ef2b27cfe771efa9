"""Proxies and CAs of one's own: REST and S3 go the same way."""

import base64
import os
import re
import socket
import traceback

import pytest
from cloud_kit import WAIT, join, make_rest
from tls_kit import name_in_directories

from pix4d_watcher.cloud.bucket import Bucket
from pix4d_watcher.cloud.credentials import Credentials
from pix4d_watcher.core import errors
from pix4d_watcher.host import logs

LOGIN = b"Basic " + base64.b64encode(b"pilot:p@ss word")
WITH_LOGIN = "pilot:p%40ss%20word@"


class Proxy:
    """A forward proxy: CONNECT to names that only it knows, and plain requests in the absolute form."""

    def __init__(self, raw_server, routes):
        self.routes = routes
        self.tunnels = []
        self.plain = []
        self.logins = set()
        self.port = raw_server(self.serve)

    def serve(self, visitor, _number):
        """Serve one connection."""
        head = visitor.head()
        method, target, _ = head.split(b" ", 2)
        login = [line.partition(b": ")[2] for line in head.split(b"\r\n") if b"proxy-authorization" in line.lower()]
        self.logins.update(login)
        if login != [LOGIN]:
            visitor.answer(407, b"<html><title>Who are you?</title></html>")
            return
        if method == b"CONNECT":
            self.tunnels.append(target.decode())
            with socket.create_connection(("127.0.0.1", self.routes[target.decode()])) as outside:
                visitor.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
                join(visitor.sock, outside)
            return
        host, _, path = target.removeprefix(b"http://").partition(b"/")
        self.plain.append(host.decode())
        with socket.create_connection(("127.0.0.1", self.routes[host.decode()])) as outside:
            outside.sendall(head.replace(target, b"/" + path, 1)[:-2] + b"Connection: close\r\n\r\n")
            join(visitor.sock, outside)


def fly(emulator, rest, line, image, *, s3_endpoint, ca_file):
    """Create a project and upload an image: both planes; returns the hash that arrived."""
    project = rest.create("a [m4rk3r]", {})
    credentials = Credentials(lambda: rest.s3_grant(project.id))
    bucket = Bucket(credentials, s3_endpoint=s3_endpoint, ca_file=ca_file, timeout=WAIT)
    key = f"{project.prefix}/a.jpg"
    for _ in range(2):
        bucket.put(line, key, image.range(), image.sha256)
    return emulator.ledger()["objects"][key]["sha256"]


@pytest.fixture
def image(source):
    """Three megabytes: enough for 100-continue and several buffers."""
    return source(os.urandom(3 << 20))


@pytest.fixture
def port(emulator):
    """The emulator's port."""
    return int(emulator.url.rpartition(":")[2])


@pytest.fixture
def proxy(raw_server, tls_front, port):
    """A proxy that wants a password and knows `cloud.test` and `s3.test`, by TLS and plainly."""
    front = tls_front(port)
    routes = {"cloud.test:443": front, "s3.test:443": front, "cloud.test": port, "s3.test:81": port}
    return Proxy(raw_server, routes)


def test_tls_through_a_proxy_with_an_own_ca(emulator, authority, proxy, line, image, monkeypatch):  # noqa: PLR0917
    """Names that only the proxy knows, certificates that only `ca_file` explains, a password in the address."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://{WITH_LOGIN}127.0.0.1:{proxy.port}")
    ca_file = str(authority / "ca.pem")
    rest = make_rest("https://cloud.test", ca_file=ca_file)
    arrived = fly(emulator, rest, line, image, s3_endpoint="https://s3.test", ca_file=ca_file)
    assert arrived == image.sha256.hex()
    emulator.change(project_list="paged", page_size=1)
    rest.create("b", {})
    assert rest.find_projects("m4rk3r", known=[]).matches, "a link with http:// and without a port is our own"
    assert proxy.tunnels.count("s3.test:443") == 1, "one kept connection for both uploads"
    assert set(proxy.tunnels) == {"cloud.test:443", "s3.test:443"}
    rest.close()
    line.close()


def test_plain_http_through_a_proxy(emulator, proxy, line, image, monkeypatch):
    """HTTP_PROXY gets the absolute form and the password, for both planes."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{WITH_LOGIN}127.0.0.1:{proxy.port}")
    rest = make_rest("http://cloud.test")
    arrived = fly(emulator, rest, line, image, s3_endpoint="http://s3.test:81", ca_file=None)
    assert arrived == image.sha256.hex()
    assert set(proxy.plain) == {"cloud.test", "s3.test:81"}
    rest.close()
    line.close()


def test_no_proxy(emulator, line, image, port, monkeypatch):
    """NO_PROXY leads around a proxy that is not there, for both planes, as address range or name."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    for exempt in ("127.0.0.0/8", "localhost,127.0.0.1"):
        monkeypatch.setenv("NO_PROXY", exempt)
        rest = make_rest(f"http://127.0.0.1:{port}")
        assert fly(emulator, rest, line, image, s3_endpoint=emulator.url, ca_file=None) == image.sha256.hex()
        rest.close()


GRANTED = {"s3_endpoint": "https://s3.test", "timeout": WAIT}


def both_planes(line, image, *, rest_url="https://cloud.test", ca_file=None, credentials=None):
    """Return the errors of a REST call and of an upload."""
    with pytest.raises(errors.RemoteError) as by_rest:
        make_rest(rest_url, ca_file=ca_file).create("a", {})
    with pytest.raises(errors.RemoteError) as by_s3:
        Bucket(credentials, ca_file=ca_file, **GRANTED).put(line, "k", image.range(), image.sha256)
    return by_rest.value, by_s3.value


@pytest.mark.parametrize("place", ["s3.test:443", "[2001:db8::1]:8443"])
def test_how_a_proxy_is_asked_for_a_tunnel(raw_server, line, image, credentials, monkeypatch, place):  # noqa: PLR0917
    """Both planes name the same place in the same way, by HTTP/1.1 and with a Host, which some proxies insist on."""
    credentials.current()
    asked = []

    def story(visitor, _number):
        first, *rest = visitor.head().decode().split("\r\n")
        asked.append((first, [header for header in rest if header.lower().startswith("host:")]))
        visitor.answer(403)

    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{raw_server(story)}")
    with pytest.raises(errors.NotSent, match="403"):
        make_rest(f"https://{place}").create("a", {})
    bucket = Bucket(credentials, s3_endpoint=f"https://{place}", ca_file=None, timeout=WAIT)
    with pytest.raises(errors.NotSent, match="403"):
        bucket.put(line, "k", image.range(), image.sha256)
    assert asked == [(f"CONNECT {place} HTTP/1.1", [f"Host: {place}"])] * 2


@pytest.mark.parametrize("through", ["", " through the proxy 127.0.0.1:1"])
def test_what_could_not_be_reached_is_named(line, image, credentials, monkeypatch, through):
    """Where nothing was sent both planes name host, port and proxy, and never the proxy's login."""
    credentials.current()
    if through:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{WITH_LOGIN}127.0.0.1:1")
    with pytest.raises(errors.NotSent) as by_rest:
        make_rest("https://127.0.0.1:2").create("a", {})
    bucket = Bucket(credentials, s3_endpoint="https://127.0.0.1:2", ca_file=None, timeout=WAIT)
    with pytest.raises(errors.NotSent) as by_s3:
        bucket.put(line, "k", image.range(), image.sha256)
    for error in (by_rest.value, by_s3.value):
        assert f": connecting to 127.0.0.1:2{through}: nothing was sent: Connection refused" in str(error)


def test_a_proxy_that_refuses(proxy, line, image, credentials, monkeypatch):
    """A wrong password at the proxy: nothing was sent, the status is told, the password is not."""
    credentials.current()
    monkeypatch.setenv("HTTPS_PROXY", f"http://pilot:hunter2@127.0.0.1:{proxy.port}")
    for error in both_planes(line, image, credentials=credentials):
        assert type(error) is errors.NotSent
        assert "407" in str(error)
        assert "hunter2" not in f"{error} {error.__cause__!r}"
    assert proxy.tunnels == []


def test_a_certificate_that_nobody_explains(proxy, line, image, credentials, monkeypatch):
    """Without `ca_file` neither plane sends anything, and both name it."""
    credentials.current()
    monkeypatch.setenv("HTTPS_PROXY", f"http://{WITH_LOGIN}127.0.0.1:{proxy.port}")
    for error in both_planes(line, image, credentials=credentials):
        assert type(error) is errors.NotSent
        assert "cloud.ca_file" in str(error)


def test_a_ca_file_that_is_not_there(line, image, credentials, tmp_path):
    """A missing CA file sends nothing over either plane."""
    credentials.current()
    for error in both_planes(line, image, credentials=credentials, ca_file=str(tmp_path / "none.pem")):
        assert type(error) is errors.NotSent


def test_a_proxy_of_another_kind(line, image, credentials, monkeypatch):
    """A proxy that cannot be used for uploads is named, without its password."""
    credentials.current()
    monkeypatch.setenv("HTTPS_PROXY", "https://pilot:hunter2@127.0.0.1:1080")
    with pytest.raises(errors.NotSent, match=r"https://127\.0\.0\.1:1080 cannot be used for uploads") as caught:
        Bucket(credentials, ca_file=None, **GRANTED).put(line, "k", image.range(), image.sha256)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "socks5h://pilot:hunter2@127.0.0.1:1080",
        "pilot:hunter2@127.0.0.1:1080",
        "localhost:1",
        "http://[::1",
        "http://127.0.0.1:99999",
        "http://pilot:4711#hunter2@127.0.0.1:1",
        "http://pilot:hunter2/x@127.0.0.1:1",
        "http://pilot:hunter2[@127.0.0.1:1",
        "http://pilot:hunter2\u20ac@127.0.0.1:1",
        "http://",
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_what_is_no_proxy(line, image, credentials, monkeypatch, address, variable):  # noqa: PLR0917
    """Nothing is sent over either plane; what to write is told, also in logs, and nothing of what stands there."""
    credentials.current()
    monkeypatch.setenv(variable, address)
    for error in both_planes(line, image, credentials=credentials):
        assert type(error) is errors.NotSent
        assert f"{variable} names no proxy" in str(error)
        assert logs.redacted(str(error)) == str(error)
        shown = "".join(traceback.format_exception(error))
        assert not re.search(r"hunter2|4711|127\.0\.0\.1", shown)


@pytest.fixture
def ca_directory(authority, tmp_path):
    """A directory of authorities, as `openssl rehash` makes it."""
    (tmp_path / "authorities").mkdir()
    (tmp_path / "authorities" / name_in_directories(authority / "ca.pem")).symlink_to(authority / "ca.pem")
    return tmp_path / "authorities"


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_bundles_of_the_environment(emulator, tls_front, port, authority, ca_directory, line, image, monkeypatch, kind):  # noqa: PLR0917
    """Without `ca_file` both planes trust what REQUESTS_CA_BUNDLE names, a file or a directory."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / "ca.pem" if kind == "file" else ca_directory))
    url = f"https://localhost:{tls_front(port)}"
    rest = make_rest(url)
    assert fly(emulator, rest, line, image, s3_endpoint=url, ca_file=None) == image.sha256.hex()
    rest.close()
    line.close()


@pytest.mark.parametrize("way", ["plain", "tunnel"])
def test_an_answer_lost_behind_a_proxy(emulator, authority, proxy, way, monkeypatch):
    """A request that was applied before its connection through a proxy broke has not "never left"."""
    kind, url = {"plain": ("HTTP", "http://cloud.test"), "tunnel": ("HTTPS", "https://cloud.test")}[way]
    monkeypatch.setenv(f"{kind}_PROXY", f"http://{WITH_LOGIN}127.0.0.1:{proxy.port}")
    rest = make_rest(url, ca_file=str(authority / "ca.pem"))
    emulator.faults.add({"op": "create", "do": "drop_after"})
    with pytest.raises(errors.Unanswered):
        rest.create("a", {})
    assert len(emulator.ledger()["projects"]) == 1
    rest.close()


@pytest.mark.parametrize("rude", ["answers nothing", "resets", "speaks no HTTP"])
def test_a_proxy_that_makes_no_tunnel(raw_server, rude, monkeypatch):
    """Whatever goes wrong before the tunnel is there: nothing was sent."""

    def story(visitor, _number):
        visitor.head()
        if rude == "resets":
            visitor.reset()
        elif rude == "speaks no HTTP":
            visitor.say(b"220 mail.test\r\n\r\n")

    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{raw_server(story)}")
    with pytest.raises(errors.NotSent):
        make_rest("https://cloud.test").create("a", {})


def test_authorities_that_are_renewed(emulator, tls_front, port, authority, tmp_path, line, image):  # noqa: PLR0917
    """What is written into the same `ca_file` counts from the next connection on, for both planes."""
    url = f"https://localhost:{tls_front(port)}"
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes((authority / "stranger.pem").read_bytes())
    project = make_rest(emulator.url).create("a", {})
    credentials = Credentials(lambda: make_rest(emulator.url).s3_grant(project.id))
    bucket = Bucket(credentials, s3_endpoint=url, ca_file=str(bundle), timeout=WAIT)
    rest = make_rest(url, ca_file=str(bundle))
    with pytest.raises(errors.NotSent, match="not trusted"):
        rest.project(project.id)
    with pytest.raises(errors.NotSent, match="not trusted"):
        bucket.put(line, f"{project.prefix}/a.jpg", image.range(), image.sha256)
    bundle.write_bytes((authority / "ca.pem").read_bytes())
    assert rest.project(project.id).id == project.id
    assert bucket.put(line, f"{project.prefix}/a.jpg", image.range(), image.sha256)
    rest.close()
