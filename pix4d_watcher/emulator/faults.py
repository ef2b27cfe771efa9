"""Scripted faults: which request goes wrong next, and how.

Owns the list of faults, their matching and their counts. Must not act on connections: the server does that.

What each fault does:

- `drop_before`: the connection is reset, nothing is applied
- `drop_after`: applied, then the connection is reset without an answer
- `late`: the request is read, the connection reset, and the request applied `seconds` later, before any that comes then
- `delay`: applied at once, answered `seconds` later
- `status`: nothing applied, answered with `code` and, where given, `headers`, `body`, `content_type` (a `complete` that
  is answered 200 with an error body is this one)
- `status_after`: applied, then answered with `code`
- `cut`: applied, the answer's body is cut after `bytes` bytes by a reset
- `cut_body`: `bytes` bytes of the request's body are read, then the connection is reset, nothing applied
- `stall`: nothing read or answered for `seconds`, then a reset
- `expire_credentials`, `expire_token`: all of them expire, then the request is answered as that demands
- `wrong_etag`: applied, the ETag in the answer is another one
- `html`: nothing applied, 200 with an HTML page, as from a captive portal
- `not_json`: applied, 200 with a body that is no JSON
"""

import dataclasses
import threading
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

REST_OPS = frozenset({"token", "create", "list", "project", "credentials", "register", "start", "outputs", "extras"})
S3_OPS = frozenset(
    {
        "put",
        "part",
        "initiate",
        "complete",
        "abort",
        "list_parts",
        "list_uploads",
        "list_objects",
        "head",
        "get",
        "delete",
    }
)
_GROUPS = {"*": REST_OPS | S3_OPS | {"other"}, "rest": REST_OPS, "s3": S3_OPS}
_NEEDS = {
    "drop_before": (),
    "drop_after": (),
    "late": ("seconds",),
    "delay": ("seconds",),
    "status": ("code",),
    "status_after": ("code",),
    "cut": ("bytes",),
    "cut_body": ("bytes",),
    "stall": ("seconds",),
    "expire_credentials": (),
    "expire_token": (),
    "wrong_etag": (),
    "html": (),
    "not_json": (),
}


@dataclasses.dataclass(slots=True)
class Fault:
    """One scripted fault: which requests it meets, how often, and what it does to them."""

    op: str
    do: str
    key: str | None = None
    skip: int = 0
    times: int | None = 1
    seconds: float = 0.0
    bytes: int = 0
    code: int = 503
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: str | None = None
    content_type: str | None = None
    hits: int = 0
    skipped: int = 0

    def meets(self, op: str, key: str) -> bool:
        """Whether the fault still means a request of this operation and S3 key (or project id)."""
        named = op in _GROUPS.get(self.op, {self.op})
        return (
            named
            and (self.times is None or self.hits < self.times)
            and (self.key is None or fnmatchcase(key, self.key))
        )


_NUMBERS: dict[str, tuple[type, ...]] = {
    "skip": (int,),
    "times": (int, type(None)),
    "seconds": (int, float),
    "bytes": (int,),
    "code": (int,),
}
_NAMES = {field.name for field in dataclasses.fields(Fault)} - {"hits", "skipped"}


def parse(value: object) -> Fault:
    """Return the fault that a JSON object describes; raises ValueError or TypeError that says what is wrong with it."""
    if not isinstance(value, Mapping):
        raise TypeError(f"a fault is an object, not {value!r}")
    unknown = sorted(set(value) - _NAMES)
    if unknown:
        raise ValueError(
            f"unknown field {', '.join(map(str, unknown))} of a fault; known are {', '.join(sorted(_NAMES))}"
        )
    op, do = value.get("op"), value.get("do")
    if op not in REST_OPS | S3_OPS | set(_GROUPS):
        raise ValueError(
            f"fault: {op!r} is no operation; known are {', '.join(sorted(REST_OPS | S3_OPS | set(_GROUPS)))}"
        )
    if do not in _NEEDS:
        raise ValueError(f"fault: {do!r} cannot be done; known are {', '.join(_NEEDS)}")
    missing = [name for name in _NEEDS[do] if name not in value]
    if missing:
        raise ValueError(f"fault {do}: {', '.join(missing)} is missing")
    for name, kinds in _NUMBERS.items():
        if name in value and not (isinstance(value[name], kinds) and not isinstance(value[name], bool)):
            raise TypeError(f"fault {do}: {name} is {value[name]!r}, which is no fit number")
    return Fault(**value)


class Faults:
    """The list of faults in the order they were added; the first that meets a request acts on it."""

    def __init__(self) -> None:
        """Begin with no faults."""
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, *faults: Mapping[str, object]) -> None:
        """Append faults given as JSON objects; raises ValueError or TypeError and adds none when one is wrong."""
        self.extend(faults)

    def extend(self, faults: Iterable[object]) -> None:
        """Append many faults, all or none."""
        parsed = [parse(fault) for fault in faults]
        with self._lock:
            self._faults += parsed

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._faults = []

    def listing(self) -> list[dict[str, Any]]:
        """Return all faults with their counts: `hits` and `skipped`."""
        with self._lock:
            return [dataclasses.asdict(fault) for fault in self._faults]

    def take(self, op: str, key: str) -> Fault | None:
        """Return the fault that acts on this request, and count it."""
        with self._lock:
            for fault in self._faults:
                if fault.meets(op, key):
                    if fault.skipped < fault.skip:
                        fault.skipped += 1
                    else:
                        fault.hits += 1
                        return fault
        return None
