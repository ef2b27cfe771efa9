"""Copies that are still being written, files that change while they are sent, names, links, permissions, inodes."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import threading

import pytest
from media_kit import PATIENT, held_or_done, retry_until_done, steady

from pix4d_watcher.core.model import printable
from pix4d_watcher.journal import people, skips

OLD = (1_600_000_000, 1_600_000_000)
STALL = 3.0
"""Seconds that writers stall: several times as long as the folders of these tests settle."""

QUIET = "10s"
"""How long folders settle where nothing but that bridges the pauses of a copy, on however busy a machine."""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def sent(site):
    """Map the name of each object to the hash of its content."""
    return {key.rpartition("/")[2]: facts["sha256"] for key, facts in site.cloud.ledger()["objects"].items()}


def not_taken(site, seconds=STALL):
    """See that the folder is not taken for complete while a copy stalls, from the first time on by the copy alone."""
    (site.drops / "flight/.hold").unlink(missing_ok=True)
    steady(lambda: site.look().get("state", "found") == "found", "the copy is still under way", seconds)


# Writers: each brings the last image of the folder, in its own way.


def preallocated(site, path, content):
    """As programs do that ask for all the room first, and write slowly."""
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, len(content))
        for at in (0, len(content) // 2):
            not_taken(site)
            os.pwrite(file.fileno(), content[at : at + len(content) // 2 + 1], at)


def stalled(site, path, content):
    """As a copy over a link that hangs: open, and nothing happens."""
    with path.open("wb", buffering=0) as file:
        file.write(content[:300])
        not_taken(site)
        file.write(content[300:])


def as_explorer(site, path, content):
    """As Windows Explorer over SMB: the full size and the old time first, then the content."""
    with path.open("wb", buffering=0) as file:
        file.truncate(len(content))
        os.utime(path, OLD)
        not_taken(site)
        file.write(content)
        os.utime(path, OLD)


def in_pieces(site, path, content):
    """As a server that opens the file for each piece and sets the time back at the end."""
    for at in range(0, len(content), 250):
        with path.open("r+b" if at else "wb", buffering=0) as file:
            file.seek(at)
            file.write(content[at : at + 250])
        os.utime(path, OLD)
        not_taken(site, 0.3)
    os.utime(path, OLD)


def by_ftp(site, path, content):
    """As FTP clients do: another name until the copy is complete, closed in between."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content[:300])
    not_taken(site)
    part.write_bytes(content)
    part.rename(path)


def as_rsync(site, path, content):
    """As rsync does: a hidden name until the copy is complete."""
    part = path.with_name(f".{path.name}.x7Kq2Z")
    part.write_bytes(content[:300])
    not_taken(site)
    part.write_bytes(content)
    os.utime(part, OLD)
    part.rename(path)


def by_hard_link(site, path, content):
    """As clients that link the finished copy to its name."""
    part = path.with_name(path.name + ".tmp")
    part.write_bytes(content)
    not_taken(site)
    path.hardlink_to(part)
    not_taken(site)
    part.unlink()


WRITERS = [preallocated, stalled, as_explorer, in_pieces, by_ftp, as_rsync, by_hard_link]


def but_one(site, settle):
    """Drop a folder whose last image is still to come, and held until its copy has begun; give its path and content."""
    site.configure(settle=settle)
    folder = site.prepare()
    (folder / ".hold").touch()
    last = folder / "DJI_0006.JPG"
    content = last.read_bytes()
    last.unlink()
    return folder.rename(site.drops / "flight") / last.name, content


def complete(site, path, content):
    """Check that the folder was taken once, when it was complete."""
    site.delivered()
    site.once()
    assert sent(site)[path.name] == sha256(content)
    assert [kind for kind, _text in site.events()].count("settled") == 1


@pytest.mark.parametrize("write", WRITERS)
def test_copy_under_way(site, write):
    """A folder is not complete before the copy is, however it is written; then it is sent as it is."""
    path, content = but_one(site, QUIET if write is in_pieces else "1s")
    site.start()
    site.until(site.look, "the folder is found")
    write(site, path, content)
    complete(site, path, content)


