"""The processing template: in the cloud before the start, named in its body, sent once."""

import hashlib
import os

import pytest

pytestmark = pytest.mark.check  # minutes in all: run by make check

TEMPLATE = b"<template>fast</template>\n"


@pytest.fixture
def template(site):
    """A template file of the administrator."""
    file = site.directory / "Schnell & gut.tmpl"
    file.write_bytes(TEMPLATE)
    return file


def key_of(site):
    return f"{site.used()['prefix']}/template/Schnell___gut.tmpl"


def named(site):
    """Give the two keys of the start body that name the template."""
    return {"custom_template_s3_key": key_of(site), "custom_template_s3_bucket": site.cloud.settings.bucket}


@pytest.mark.parametrize("extras", ["on", "off", "405", "409"])
def test_it_is_uploaded_registered_and_named(site, template, extras):
    """The template lies under the project's prefix, is registered where the cloud can, and stands in the start body."""
    if extras.isdigit():
        site.fault("extras", "status", code=int(extras), times=None)
    else:
        site.cloud.change(extras=extras)
    site.configure(template=str(template), processing={"quality": 2, "where": ["{prefix}"]})
    site.drop()
    assert site.run() == 0
    site.once()
    found = site.used()
    assert found["start_bodies"] == [{"quality": 2, "where": [found["prefix"]], **named(site)}]
    assert found["extras"] == ([key_of(site)] if extras == "on" else [])
    stored = site.cloud.ledger()["objects"][key_of(site)]
    assert (stored["sha256"], stored["puts"]) == (hashlib.sha256(TEMPLATE).hexdigest(), 1)
    (text,) = [text for kind, text in site.events() if kind == "template"]
    assert ("not registered" in text) == (extras in ("off", "405"))


def test_the_processing_body_wins(site, template):
    """A body that names a template itself keeps it; one without a body gets just the template."""
    site.configure(template=str(template), processing={"custom_template_s3_key": "{prefix}/mine"}, folder_may=["name"])
    site.drop()
    assert site.run() == 0
    (body,) = site.used()["start_bodies"]
    assert body == {**named(site), "custom_template_s3_key": f"{site.used()['prefix']}/mine"}
    site.configure(template=str(template))
    site.drop("bare")
    assert site.run() == 0
    assert site.used("bare")["start_bodies"][0].keys() == named(site).keys()


def test_it_never_takes_the_key_of_an_image(site):
    """A template that is called like an image of a folder `template` lies beside it."""
    file = site.directory / "DJI_0001.JPG"
    file.write_bytes(TEMPLATE)
    site.configure(template=str(file))
    folder = site.directory / "prepared" / "flight" / "template"
    folder.mkdir(parents=True)
    site.fill(folder)
    folder.parent.rename(site.drops / "flight")
    assert site.run() == 0
    site.once()
    (body,) = site.used()["start_bodies"]
    assert body["custom_template_s3_key"] == f"{site.used()['prefix']}/template/DJI_0001.JPG.template"


def test_a_template_that_cannot_be_read(site, template):
    """Processing waits for the template, says why, and goes on by itself when it is there."""
    site.configure(template=str(template), start="manual")
    site.drop()
    site.start()
    site.held("manual_start")
    template.unlink()
    site.ask("start")
    for what, why in ((template.touch, "it is empty"), (lambda: os.mkfifo(template), "it is no file")):
        site.until(lambda: "template" in (site.look()["error"] or ""), "it says that the template is missing")
        assert "processing is not started without it" in site.look()["error"]
        template.unlink(missing_ok=True)
        what()
        site.until(lambda why=why: why in (site.look()["error"] or ""), f"it says that {why}")
    assert site.requests("start") == 0
    template.unlink()
    template.write_bytes(TEMPLATE)
    site.delivered()
    site.once(held=True)


def test_trouble_with_the_storage(site, template):
    """An upload of the template that the storage drops is sent again, and processing starts once."""
    site.configure(template=str(template))
    site.fault("put", "drop_before", key="*/template/*", times=2)
    site.fault("extras", "drop_after")
    site.drop()
    site.start()
    site.delivered()
    site.once()
    assert site.used()["start_bodies"] == [named(site)]


def test_a_crash_sends_the_same_body(site, template):
    """The body of a start is journalled: a service killed around it neither repeats nor changes it."""
    # The wait for the outcome does not end before the kill.
    site.configure(template=str(template), processing={"quality": 1}, advanced={"doubt_wait": "15s"})
    site.fault("start", "drop_before")
    site.drop()
    site.start()
    site.until(
        lambda: [effect for effect in site.effects() if effect.kind == "start"] if site.look() else None, "intent"
    )
    site.kill()
    template.write_bytes(b"another one")
    site.configure(template=str(template), processing={"quality": 2})
    before = [effect.request["body"] for effect in site.effects() if effect.kind == "start"]
    assert before == [{"quality": 1, **named(site)}]
    site.start()
    site.delivered()
    site.once()
    assert site.cloud.ledger()["objects"][key_of(site)]["puts"] == 1
    sent = [effect.request["body"] for effect in site.effects() if effect.kind == "start" and effect.status == "done"]
    assert site.used()["start_bodies"] == sent
