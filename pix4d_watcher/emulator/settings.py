"""The emulator's settings: what the service is like in this run.

Owns names, types, defaults and their checking. Must not hold any state. A change takes effect at once, also on what is
under way.
"""

import dataclasses
from collections.abc import Mapping

_CHOICES: dict[str, tuple[str, ...]] = {
    "project_list": ("on", "paged", "off"),
    "register_again": ("same", "zero", "double"),
    "counter": ("exact", "lagging", "frozen"),
    "second_start": ("accept", "refuse"),
    "outputs_endpoint": ("on", "off"),
    "extras": ("on", "off"),
    "head": ("on", "off", "present"),
    "list_parts": ("on", "off"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """How the service behaves; durations in seconds, sizes in bytes. Every value can be changed while it runs.

    Where the service's behaviour is not documented the default is an assumption, and the other choices are the other
    possibilities.
    """

    client_id: str = "demo-client"
    client_secret: str = "demo-secret"  # noqa: S105 - the pair of the demonstration, printed in the documentation
    token_lifetime: float = 36000.0  # the service's own guide: 36000 in one place, 172800 in another
    credentials_lifetime: float = 43200.0  # assumption: 12 hours, from the clock times of the guide's sample
    clock_skew: float = 0.0  # shifts every wall clock of the service
    region: str = "eu-central-1"  # not us-east-1, so that a client that ignores the region is found out
    bucket: str = "prod-pix4d-cloud-default"
    endpoint_override: str | None = None  # these two are in the answer only when they are set
    is_bucket_accelerated: bool | None = None
    project_list: str = "on"
    page_size: int = 20
    list_lag: float = 0.0  # a new project shows up in the list so much later
    register_again: str = "same"
    counter: str = "exact"
    counter_lag: float = 5.0  # how far image_count is behind when counter is "lagging"
    max_register: int | None = None
    second_start: str = "accept"
    credits: float | None = None  # None: nobody counts
    credit_per_image: float = 0.2  # megapixels / 100 for an image of 20 megapixels
    credits_refuse: bool = False
    processing_seconds: float = 3.0
    processing_result: str = "done"  # "done", "error", or a status shown verbatim before DONE
    odd_status_seconds: float = 2.0
    output_bytes: int = 20_000
    ortho_bytes: int | None = None  # None: like the other outputs
    outputs_endpoint: str = "on"
    outputs_seconds: float = 0.0  # some outputs are ready so much after DONE
    extras: str = "on"
    head: str = "on"  # "present": what is not there is refused, as S3 does where listing is not allowed
    list_parts: str = "on"
    complete_seconds: float = 0.0  # so long parts are put together; meanwhile neither they nor the object can be seen
    small_parts: bool = False  # True: parts below 5 MiB are accepted


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def _checked(name: str, value: object) -> object:
    """Return the value in the field's type, or raise ValueError that says what would be right."""
    choices = _CHOICES.get(name)
    if choices is not None:
        word = {True: "on", False: "off"}.get(value) if isinstance(value, bool) else value
        if word not in choices:
            raise ValueError(f"setting {name}: {value!r} is none of {', '.join(choices)}")
        return word
    kinds = str(_FIELDS[name].type)
    if value is None and "None" in kinds:
        return None
    if isinstance(value, bool):
        fits = "bool" in kinds
    elif isinstance(value, int):
        fits = "int" in kinds or "float" in kinds
    else:
        fits = type(value).__name__ in kinds
    if not fits:
        raise ValueError(f"setting {name}: {value!r} is not of type {kinds}")
    return value


def changed(settings: Settings, changes: Mapping[str, object]) -> Settings:
    """Return the settings with some values changed; raises ValueError for an unknown name or an unfit value."""
    unknown = sorted(set(changes) - set(_FIELDS))
    if unknown:
        raise ValueError(f"unknown setting {', '.join(unknown)}; known are {', '.join(_FIELDS)}")
    checked = {name: _checked(name, value) for name, value in changes.items()}
    return dataclasses.replace(settings, **checked)  # type: ignore[arg-type]  # each value was checked against its field