@pytest.mark.parametrize("write", [preallocated, by_ftp])
def test_started_in_the_middle_of_a_copy(site, write):
    """What holds for a copy that the service sees from its beginning, holds where it starts in the middle of one."""
    path, content = but_one(site, "1s")
    writer = threading.Thread(target=write, args=(site, path, content))
    writer.start()
    site.start()
    writer.join()
    complete(site, path, content)


def test_copy_folder_by_folder(site):
    """Directories that come one after the other, empty at first, are one folder."""
    site.configure(settle=QUIET)
    site.start()
    folder = site.drops / "flight"
    for number in (100, 101, 102):
        place = folder / f"DCIM/{number}MEDIA"
        place.mkdir(parents=True)
        not_taken(site, 0.5)
        site.fill(place, 2, salt=str(number))
        not_taken(site, 0.5)
    site.delivered()
    site.once()


def test_copy_to_a_share(media, site):
    """On a share nobody can ask who writes: a longer quiet time bridges the pauses of a copy by another machine."""
    path, content = but_one(site, QUIET)
    source = site.directory / "source"
    site.drops.rename(source)
    site.drops.mkdir()
    media.share(source, site.drops)
    path = source / "flight" / path.name
    site.start()
    site.until(site.look, "the folder is found")
    with path.open("wb", buffering=0) as file:
        for at in range(0, len(content), 250):
            file.write(content[at : at + 250])
            not_taken(site, 1.0)
    complete(site, path, content)


def test_stall_on_a_share(media, site):
    """A copy to a share that stalls longer than the quiet time is found out by the checks, and waited for."""
    path, content = but_one(site, "1s")
    source = site.directory / "source"
    site.drops.rename(source)
    site.drops.mkdir()
    media.share(source, site.drops)
    path = source / "flight" / path.name
    with path.open("wb", buffering=0) as file:
        file.write(content[:300])
        (path.parent / ".hold").unlink()
        site.start()
        assert "DJI_0006.JPG" in site.held("bad_images")
        file.write(content[300:])
    site.delivered()
    site.once(held=True)
    assert sent(site)[path.name] == sha256(content)


# Files that change while they are sent.


def send_slowly(site, seconds=5.0):
    """Drop a folder and have it sent one image after the other, slowly enough for a busy machine; gives its path."""
    site.configure(upload={"connections": 1}, advanced=PATIENT)
    site.fault("put", "delay", seconds=seconds, times=None)
    folder = site.drop()
    site.start()
    site.until(lambda: site.requests("put"), "the first image is on its way")
    return folder


def twin(site, image):
    """Give other sound content of the size of an image."""
    (made,) = site.fill(site.directory / "twin", 1, names=image.name, salt="twin")
    assert made.stat().st_size == image.stat().st_size
    return made


def rewritten(image, other):
    """Write it anew in place."""
    image.write_bytes(other.read_bytes())


def replaced(image, other):
    """Put another file in its place."""
    other.replace(image)


def grown(image, _other):
    """Write more behind its end."""
    with image.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [rewritten, replaced, grown])
@pytest.mark.parametrize("answer", ["retry", "skip"])
def test_changed_with_its_times_set_back(site, change, answer):
    """An image that is changed before it is sent is seen although its time is as before; a person says what then."""
    image = send_slowly(site) / "DJI_0005.JPG"
    frozen, times = image.read_bytes(), image.stat()
    change(image, twin(site, image))
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    site.cloud.faults.clear()
    assert image.name in site.held("source_changed")
    assert image.name not in sent(site)
    if answer == "retry":
        site.ask("retry")
        site.delivered()
        site.once(held=True)
        assert sent(site)[image.name] == sha256(image.read_bytes()) != sha256(frozen)
    else:
        skips.skip(site.journal(change=True), site.id_of(), [image.name])
        site.delivered()
        site.once(images=5, held=True)
        assert image.name not in sent(site)


