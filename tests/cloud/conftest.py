"""What the tests of the cloud room share: the API and bucket of a running emulator, rude servers, TLS."""

import os
import socket
import ssl

import pytest
from cloud_kit import WAIT, RawServers, Source, join, make_rest
from tls_kit import make_authority

from pix4d_watcher.cloud.bucket import Bucket
from pix4d_watcher.cloud.credentials import Credentials
from pix4d_watcher.cloud.wire import Line


@pytest.fixture
def raw_server():
    """Start servers that do exactly what a story says, byte by byte."""
    servers = RawServers()
    yield servers
    servers.stop()


@pytest.fixture
def tls_front(raw_server, authority):
    """Start a TLS server that hands everything on to a port: `tls_front(port)` returns its own port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")

    def start(port):
        def story(visitor, _number):
            with (
                context.wrap_socket(visitor.sock, server_side=True) as inside,
                socket.create_connection(("127.0.0.1", port)) as outside,
            ):
                join(inside, outside)

        return raw_server(story)

    return start


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """Make a throw-away CA (`ca.pem`) and the certificate of a server that it signed."""
    return make_authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def rest(emulator):
    """The emulator's API."""
    api = make_rest(emulator.url)
    yield api
    api.close()


@pytest.fixture
def project(rest):
    """A project in the emulator."""
    return rest.create("field 7 [m4rk3r]", {})


@pytest.fixture
def line():
    """The kept connection of this thread."""
    kept = Line()
    yield kept
    kept.close()


@pytest.fixture
def credentials(rest, project):
    """Renewing credentials of the project."""
    return Credentials(lambda: rest.s3_grant(project.id))


@pytest.fixture
def bucket(emulator, credentials):
    """The project's part of the bucket."""
    return Bucket(credentials, s3_endpoint=emulator.url, ca_file=None, timeout=WAIT)


@pytest.fixture
def source(tmp_path):
    """Make open files: `source(data)`."""
    made = []

    def make(data):
        made.append(Source(tmp_path / f"source-{len(made)}", data))
        return made[-1]

    yield make
    for one in made:
        os.close(one.fd)
