"""Fetches the results: each to a temporary name, checked, flushed, renamed; `.complete` comes last."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.cloud.answers import merge_outputs
from pix4d_watcher.core.errors import Conflict, Corrupted, Cure, NotThere, RemoteError, Throttled, Unanswered
from pix4d_watcher.core.model import Condition, State, printable
from pix4d_watcher.engine import papers
from pix4d_watcher.engine.download import FIRST, download, on_disk, prove, take_room
from pix4d_watcher.engine.polling import cadence, end_cadence
from pix4d_watcher.host import durable
from pix4d_watcher.journal import projects, results, rounds, views

if TYPE_CHECKING:
    from pathlib import Path

    from pix4d_watcher.cloud.answers import CloudOutput
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Output, Project

log = structlog.get_logger()

QUESTION = "pix4d-watcher"
"""The name of an object that is hardly there, which is asked for to see whether the storage answers."""

COMPLETE = ".complete"
"""The file that is written last; programs wait for it before they touch the results."""


def fetch(context: Context, project: Project) -> None:
    """Find out what there is to fetch, fetch it, and finish the project when nothing is left.

    What is wrong with one output is raised when the others were tried; what concerns all of them, at once.
    """
    if context.settings.results is None:
        _deliver(context, project, None)
        return
    project = with_own_place(context, project)
    folder = results_folder(context, project)
    if project.condition is Condition.HELD:
        _have_room(context, project, folder)
        assert project.hold_code is not None
        projects.lifted(context.journal, project.id, project.hold_code, "there is room again")
        return
    waiting = _look(context, project)
    troubles = _fetch_missing(context, project, folder)
    if context.stop.is_set() or context.world.pause is not None:
        return
    # One that only a person ends holds the project, which comes last: first all else is fetched.
    troubles.sort(key=lambda trouble: trouble.cure is Cure.PERSON)
    if troubles and not (waiting and troubles[0].cure is Cure.PERSON):
        raise troubles[0]
    if waiting:
        root = context.root(project)
        assert root is not None
        text = f"{len(waiting)} results are still being made: {', '.join(waiting[:3])}"
        projects.waiting(context.journal, project.id, text, due_at=context.after(cadence(context, root, project)))
        return
    _deliver(context, project, folder)


def results_folder(context: Context, project: Project) -> Path:
    """Return where a project's results lie: results/<root>/<folder>[.round2], by the name at the first of them."""
    assert context.settings.results is not None
    return context.settings.results / project.root / os.fsdecode(project.results_name)


def with_own_place(context: Context, project: Project) -> Project:
    """Return a project as a round whose results have a place, which no other project has.

    Results of another one are left of a journal that was lost, or of a folder that has another name by now.
    """
    while project.results_folder is None:
        folder = results_folder(context, project)
        with on_disk(context, project, folder):
            taken = papers.is_anothers(folder / COMPLETE, project)
        if not taken and results.placed(context.journal, project):
            return views.project(context.journal, project.id)
        why = f"results of another project lie in {printable(os.fsencode(folder))}"
        project = rounds.renumber(context.journal, project.id, project.round + 1, why)
    return project


def _look(context: Context, project: Project) -> list[str]:
    """Note the outputs on offer; return those that are still being made, unless they were waited for long enough."""
    assert project.remote_id is not None
    root = context.root(project)
    assert root is not None
    found = context.rest.project(project.remote_id)
    listed = context.rest.outputs(project.remote_id)
    outputs = [output for output in merge_outputs(listed or (), found.outputs) if _wanted(output, root.outputs)]
    done = [
        results.Offered(
            ident=output.ident,
            kind=output.kind,
            name=output.name,
            bucket=output.bucket,
            key=output.key,
            region=output.region,
        )
        for output in outputs
        if output.availability == "done"
    ]
    results.offered(context.journal, project.id, done)
    making = [output.kind for output in outputs if output.availability == "in_progress"]
    if making and context.waits.left("outputs", project.id, root.outputs_wait) <= 0:
        log.warning("results not awaited any longer", project=project.title, results=", ".join(making))
        return []
    return making


def _wanted(output: CloudOutput, wanted: object) -> bool:
    if wanted == "all":
        return True
    return isinstance(wanted, (list, tuple)) and output.kind in wanted


def _missing(context: Context, project: Project) -> list[Output]:
    """List what is still to be fetched; what failed more often comes later."""
    outputs = views.outputs_of(context.journal, project.id)
    return sorted((output for output in outputs if not output.fetched), key=lambda output: output.tries)


