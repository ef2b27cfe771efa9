"""The state table: which fact follows which, how each is shown, and what lifts each hold.

Pure: it decides nothing by looking anywhere; the engine, the journal and the command line read it.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from pix4d_watcher.core.model import HoldCode, State

ORDER: tuple[State, ...] = tuple(State)
"""The states in the only order in which they are passed."""

SHOWN: dict[State, str] = {
    State.FOUND: "waiting for the copy to finish",
    State.SETTLED: "checking, creating",
    State.CREATED: "uploading",
    State.UPLOADED: "registering",
    State.REGISTERED: "starting",
    State.STARTED: "processing",
    State.PROCESSED: "downloading",
    State.DELIVERED: "done",
}
"""What a person sees while a project is in a state: the work that leaves it."""

PAUSES: dict[str, str] = {
    "network": "the link to the cloud",
    "storage": "the cloud's storage",
    "auth": "client credentials that the cloud accepts",
    "disk_full": "room on the journal's disk",
}
"""What the whole service waits for, by the kind of its pause."""


def may_follow(before: State, after: State) -> bool:
    """Say whether `after` may be written over `before`.

    One step forward, or the one step back: late images join an uploaded or registered project, which is then
    `created` again.
    """
    if after is State.CREATED and before in (State.UPLOADED, State.REGISTERED):
        return True
    return ORDER.index(after) == ORDER.index(before) + 1


def before_create(state: State) -> bool:
    """Say whether nothing was asked of the cloud yet, so that a changed folder can be frozen anew."""
    return state in (State.FOUND, State.SETTLED)


@dataclass(frozen=True, slots=True)
class Hold:
    """What a hold means to a person.

    `by_itself`: the engine looks again by itself and lifts the hold when the cause is gone.
    `by_folder`: a change of the folder lifts it. `commands` are those that lift it; `remedy` is what to do.
    """

    title: str
    remedy: str
    by_itself: bool = False
    by_folder: bool = False
    commands: tuple[str, ...] = ()


_FIX_OR_APPROVE = "Correct the folder (it is looked at again by itself), or accept it: pix4d-watcher approve FOLDER"

HOLDS: dict[HoldCode, Hold] = {
    HoldCode.MEDIA_ABSENT: Hold(
        "the drop directory is away",
        "Put the card or disk back or mount it again; the work goes on by itself.",
        by_itself=True,
    ),
    HoldCode.DISK_FULL: Hold(
        "no room on the disk",
        "Make room where the results lie (bytes, inodes, a quota); the work goes on by itself.",
        by_itself=True,
    ),
    HoldCode.SOURCE_UNREADABLE: Hold(
        "images cannot be read",
        "Check the medium and the permissions of the files; the work goes on by itself when they can be read.",
        by_itself=True,
    ),
    HoldCode.NO_CREDIT: Hold(
        "not enough credits",
        "Add credits to the PIX4D account; the work goes on by itself.",
        by_itself=True,
    ),
    HoldCode.TOO_FEW_IMAGES: Hold("too few images", _FIX_OR_APPROVE, by_folder=True, commands=("approve",)),
    HoldCode.TOO_MANY_IMAGES: Hold("too many images", _FIX_OR_APPROVE, by_folder=True, commands=("approve",)),
    HoldCode.BAD_IMAGES: Hold(
        "damaged images",
        "Replace the damaged images (the folder is looked at again by itself), "
        "or go on without them: pix4d-watcher approve FOLDER",
        by_folder=True,
        commands=("approve",),
    ),
    HoldCode.NOT_GEOTAGGED: Hold("images without a position", _FIX_OR_APPROVE, by_folder=True, commands=("approve",)),
    HoldCode.MIXED_IMAGES: Hold(
        "images that do not belong together", _FIX_OR_APPROVE, by_folder=True, commands=("approve",)
    ),
    HoldCode.BAD_FOLDER_FILE: Hold(
        "the folder's pix4d.yaml cannot be used",
        "Correct or remove pix4d.yaml (the folder is looked at again by itself), "
        "or go on without it: pix4d-watcher approve FOLDER",
        by_folder=True,
        commands=("approve",),
    ),
    HoldCode.ALREADY_SENT: Hold(
        "these images were sent before",
        "To send and pay them again: pix4d-watcher approve FOLDER; otherwise: pix4d-watcher drop FOLDER",
        commands=("approve",),
    ),
    HoldCode.APPROVAL: Hold(
        "waits for your approval",
        "To send it: pix4d-watcher approve FOLDER; never to send it: pix4d-watcher drop FOLDER",
        commands=("approve",),
    ),
    HoldCode.LATE_IMAGES: Hold(
        "images came late and are not part of it",
        "To go on without them: pix4d-watcher approve FOLDER; once processing has started, "
        "to process all images together as a new round, which is paid again: pix4d-watcher again FOLDER",
        commands=("approve",),
    ),
    HoldCode.INPUTS_DIFFER: Hold(
        "the cloud counts other images than were sent",
        "Look at the project in the cloud. To start with what is there: pix4d-watcher approve FOLDER",
        commands=("approve",),
    ),
    HoldCode.MANUAL_START: Hold(
        "ready, waits for your start",
        "To process it: pix4d-watcher start FOLDER, or start it in the cloud's own page.",
        by_itself=True,
        commands=("start",),
    ),
    HoldCode.SOURCE_MISSING: Hold(
        "images are gone from the folder",
        "Put the images back, then: pix4d-watcher retry FOLDER; or go on without them: pix4d-watcher skip FOLDER IMAGE",
        commands=("retry",),
    ),
    HoldCode.SOURCE_CHANGED: Hold(
        "images changed after they were checked",
        "Put the original images back, or accept the new ones, where they are sound: pix4d-watcher retry FOLDER; "
        "or go on without them: pix4d-watcher skip FOLDER IMAGE",
        commands=("retry",),
    ),
    HoldCode.CLOUD_REFUSED: Hold(
        "the cloud refused",
        "Mend what the cloud complains of, then: pix4d-watcher retry FOLDER; "
        "to begin anew where its project is gone: pix4d-watcher again FOLDER",
        commands=("retry",),
    ),
    HoldCode.CLOUD_FAILED: Hold(
        "processing failed in the cloud",
        "Look at the project in the cloud. When it is started again there, it is followed by itself; "
        "to look at once: pix4d-watcher retry FOLDER; to begin anew: pix4d-watcher again FOLDER",
        by_itself=True,
        commands=("retry",),
    ),
    HoldCode.TRIES_EXHAUSTED: Hold(
        "tried many times without success",
        "Read the text, mend the cause, then: pix4d-watcher retry FOLDER",
        commands=("retry",),
    ),
    HoldCode.IN_DOUBT: Hold(
        "it is unknown whether the cloud did it",
        "Look at the project in the cloud. pix4d-watcher retry FOLDER asks again; "
        "retry --done FOLDER or retry --not-done FOLDER records what you saw.",
        commands=("retry",),
    ),
}
"""Every hold code with its meaning; a test holds it complete and the README in step."""


# "retry --done FOLDER" and the like, as the state table and the image checks write it
_COMMAND = re.compile(
    r"\b((?:again|approve|drop|explain|pause|resume|retry|skip|start|status)(?: --[a-z-]+)*) FOLDER\b"
)


def with_name(text: str, name: str) -> str:
    """Fill the real name, quoted for a shell, in for FOLDER wherever a command is named."""
    return _COMMAND.sub(lambda command: f"{command[1]} {shlex.quote(name)}", text)


def lifted_by(code: HoldCode, command: str) -> bool:
    """Say whether a person's command lifts the hold."""
    return command in HOLDS[code].commands


def acceptances(code: HoldCode) -> bool:
    """Say whether lifting the hold means that a person accepted what was found, so that it is not asked again."""
    return "approve" in HOLDS[code].commands
