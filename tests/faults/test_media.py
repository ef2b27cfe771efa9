"""Cards and shares that are pulled out, break, hang, come back, and are mixed up with others."""

import contextlib
import errno
import hashlib
import os
from pathlib import Path

import pytest
from media_kit import PATIENT, forget_cached, retry_until_done, set_changed, steady

from pix4d_watcher.intake.scan import list_root

HIDDEN = ".Trash-1000"
"""What desktops leave on cards and in mount points; it is no folder."""


@pytest.fixture
def card(site, media):
    """A card with one folder of six images."""
    site.prepare()
    return media.card(site.directory / "prepared")


@pytest.fixture
def reader(site, media):
    """A card reader whose cards are the drop directory."""
    (site.drops / HIDDEN).mkdir()
    return media.reader(site.drops)


@pytest.fixture(params=["the same reader", "another reader"])
def second(request, site, media, reader):
    """The reader that the next card is put into."""
    return reader if request.param == "the same reader" else media.reader(site.drops)


@pytest.fixture
def cards(site, media, card):
    """Give that card, and another one with other images in a folder of a name."""

    def made(name):
        place = site.directory / "other"
        for image in site.fill(place / name, 6, salt="of the other card"):
            os.utime(image, (1_700_000_000, 1_700_000_000))
        return card, media.card(place)

    return made


def send_slowly(site, **root):
    """Have the images sent one after the other, each so slowly that some are left when a busy machine comes to act."""
    site.configure(upload={"connections": 1}, advanced=PATIENT, **root)
    site.fault("put", "delay", seconds=3.0, times=None)


def is_away(site):
    """Wait until the drop directory is seen to be away, and see that nothing follows from that."""
    site.until(lambda: not site.root().present, "the drop directory is seen to be away")
    assert (
        "Nothing is taken for deleted" in site.root().problem or "nothing is taken for deleted" in site.root().problem
    )


def only_once(site, name="flight", under_way=1):
    """Check the promise, and that no image was sent twice but what was under way when the medium went."""
    site.once(name, held=True)
    assert len(site.projects(name)) == 1
    assert site.requests("create") == len(site.status())
    assert site.requests("put") <= 6 * len(site.status()) + under_way


def reach(site, moment):
    """Start the service with a card in the reader, and wait for the moment."""
    if moment == "settling":
        site.configure(settle="4s", advanced=PATIENT)
        site.start()
        site.until(lambda: site.look().get("waiting_for"), "the folder settles")
    else:
        send_slowly(site)
        site.start()
        site.until(lambda: site.requests("put") > 1, "the second image is on its way")


@pytest.mark.parametrize("moment", ["settling", "uploading"])
def test_card_pulled_and_back(site, reader, second, card, moment):
    """A card that is pulled is waited for, nothing on it counts as deleted; back again, it goes on by itself."""
    reader.insert(card)
    reach(site, moment)
    reader.pull()
    is_away(site)
    if moment == "uploading":
        site.held("media_absent")
    steady(lambda: site.look()["present"] and len(site.status()) == 1, "an empty mount point is no deleted folder")
    second.insert(card)
    site.cloud.faults.clear()
    site.delivered()
    only_once(site)
    assert {image.tries for image in site.images()} == {0}


@pytest.mark.parametrize("moment", ["settling", "uploading"])
def test_service_started_while_the_card_is_out(site, reader, card, moment):
    """A service that starts while the card is out waits for it and goes on where it was."""
    reader.insert(card)
    reach(site, moment)
    site.kill()
    reader.pull()
    site.start()
    is_away(site)
    steady(lambda: site.look()["present"], "an empty mount point is no deleted folder")
    reader.insert(card)
    site.cloud.faults.clear()
    site.delivered()
    only_once(site)