def test_replaced_while_it_is_sent(site):
    """An image that is replaced in the middle of its upload arrives as it was checked; the new one asks a person."""
    folder = send_slowly(site, 10.0)
    first = folder / "DJI_0001.JPG"
    frozen = sha256(first.read_bytes())
    twin(site, first).replace(first)
    site.cloud.faults.clear()
    assert first.name in site.held("source_changed")
    assert sent(site)[first.name] == frozen
    site.ask("retry")
    site.delivered()
    site.once(held=True)
    assert sent(site)[first.name] == frozen
    assert sent(site)["DJI_0001_2.JPG"] == sha256(first.read_bytes())


@pytest.mark.parametrize("parts", [False, True], ids=["in one", "in parts"])
def test_rewritten_again_and_again(site, parts):
    """An image that never stands still while it is sent arrives as one of its versions, or not at all."""
    folder = site.prepare()
    image = folder / "DJI_0001.JPG"
    noise = random.Random(4).randbytes(12 << 20)
    versions = [image.read_bytes() + mark + noise + mark for mark in (b"first", b"other")]
    image.write_bytes(versions[0])
    site.configure(upload={"multipart_threshold": "8MiB" if parts else "32MiB"}, settle="1s", advanced=PATIENT)
    folder.rename(site.drops / "flight")
    image, stop = site.drops / "flight" / image.name, threading.Event()
    times = image.stat()

    def rewrite():
        for turn in range(1 << 20):
            if stop.wait(0.03):
                return
            with image.open("r+b") as file:
                file.write(versions[turn % 2])
            os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))

    site.fault("part" if parts else "put", "delay", seconds=0.3, times=None)
    site.start()
    site.until(lambda: site.requests("part") + site.requests("put"), "the first bytes are on their way")
    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _retry in range(3):
            if site.until(lambda: held_or_done(site), "held or done") is not True:
                site.ask("retry")
    finally:
        stop.set()
        writer.join()
    site.cloud.faults.clear()
    retry_until_done(site)
    site.once(held=True)
    known = {sha256(version) for version in versions}
    large = [facts["sha256"] for facts in site.cloud.ledger()["objects"].values() if facts["size"] > 1 << 20]
    assert large
    assert set(large) <= known


@pytest.mark.parametrize("change", ["rewritten", "cut short"])
def test_changed_in_the_middle_of_its_body(media, site, change):
    """An image on a slow share that another machine changes while its bytes are on the way does not arrive."""
    source = site.prepare().parent
    image = source / "flight/DJI_0001.JPG"
    with image.open("ab") as file:  # behind its end marker: slow to read, and as sound as before
        file.write(b"\0" * (6 << 20))
    whole, times = image.read_bytes(), image.stat()
    media.share(source, site.drops, "--read-rate=1M")
    site.configure(upload={"connections": 1}, decode="off")
    site.start()
    site.until(lambda: site.requests("put"), "it is being sent")
    if change == "rewritten":
        image.write_bytes(whole[:-1] + b"1")
        os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    else:
        os.truncate(image, 1 << 20)
    assert image.name in site.held("source_changed")
    assert image.name not in sent(site)
    image.write_bytes(whole)
    retry_until_done(site)
    site.once(held=True)


# Names.

NAMES = [
    b"M\xe9moire",
    b"\xff\xfe",
    "caf\u00e9".encode(),
    "cafe\u0301".encode(),
    b"line\nbreak",
    b"\x1b[31mred\x1b[0m\x07",
    b"-rf",
    b"--help",
    b" blank ",
    b"quote'\"`$(id)",
    b"back\\slash\\x41",
    b"100%s{folder}#2",
    "\u202eteleferic".encode(),
    b"n" * 255,
    ("\u00e9" * 127).encode(),
]


