"""The emulated REST API: tokens, projects, registration, start, outputs.

Owns routing under /oauth2/ and /project/, authentication and the shapes of answers and refusals. What the service's
guide documents is taken from there; error bodies are those of Django REST Framework, which is an assumption. Must not
know S3.
"""

import email
import email.policy
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from pix4d_watcher.emulator import projects
from pix4d_watcher.emulator.state import Project, State, iso, utc_offset, zulu_seconds
from pix4d_watcher.emulator.wire import Answer, Request, TooLong, json_answer

_BODY_LIMIT = 64 << 20
_PROJECTS = "/project/api/v3/projects"
_NAMED_IN_ERRORS = 5  # keys
_PATH = re.compile(rf"{_PROJECTS}/(\d+)(?:/([a-z0-9_/]+?))?/?")
_OPS = {
    ("GET", None): "project",
    ("GET", "s3_credentials"): "credentials",
    ("POST", "inputs/bulk_register"): "register",
    ("POST", "start_processing"): "start",
    ("GET", "outputs"): "outputs",
    ("POST", "extras"): "extras",
}


class Refusal(Exception):
    """A request that the API refuses, with the HTTP status and the JSON body that says why."""

    def __init__(self, status: int, body: object) -> None:
        """Hold the answer."""
        super().__init__(f"{status}: {body}")
        self.status, self.body = status, body


@dataclass(frozen=True, slots=True)
class Target:
    """What a REST request is about; `known_path` tells a wrong method from a wrong path."""

    op: str
    project: str
    known_path: bool


def is_rest(path: str) -> bool:
    """Whether a path belongs to the REST API."""
    return path.startswith(("/oauth2/", "/project/"))


def route(request: Request) -> Target:
    """Return the operation and project id of a request."""
    path = request.path.rstrip("/")
    if path == "/oauth2/token":
        return Target("token" if request.method == "POST" else "other", "", known_path=True)
    if path == _PROJECTS:
        return Target({"POST": "create", "GET": "list"}.get(request.method, "other"), "", known_path=True)
    match = _PATH.fullmatch(path)
    if match is None:
        return Target("other", "", known_path=False)
    known = any(match[2] == name for _, name in _OPS)
    return Target(_OPS.get((request.method, match[2]), "other"), match[1], known)


def answer(state: State, request: Request, target: Target) -> Answer:
    """Judge and carry out a REST request."""
    if not request.path.endswith("/"):
        query = f"?{request.query}" if request.query else ""
        return Answer(301, {"Location": f"{request.path}/{query}"})
    try:
        return _token(state, request) if target.op == "token" else _authenticated(state, request, target)
    except Refusal as refusal:
        headers = {"WWW-Authenticate": 'Bearer realm="api"'} if refusal.status == 401 else {}
        return json_answer(refusal.status, refusal.body, headers)
    except TooLong as error:
        return json_answer(413, {"detail": str(error)})


def _authenticated(state: State, request: Request, target: Target) -> Answer:
    _authenticate(state, request)
    if target.op == "other" and target.known_path:
        raise Refusal(405, {"detail": f'Method "{request.method}" not allowed.'})
    if target.op == "other":
        raise Refusal(*_missing())
    if target.op in ("create", "list"):
        return _create(state, request) if target.op == "create" else _list(state, request)
    body = _json(request) if request.method == "POST" else None
    with state.lock:
        return _ON_PROJECT[target.op](state, request, _project(state, target.project), body)


def _missing() -> tuple[int, object]:
    return 404, {"detail": "Not found."}


def _base(request: Request) -> str:
    return f"http://{request.header('Host')}"


def _authenticate(state: State, request: Request) -> None:
    scheme, _, token = request.header("Authorization").partition(" ")
    if scheme.lower() != "bearer":
        raise Refusal(401, {"detail": "Authentication credentials were not provided."})
    expires = state.tokens.get(token.strip())
    if expires is None or expires <= time.monotonic():
        raise Refusal(401, {"detail": "Invalid token." if expires is None else "Token has expired."})