@pytest.mark.parametrize("state", ["registered", "started"])
def test_card_pulled_when_all_is_sent(site, reader, card, state):
    """Once all images are registered the card is not needed any more: the project is finished without it."""
    site.cloud.change(processing_seconds=60.0)
    site.configure(start="manual" if state == "registered" else "auto", results=True, advanced=PATIENT)
    reader.insert(card)
    site.start()
    site.reach(state)
    reader.pull()
    is_away(site)
    if state == "registered":
        site.ask("start")
        site.reach("started")
    site.cloud.change(processing_seconds=0.0)
    site.delivered()
    assert not site.root().present
    only_once(site, under_way=0)
    assert (site.results / "survey/flight/.complete").exists()


def said(site, *, lists):
    """Give what is said of a card that fails: of its folder, or of the drop directory where its list fails too.

    The kernel may forget a list that it had in its cache at any moment. Where the list fails, an image may have failed
    just before, and its project be held for that.
    """
    found = site.look()
    code = (found["hold"] or {}).get("code")
    if code == "media_absent" or (lists and code == "source_unreadable"):
        return site.root().problem
    text = found["hold"]["text"] if code == "source_unreadable" else found["waiting_for"]
    return text if text and "cannot be read" in text and not lists else None


@pytest.mark.parametrize("lists", [False, True])
def test_card_torn_out(site, reader, card, lists):
    """A card that cannot be read any more, with EIO, holds the project, which goes on by itself with the card back."""
    reader.insert(card)
    reach(site, "uploading")
    forget_cached(site.drops / "flight")
    reader.tear(lists=lists)
    assert "Input/output error" in site.until(lambda: said(site, lists=lists), "it is said why the project waits")
    reader.pull()
    reader.insert(card)
    site.cloud.faults.clear()
    site.delivered(seconds=90)
    only_once(site)


@pytest.mark.parametrize("lists", [False, True])
def test_card_torn_out_while_it_settles(site, reader, card, lists):
    """A folder that cannot be read when it is complete waits, and goes on by itself with the card back."""
    reader.insert(card)
    reach(site, "settling")
    site.suspend()  # else it might read the images before they are out
    forget_cached(site.drops / "flight")
    reader.tear(lists=lists)
    site.resume()
    assert "Input/output error" in site.until(lambda: said(site, lists=lists), "it is said why the folder waits")
    steady(lambda: site.look()["state"] == "found", "what cannot be read is not complete")
    reader.pull()
    reader.insert(card)
    site.delivered()
    site.once()


@pytest.mark.parametrize("moment", ["settling", "uploading"])
def test_another_card(cards, site, reader, second, moment):
    """Another card in the place of one is processed; the folder on the first is away, not deleted."""
    card, other = cards("other")
    reader.insert(card)
    reach(site, moment)
    reader.pull()
    is_away(site)
    second.insert(other)
    site.cloud.faults.clear()
    site.delivered("other")
    site.once("other")
    assert site.look()["present"]
    assert site.look()["condition"] != "dropped"
    assert (site.look()["hold"] or {"code": "media_absent"})["code"] == "media_absent"
    second.pull()
    is_away(site)
    reader.insert(card)
    site.delivered()
    assert [row["folder"] for row in site.status()] == ["flight", "other"]
    only_once(site)


def test_cards_swapped_while_the_service_is_down(cards, site, reader, second):
    """Cards that were swapped while nobody looked are told apart, and the first is not taken for deleted."""
    card, other = cards("other")
    reader.insert(card)
    reach(site, "uploading")
    site.kill()
    reader.pull()
    second.insert(other)
    site.cloud.faults.clear()
    site.start()
    site.delivered("other")
    assert site.look()["present"]
    second.pull()
    reader.insert(card)
    site.delivered()
    only_once(site)


def test_cards_swapped_before_the_first_is_complete(cards, site, reader, second):
    """A folder that was not complete when its card was swapped says so, keeps nobody, and goes on with it."""
    card, other = cards("other")
    site.configure(settle="1h")
    reader.insert(card)
    site.start()
    site.until(lambda: site.look().get("waiting_for"), "it is waited for")
    site.stop()
    reader.pull()
    second.insert(other)
    site.configure()
    assert site.run() == 0
    site.once("other")
    assert site.look()["present"]
    assert "although the drop directory is there" in site.held("media_absent")
    second.pull()
    reader.insert(card)
    assert site.run() == 0
    site.once(held=True)