def _fetch_missing(context: Context, project: Project, folder: Path) -> list[RemoteError]:
    """Try each missing output, until a stop or a pause, and return what is wrong with single ones."""
    troubles: list[RemoteError] = []
    for output in _missing(context, project):
        if context.stop.is_set() or context.world.pause is not None:
            break
        try:
            _fetch_one(context, project, folder, output)
        except Throttled:
            raise  # the next one would ask for no less patience
        except RemoteError as trouble:
            troubles.append(trouble)
    return troubles


def _fetch_one(context: Context, project: Project, folder: Path, output: Output) -> None:
    """Fetch one output; raises RemoteError, and where that is the world's the service is paused by then."""
    part = _part(folder, output)
    with on_disk(context, project, folder):
        before = _size(part)
    try:
        size, etag = download(context, project, output, part)
        with on_disk(context, project, folder):
            prove(context, output, part, etag)
            part.replace(folder / output.name)
            durable.flush(folder)
    except (Conflict, Corrupted, NotThere) as error:
        # What was fetched so far is worth nothing, since another object stands there now or bytes changed on the way.
        with on_disk(context, project, folder):
            part.unlink(missing_ok=True)
        results.replaced(context.journal, output, str(error))
        raise Unanswered(f"{error}; it is fetched again from its first byte", status=error.status) from error
    except RemoteError as error:
        results.not_fetched(context.journal, output, str(error))
        with on_disk(context, project, folder):
            moved = _size(part) > before
        if moved:
            context.world.works()
            _moving(context, project, output)
        if not context.stop.is_set():
            context.world.is_to_blame_for_object(
                _name(output), error, only=lambda failing: _only_these_fail(context, project, output, failing)
            )
        raise
    context.world.works()
    results.fetched(context.journal, output)
    log.info("fetched", project=project.title, output=output.name, size=size)
    _moving(context, project, output)


def _moving(context: Context, project: Project, output: Output) -> None:
    """Note that bytes arrived, so that the breaks of a long download do not add up to a hold.

    Raises Stale where a person stopped the project meanwhile: what is there is gone on with when it goes on.
    """
    context.throttled.pop(project.id, None)
    projects.not_stopped(context.journal, project.id)
    projects.waiting(context.journal, project.id, f"fetching {output.name}", due_at=context.after(0))


def _name(output: Output) -> str:
    return f"{output.project_id}/{output.key}"


def _only_these_fail(context: Context, project: Project, output: Output, failing: set[str]) -> bool:
    """Say whether it is these outputs: the project has no other one left to fetch, and the storage answers."""
    if any(_name(other) not in failing for other in _missing(context, project)):
        return False
    assert project.remote_id is not None
    line = context.line()
    try:
        # Beside it, since what refuses just these, such as a firewall their bytes, would refuse the question, too.
        beside = f"{output.key.rpartition('/')[0]}/{QUESTION}"
        bucket = context.buckets.of(project.remote_id)
        return bucket.answers(line, beside, bucket=output.bucket or None, region=output.region)
    finally:
        line.close()


def _part(folder: Path, output: Output) -> Path:
    return folder / f".{output.name}.part"


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except OSError:
        return 0


def _deliver(context: Context, project: Project, folder: Path | None) -> None:
    outputs = views.outputs_of(context.journal, project.id)
    if folder is not None:
        with on_disk(context, project, folder):
            durable.make_directories(folder)
            papers.write(context.journal, project, folder)
            durable.write(folder / COMPLETE, papers.complete_text(project))
    text = f"{len(outputs)} results fetched" if folder is not None else "done; results are not downloaded"
    projects.advance(context.journal, project.id, State.PROCESSED, State.DELIVERED, text)
    if project.remote_id is not None:
        context.buckets.forget(project.remote_id)
    context.waits.end("outputs", project.id)
    end_cadence(context, project)
    log.info("delivered", project=project.title, results=len(outputs), folder=folder)


def _have_room(context: Context, project: Project, folder: Path) -> None:
    """Raise DiskFull unless there is room for the next result, or for what is written last.

    The room is taken and not only counted: else a quota, or the last inode, would hold the project anew each time.
    """
    missing = next(iter(_missing(context, project)), None)
    part = folder / ".room.part" if missing is None else _part(folder, missing)
    with on_disk(context, project, folder):
        durable.make_directories(folder)
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            take_room(part, handle, FIRST if missing is None else missing.size or FIRST)
        finally:
            os.close(handle)
            if missing is None:
                part.unlink()
