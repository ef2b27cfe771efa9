"""The settings as frozen models: every key, its type, its default and its documentation.

Owns what a configuration may say. Must not read files (`loader` does) nor secrets (`secrets` does). The descriptions
are the documentation: example file, JSON Schema and docs are made from them.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from pix4d_watcher.config.fields import (
    CHECK_NAMES,
    Address,
    CheckLevels,
    Command,
    CreateFields,
    Credits,
    Duration,
    FileName,
    JoinPattern,
    Location,
    Outputs,
    PartSize,
    ProjectName,
    Text,
    Url,
)
from pix4d_watcher.config.units import parse_duration

DEFAULT_JOURNAL = Path("/var/lib/pix4d-watcher/journal.db")


def _lasting(text: str, description: str) -> Any:
    """Give a field a default duration, shown in the JSON Schema as people write it."""
    return Field(default=parse_duration(text), description=description, json_schema_extra={"default": text})


class _Model(BaseModel):
    """What all models share: unknown keys are errors, nothing changes later, inputs (secrets!) stay out of texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CloudSettings(_Model):
    """How PIX4Dengine Cloud and its S3 are reached."""

    url: Url = Field(
        default="https://cloud.pix4d.com",
        description="Base address of the REST API. http:// is accepted too, with a warning unless it is this machine.",
    )
    client_id: Text | None = Field(
        default=None,
        description="Client id of the API credentials (account.pix4d.com, API access). The systemd credential "
        "client_id and the environment variable PIX4D_CLIENT_ID win over it.",
        examples=["your-client-id"],
    )
    client_secret_file: Location | None = Field(
        default=None,
        description="File that holds the client secret and nothing else; nobody but its owner may read it (chmod 600). "
        "The systemd credential client_secret and the environment variable PIX4D_CLIENT_SECRET win over it. The "
        "secret itself is never accepted in this file.",
        examples=["/etc/pix4d-watcher/client_secret"],
    )
    s3_endpoint: Url | None = Field(
        default=None,
        description="Address where S3 is spoken to, path-style, instead of the one that the service names. For tests "
        "and proxies.",
    )
    ca_file: Location | None = Field(
        default=None,
        description="PEM file of the certificate authorities to trust, for REST and S3, instead of the usual ones: "
        "for proxies that look into TLS.",
    )
    create_in_doubt: Literal["create", "hold"] = Field(
        default="create",
        description="When an answer to the creation of a project was lost and the service cannot say whether it "
        "exists. create: make a new one; an empty twin may remain, which costs nothing. hold: ask a person.",
    )
    register_in_doubt: Literal["again", "hold"] = Field(
        default="again",
        description="When an answer to the registration of images was lost and the service cannot say whether it "
        "counted. again: wait once more and register the same images again. hold: ask a person.",
    )
    failure_statuses: tuple[Text, ...] = Field(
        default=("ERROR", "FAILED", "CANCELED", "CANCELLED"),
        description="Values of public_status that mean that processing failed. An assumption about the service: it "
        "documents only PROCESSING and DONE. Any other value is waited for.",
    )


