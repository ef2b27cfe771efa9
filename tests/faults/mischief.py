"""What goes wrong at random, and the person who helps: shared by the lives of the state machine and by the soak."""

from contextlib import suppress

from pix4d_watcher.core.machine import HOLDS
from pix4d_watcher.core.model import HoldCode
from pix4d_watcher.journal import people
from pix4d_watcher.journal.change import Stale

LANDS = 0.5, 2.0
"""Seconds after which a request whose answer was lost may be applied; `doubt_wait` is 3 s."""

LOST = [
    {"do": "drop_before"},
    {"do": "drop_after"},
    *({"do": "late", "seconds": seconds} for seconds in LANDS),
    {"do": "status_after", "code": 502},
]
BROKEN = [{"do": "html"}, {"do": "not_json"}, {"do": "cut", "bytes": 10}, {"do": "stall", "seconds": 2.5}]
REFUSED = [{"do": "status", "code": code} for code in (400, 429, 500, 503)]
S3 = [{"do": "cut_body", "bytes": 100}, {"do": "wrong_etag"}, {"do": "expire_credentials"}]
SLOW = [{"do": "delay", "seconds": 0.5}]
EFFECTS = ("create", "register", "start")
FAULTS = [
    *({"op": op, **do} for op in EFFECTS for do in [*LOST, *BROKEN, *REFUSED, *SLOW]),
    *({"op": op, **do} for op in ("list", "project", "credentials", "token") for do in [*BROKEN, *REFUSED]),
    *(
        {"op": "put", **do}
        for do in [*LOST, *S3, *SLOW, {"do": "status", "code": 503}, {"do": "stall", "seconds": 2.5}]
    ),
    *({"op": op, **do} for op in ("outputs", "get") for do in ({"do": "drop_before"}, {"do": "status", "code": 500})),
    {"op": "get", "do": "cut", "bytes": 500},
    {"op": "rest", "do": "expire_token"},
    {"op": "rest", "do": "status", "code": 503, "times": 6},
]
"""Scripted faults of the emulator: all of them end by themselves."""


def do_as_told(journal, row):
    """Do what the remedy of a hold says, and say what that is; by then the service may have been quicker."""
    code = HoldCode(row["hold"]["code"])
    verb = "approve" if "approve" in HOLDS[code].commands else "retry"
    with suppress(people.Refusal, Stale):
        getattr(people, verb)(journal, row["id"])
    return f"{verb} {row['folder']}, held {code}"
