"""The life of a project after its images are there: processing, its outputs, and how the service describes it.

Owns the processing clock (looked at when somebody asks; nothing runs in the background) and the JSON of a project.
Callers hold the state's lock.
"""

import hashlib
import time
from dataclasses import dataclass

from pix4d_watcher.emulator.state import Content, Project, State, StoredObject, iso, swiss_summer, zulu

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Output:
    result_type: str
    output_type: str
    path: str | None  # under the project's prefix; None: never made
    group: str  # where the project detail shows it
    late: bool = False
    without_object: str = "not available"  # availability of what is never made


# result types, output types and availabilities are those of a response captured in 2021; file types those of today
_OUTPUTS = (
    _Output("project_zip", "project_zip", "project.zip", "bundles"),
    _Output("mapper_log", "project_zip", "project.zip", "bundles"),  # the same object twice, as captured
    _Output("ortho", "ortho", "3_dsm_ortho/2_mosaic/ortho.tif", "images"),
    _Output("dsm", "dsm", "3_dsm_ortho/1_dsm/dsm.tif", "images"),
    _Output("point_cloud", "point_cloud", "2_densification/point_cloud/point_cloud.laz", "mesh", late=True),
    _Output("3d_mesh", "3d_mesh_obj_zip", "2_densification/3d_mesh/mesh.zip", "mesh", late=True),
    _Output("quality_report", "quality_report", "1_initial/report/report.pdf", "reports"),
    _Output("mapper_log", "mapper_log", "project.log", "reports"),
    _Output("project_thumb", "project_thumb", "thumb/project_thumb.jpg", "images"),
    _Output("inputs", "input_zip", None, "bundles", without_object="requestable"),
    _Output("ortho", "ortho_rgba_bundle", None, "bundles", without_object="requestable"),
    _Output("3d_mesh", "3d_mesh_fbx", None, "mesh"),
)
_ENDS = {
    "done": ("DONE", "Processed", ""),
    "error": ("ERROR", "Processing failed", "Not enough images could be calibrated."),
    "stopped": ("CANCELED", "Processing was stopped", ""),  # an assumption: the service documents no such state
}
_TYPES = tuple(dict.fromkeys(output.output_type for output in _OUTPUTS if output.path is not None))


def start(state: State, project: Project, body: object) -> None:
    """Count a start and let the processing clock run, from the beginning if it ran before."""
    project.starts += 1
    project.start_bodies.append(body)
    project.began = project.began_at = project.finished = project.finished_at = None
    project.waiting = True
    advance(state, project)


def stop(state: State, project: Project) -> None:
    """End processing before its time; nothing happens to a project that does not process."""
    advance(state, project)
    if project.finished is None and (project.began is not None or project.waiting):
        project.waiting, project.finished, project.finished_at = False, "stopped", state.now()


def advance(state: State, project: Project) -> None:
    """Bring a project to where its processing clock stands now."""
    settings, now = state.settings, time.monotonic()
    if project.waiting:
        _pay(state, project, now)
    if project.began is None:
        return
    if project.finished is None:
        seconds = settings.processing_seconds
        if settings.processing_result not in ("done", "error"):
            seconds += settings.odd_status_seconds
        if now - project.began < seconds:
            return
        project.finished = "error" if settings.processing_result == "error" else "done"
        project.finished_mono, project.finished_at = now, state.now()
    if project.finished == "done" and len(project.outputs) < len(_TYPES):
        for output in _OUTPUTS:
            ready = not output.late or now - project.finished_mono >= settings.outputs_seconds
            if output.path is not None and ready and output.output_type not in project.outputs:
                _make(state, project, output)


def _pay(state: State, project: Project, now: float) -> None:
    credit, price = state.settings.credits, state.settings.credit_per_image * project.image_count
    if credit is not None:
        if credit < price:
            return
        state.change_settings({"credits": credit - price})
    project.waiting, project.began, project.began_at = False, now, state.now()


def _make(state: State, project: Project, output: _Output) -> None:
    key, path = f"{project.prefix}/{output.path}", state.new_file()
    size = state.settings.output_bytes
    if output.output_type == "ortho" and state.settings.ortho_bytes is not None:
        size = state.settings.ortho_bytes
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("wb") as file:
        for offset in range(0, size, _PIECE):
            piece = hashlib.shake_128(f"{key} {offset}".encode()).digest(min(_PIECE, size - offset))
            md5.update(piece)
            sha256.update(piece)
            file.write(piece)
    content = Content(path, size, md5.hexdigest(), sha256.hexdigest())
    state.outputs[key] = StoredObject(
        content, md5.hexdigest(), "application/octet-stream", state.now(), False, project.id
    )
    project.outputs[output.output_type] = key


