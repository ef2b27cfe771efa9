"""What the emulated service knows: tokens, credentials, projects, objects, uploads, and the counts of the ledger.

Owns these facts under one lock, in memory, with the contents of objects as files in a data directory. Bodies are
received outside the lock; whoever changes facts holds it. Must not know HTTP.
"""

import datetime as dt
import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from secrets import choice, token_bytes, token_hex

from pix4d_watcher.emulator.faults import Faults
from pix4d_watcher.emulator.settings import Settings, changed

FIRST_PROJECT = 883349
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SECRET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"  # noqa: S105 - an alphabet


@dataclass(frozen=True, slots=True)
class Content:
    """The stored bytes of an object or a part; `checksums` maps algorithm to the base64 value that the client sent."""

    path: Path
    size: int
    md5: str
    sha256: str
    checksums: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of the bucket; `modified` is wall-clock seconds of the service."""

    content: Content
    etag: str
    content_type: str
    modified: float
    multipart: bool
    project: int


@dataclass(slots=True)
class Part:
    """One part of a multipart upload; `puts` counts how often it was stored."""

    content: Content
    puts: int
    modified: float


@dataclass(slots=True)
class Upload:
    """One multipart upload: open, completing, completed or aborted."""

    upload_id: str
    key: str
    project: int
    content_type: str
    initiated: float
    state: str = "open"
    parts: dict[int, Part] = field(default_factory=dict)


@dataclass(slots=True)
class Credentials:
    """Temporary S3 credentials of one project; `expires` is monotonic seconds."""

    access_key: str
    secret_key: str
    session_token: str
    prefix: str
    expires: float


@dataclass(slots=True)
class Project:
    """One project; times called `…_at` are wall-clock seconds of the service, others monotonic seconds."""

    id: int
    name: str
    create_fields: dict[str, object]
    uuid: str
    prefix: str
    created_at: float
    created: float
    registered: dict[str, int] = field(default_factory=dict)
    image_count: int = 0
    counts: list[tuple[float, int]] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)
    starts: int = 0
    start_bodies: list[object] = field(default_factory=list)
    waiting: bool = False  # for credits
    began: float | None = None
    began_at: float | None = None
    finished: str | None = None  # "done", "error" or "stopped"
    finished_at: float | None = None
    finished_mono: float = 0.0
    outputs: dict[str, str] = field(default_factory=dict)  # output_type to key
    deleted: bool = False

    def owns(self, key: str) -> bool:
        """Whether an S3 key lies under the project's prefix."""
        return key.startswith(f"{self.prefix}/")


