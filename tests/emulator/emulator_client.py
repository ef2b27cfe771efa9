"""A client of the emulator that is made of requests, botocore and raw sockets only."""

import contextlib
import hashlib
import socket
import time
from dataclasses import dataclass, field

import boto3
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from pix4d_watcher.emulator import Emulator

PAIR = {"client_id": "demo-client", "client_secret": "demo-secret"}
FORM = {"grant_type": "client_credentials", "token_format": "jwt", **PAIR}


def until(check, seconds=45.0):
    """Poll until check() is true; the test fails when it never is."""
    end = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.02)
    return value


@dataclass
class Pilot:
    """One client of one emulator, with one project."""

    emulator: Emulator
    session: requests.Session
    project: dict = field(default_factory=dict)
    keys: dict = field(default_factory=dict)

    def begin(self, **fields):
        """Ask for a token, create a project and ask for its S3 credentials."""
        self.login()
        self.project = self.post("", json={"name": "survey", **fields}).json()
        self.renew()
        return self

    def login(self):
        """Ask for a token and use it from now on."""
        token = self.session.post(f"{self.emulator.url}/oauth2/token/", data=FORM, timeout=10).json()
        self.session.headers["Authorization"] = f"Bearer {token['access_token']}"

    def renew(self):
        """Ask for S3 credentials and use them from now on."""
        self.keys = self.get("s3_credentials/").json()

    def url(self, path=""):
        """Return an address below the project, or below the list of projects while there is none."""
        mine = f"{self.project['id']}/" if self.project else ""
        return f"{self.emulator.url}/project/api/v3/projects/{mine}{path}"

    def get(self, path="", **more):
        """GET below the project."""
        return self.session.get(self.url(path), timeout=10, **more)

    def post(self, path="", **more):
        """POST below the project."""
        return self.session.post(self.url(path), timeout=10, **more)

    def key(self, name):
        """Return the S3 key of a name."""
        return f"{self.keys['key']}/{name}"

    def s3(self, **changes):
        """Return a boto3 client with the project's credentials, or with some of them changed."""
        keys, style = {**self.keys, **changes}, changes.get("style", "path")
        return boto3.client(
            "s3",
            endpoint_url=self.emulator.url.replace("127.0.0.1", "localhost" if style == "virtual" else "127.0.0.1"),
            aws_access_key_id=keys["access_key"],
            aws_secret_access_key=keys["secret_key"],
            aws_session_token=keys["session_token"],
            region_name=keys["region"],
            config=Config(s3={"addressing_style": style}, retries={"total_max_attempts": 1}, read_timeout=10),
        )

    def put(self, name="a.jpg", body=b"image"):
        """Store one object and return its key."""
        self.s3().put_object(Bucket=self.keys["bucket"], Key=self.key(name), Body=body)
        return self.key(name)

    def register(self, *keys):
        """Register keys as images."""
        return self.post("inputs/bulk_register/", json={"input_file_keys": list(keys)})

    def signed(self, method, name, body=b"", *, payload=None, query="", **headers):
        """Return (target, headers) of a request signed by botocore; `payload` replaces the hash of the body."""
        target = f"/{self.keys['bucket']}/{self.key(name)}"
        request = AWSRequest(method=method, url=self.emulator.url + target + query, headers=headers)
        payload = payload or hashlib.sha256(body).hexdigest()
        request.headers["x-amz-content-sha256"] = payload
        owner = Credentials(self.keys["access_key"], self.keys["secret_key"], self.keys["session_token"])
        signer = S3SigV4Auth(owner, "s3", self.keys["region"])
        signer.payload = lambda _: payload
        signer.add_auth(request)
        return target + query, dict(request.headers)

    @contextlib.contextmanager
    def raw(self):
        """Open a socket to the emulator."""
        host, _, port = self.emulator.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            yield connection

    def head(self, method, target, headers, length=None):
        """Return the bytes of a request's head."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.emulator.url.removeprefix('http://')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {length}"] if length is not None else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def send(self, method, name, body=b"", **more):
        """Send a signed request over a raw connection of its own and return (status, body of the answer)."""
        sent = more.pop("sent", body)
        target, headers = self.signed(method, name, body, **more)
        with self.raw() as connection:
            connection.sendall(self.head(method, target, headers, len(sent)) + sent)
            return answer(connection)


def answer(connection):
    """Read one answer and return (status, body)."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        length = 0
        while line := stream.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, stream.read(length)
