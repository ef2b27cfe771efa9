"""What the journal keeps. Paths are bytes; times are seconds since 1970 UTC; secrets are never kept.

The unique indexes are part of the promise: a mistake in the protocol becomes an IntegrityError, not a second invoice.
Migrations are the way to change a table; `tests/journal` holds this file and the migrations equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex
from sqlalchemy.types import JSON as _JSON

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import DDLCompiler


class Unsigned(TypeDecorator[int]):
    """A whole number that need not fit a signed 64-bit column, kept as text: inodes, devices, and times of files in ns.

    A camera without a clock can leave a time beyond the year 2262, where ns since 1970 end in 64 signed bits.
    """

    impl = String(20)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:  # noqa: ARG002  (signature of SQLAlchemy)
        """Write the number as decimal text."""
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Read the number back."""
        return None if value is None else int(value)


@compiles(CreateIndex, "postgresql")
def _partial_on_postgresql(create: CreateIndex, compiler: DDLCompiler, **more: Any) -> str:
    """Give an index the condition that it has on SQLite.

    Naming `postgresql_where` below would load that dialect with all its drivers: 2.5 MiB of every idle service.
    """
    index = create.element
    index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
    said: str = compiler.visit_create_index(create, **more)  # type: ignore[no-untyped-call]
    return said


metadata = MetaData()

JSON = _JSON(none_as_null=True)
"""JSON whose absence is SQL's null, so that "is not known yet" can be asked in SQL."""

# SQLite reuses ids of deleted rows unless told otherwise, and only a plain INTEGER key counts up by itself.
_Id = BigInteger().with_variant(Integer, "sqlite")

