"""The link itself: pulled, filtered, lossy, slow, without names; each story over a real one."""

import contextlib
import re
import socket
import time

import pytest
from harness import Site, until
from link import CLOUD, Link


@pytest.fixture
def link(need):
    """A cable between the service and the cloud."""
    need("ip", "nft", "tc", root=True)
    with Link() as made:
        yield made


@pytest.fixture
def site(tmp_path, link):
    """A site whose service reaches its cloud over the cable only."""
    made = Site(tmp_path / "site", listen=f"{CLOUD}:0")
    made.place = {"network": link.station}
    with link.at_the_cloud():
        made.__enter__()
    try:
        yield made
    finally:
        made.__exit__()


def swell(folder, size):
    """Grow the images of a folder to about `size` bytes by comments, which every reader skips."""
    for image in folder.iterdir():
        content, comment = image.read_bytes(), b"\xff\xfe\xff\xff" + b"." * 65533
        image.write_bytes(content[:2] + comment * (size // len(comment)) + content[2:])
    return folder


def paused(site):
    """Give what the service says of a pause."""
    return site.vitals().get("pause") or {}


def told(site, *words):
    """List the lines of the log in which all the words are."""
    return [line for line in site.log.read_text().splitlines() if all(word in line for word in words)]


def untried(site):
    """Check that nobody's tries were used up."""
    assert {row["tries"] for row in site.status()} == {0}
    assert {image.tries for row in site.status() for image in site.images(row["folder"])} <= {0}


def begin_upload(site, *options):
    """Start the service and wait for the middle of an upload that takes its time."""
    site.configure(upload={"connections": 2}, advanced={"request_timeout": "5s"})
    site.fault("put", "delay", seconds=1.0, times=None)
    site.drop(count=40)
    site.start(*options)
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 3, "some images are uploaded")


BREAKS = {
    "pulled": lambda link: link.pull(),
    "silence": lambda link: link.rule("drop"),
    "reset": lambda link: link.rule("reject with tcp reset"),
    "unreachable": lambda link: link.rule("reject with icmp type net-unreachable"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_link_down_in_mid_upload(site, link, how):
    """A link that breaks for longer than any answer may take pauses everything, is told once, and costs no try."""
    begin_upload(site, "--until-idle")
    BREAKS[how](link)
    site.until(lambda: paused(site).get("kind") == "network", "the service says that it is paused")
    time.sleep(10)  # twice the request_timeout
    assert site.look()["images"]["uploaded"] < 40
    untried(site)
    site.cloud.faults.clear()
    link.plug()
    link.clear()
    assert site.ended(90) == 0
    site.once(images=40)
    untried(site)
    assert len(told(site, "paused", "kind=network")) == len(told(site, "going on")) <= 2
    assert paused(site) == {}


def test_night_without_a_link(site, link):
    """Folders dropped while the link is away are looked at, wait without a storm, and go on when it is back."""
    link.rule("tcp flags & (syn | ack) == syn counter drop")
    site.start("--until-idle")
    for number in range(10):
        site.drop(f"flight{number}")
    site.until(lambda: paused(site).get("kind") == "network", "the service says that it is paused")
    site.until(lambda: [row["state"] for row in site.status()] == ["settled"] * 10, "all are looked at")
    lines, began = len(site.log.read_text().splitlines()), time.monotonic()
    before = link.met()
    time.sleep(10)
    met, seconds = link.met() - before, time.monotonic() - began
    # One question at a time, each lasting request_timeout (2 s) with one repetition of its SYN, and a pause between.
    assert 0 < met <= 1.2 * seconds
    assert len(site.log.read_text().splitlines()) == lines
    assert len(told(site, "paused", "kind=network")) == 1
    untried(site)
    link.clear()
    assert site.ended(90) == 0
    for number in range(10):
        site.once(f"flight{number}")
    untried(site)


def test_lossy_link(site, link):
    """With three packets in ten lost everything arrives, once, and nobody is asked."""
    link.rule("numgen inc mod 10 < 3 counter drop")
    swell(site.drop(), 100_000)
    assert site.run() == 0
    assert link.met() > 0
    site.once()


def test_slow_is_not_stuck(site, link):
    """Images that take many times as long as an answer may take arrive at the first try: bytes that move count."""
    link.slow("1mbit")
    site.configure(upload={"connections": 3})
    swell(site.prepare(), 300_000).rename(site.drops / "flight")
    began = time.monotonic()
    site.start("--until-idle")
    assert site.ended(90) == 0
    assert time.monotonic() - began > 10, "the link is not slow"
    site.once()
    untried(site)
    assert site.cloud.ledger()["requests"]["put"] == 6
    assert not told(site, "paused")


def test_black_hole_in_mid_put(site, link):
    """A connection that swallows bytes in mid-image is given up, the reason told; the image goes out on another one."""
    link.slow("10mbit")
    # The pause before the image goes out again is long enough to be seen in.
    site.configure(upload={"connections": 1}, advanced={"retry_base": "10s", "retry_max": "10s"})
    swell(site.prepare(), 2_500_000).rename(site.drops / "flight")
    site.start("--until-idle")
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 1, "the first image is uploaded")
    link.bury(link.ports())
    site.until(lambda: site.look()["images"]["failed"] == 1, "the one on its way is counted as failed")
    assert re.search(r"no byte moved for \d+ s|Connection timed out", told(site, "image failed")[0])
    assert site.ended(90) == 0
    site.once()
    assert len(told(site, "image failed")) == 1
    assert not told(site, "paused")


@pytest.mark.parametrize("then", ["poll", "start"])
def test_idle_connections_became_black_holes(site, link, then):
    """What address translation forgot while nothing moved costs nothing: questions and effects go out on fresh ones."""
    site.configure(start="manual", poll="22s", advanced={"request_timeout": "5s"})
    site.drop()
    site.cloud.change(processing_seconds=0.0 if then == "start" else 5.0)
    site.start()
    site.held("manual_start")
    if then == "poll":
        site.ask("start")
        site.reach("started")
        site.until(lambda: "processing" in (site.look()["waiting_for"] or ""), "the first question is answered")
    time.sleep(1)
    link.bury(link.ports())
    time.sleep(21)
    if then == "start":
        site.ask("start")
    site.delivered()
    site.once(held=True)
    assert site.requests("start") == 1
    assert not told(site, "warning")


class Names:
    """The names that the service finds: its own hosts file, and a server of names that hears and is silent."""

    def __init__(self, site, link, place):
        self.hosts = place / "hosts"
        self.known = f"127.0.0.1 localhost\n{CLOUD} cloud.test\n"
        place.mkdir()
        self.hosts.write_text(self.known)
        (place / "resolv.conf").write_text(f"nameserver {CLOUD}\n")
        with link.at_the_cloud():
            self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.server.bind((CLOUD, 53))
        self.server.setblocking(False)
        site.place["etc"] = place
        url = site.cloud.url.replace(CLOUD, "cloud.test")
        site.settings = {"cloud": {"url": url, "s3_endpoint": url}}

    def lose(self):
        """Have all names forgotten; the file itself stays, since it is mounted."""
        self.hosts.write_text("127.0.0.1 localhost\n")

    def find(self):
        """Have the cloud's name known again."""
        self.hosts.write_text(self.known)

    def questions(self):
        """Count what the server of names was asked."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self.server.recv(512):
                count += 1
        return count


@pytest.fixture
def names(site, link, tmp_path):
    """The cloud under a name, in the service's own view of the world."""
    made = Names(site, link, tmp_path / "etc")
    yield made
    made.server.close()


@pytest.mark.parametrize("silent", [True, False], ids=["hangs", "refused"])
def test_names_gone_in_mid_upload(site, link, names, silent):
    """Without names the service pauses and says so, hangs nowhere for good, and goes on when they are back."""
    if not silent:
        names.server.close()
    site.configure(upload={"connections": 2}, **site.settings)
    # The others wait until the names are gone, however long that takes.
    site.fault("put", "status", code=429, skip=3, headers={"Connection": "close"}, times=None)
    site.drop(count=8)
    site.start("--until-idle")
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 3, "some images are uploaded")
    names.lose()
    site.cloud.faults.clear()
    site.until(lambda: paused(site).get("kind") == "network", "the service says that it is paused")
    assert "name resolution" in paused(site)["text"] or "Name or service" in paused(site)["text"]
    time.sleep(5)
    untried(site)
    names.find()
    assert site.ended(90) == 0
    site.once(images=8)
    untried(site)


def test_stop_while_names_hang(site, link, names):
    """A stop does not wait for a server of names that is silent."""
    names.lose()
    site.configure(**site.settings)
    site.drop()
    site.start()
    until(names.questions, "a name was asked for")
    began = time.monotonic()
    assert site.stop() == 0
    assert time.monotonic() - began < 25