def test_folders_of_one_name_on_two_cards(cards, site, reader, second):
    """Folders of one name on two cards are two projects, each with its own images, however often they take turns."""
    card, other = cards("flight")
    reader.insert(card)
    reach(site, "uploading")
    reader.pull()
    is_away(site)
    second.insert(other)
    site.until(lambda: site.look().get("round") == 2, "the folder on the other card is a project of its own")
    site.until(lambda: site.look()["images"]["uploaded"], "the other card is being sent")
    second.pull()
    is_away(site)
    site.cloud.faults.clear()
    reader.insert(card)
    site.until(lambda: site.look(number=1)["state"] == "delivered", "the first card is done")
    reader.pull()
    is_away(site)
    second.insert(other)
    site.delivered()
    assert [(row["folder"], row["round"], row["images"]["registered"]) for row in site.status()] == [
        ("flight", 1, 6),
        ("flight", 2, 6),
    ]
    assert site.requests("start") == 2
    assert site.requests("put") <= 12 + 3


def test_disk_of_one_folder_pulled(media, site, card):
    """A disk that is mounted on a folder of the drop directory may be pulled, too: the others are not concerned."""
    place = site.drops / "flight"
    place.mkdir()
    reader = media.reader(place)
    inside = media.card(site.directory / "prepared" / "flight")
    send_slowly(site)
    site.start()
    site.until(site.look, "the empty folder is found")
    reader.insert(inside)
    site.until(lambda: site.requests("put") > 1, "the second image is on its way")
    reader.pull()
    site.held("media_absent")
    assert site.root().present
    site.cloud.faults.clear()
    site.drop("other")
    site.delivered("other")
    assert site.look()["present"]
    reader.insert(inside)
    site.delivered()
    only_once(site)


def test_share_on_one_folder_breaks(media, site):
    """A share that is mounted on a folder of the drop directory and breaks stops that folder, and no other."""
    place = site.drops / "flight"
    place.mkdir()
    share = media.share(site.prepare(), place)
    send_slowly(site)
    site.start()
    site.until(lambda: site.requests("put") > 1, "the second image is on its way")
    share.tear()
    site.held("media_absent")
    assert site.root().present
    site.cloud.faults.clear()
    site.drop("other")
    site.delivered("other")
    assert site.look()["present"]
    share.unmount()
    share.mount()
    site.delivered()
    only_once(site)


def test_share_on_one_folder_breaks_between_two_questions(media, tmp_path, monkeypatch):
    """A folder whose own share breaks just when it is listed is left out, and the drop directory is there."""
    root, source = tmp_path / "root", tmp_path / "source"
    for place in (root / "share", root / "other", source):
        place.mkdir(parents=True)
    media.share(source, root / "share")
    ask = os.statvfs

    def answer(place):
        if place == os.fsencode(root / "share"):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return ask(place)

    assert [folder.name for folder in list_root(os.fsencode(root)).folders] == [b"other", b"share"]
    monkeypatch.setattr(os, "statvfs", answer)
    assert [folder.name for folder in list_root(os.fsencode(root)).folders] == [b"other"]


def test_card_that_cannot_be_written(site, reader, card):
    """A card with its lock on is read like any other, and nothing is written to it."""
    before = card.read_bytes()
    reader.insert(card, "-o", "ro")
    assert site.run() == 0
    site.once()
    assert card.read_bytes() == before


@pytest.mark.parametrize("moment", ["settling", "uploading"])
def test_share_breaks(media, site, moment):
    """A share whose connection breaks, with ENOTCONN, is waited for, and goes on by itself when it is mounted again."""
    source = site.prepare().parent
    share = media.share(source, site.drops)
    reach(site, moment)
    share.tear()
    is_away(site)
    if moment == "uploading":
        site.held("media_absent")
    steady(lambda: site.look()["present"], "a broken share is no deleted folder")
    share.unmount()
    share.mount()
    site.cloud.faults.clear()
    site.delivered()
    only_once(site)