def _project(state: State, number: str) -> Project:
    project = state.projects.get(int(number))
    if project is None or project.deleted:
        raise Refusal(*_missing())
    return project


def _json(request: Request) -> object:
    """Return the JSON body; None when there is none. Raises Refusal."""
    raw = request.body.read_all(_BODY_LIMIT)
    if not raw:
        return None
    kind = request.header("Content-Type").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, {"detail": f'Unsupported media type "{kind}" in request.'})
    try:
        return json.loads(raw)
    except ValueError as error:
        raise Refusal(400, {"detail": f"JSON parse error - {error}"}) from None


def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form body, urlencoded or multipart; empty for any other kind."""
    raw, kind = request.body.read_all(_BODY_LIMIT), request.header("Content-Type")
    if kind.startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(raw.decode("utf-8", "replace")))
    if not kind.startswith("multipart/form-data"):
        return {}
    parsed = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + raw, policy=email.policy.HTTP)
    fields = {part.get_param("name", header="content-disposition"): part.get_content() for part in parsed.iter_parts()}
    return {str(name): str(value).strip() for name, value in fields.items()}


def _token(state: State, request: Request) -> Answer:
    if {"client_id", "client_secret"} & set(request.params()):
        raise Refusal(
            400, {"error": "invalid_request", "error_description": "Credentials do not belong in the query string."}
        )
    form, settings = _form(request), state.settings
    if form.get("grant_type") != "client_credentials":
        raise Refusal(400, {"error": "unsupported_grant_type"})
    if form.get("token_format") != "jwt":
        raise Refusal(400, {"error": "invalid_request", "error_description": "token_format must be jwt."})
    if (form.get("client_id"), form.get("client_secret")) != (settings.client_id, settings.client_secret):
        raise Refusal(401, {"error": "invalid_client"})
    lifetime = (
        int(settings.token_lifetime)
        if settings.token_lifetime == int(settings.token_lifetime)
        else settings.token_lifetime
    )
    issued = {
        "access_token": state.issue_token(),
        "token_type": "Bearer",
        "expires_in": lifetime,
        "scope": "read:cloud write:cloud",
    }
    return json_answer(200, issued, {"Cache-Control": "no-store"})


def _create(state: State, request: Request) -> Answer:
    body = _json(request)
    fields = body if isinstance(body, dict) else {}
    name = fields.get("name")
    if not isinstance(name, str) or not name.strip():
        reason = (
            "This field is required."
            if name is None
            else "This field may not be blank."
            if name == ""
            else "Not a valid string."
        )
        raise Refusal(400, {"name": [reason]})
    with state.lock:
        project = state.add_project(name, {key: value for key, value in fields.items() if key != "name"})
        return json_answer(201, projects.detail(state, project, _base(request)))


def _list(state: State, request: Request) -> Answer:
    settings, url = state.settings, f"{_base(request)}{_PROJECTS}/"
    if settings.project_list == "off":
        raise Refusal(*_missing())
    with state.lock:
        seen = time.monotonic() - settings.list_lag
        shown = [item for item in reversed(state.projects.values()) if not item.deleted and item.created <= seen]
        size = max(settings.page_size, 1) if settings.project_list == "paged" else max(len(shown), 1)
        page = request.params().get("page", "1")
        number = int(page) if page.isdecimal() else 0
        results = shown[(number - 1) * size : number * size] if number else []
        if not results and number != 1:
            raise Refusal(404, {"detail": "Invalid page."})
        found = [projects.summary(state, item, _base(request)) for item in results]
    more = number * size < len(shown)
    answered = {
        "count": len(shown),
        "next": f"{url}?{urlencode({'page': number + 1})}" if more else None,
        "previous": None if number == 1 else f"{url}?{urlencode({'page': number - 1})}",
        "results": found,
    }
    return json_answer(200, answered)


def _detail(state: State, request: Request, project: Project, _body: object) -> Answer:
    return json_answer(200, projects.detail(state, project, _base(request)))


def _credentials(state: State, _request: Request, project: Project, _body: object) -> Answer:
    settings, issued = state.settings, state.issue_credentials(project)
    answered: dict[str, object] = {
        "access_key": issued.access_key,
        "secret_key": issued.secret_key,
        "session_token": issued.session_token,
        "expiration": iso(state.now() + settings.credentials_lifetime, zulu_seconds),
        "bucket": settings.bucket,
        "key": project.prefix,
        "server_time": iso(state.now(), utc_offset),
        "region": settings.region,
    }
    for name in ("endpoint_override", "is_bucket_accelerated"):
        value = getattr(settings, name)
        if value is not None:
            answered[name] = value
    return json_answer(200, answered)


def _own_keys(state: State, project: Project, field: str, keys: list[str]) -> None:
    """Raise Refusal unless all keys are objects under the project's prefix."""
    foreign = [key for key in keys if not project.owns(key)]
    absent = [key for key in keys if key not in state.objects]
    for wrong, reason in ((foreign, f"not under {project.prefix}/"), (absent, "not in the bucket")):
        if wrong:
            named = ", ".join(wrong[:_NAMED_IN_ERRORS]) + (" …" if len(wrong) > _NAMED_IN_ERRORS else "")
            raise Refusal(400, {field: [f"{len(wrong)} of {len(keys)} keys are {reason}: {named}"]})


