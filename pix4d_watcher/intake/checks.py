"""Checks the images of a folder before any money is spent, and writes one report for people.

Pure: judges what freezing found. What holds, what only warns and what is skipped follows from the levels of the drop
directory and from what a person has accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pix4d_watcher.core.model import Finding, HoldCode, Level, Report, printable
from pix4d_watcher.intake import mixture

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pix4d_watcher.core.model import FrozenImage

CHECKS: dict[str, Level] = {
    "too_few_images": Level.HOLD,
    "too_many_images": Level.HOLD,
    "zero_bytes": Level.HOLD,
    "wrong_format": Level.HOLD,
    "truncated": Level.HOLD,
    "not_geotagged": Level.HOLD,
    "one_position": Level.HOLD,
    "duplicates": Level.WARN,
    "sequence_gaps": Level.WARN,
    "mixed_cameras": Level.WARN,
    "mixed_resolutions": Level.WARN,
    "several_missions": Level.WARN,
    "thermal": Level.WARN,
    "multispectral": Level.WARN,
    "sent_before": Level.WARN,
}
"""The level of each check where the drop directory's `checks` does not name it."""

# PIX4D's published limits of one PIX4Dengine Cloud project.
MIN_IMAGES, MAX_IMAGES = 6, 4000

# Positions closer than this (degrees, about 0.1 m) are one: a drone that flew has moved further.
_ONE_POSITION = 1e-6

_CODES = {
    "too_few_images": HoldCode.TOO_FEW_IMAGES,
    "too_many_images": HoldCode.TOO_MANY_IMAGES,
    "not_geotagged": HoldCode.NOT_GEOTAGGED,
    "one_position": HoldCode.NOT_GEOTAGGED,
    "sequence_gaps": HoldCode.MIXED_IMAGES,
    "mixed_cameras": HoldCode.MIXED_IMAGES,
    "mixed_resolutions": HoldCode.MIXED_IMAGES,
    "several_missions": HoldCode.MIXED_IMAGES,
    "thermal": HoldCode.MIXED_IMAGES,
    "multispectral": HoldCode.MIXED_IMAGES,
}
DAMAGE = {
    "zero_bytes": "empty (zero bytes)",
    "wrong_format": "not what the suffix says",
    "truncated": "cut off or damaged inside",
}
_APPROVE = "`pix4d-watcher approve FOLDER`"


@dataclass(frozen=True, slots=True)
class _Judge:
    """How strictly each check is taken: the levels, and the checks or hold codes that a person accepted."""

    levels: Mapping[str, Level]
    accepted: Collection[str]

    def level(self, check: str) -> Level:
        level = self.levels.get(check, CHECKS[check])
        accepted = check in self.accepted or _code(check) in self.accepted
        return Level.WARN if level is Level.HOLD and accepted else level

    def finding(self, check: str, count: int, text: str, *, at_most: Level = Level.HOLD) -> list[Finding]:
        level = self.level(check)
        if level is Level.OFF:
            return []
        if level is Level.HOLD and at_most is Level.HOLD:
            return [Finding(check, Level.HOLD, count, text, _code(check))]
        return [Finding(check, Level.WARN, count, text)]


def check_images(
    images: Sequence[FrozenImage],
    *,
    not_images: Sequence[bytes],
    levels: Mapping[str, Level],
    accepted: Collection[str] = (),
) -> Report:
    """Judge the frozen images of a folder; `accepted` names checks or hold codes that a person approved.

    `sendable`, `total_bytes`, `megapixels` and `credits` of the report are over what would be sent. Damaged images that
    hold the folder are neither sendable nor skipped yet: a person decides.
    """
    judge = _Judge(levels, accepted)
    ordered = sorted(images, key=lambda image: image.path)
    sound, skipped, findings = _without_damaged(ordered, judge)
    sendable, doubles, more = _without_duplicates(sound, judge)
    findings += more + _count(sendable, judge) + _positions(sendable, judge)
    findings += _mixture(ordered, sendable, judge) + _unknown_size(sendable)
    megapixels = sum(image.facts.megapixels for image in sendable)
    return Report(
        images=len(ordered),
        sendable=len(sendable),
        total_bytes=sum(image.file_id.size for image in sendable),
        megapixels=megapixels,
        credits=megapixels / 100,
        findings=tuple(findings),
        skipped=tuple(sorted(skipped + doubles)),
        not_images=tuple(not_images),
    )


def render_report(report: Report) -> str:
    """Write a report as plain text lines for people."""
    size = f"{report.total_bytes / 1e6:.1f} MB, {report.megapixels:.1f} megapixels"
    lines = [f"{report.images} images, {report.sendable} to be sent: {size}, about {report.credits:.2f} credits"]
    lines += [f"[{finding.level}] {finding.check}: {finding.text}" for finding in report.findings]
    lines += [f"skipped {printable(path)}: {reason}" for path, reason in report.skipped]
    if report.not_images:
        lines.append(f"{_files(len(report.not_images))} no image: {_named(report.not_images)}")
    return "\n".join(lines) + "\n"


def report_as_json(report: Report) -> dict[str, Any]:
    """Return a report as plain values that JSON can hold; names that are not UTF-8 appear escaped."""
    return {
        "images": report.images,
        "sendable": report.sendable,
        "total_bytes": report.total_bytes,
        "megapixels": round(report.megapixels, 3),
        "credits": round(report.credits, 3),
        "findings": [
            {
                "check": finding.check,
                "level": finding.level.value,
                "count": finding.count,
                "text": finding.text,
                "hold": finding.hold.value if finding.hold else None,
            }
            for finding in report.findings
        ],
        "skipped": [{"path": printable(path), "reason": reason} for path, reason in report.skipped],
        "not_images": [printable(path) for path in report.not_images],
    }


