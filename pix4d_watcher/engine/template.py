"""The processing template of a drop directory: uploaded once beside the images, registered, named in the start body.

The upload is idempotent (one key, one content); what is journalled is that both it and the registration are through.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any

import structlog

from pix4d_watcher.core.errors import Corrupted, HostError, NotSent, NotThere, Refused, Unanswered
from pix4d_watcher.intake.keys import give_keys
from pix4d_watcher.intake.names import is_image
from pix4d_watcher.journal import projects

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()

KEY, BUCKET = "custom_template_s3_key", "custom_template_s3_bucket"
"""Keys of the start body that name a template: the first is in the service's guide, both are sent by its clients."""


def bring(context: Context, project: Project) -> bool:
    """See that the template lies in the cloud; False when the storage does not answer and the service is paused.

    Raises HostError where the file cannot be read, and RemoteError.
    """
    root = context.root(project)
    assert root is not None
    if root.template is None or project.template_key is not None:
        return True
    assert project.remote_id is not None
    key = f"{project.prefix}/{_relative(root.template)}"
    try:
        _put(context, project, root.template, key)
    except (NotSent, Unanswered) as error:
        if not context.stop.is_set() and not context.world.is_to_blame_for_object(key, error):
            raise
        projects.trouble(context.journal, project.id, str(error), due_at=context.after(0), counts=False)
        return False
    context.world.works()
    known = context.rest.extras(project.remote_id, key)
    how = "registered" if known else "not registered, since the cloud has no such call"
    projects.template_sent(context.journal, project.id, key, f"the template {root.template.name} is uploaded and {how}")
    log.info("template uploaded", project=project.title, key=key, registered=known)
    return True


def start_body(context: Context, project: Project) -> dict[str, Any] | None:
    """Return the body of the start: the processing settings, where the project lies filled in, and the template."""
    root = context.root(project)
    assert root is not None
    body = None if root.processing is None else _filled(root.processing, project)
    if project.template_key is None:
        return body
    return {KEY: project.template_key, BUCKET: project.bucket, **(body or {})}


def _filled(value: Any, project: Project) -> Any:
    if isinstance(value, str):
        # By plain replacement: other braces in these texts are the service's own business.
        return value.replace("{bucket}", project.bucket or "").replace("{prefix}", project.prefix or "")
    if isinstance(value, dict):
        return {key: _filled(inner, project) for key, inner in value.items()}
    return [_filled(inner, project) for inner in value] if isinstance(value, list) else value


def _relative(template: Path) -> str:
    """Give the template a key of its own: that of an image always ends like an image, so this one never does."""
    name = os.fsencode(template.name) + (b".template" if is_image(template.name) else b"")
    path = b"template/" + name
    return give_keys([path])[path]


def _put(context: Context, project: Project, template: Path, key: str) -> None:
    from pix4d_watcher.cloud.wire import FileRange  # noqa: PLC0415  (the idle service needs no data plane)

    def reading(*, anyway: bool = False) -> AbstractContextManager[None]:
        return context.media.at(str(template), project.id, anyway=anyway)

    assert project.remote_id is not None
    line = context.line()
    with reading():
        handle, size, digest = _opened(template)
    try:
        context.buckets.of(project.remote_id).put(
            line,
            key,
            FileRange(handle, 0, size, reading),
            digest,
            content_type="application/octet-stream",
            stop=context.stop.is_set,
        )
    except Corrupted as error:
        raise HostError(f"the template {template} changed while it was sent; it is sent again") from error
    except NotThere as error:
        # Of the storage, which must not be taken for a project that is gone.
        raise Refused(str(error), status=error.status, words=error.words) from error
    finally:
        line.close()
        with reading(anyway=True):
            os.close(handle)


def _opened(template: Path) -> tuple[int, int, bytes]:
    """Open the template; return descriptor, size in bytes and SHA-256. Raises HostError."""
    why = "it is no file"
    try:
        # Not blocking: a pipe in its place would wait for a writer for ever.
        handle = os.open(template, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            facts = os.fstat(handle)
            if stat.S_ISREG(facts.st_mode) and facts.st_size:
                with open(handle, "rb", closefd=False) as file:
                    return handle, facts.st_size, hashlib.file_digest(file, "sha256").digest()
            why = "it is empty" if stat.S_ISREG(facts.st_mode) else why
        except OSError:
            os.close(handle)
            raise
        os.close(handle)
    except OSError as error:
        why = error.strerror or str(error)
    raise HostError(
        f"the template {template} cannot be used: {why}. Put it there so that the service's user can read it, or "
        "correct `template`; processing is not started without it"
    )
