"""Say what was understood of a configuration, for a person to compare with what was meant.

Owns that text alone: it reads no disk, and shows no secret.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pix4d_watcher.config.units import show_duration, show_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pix4d_watcher.config.secrets import ClientCredentials
    from pix4d_watcher.config.settings import CloudSettings, RootSettings, Settings

_SECRET_WORDS = ("secret", "password", "passwd", "token", "credential", "apikey", "api_key", "private_key")


def explain(settings: Settings, client: ClientCredentials | None) -> str:
    """Describe settings and client credentials, one fact a line, secrets masked; `client` None where none was found."""
    upload, advanced = settings.upload, settings.advanced
    batch = advanced.register_batch
    lines = [
        f"configuration: {settings.file or 'not from a file'}",
        *_cloud(settings.cloud, client),
        f"journal: {settings.journal}",
        f"results: {settings.results}/<root>/<folder>/" if settings.results else "results: not downloaded",
        f"dashboard: {'not in this version' if settings.dashboard else 'none'}",
        f"upload: {upload.connections} images at a time, in parts above {show_size(upload.multipart_threshold)}",
    ]
    for event, command in (("on_delivered", settings.hooks.on_delivered), ("on_held", settings.hooks.on_held)):
        if command:
            lines.append(f"hook {event}: {command[0]}")
    for root in settings.watch:
        lines += [*_root(root), *_more(root)]
    lines += [
        "advanced:",
        f"  asks after a lost answer: {show_duration(advanced.doubt_wait)} later",
        f"  looks through each drop directory: every {show_duration(advanced.scan_interval)}",
        f"  tries again: after {show_duration(advanced.retry_base)}, at most {show_duration(advanced.retry_max)}",
        f"  waits for an answer: {show_duration(advanced.request_timeout)}",
        f"  registers: {'all images in one call' if batch is None else f'{batch} images a call'}",
    ]
    lines += [f"warning: {warning}" for warning in settings.warnings]
    return "\n".join(lines) + "\n"


def _cloud(cloud: CloudSettings, client: ClientCredentials | None) -> list[str]:
    credentials = ["  client id and secret: not complete"]
    if client:
        credentials = [
            f"  client id: {client.client_id}, from {client.id_from}",
            f"  client secret: set, from {client.secret_from}",
        ]
    return [
        f"cloud: {cloud.url}",
        *credentials,
        f"  S3: {cloud.s3_endpoint or 'where the service says'}",
        f"  certificate authorities: {cloud.ca_file or 'the usual ones'}",
        f"  creation in doubt: {'create again' if cloud.create_in_doubt == 'create' else 'ask a person'}",
        f"  registration in doubt: {'register again' if cloud.register_in_doubt == 'again' else 'ask a person'}",
        f"  processing failed at: {', '.join(cloud.failure_statuses) or 'no status'}",
    ]


def _root(root: RootSettings) -> list[str]:
    existing = {
        "process": "treated as dropped",
        "ignore": "never touched",
        "ask": "held until approved",
        None: "treated as dropped; held until approved when more than ten",
    }[root.existing]
    ready = f", or at once with {root.ready_file}" if root.ready_file else ""
    outputs = "all" if root.outputs == "all" else ", ".join(root.outputs)
    levels = ", ".join(f"{name} {level}" for name, level in root.checks.items())
    body = "none (standard)" if root.processing is None else _verbatim(root.processing)
    return [
        f"drop directory {root.name}: {root.path}",
        f"  a folder is complete: {show_duration(root.settle)} after its last change{ready}",
        f"  folders at the first scan: {existing}",
        f"  images: {', '.join(root.include) or 'all'}{' but ' + ', '.join(root.exclude) if root.exclude else ''}",
        f"  checks: {levels + ', the rest by default' if levels else 'by default'}",
        f"  project name: {root.project.name}",
        f"  extra fields at creation: {_verbatim(root.project.create) if root.project.create else 'none'}",
        f"  processing body: {body}",
        f"  start: {'by itself' if root.start == 'auto' else 'by a person'}",
        f"  asks for the state: {f'every {show_duration(root.poll)}' if root.poll else 'every 30s, later every 10m'}",
        f"  results: {f'{outputs}, waits {show_duration(root.outputs_wait)} for late ones' if outputs else 'none'}",
    ]


def _more(root: RootSettings) -> Iterator[str]:
    """Say what is configured beyond the usual, and always what becomes of the folders: it may be their deletion."""
    if root.approve_above is not None:
        yield f"  asks a person: above {root.approve_above:g} credits"
    if root.join is not None:
        yield f"  joins folders named: {root.join}, waits {show_duration(root.join_wait)} for further parts"
    if root.split is not None:
        yield f"  splits folders: above {root.split} images"
    if root.folder_may:
        yield f"  a pix4d.yaml in a folder may set: {', '.join(root.folder_may)}"
    if root.template is not None:
        yield f"  processing template: {root.template}"
    late = {"hold": "a person is asked", "ignore": "noted only", "round": "sent with all others as a new round"}
    yield f"  images after the start: {late[root.late_images]}"
    after = {
        "keep": "stay",
        "archive": f"are moved to {root.archive_to}/{root.name}/",
        "delete": "lose the sent images",
    }
    when = "" if root.after == "keep" else f" after {show_duration(root.retention)}"
    yield f"  delivered folders: {after[root.after]}{when}"


def _verbatim(value: Any) -> str:
    return json.dumps(_masked(value), ensure_ascii=False)


def _masked(value: Any) -> Any:
    """Copy what is passed to the service, with *** for the values of keys that smell of a secret."""
    if isinstance(value, dict):
        smells = {key: any(word in key.lower() for word in _SECRET_WORDS) for key in value}
        return {key: "***" if smells[key] else _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value