@pytest.mark.timeout(400)  # dozens of commands, a minute on a busy machine
def test_names_of_folders(site, run_cli):
    """Folders of any name are sent; what shows them is harmless, and what is shown is accepted by every command."""
    site.configure(results=True, start="manual", existing="process")
    for number, name in enumerate(NAMES):
        site.prepare(f"made-{number}").rename(site.drops / os.fsdecode(name))
    site.start()
    shown = [printable(name) for name in NAMES]
    for name in shown:
        site.held("manual_start", name)
    harmless(run_cli("status", "--config", site.config), shown)
    found = json.loads(harmless(run_cli("status", "--json", "--config", site.config), []))
    assert sorted(row["folder"] for row in found["projects"]) == sorted(shown)
    for number, name in enumerate(shown):
        command = ("explain", "log", "status")[number % 3]
        harmless(run_cli(command, "--config", site.config, "--", f"survey/{name}"), [name])
    for name in shown[:-2]:
        site.ask("start", name)
    for name in shown[-2:]:
        harmless(run_cli("start", "--config", site.config, "--", f"survey/{name}"), [name])
    site.delivered(*shown)
    assert len(site.cloud.ledger()["projects"]) == len(NAMES)
    for name in NAMES:
        assert (site.results / "survey" / os.fsdecode(name) / ".complete").exists()
    longest = printable(b"n" * 255)
    harmless(run_cli("again", "--config", site.config, "--", f"survey/{longest}"), [longest])
    site.until(lambda: site.look(longest)["round"] == 2 and site.look(longest)["hold"], "its new round waits")
    site.ask("start", longest)
    site.delivered(longest)
    assert len(list((site.results / "survey").glob("nnn*/.complete"))) == 2
    log = site.log.read_bytes()
    assert b"\x1b" not in log
    assert b"\x07" not in log


def harmless(done, names):
    """Check that a command did its work and wrote nothing that a terminal would obey; lines may be broken anywhere."""
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert all(char.isprintable() or char == "\n" for char in text)
    for name in names:
        assert "".join(name.split()) in "".join(text.split())
    return done.stdout


def test_names_of_images(site):
    """Images of any name are sent, each under a key of its own, also where names differ only by case or accents."""
    folder = site.prepare(count=0)
    names = [name + b".JPG" for name in NAMES if len(name) < 250]
    names += [
        b"x" * 251 + b".JPG",
        b"a.jpg",
        b"A.JPG",
        b"100MEDIA/a.jpg",
        b"101MEDIA/a.jpg",
        b"100MEDIA/" + b"y" * 251 + b".jpg",
    ]
    for number, name in enumerate(names):
        (made,) = site.fill(site.directory / "one", 1, names="one.jpg", salt=str(number))
        target = folder / os.fsdecode(name)
        target.parent.mkdir(exist_ok=True)
        made.rename(target)
    site.configure(checks={"one_position": "off"})
    folder.rename(site.drops / "flight")
    assert site.run() == 0
    site.once(images=len(names))
    assert {image.path for image in site.images()} == set(names)


# Links, and what is no file.