def is_reading(site):
    """Whether the service has an image of the drop directory open."""
    for handle in Path(f"/proc/{site.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed since it was listed
            if handle.readlink().match(f"{site.drops}/flight/*.JPG"):
                return True
    return False


def test_share_breaks_while_it_is_read(media, site):
    """A share that breaks in the middle of an image, while it is read the first time or sent, loses nothing."""
    source = site.prepare(count=3).parent
    for image in (source / "flight").iterdir():
        with image.open("ab") as file:  # behind its end marker: slow to read, and as sound as before
            file.write(b"\0" * (4 << 20))
    slow = media.share(source, site.drops, "--read-rate=400k")  # half a minute: it breaks before, however busy all is
    site.configure(upload={"connections": 1}, decode="off", checks={"too_few_images": "off"})
    site.start()
    site.until(lambda: site.look().get("waiting_for"), "the folder settles")
    for _break in range(2):
        site.until(lambda: is_reading(site), "an image is being read")
        steady(lambda: site.look()["state"] == "found", "the images are read for the first time", 1.5)
        slow.tear()
        is_away(site)
        slow.unmount()
        if not _break:
            slow.mount()
    share = media.share(source, site.drops, "--read-rate=3M")
    site.until(lambda: site.requests("put"), "an image is being sent")
    share.tear()
    is_away(site)
    share.unmount()
    share.mount()
    site.delivered()
    site.once(images=3, held=True)
    assert len(site.projects()) == 1


def test_share_hangs(media, site):
    """A share that answers no more holds up nobody else, and goes on when it answers again."""
    second = site.directory / "second"
    second.mkdir()
    folder = site.prepare()
    (folder / ".hold").touch()
    share = media.share(folder.parent, second)
    more = {"name": "share", "path": str(second), "settle": "500ms", "poll": "200ms"}
    site.configure(more=[more], advanced=PATIENT)
    site.start()
    site.until(lambda: site.look().get("waiting_for"), "the folder on the share settles")
    share.hang()
    try:
        (folder / ".hold").unlink()
        site.drop("other")
        site.delivered("other")
        assert site.look()["state"] == "found"
    finally:
        share.answer()
    site.delivered()
    only_once(site, under_way=0)


def test_rewritten_without_a_trace(media, site, reader):
    """Other content of the same size and times is never taken for what was checked; `retry` accepts the new one."""
    uuid = "5f2a1b7e-93f0-4c56-8a64-20d1f9b1a7c3"
    places = [site.directory / "before", site.directory / "after"]
    for place in places:
        for image in site.fill(place / "flight", salt=str(place)):
            os.utime(image, (1_700_000_000, 1_700_000_000))
    before, after = [media.card(place, uuid) for place in places]
    for card in (before, after):
        set_changed(card, [f"/flight/DJI_000{n + 1}.JPG" for n in range(6)])
    reader.insert(before)
    reach(site, "uploading")
    stats = [(path.stat().st_ino, path.stat().st_ctime_ns) for path in sorted((site.drops / "flight").iterdir())]
    reader.pull()
    is_away(site)
    site.held("media_absent")  # nothing is on its way any more
    early = {image.path for image in site.images() if image.status == "uploaded"}
    reader.insert(after)
    assert stats == [
        (path.stat().st_ino, path.stat().st_ctime_ns) for path in sorted((site.drops / "flight").iterdir())
    ]
    site.cloud.faults.clear()
    text = site.held("source_changed")
    assert "does not read the same twice" in text
    puts = site.requests("put")
    steady(lambda: site.requests("put") == puts, "what cannot succeed is not sent again")
    retry_until_done(site)
    project = site.used()
    assert sorted(project["registered"].values()) == [1] * 6
    objects = site.cloud.ledger()["objects"]
    sent = [objects[f"{project['prefix']}/{image.key}"]["sha256"] for image in site.images()]
    names = [(places[image.path not in early], os.fsdecode(image.path)) for image in site.images()]
    whole = [hashlib.sha256((place / "flight" / name).read_bytes()).hexdigest() for place, name in names]
    assert 2 <= len(early) < 6
    assert sent == whole, "some were sent before, the others are those that were accepted"