class ProjectSettings(_Model):
    """How the project of a folder is created."""

    name: ProjectName = Field(
        default="{folder}",
        description="Name of the project in the cloud; {folder}, {root} and {date} (day of creation) are filled in, "
        "and a marker in brackets is added by which the project is found again.",
    )
    create: CreateFields = Field(
        default_factory=dict,
        description="Extra fields for the creation of the project, sent as they are (for example project_type or "
        "billing_model). name is not accepted here.",
        json_schema_extra={"default": {}, "propertyNames": {"not": {"const": "name"}}},
    )

    @field_validator("create", mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        return {} if value is None else value


class HookSettings(_Model):
    """Commands that are run when something happened to a project."""

    on_delivered: Command | None = Field(
        default=None,
        description="Command that is run when a project is delivered, as the service's own user, without a shell. It "
        "gets PIX4D_* variables and the same facts as JSON on standard input. A failure is reported and tried again; "
        "no upload ever waits for it.",
    )
    on_held: Command | None = Field(
        default=None,
        description="Command that is run when a project is held and a person has to act.",
    )
    timeout: Duration = _lasting("60s", "How long a command may run before it is ended and counts as failed.")


class RootSettings(_Model):
    """One drop directory: each folder that is dropped into it becomes a project."""

    name: str = Field(
        pattern="^[A-Za-z0-9_-]+$",
        description="Short name in commands, logs and results: letters, digits, - and _; unique, ignoring case.",
        examples=["survey"],
    )
    path: Location = Field(
        description="The drop directory. A relative path starts at the directory of this file.",
        examples=["/srv/pix4d/drop"],
    )
    settle: Duration = _lasting(
        "60s",
        "A folder is complete when nothing in it changed for this long. Longer for slow copies that pause. Durations "
        "are written 500ms, 60s, 5m, 2h, 1d or 1h30m.",
    )
    ready_file: FileName | None = Field(
        default=None,
        description="Name of a marker file, for example .ready: a folder that holds it is complete at once, without "
        "waiting for settle.",
    )
    existing: Literal["process", "ignore", "ask"] | None = Field(
        default=None,
        description="Folders that are there at the very first scan. process: treat them as dropped. ignore: never "
        "touch them. ask: hold each until it is approved. Absent (null): process, but ask for all when there are "
        "more than ten.",
    )
    include: tuple[Text, ...] = Field(
        default=(),
        description="Globs of the images to take, for example ['*_V.JPG']; empty: all. They look at the path below the "
        "folder; * crosses slashes, and case does not matter.",
    )
    exclude: tuple[Text, ...] = Field(
        default=(),
        description="Globs of the files and sub-folders to leave out, for example ['*_T.JPG', 'preview']; wins over "
        "include.",
    )
    checks: CheckLevels = Field(
        default_factory=dict,
        description="What a failed check of the images does before any money is spent: hold the project, warn, or off; "
        f"for example {{not_geotagged: warn}}. Checks: {', '.join(CHECK_NAMES)}. Each has its own default.",
        json_schema_extra={"default": {}, "propertyNames": {"enum": list(CHECK_NAMES)}},
    )
    decode: Literal["off", "sample", "all"] = Field(
        default="sample",
        description="Which images are decoded in full before they are sent, since damage in the middle shows in no "
        "other way. sample: a few of each folder. all: every one, at about 0.2 s of processor time each. off: none.",
    )
    late_images: Literal["hold", "ignore", "round"] = Field(
        default="hold",
        description="Images that come after processing was started. hold: ask a person. ignore: note them and go on. "
        "round: send all images again as a new project, which is paid again. Before the start they simply join.",
    )
    approve_above: Credits | None = Field(
        default=None,
        description="Credits above which a folder waits for your approval before anything is created; null: never. "
        "Estimated as megapixels x images / 100, PIX4D's published formula.",
    )
    join: JoinPattern | None = Field(
        default=None,
        description="Names of folders that are one mission, for two batteries or cards: {mission} is what they share, "
        "{part} a number. With '{mission}_{part}', harbour_1 and harbour_2 become the project harbour. null: each "
        "folder is its own, unless a pix4d.yaml in it lists others under `join`.",
    )
    join_wait: Duration = _lasting(
        "10m",
        "How long further parts of a mission are waited for once all that are there are complete. Folders that a "
        "pix4d.yaml lists are waited for until all are there.",
    )
    split: Annotated[int, Field(ge=6, le=4000, strict=True)] | None = Field(
        default=None,
        description="Most images of one project: a folder with more becomes several numbered projects. null: it is "
        "held as too_many_images instead.",
    )
    folder_may: tuple[Literal["name", "create", "processing"], ...] = Field(
        default=(),
        description="What a file pix4d.yaml in a dropped folder may set: name, create and processing. It may always "
        "tighten start and approve_above, and never loosen them.",
    )
    template: Location | None = Field(
        default=None,
        description="Processing template that is uploaded with the images, registered, and named in the start body as "
        "custom_template_s3_key and custom_template_s3_bucket.",
    )
    project: ProjectSettings = Field(
        default_factory=ProjectSettings, description="How the project of a folder is created."
    )
    processing: dict[str, Any] | None = Field(
        default=None,
        description="Body of the start_processing call, sent as it is; only {bucket} and {prefix} in its texts are "
        "replaced by where the project lies. null: no body, the standard processing.",
    )
    start: Literal["auto", "manual"] = Field(
        default="auto",
        description="auto: start processing as soon as all images are registered. manual: wait for "
        "`pix4d-watcher start FOLDER`, or a start in the cloud's own page.",
    )
    poll: Duration | None = Field(
        default=None,
        description="How often a processing project is asked for its state, for example 30s. Absent (null): after 30 s "
        "at first, growing to every 10 minutes.",
    )
    outputs: Outputs = Field(
        default="all",
        description="Results to fetch: all, none, or a list of output types such as [ortho_rgb, quality_report].",
    )
    outputs_wait: Duration = _lasting(
        "30m",
        "How long results that are still being made are waited for after processing is done; what is there by then is "
        "fetched.",
    )

    after: Literal["keep", "archive", "delete"] = Field(
        default="keep",
        description="What becomes of a delivered folder after retention. keep: nothing. archive: it is moved to "
        "archive_to. delete: exactly the registered images are removed, then the directory if it is empty.",
    )
    archive_to: Location | None = Field(
        default=None,
        description="Where folders are moved to by `after: archive`, as <archive_to>/<root>/<folder>.",
    )
    retention: Duration = _lasting("30d", "How long a delivered folder stays before `after` is done.")

    @field_validator("project", "checks", mode="before")
    @classmethod
    def _empty_mapping_is_default(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("include", "exclude", mode="before")
    @classmethod
    def _empty_list_is_default(cls, value: Any) -> Any:
        return () if value is None else value


class UploadSettings(_Model):
    """How images travel."""

    connections: int = Field(
        default=4, ge=1, le=64, strict=True, description="How many images are sent at the same time, from 1 to 64."
    )
    multipart_threshold: PartSize = Field(
        default=32 * 2**20,
        description="Larger files are sent in parts, so that a broken link does not start them again from zero. From "
        "8MiB to 5GiB. Sizes are written 32MiB, 8MB, 500k or as a number of bytes.",
        json_schema_extra={"default": "32MiB"},
    )


class AdvancedSettings(_Model):
    """Waits and sizes that rarely need a change."""

    doubt_wait: Duration = _lasting(
        "180s",
        "How long a call that must not happen twice is left alone after its answer was lost, before the service is "
        "asked whether it happened. Keep it above request_timeout.",
    )
    scan_interval: Duration = _lasting(
        "5m", "How often each drop directory is looked through, even if no event announced a change."
    )
    retry_base: Duration = _lasting("2s", "First wait after a failure; it doubles with each further failure.")
    retry_max: Duration = _lasting("10m", "Longest wait between two tries.")
    request_timeout: Duration = _lasting("60s", "How long a REST call may stay without an answer.")
    register_batch: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        default=None,
        description="How many images are registered by one call. null: all in one call, the only documented form, "
        "halved when the service says that it is too large.",
    )


class Settings(_Model):
    """The whole configuration of pix4d-watcher."""

    cloud: CloudSettings = Field(
        default_factory=CloudSettings, description="How PIX4Dengine Cloud and its S3 are reached."
    )
    journal: Location = Field(
        default=DEFAULT_JOURNAL,
        description="The database that makes every step survive crashes; on a local disk, in a directory that the "
        "service may write to.",
        examples=["/var/lib/pix4d-watcher/journal.db"],
    )
    watch: tuple[RootSettings, ...] = Field(
        description="The drop directories, one entry each; at least one, none inside another.",
        json_schema_extra={"minItems": 1},
    )
    results: Location | None = Field(
        default=None,
        description="Where results are put, as results/<root>/<folder>/<file>, each with report.json and a receipt of "
        "what was sent, by which it is known again even after a lost journal. Absent or null: nothing is downloaded, "
        "and there are no receipts.",
        examples=["/srv/pix4d/results"],
    )
    dashboard: Address | None = Field(
        default=None,
        description="Address of the dashboard, host:port. This version has none: an address is accepted with a "
        "warning and nothing listens there.",
    )
    upload: UploadSettings = Field(default_factory=UploadSettings, description="How images travel.")
    hooks: HookSettings = Field(
        default_factory=HookSettings, description="Commands that are run when something happened to a project."
    )
    advanced: AdvancedSettings = Field(
        default_factory=AdvancedSettings, description="Waits and sizes that rarely need a change."
    )

    _file: Path | None = PrivateAttr(default=None)
    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _lines: dict[tuple[str | int, ...], int] = PrivateAttr(default_factory=dict)

    @field_validator("cloud", "upload", "hooks", "advanced", mode="before")
    @classmethod
    def _empty_section_is_default(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("watch", mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        # Not min_length: pydantic counts the sound entries only, and would call a list of wrong ones too short.
        if value is None or value == []:
            raise ValueError("needs at least one drop directory, an entry with name and path")
        return value

    @property
    def file(self) -> Path | None:
        """The file that these settings were loaded from, if any."""
        return self._file

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is accepted but deserves a look, one text each with file and line."""
        return self._warnings

    def at(self, *keys: str | int) -> str:
        """Say where the value behind these keys stands: `FILE:LINE: `; nothing for what is in no file."""
        line = self._lines.get(keys)
        return "" if line is None else f"{self._file}:{line}: "

    def keep_origin(self, file: Path, warnings: tuple[str, ...], lines: dict[tuple[str | int, ...], int]) -> None:
        """Remember the file, its warnings and the line of each key; for the loader alone."""
        self._file = file
        self._warnings = warnings
        self._lines = lines


def is_loopback(url: str) -> bool:
    """Tell whether a URL names this machine by itself (localhost, 127.0.0.0/8, ::1)."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