roots = Table(
    "roots",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("path", LargeBinary, nullable=False),
    Column("device", Unsigned, nullable=False),
    Column("inode", Unsigned, nullable=False),
    Column("first_scan_at", Float, nullable=False),
    Column("scanned_at", Float, nullable=False),
    Column("present", Boolean, nullable=False),
    Column("problem", Text, nullable=False),
    Column("watching", Text, nullable=False),
    Column("loose", Integer, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("root", String(200), nullable=False),
    Column("folder", LargeBinary, nullable=False),
    Column("round", Integer, nullable=False),
    Column("marker", String(40), nullable=False, unique=True),
    Column("device", Unsigned, nullable=False),
    Column("inode", Unsigned, nullable=False),
    Column("present", Boolean, nullable=False),  # a full scan of a present root saw it last time
    Column("state", String(20), nullable=False),
    Column("condition", String(20), nullable=False),
    Column("hold_code", String(40)),
    Column("hold_text", Text),
    Column("paused", Boolean, nullable=False),
    Column("accepted", JSON, nullable=False),  # hold codes that a person accepted
    Column("tries", Integer, nullable=False),
    Column("due_at", Float),  # null: now
    Column("waiting_for", Text),
    Column("error", Text),
    Column("seen_images", Integer, nullable=False),
    Column("fingerprint", LargeBinary),  # signature of the tree as it was frozen
    Column("others", JSON),  # files of the folder that are no images, as people see their names
    Column("report", JSON),
    Column("content_set", LargeBinary),  # digest of the hashes of all images that are sent, in their order
    Column("members", JSON),  # names of the folders that were joined, as people see them; null: a single folder
    Column("split_part", Integer),  # of a folder with too many images: this part, of so many
    Column("split_of", Integer),
    Column("overrides", JSON),  # what the folder's pix4d.yaml sets
    Column("template_key", Text),  # where the processing template lies, once uploaded and registered
    Column("put_away", Text),  # what became of the delivered folder: archived or deleted
    Column("kept_since", Float),  # by the cloud's clock: when its retention began
    Column("remote_id", BigInteger),
    Column("remote_name", Text),
    Column("bucket", Text),
    Column("prefix", Text),
    Column("page", Text),
    Column("cloud_status", Text),
    Column("results_folder", LargeBinary),  # where its results lie, from the first of them on
    Column("found_at", Float, nullable=False),
    Column("settled_at", Float),
    Column("created_at", Float),
    Column("uploaded_at", Float),
    Column("registered_at", Float),
    Column("started_at", Float),
    Column("processed_at", Float),
    Column("delivered_at", Float),
    UniqueConstraint("root", "folder", "round", name="one_project_per_round"),
    Index("projects_by_work", "condition", "state", "due_at"),
    Index("projects_by_remote", "remote_id", unique=True),
    Index("projects_by_content", "content_set"),
    Index("one_project_per_results", "root", "results_folder", unique=True),
    sqlite_autoincrement=True,
)

images = Table(
    "images",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("path", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", Unsigned, nullable=False),
    Column("ctime_ns", Unsigned, nullable=False),
    Column("inode", Unsigned, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("blocks", LargeBinary, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("status", String(20), nullable=False),
    Column("reason", Text),
    Column("key", Text),  # relative to the project's prefix; given once
    Column("look_again", Boolean, nullable=False),  # a person asked to accept the file as it is now
    Column("begun", Boolean, nullable=False),  # a PUT under this key may have reached the service
    Column("etag", Text),
    Column("upload_id", Text),  # of a multipart upload that is not complete
    Column("batch", Integer),
    Column("tries", Integer, nullable=False),
    Column("due_at", Float),
    Column("error", Text),
    Column("uploaded_at", Float),
    UniqueConstraint("project_id", "path", name="one_image_per_path"),
    UniqueConstraint("project_id", "key", name="one_image_per_key"),
    Index("images_by_status", "project_id", "status"),
    Index("images_by_content", "sha256"),  # was this image sent before, in whatever project
    sqlite_autoincrement=True,
)

parts = Table(
    "parts",
    metadata,
    Column("image_id", ForeignKey("images.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("upload_id", Text, nullable=False),
    Column("etag", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
)

orphans = Table(
    "orphans",
    metadata,
    Column("upload_id", Text, primary_key=True),  # of a multipart upload that nobody needs any more: to be aborted
    Column("image_id", ForeignKey("images.id"), nullable=False),
    Column("key", Text, nullable=False),  # it may not be the image's key any more
    Column("tries", Integer, nullable=False),
    Column("due_at", Float),
)

effects = Table(
    "effects",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("part", Integer, nullable=False),
    Column("status", String(20), nullable=False),
    Column("request", JSON, nullable=False),
    Column("answer", JSON),
    Column("learnt", String(20)),
    Column("waits", Integer, nullable=False),  # how often a full doubt_wait ended without knowledge
    Column("note", Text),
    Column("asked_at", Float, nullable=False),
    Column("closed_at", Float),
    Index(
        "one_open_effect",
        "project_id",
        unique=True,
        sqlite_where=text("status = 'open'"),
    ),
    Index(
        "one_success",
        "project_id",
        "kind",
        "part",
        unique=True,
        sqlite_where=text("status = 'done'"),
    ),
    Index("effects_by_project", "project_id", "id"),
    sqlite_autoincrement=True,
)

outputs = Table(
    "outputs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("ident", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("bucket", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("region", Text),
    Column("etag", Text),
    Column("size", BigInteger),
    Column("fetched", Boolean, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("error", Text),
    UniqueConstraint("project_id", "ident", name="one_output_per_ident"),
    UniqueConstraint("project_id", "name", name="one_output_per_name"),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("at", Float, nullable=False),
    Column("project_id", ForeignKey("projects.id")),
    Column("kind", String(40), nullable=False),
    Column("text", Text, nullable=False),
    Index("events_by_project", "project_id", "id"),
    sqlite_autoincrement=True,
)

service = Table(
    "service",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("value", JSON),  # null: forgotten
    Column("at", Float, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("kind", String(40), nullable=False),  # delivered or held
    Column("facts", JSON, nullable=False),
    Column("at", Float, nullable=False),
    Column("due_at", Float),  # null: now
    Column("tries", Integer, nullable=False),
    Column("error", Text),
    Column("done_at", Float),
    Index("outbox_by_work", "done_at", "due_at"),
    sqlite_autoincrement=True,
)