def test_links_and_devices(site):
    """Links out of the folder, loops, pipes, sockets and devices are neither followed nor sent, and hold up nothing."""
    folder, outside = site.prepare(), site.directory / "outside"
    site.fill(outside, 3, salt="outside")
    (folder / "loop").symlink_to(folder)
    (folder / "self.JPG").symlink_to("self.JPG")
    (folder / "out").symlink_to(outside)
    (folder / "out.JPG").symlink_to(outside / "DJI_0001.JPG")
    (folder / "gone.JPG").symlink_to("nowhere.JPG")
    os.mkfifo(folder / "pipe.JPG")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        here = os.open(folder, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket.JPG")
        os.close(here)
    if os.geteuid() == 0:
        os.mknod(folder / "zero.JPG", 0o600 | 0o020000, os.makedev(1, 5))
    folder.rename(site.drops / "flight")
    (site.drops / "link").symlink_to(outside)
    assert site.run() == 0
    site.once()
    assert len(sent(site)) == 6
    assert [row["folder"] for row in site.status()] == ["flight"]


# Permissions.


@pytest.fixture
def anybody(site):
    """A site whose service may read only what permissions allow."""
    site.privileged = False
    return site


@pytest.mark.parametrize(
    "what", ["flight/DJI_0006.JPG", "flight/DCIM", "flight", ""], ids=["image", "part", "folder", "root"]
)
def test_unreadable(anybody, what):
    """What may not be read is said with its remedy, nothing goes on without it, and it does once it is allowed."""
    site = anybody
    if not what:
        assert site.run() == 0  # else the first run would end at once: nothing may be looked into
    folder = site.prepare()
    (folder / "DCIM").mkdir()
    site.fill(folder / "DCIM", 2, names="DCIM_{n}.JPG")
    folder.rename(site.drops / "flight")
    place = site.drops / what
    mode = place.stat().st_mode
    place.chmod(0)
    try:
        site.start()
        if what:
            site.until(
                lambda: "permission" in (site.look().get("waiting_for") or ""), "it is said what is not readable"
            )
        else:
            site.until(
                lambda: "permission" in (site.root().problem or ""),
                "it is said that the drop directory is not readable",
            )
        steady(lambda: site.look().get("state", "found") == "found", "the folder waits")
        if what:
            steady(lambda: "permission" in (site.look()["waiting_for"] or ""), "it goes on to say so", 6)
        if what.endswith(".JPG"):
            assert site.log.read_text().count("cannot be read") == 1
    finally:
        place.chmod(mode)
    site.delivered()
    site.once(images=8)


# Inodes that are used again.


@pytest.fixture
def disk(site, media):
    """A small disk as drop directory, where the next directory made gets the number of the last one removed."""
    place = site.directory / "disk"
    place.mkdir()
    # Without a journal ext4 passes over the numbers that were freed lately, as far as it remembers them.
    media.reader(site.drops).insert(media.card(place, journal="has_journal"))


def replace_folder(site, name):
    """Remove the folder `flight` and make another one, of a name, that gets its inode; gives its path."""
    old = site.drops / "flight"
    inode = old.stat().st_ino
    shutil.rmtree(old)
    new = site.drops / name
    new.mkdir()
    assert new.stat().st_ino == inode
    site.fill(new, salt="another flight")
    return new


@pytest.mark.parametrize("name", ["flight", "another"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_inode_used_again(disk, site, name, running):
    """Another folder with the number of a removed one, and its name too, is a new project with its own images."""
    folder = site.drops / "flight"
    site.fill(folder)
    site.start()
    site.delivered()
    if running:  # so that no scan sees the time in between
        site.suspend()
    else:
        assert site.stop() == 0
    replace_folder(site, name)
    if running:
        site.resume()
    else:
        site.start()
    site.until(lambda: len(site.status()) == 2 and site.status()[1]["state"] == "delivered", "the new folder is done")
    assert [(row["folder"], row["round"]) for row in site.status()] == [("flight", 1), (name, 1 + (name == "flight"))]
    assert [project["starts"] for project in site.cloud.ledger()["projects"]] == [1, 1]
    assert len(set(sent(site))) == 6
    assert len({facts["sha256"] for facts in site.cloud.ledger()["objects"].values()}) == 12


@pytest.mark.parametrize("name", ["flight", "another"])
def test_inode_used_again_after_one_that_was_given_up(disk, site, name):
    """Another folder with the number of one that was given up and removed is sent, and not given up with it."""
    site.fill(site.drops / "flight", 3)
    site.start()
    site.held("too_few_images")
    site.ask("drop")
    site.suspend()  # so that no scan sees the time in between
    replace_folder(site, name)
    site.resume()
    site.delivered(name)
    site.once(name)


@pytest.mark.parametrize("name", ["flight", "another"])
def test_inode_used_again_while_it_is_sent(disk, site, name):
    """A folder that is replaced while it is sent, inode and all, is never mixed with the old one."""
    site.fill(site.drops / "flight")
    site.configure(upload={"connections": 1}, advanced=PATIENT)
    site.fault("put", "delay", seconds=3.0, times=None)
    site.start()
    site.until(lambda: site.requests("put") > 1, "the second image is on its way")
    old = {path.name: sha256(path.read_bytes()) for path in (site.drops / "flight").iterdir()}
    number = site.id_of()
    people.pause(site.journal(change=True), number, paused=True)
    puts = site.requests("put")
    site.until(lambda: site.look()["images"]["uploaded"] == puts, "no file is open, which would keep the inode")
    site.suspend()
    replace_folder(site, name)
    site.resume()
    site.cloud.faults.clear()
    people.pause(site.journal(change=True), number, paused=False)
    if name == "another":
        site.delivered("another")
        site.once("another")
    code = site.until(lambda: site.look(number=1)["hold"], "the old project is held")["code"]
    assert code == ("source_missing" if name == "another" else "source_changed")
    prefix = site.projects()[0]["prefix"]
    mine = {key: facts for key, facts in site.cloud.ledger()["objects"].items() if key.startswith(prefix)}
    assert all(facts["sha256"] == old[key.rpartition("/")[2]] for key, facts in mine.items())
    assert site.projects()[0]["starts"] == 0


# Folders that are renamed and moved.


def in_every_state(site, more=()):
    """Bring folders into the states in which they wait, each named after its own."""
    site.cloud.change(processing_seconds=60.0)
    site.configure(start="manual", more=more)
    (site.prepare("found") / ".hold").touch()
    (site.directory / "prepared/found").rename(site.drops / "found")
    site.drop("settled", count=2)
    site.drop("registered")
    site.drop("started")
    site.start()
    site.held("too_few_images", "settled")
    site.held("manual_start", "registered")
    site.held("manual_start", "started")
    site.ask("start", "started")
    site.reach("started", "started")
    site.reach("found", "found")


def test_renamed_in_every_state(site):
    """A folder keeps its project under a new name, whatever it was doing, and is finished under it."""
    in_every_state(site)
    states = ("found", "settled", "registered", "started")
    before = {name: site.id_of(name) for name in states}
    for name in states:
        (site.drops / name).rename(site.drops / f"{name} later")
    for name in states:
        site.until(lambda name=name: site.look(f"{name} later"), "the new name is known")
    assert {name: site.id_of(f"{name} later") for name in states} == before
    (site.drops / "found later/.hold").unlink()
    site.ask("approve", "settled later")
    site.cloud.change(processing_seconds=0.0)
    for name in ("found", "settled", "registered"):
        site.held("manual_start", f"{name} later")
        site.ask("start", f"{name} later")
    site.delivered(*(f"{name} later" for name in states))
    assert len(site.status()) == len(site.cloud.ledger()["projects"]) == 4
    assert [project["starts"] for project in site.cloud.ledger()["projects"]] == [1] * 4


def test_moved_to_another_root(site):
    """A folder that is moved to another drop directory is sent from there only if it was not sent before."""
    second = site.directory / "second"
    second.mkdir()
    in_every_state(site, more=[{"name": "other", "path": str(second), "settle": "500ms", "poll": "200ms"}])
    for name in ("found", "registered", "started"):
        (site.drops / name).rename(second / name)

    def row(root, name):
        return next((one for one in site.status() if (one["root"], one["folder"]) == (root, name)), {})

    for name in ("registered", "started"):
        site.until(lambda name=name: (row("other", name).get("hold") or {}).get("code") == "already_sent", "it is held")
    site.until(lambda: row("survey", "found")["condition"] == "dropped", "it is gone from the first drop directory")
    (second / "found/.hold").unlink()
    site.cloud.change(processing_seconds=0.0)
    site.until(lambda: row("other", "found")["state"] == "delivered", "it is sent from the second")
    people.start(site.journal(change=True), row("survey", "registered")["id"])
    for name in ("registered", "started"):
        site.until(lambda name=name: row("survey", name)["state"] == "delivered", "what was sent is finished")
    assert len(site.cloud.ledger()["projects"]) == 3


def test_moved_out_and_back(site):
    """A folder that is moved away while it is sent and comes back is not sent twice, and `retry` finishes it."""
    folder = send_slowly(site)
    folder.rename(site.directory / "aside")
    site.held("source_missing")
    (site.directory / "aside").rename(folder)
    site.cloud.faults.clear()
    site.until(lambda: (site.look(number=2).get("hold") or {}).get("code") == "already_sent", "the same images, again")
    first = next(row["id"] for row in site.status() if row["round"] == 1)
    people.retry(site.journal(change=True), first)
    site.until(lambda: site.look(number=1)["state"] == "delivered", "it is finished")
    (project,) = site.projects()
    assert sorted(project["registered"].values()) == [1] * 6
    assert project["starts"] == 1
