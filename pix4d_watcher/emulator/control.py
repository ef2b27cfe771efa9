"""The control surface under /_emulator/: the ledger, settings, faults, and a person who uses the service's own page.

Owns the ledger's JSON, which other programs rely on. Nothing here is part of the emulated service, is counted in the
ledger, or meets faults.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pix4d_watcher.emulator import projects
from pix4d_watcher.emulator.state import Content, Project, State, Upload
from pix4d_watcher.emulator.wire import Answer, Request, TooLong, json_answer

PREFIX = "/_emulator/"
_BODY_LIMIT = 16 << 20
_BY_HAND = re.compile(r"projects/(\d+)/(start|stop|delete|add_image)")


def ledger(state: State) -> dict[str, Any]:
    """Return everything that was applied, as one consistent JSON value."""
    with state.lock:
        for project in state.projects.values():
            projects.advance(state, project)
        touched = _touched(state)
        return {
            "projects": [_project(state, project, touched) for project in state.projects.values()],
            "objects": {
                key: {
                    "size": item.content.size,
                    "sha256": item.content.sha256,
                    "etag": item.etag,
                    "puts": state.puts[key],
                    "multipart": item.multipart,
                    "project": item.project,
                }
                for key, item in state.objects.items()
            },
            "uploads": [_upload(upload) for upload in state.uploads.values()],
            "outputs": {
                key: {"size": item.content.size, "sha256": item.content.sha256} for key, item in state.outputs.items()
            },
            "tokens": len(state.tokens),
            "credentials": len(state.credentials),
            "received_bytes": state.received_bytes,
            "requests": dict(state.requests),
            "refused": dict(state.refused),
            "connections": state.connections,
        }


def _touched(state: State) -> set[int]:
    """Return the ids of projects that have an object or an upload."""
    return {item.project for item in state.objects.values()} | {item.project for item in state.uploads.values()}


def _project(state: State, project: Project, touched: set[int]) -> dict[str, Any]:
    public, _, _ = projects.status(state, project)
    return {
        "id": project.id,
        "name": project.name,
        "create_fields": project.create_fields,
        "prefix": project.prefix,
        "image_count": project.image_count,
        "registered": dict(project.registered),
        "extras": list(project.extras),
        "starts": project.starts,
        "start_bodies": list(project.start_bodies),
        "status": public,
        "deleted": project.deleted,
        "used": bool(project.id in touched or project.registered or project.starts),
    }


def _upload(upload: Upload) -> dict[str, Any]:
    parts = {
        str(number): {"size": part.content.size, "etag": part.content.md5, "puts": part.puts}
        for number, part in sorted(upload.parts.items())
    }
    state = "open" if upload.state == "completing" else upload.state
    return {"upload_id": upload.upload_id, "key": upload.key, "state": state, "parts": parts}


def answer(state: State, request: Request) -> Answer:
    """Answer a request under /_emulator/; what is wrong with it is said in `detail`."""
    try:
        raw = request.body.read_all(_BODY_LIMIT)
        value = json.loads(raw) if raw else None
        path = request.path.removeprefix(PREFIX).rstrip("/")
        hand = _BY_HAND.fullmatch(path)
        if hand is not None and request.method == "POST":
            return json_answer(200, by_hand(state, int(hand[1]), hand[2], value))
        action = _ACTIONS.get((request.method, path))
        if action is None:
            return json_answer(404, {"detail": f"The emulator has no {request.method} {PREFIX}{path}."})
        return json_answer(200, action(state, value))
    except (ValueError, TypeError, TooLong) as error:
        return json_answer(400, {"detail": str(error)})
    except KeyError as error:
        return json_answer(404, {"detail": f"There is no project {error}."})


def _add_faults(state: State, value: object) -> list[dict[str, Any]]:
    state.faults.extend(_list(value))
    return state.faults.listing()


_ACTIONS: dict[tuple[str, str], Callable[[State, object], object]] = {
    ("GET", "ledger"): lambda state, _: ledger(state),
    ("GET", "settings"): lambda state, _: dataclasses.asdict(state.settings),
    ("POST", "settings"): lambda state, value: dataclasses.asdict(state.change_settings(dict(_object(value)))),
    ("GET", "faults"): lambda state, _: state.faults.listing(),
    ("POST", "faults"): _add_faults,
    ("DELETE", "faults"): lambda state, _: state.faults.clear(),
    ("POST", "expire"): lambda state, value: state.expire(str(_object(value).get("what"))),
    ("POST", "reset"): lambda state, _: state.reset(),
}


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"a JSON object is wanted, not {value!r}")
    return value


def _list(value: object) -> Iterable[object]:
    if not isinstance(value, list):
        raise TypeError(f"a JSON list is wanted, not {value!r}")
    return value


def by_hand(state: State, project_id: int, action: str, value: object = None) -> dict[str, Any]:
    """Do what a person does in the service's own page: start, stop, delete, or add_image (`{"name": …}`).

    A start by hand counts in the ledger like any other, with the body `{"by_hand": true}`: it costs the same money.
    Raises KeyError for no such project.
    """
    with state.lock:
        project = state.projects[project_id]
        if action == "start":
            projects.start(state, project, {"by_hand": True})
        elif action == "stop":
            projects.stop(state, project)
        elif action == "delete":
            project.deleted = True
        else:
            name = _object(value).get("name") if value is not None else None
            _add_image(state, project, str(name or f"by_hand_{project.image_count + 1}.jpg"))
        return _project(state, project, _touched(state))


def _add_image(state: State, project: Project, name: str) -> None:
    key, path, data = f"{project.prefix}/{name}", state.new_file(), name.encode()
    path.write_bytes(data)
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    content = Content(path, len(data), md5, hashlib.sha256(data).hexdigest())
    state.store(key, content, etag=md5, content_type="image/jpeg", multipart=False)
    project.registered[key] = project.registered.get(key, 0) + 1
    projects.count_images(project, 1)