def _register(state: State, _request: Request, project: Project, body: object) -> Answer:
    keys = body.get("input_file_keys") if isinstance(body, dict) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
        raise Refusal(400, {"input_file_keys": ["This field is required."]})
    settings = state.settings
    if settings.max_register is not None and len(keys) > settings.max_register:
        raise Refusal(413, {"detail": f"At most {settings.max_register} keys can be registered at once."})
    _own_keys(state, project, "input_file_keys", keys)
    sent = list(dict.fromkeys(keys))
    new = [key for key in sent if key not in project.registered]
    for key in sent:
        project.registered[key] = project.registered.get(key, 0) + 1
    projects.count_images(project, len(sent if settings.register_again == "double" else new))
    registered = len(new if settings.register_again == "zero" else sent)
    return json_answer(200, {"nb_images_registered": registered, "id": project.id, "uuid": project.uuid})


def _start(state: State, _request: Request, project: Project, body: object) -> Answer:
    if body is not None and not isinstance(body, dict):
        raise Refusal(400, {"non_field_errors": ["Invalid data. Expected a dictionary."]})
    if not project.image_count:
        raise Refusal(400, {"detail": "The project has no images."})
    if state.settings.credits_refuse:
        raise Refusal(402, {"detail": "Not enough credits."})
    if project.starts and state.settings.second_start == "refuse":
        raise Refusal(400, {"detail": "The project has been started already."})
    projects.start(state, project, body)
    public, detailed, _ = projects.status(state, project)
    return json_answer(200, {"id": project.id, "public_status": public, "display_detailed_status": detailed})


def _outputs(state: State, _request: Request, project: Project, _body: object) -> Answer:
    if state.settings.outputs_endpoint == "off":
        raise Refusal(*_missing())
    return json_answer(200, {"outputs": projects.output_list(state, project)})


def _extras(state: State, _request: Request, project: Project, body: object) -> Answer:
    if state.settings.extras == "off":
        raise Refusal(*_missing())
    key = body.get("file_key") if isinstance(body, dict) else None
    if not isinstance(key, str) or not key:
        raise Refusal(400, {"file_key": ["This field is required."]})
    _own_keys(state, project, "file_key", [key])
    project.extras.append(key)
    return json_answer(201, {"file_key": key})


_ON_PROJECT: dict[str, Callable[[State, Request, Project, object], Answer]] = {
    "project": _detail,
    "credentials": _credentials,
    "register": _register,
    "start": _start,
    "outputs": _outputs,
    "extras": _extras,
}