_Skipped = list[tuple[bytes, str]]


def _without_damaged(images: Iterable[FrozenImage], judge: _Judge) -> tuple[list[FrozenImage], _Skipped, list[Finding]]:
    sound: list[FrozenImage] = []
    skipped: _Skipped = []
    damaged: dict[str, list[FrozenImage]] = {check: [] for check in DAMAGE}
    for image in images:
        problem = image.facts.problem
        level = judge.level(problem) if problem else Level.OFF
        if level is Level.OFF:
            sound.append(image)
            continue
        damaged[problem].append(image)
        if level is Level.WARN:
            skipped.append((image.path, f"{DAMAGE[problem]}: {image.facts.detail}"))
    findings = []
    holding = [check for check, bad in damaged.items() if bad and judge.level(check) is Level.HOLD]
    for check, bad in damaged.items():
        if bad:
            text = f"{_are(len(bad))} {DAMAGE[check]}: {_paths(bad)} ({bad[0].facts.detail})."
            if check not in holding:
                text += " Left out."
            elif check == holding[-1]:  # once, since the hold's text is all findings in a row
                text += f" Copy anew from the card, or {_APPROVE} to go on without."
            findings += judge.finding(check, len(bad), text)
    return sound, skipped, findings


def _without_duplicates(images: list[FrozenImage], judge: _Judge) -> tuple[list[FrozenImage], _Skipped, list[Finding]]:
    if judge.level("duplicates") is Level.OFF:
        return images, [], []
    first: dict[bytes, FrozenImage] = {}
    doubles = [image for image in images if first.setdefault(image.sha256, image) is not image]
    if not doubles:
        return images, [], []
    skipped = [(image.path, f"same content as {printable(first[image.sha256].path)}") for image in doubles]
    text = f"{_are(len(doubles))} there twice with the same content: {_paths(doubles)}. One of each is sent."
    return list(first.values()), skipped, judge.finding("duplicates", len(doubles), text)


def _count(images: list[FrozenImage], judge: _Judge) -> list[Finding]:
    count = len(images)
    if count < MIN_IMAGES:
        text = f"{_are(count)} left to send, PIX4D asks for at least {MIN_IMAGES}. Add images, or {_APPROVE}."
        return judge.finding("too_few_images", count, text)
    if count > MAX_IMAGES:
        text = f"{_are(count)} there, PIX4D takes at most {MAX_IMAGES}. Split the folder, or {_APPROVE}."
        return judge.finding("too_many_images", count, text)
    return []


def _positions(images: list[FrozenImage], judge: _Judge) -> list[Finding]:
    tagged = [image for image in images if _is_geotagged(image)]
    untagged = [image for image in images if not _is_geotagged(image)]
    findings = []
    if untagged:
        many = len(untagged) * 10 > len(images)
        text = f"{len(untagged)} of {_are(len(images))} not geotagged: {_paths(untagged)}."
        if many:
            text += f" Without positions the result is not in its place: geotag them, or {_APPROVE}."
        findings += judge.finding("not_geotagged", len(untagged), text, at_most=Level.HOLD if many else Level.WARN)
    if len(tagged) >= 2 and _is_one_position(tagged):
        text = (
            f"All {len(tagged)} geotagged images have one position, so the camera's GPS stood still: {_paths(tagged)}. "
            f"Correct the geotags, or {_APPROVE}."
        )
        findings += judge.finding("one_position", len(tagged), text)
    return findings


def _is_geotagged(image: FrozenImage) -> bool:
    """Whether an image has a position; (0, 0) is what cameras write without a fix."""
    latitude, longitude = image.facts.latitude, image.facts.longitude
    return latitude is not None and longitude is not None and (latitude, longitude) != (0.0, 0.0)


def _is_one_position(images: list[FrozenImage]) -> bool:
    return all(
        max(values) - min(values) <= _ONE_POSITION
        for values in (
            [image.facts.latitude or 0.0 for image in images],
            [image.facts.longitude or 0.0 for image in images],
        )
    )


def _mixture(card: Sequence[FrozenImage], images: Sequence[FrozenImage], judge: _Judge) -> list[Finding]:
    findings = []
    for check, count, text in mixture.look(card, images):
        remedy = f" Correct the folder, or {_APPROVE}." if judge.level(check) is Level.HOLD else ""
        findings += judge.finding(check, count, text + remedy)
    return findings


def _unknown_size(images: list[FrozenImage]) -> list[Finding]:
    unknown = [image for image in images if not image.facts.megapixels]
    if not unknown:
        return []
    text = f"The size of {_paths(unknown)} is not known and counts as 0: the credits are estimated too low."
    return [Finding("unknown_size", Level.WARN, len(unknown), text)]


def _code(check: str) -> HoldCode:
    return _CODES.get(check, HoldCode.BAD_IMAGES)


def _paths(images: Sequence[FrozenImage]) -> str:
    return _named([image.path for image in images])


def _named(paths: Sequence[bytes]) -> str:
    shown = ", ".join(printable(path) for path in paths[:3])
    return f"{shown} and {len(paths) - 3} more" if len(paths) > 3 else shown


def _are(count: int) -> str:
    return "1 image is" if count == 1 else f"{count} images are"


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"