class State:
    """The facts, and the lock that whoever reads or changes several of them holds."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        """Keep object contents in `directory`, which must exist."""
        self.directory = directory
        self.lock = threading.RLock()
        self.faults = Faults()
        self.late: dict[threading.Event, float] = {}  # when a `late` request is due, by what tells that it was applied
        self._initial = settings
        self._files = itertools.count()
        self._begin()

    def _begin(self) -> None:
        self.settings = self._initial
        self.user = str(uuid.uuid4())
        self.tokens: dict[str, float] = {}
        self.credentials: dict[str, Credentials] = {}
        self.projects: dict[int, Project] = {}
        self.objects: dict[str, StoredObject] = {}
        self.outputs: dict[str, StoredObject] = {}
        self.uploads: dict[str, Upload] = {}
        self.puts: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.received_bytes = 0
        self.connections = 0

    def reset(self) -> None:
        """Forget everything, faults too, and return to the settings of the beginning."""
        with self.lock:
            stored = [*self.objects.values(), *self.outputs.values()]
            parts = [part.content for upload in self.uploads.values() for part in upload.parts.values()]
            self._begin()
            self.faults.clear()
        for content in [*(item.content for item in stored), *parts]:
            content.path.unlink(missing_ok=True)

    def change_settings(self, changes: dict[str, object]) -> Settings:
        """Change settings; raises ValueError and changes nothing when one is wrong."""
        with self.lock:
            self.settings = changed(self.settings, changes)
            return self.settings

    def let_land(self) -> None:
        """Wait until each `late` request that is due was applied, also where its thread has not come to it yet."""
        for landed, due in list(self.late.items()):
            if due <= time.monotonic():
                landed.wait()

    def now(self) -> float:
        """Return the service's wall clock: seconds since 1970, shifted by `clock_skew`."""
        return time.time() + self.settings.clock_skew

    def new_file(self) -> Path:
        """Return a path in the data directory that was never given before."""
        return self.directory / f"{next(self._files):08d}"

    def issue_token(self) -> str:
        """Issue an access token that lives `token_lifetime` seconds."""
        token = f"eyJhbGciOiJSUzI1NiJ9.{token_hex(200)}.{token_hex(64)}"
        with self.lock:
            self.tokens[token] = time.monotonic() + self.settings.token_lifetime
        return token

    def issue_credentials(self, project: Project) -> Credentials:
        """Issue S3 credentials for a project's prefix that live `credentials_lifetime` seconds."""
        issued = Credentials(
            access_key="ASIA" + "".join(choice(_CAPITALS) for _ in range(16)),
            secret_key="".join(choice(_SECRET) for _ in range(40)),
            session_token="FwoGZXIvYXdz" + "".join(choice(_SECRET) for _ in range(340)) + "==",
            prefix=project.prefix,
            expires=time.monotonic() + self.settings.credentials_lifetime,
        )
        with self.lock:
            self.credentials[issued.access_key] = issued
        return issued

    def expire(self, what: str) -> None:
        """Let all issued tokens (`token`) or credentials (`credentials`) expire now; raises ValueError otherwise."""
        with self.lock:
            now = time.monotonic()
            if what == "token":
                self.tokens = dict.fromkeys(self.tokens, now)
            elif what == "credentials":
                for issued in self.credentials.values():
                    issued.expires = min(issued.expires, now)
            else:
                raise ValueError(f"{what!r} does not expire; token and credentials do")

    def add_project(self, name: str, create_fields: dict[str, object]) -> Project:
        """Create a project."""
        with self.lock:
            number = FIRST_PROJECT + len(self.projects)
            project = Project(
                id=number,
                name=name,
                create_fields=create_fields,
                uuid=token_bytes(16).hex(),
                prefix=f"user-{self.user}/project-{number}",
                created_at=self.now(),
                created=time.monotonic(),
            )
            self.projects[number] = project
            return project

    def project_of(self, key: str) -> Project | None:
        """Return the project under whose prefix a key lies."""
        number = key.partition("/project-")[2].partition("/")[0]
        project = self.projects.get(int(number)) if number.isdecimal() else None
        return project if project is not None and project.owns(key) else None

    def store(self, key: str, content: Content, *, etag: str, content_type: str, multipart: bool) -> None:
        """Make received content the object of that key; what was there before is gone."""
        with self.lock:
            project = self.project_of(key)
            before = self.objects.get(key)
            self.objects[key] = StoredObject(
                content, etag, content_type, self.now(), multipart, project.id if project is not None else 0
            )
            self.puts[key] += 1
        if before is not None:
            before.content.path.unlink(missing_ok=True)

    def find(self, key: str) -> StoredObject | None:
        """Return the object or output of that key."""
        return self.objects.get(key) or self.outputs.get(key)


def iso(seconds: float, style: Callable[[dt.datetime], str]) -> str:
    """Return wall-clock seconds in one of the service's date styles."""
    return style(dt.datetime.fromtimestamp(seconds, dt.UTC))


def zulu(moment: dt.datetime) -> str:
    """2021-05-19T10:58:10.514800Z, as `last_datetime_processing_started` in the service's sample."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def zulu_seconds(moment: dt.datetime) -> str:
    """2021-05-10T21:55:47Z, as `expiration` in the sample."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_offset(moment: dt.datetime) -> str:
    """2021-05-19T09:55:47.357641+00:00, as `server_time` in the sample."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")


def swiss_summer(moment: dt.datetime) -> str:
    """2021-05-19T11:53:39.504849+02:00, as `create_date` in the sample."""
    return moment.astimezone(dt.timezone(dt.timedelta(hours=2))).strftime("%Y-%m-%dT%H:%M:%S.%f+02:00")