def status(state: State, project: Project) -> tuple[str, str, str]:
    """Return public_status, display_detailed_status and error_reason."""
    advance(state, project)
    settings = state.settings
    if project.waiting:
        return "PROCESSING", "Waiting for credits", ""
    if project.finished is not None:
        return _ENDS[project.finished]
    if project.began is None:
        return "NEW", "", ""
    elapsed = time.monotonic() - project.began
    if elapsed >= settings.processing_seconds and settings.processing_result not in ("done", "error"):
        return settings.processing_result, settings.processing_result.capitalize(), ""
    return "PROCESSING", "Waiting for processing" if elapsed < settings.processing_seconds / 4 else "Processing", ""


def shown_count(state: State, project: Project) -> int:
    """Return the image_count that the service shows, which may be behind or stand still."""
    if state.settings.counter == "frozen":
        return 0
    if state.settings.counter == "exact":
        return project.image_count
    seen = time.monotonic() - state.settings.counter_lag
    return next((count for moment, count in reversed(project.counts) if moment <= seen), 0)


def count_images(project: Project, images: int) -> None:
    """Add to the number of images, with the moment for a counter that lags."""
    project.image_count += images
    project.counts.append((time.monotonic(), project.image_count))


def summary(state: State, project: Project, base: str) -> dict[str, object]:
    """Return a project as the list shows it, assumed to be the detail without outputs; `base` is the service's URL."""
    public, detailed, reason = status(state, project)
    ended, began = project.finished_at, project.began_at
    return {
        "id": project.id,
        "name": project.name,
        "display_name": project.name,
        "project_group_id": None,
        "is_demo": False,
        "is_geolocalized": True,
        "create_date": iso(project.created_at, swiss_summer),
        "public_status": public,
        "display_detailed_status": detailed,
        "error_reason": reason,
        "user_display_name": "Demo Pilot",
        "project_thumb": f"{base}/thumbs/{project.id}.jpg",
        "detail_url": f"{base}/project/api/v3/projects/{project.id}/",
        "acquisition_date": iso(project.created_at, swiss_summer),
        "project_type": "pro",
        "image_count": shown_count(state, project),
        "last_datetime_processing_started": None if began is None else iso(began, zulu),
        "last_datetime_processing_ended": None if ended is None else iso(ended, zulu),
        "bucket_name": state.settings.bucket,
        "s3_bucket_region": state.settings.region,
        "s3_base_path": project.prefix,
        "never_delete": False,
        "under_trial": False,
        "uuid": project.uuid,
        "coordinate_system": "",
        "min_zoom": -1,
        "max_zoom": -1,
        "proj_pipeline": "",
    }


def detail(state: State, project: Project, base: str) -> dict[str, object]:
    """Return a project as `GET /projects/{id}/` shows it, in the shape of the service's sample."""
    shown = summary(state, project, base)
    request_url = f"{base}/project/api/v3/projects/{project.id}/inputs/zip/"
    outputs: dict[str, dict[str, object]] = {
        "mesh": {"texture_res": {}},
        "images": {"reflectance": {}},
        "map": {"layers": {}, "bounds": {"sw": [0, 0], "ne": [0, 0]}},
        "bundles": {"inputs": {"status": "requestable", "request_url": request_url}},
        "reports": {},
    }
    for output in _OUTPUTS:
        key = project.outputs.get(output.output_type)
        if key is not None:
            leaf = {
                "status": "processed",
                "name": key.rpartition("/")[2],
                "s3_key": key,
                "s3_bucket": state.settings.bucket,
            }
            outputs[output.group][output.output_type] = leaf
    return {**shown, "outputs": outputs}


def output_list(state: State, project: Project) -> list[dict[str, object]]:
    """Return the entries of `GET /projects/{id}/outputs/`; those that are not done have neither key nor id."""
    advance(state, project)
    entries: list[dict[str, object]] = []
    for output in _OUTPUTS:
        key = project.outputs.get(output.output_type)
        entry: dict[str, object] = {"result_type": output.result_type, "output_type": output.output_type}
        if key is not None:
            number = project.id * 100 + _TYPES.index(output.output_type)
            place = {"s3_key": key, "s3_bucket": state.settings.bucket, "s3_region": state.settings.region}
            entry |= {"availability": "done", **place, "output_id": number}
        elif output.path is not None:
            making = project.began is not None and project.finished not in ("error", "stopped")
            entry["availability"] = "in_progress" if making else "not available"
        else:
            entry["availability"] = output.without_object if project.finished == "done" else "not available"
        entries.append(entry)
    return entries
