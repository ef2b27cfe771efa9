import os
import subprocess
import sys
from pathlib import Path

import pytest

from pix4d_watcher.host import mounts

TABLE = rb"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:50 / /srv/pix4d/my\040drop rw shared:5 master:2 - cifs //nas/flights rw,vers=3.1.1
31 22 0:51 / /mnt/back\134slash\011tab rw - fuse.sshfs pilot@ground:/data rw
32 22 8:17 /sub /media/card ro,nosuid - fuseblk /dev/sdb1 ro
"""


def read(monkeypatch, tmp_path, number, table=TABLE):
    (tmp_path / "mountinfo").write_bytes(table)
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")
    monkeypatch.setattr(mounts, "_mount_number", lambda descriptor: number)
    return mounts.mount_of(os.fsencode(tmp_path))


def test_lines_are_read(monkeypatch, tmp_path):
    """Octal escapes, optional fields and the source come out as the kernel meant them."""
    assert read(monkeypatch, tmp_path, 30) == mounts.Mount(
        os.makedev(0, 50), b"/srv/pix4d/my drop", "cifs", b"//nas/flights"
    )
    assert read(monkeypatch, tmp_path, 31).mount_point == b"/mnt/back\\slash\ttab"


@pytest.mark.parametrize(
    ("number", "local", "network"), [(22, True, False), (30, False, True), (31, False, True), (32, False, False)]
)
def test_local_and_network(monkeypatch, tmp_path, number, local, network):
    """ext4 is local, cifs and sshfs are reached over a network, a FUSE disk is neither, since nobody measured it."""
    read(monkeypatch, tmp_path, number)
    assert mounts.is_local(os.fsencode(tmp_path)) is local
    assert mounts.is_network(os.fsencode(tmp_path)) is network


def test_unknown_mount(monkeypatch, tmp_path):
    """Inside a chroot the table may not show the mount: the type is unknown, and that is neither local nor network."""
    mount = read(monkeypatch, tmp_path, 99)
    assert mount.filesystem == ""
    assert mount.device == tmp_path.stat().st_dev
    assert not mounts.is_local(os.fsencode(tmp_path))
    assert not mounts.is_network(os.fsencode(tmp_path))


def test_real_table():
    """The kernel's own answer for /proc, for a file, and for a path that does not exist yet."""
    assert mounts.filesystem_type(b"/proc") == "proc"
    assert mounts.mount_of(b"/proc").mount_point == b"/proc"
    assert mounts.filesystem_type(b"/proc/self/mountinfo") == "proc"
    here = mounts.mount_of(bytes(Path(__file__).parent))
    assert mounts.mount_of(os.fsencode(__file__) + b"/below/a/file") == here
    assert mounts.mount_of(b"/no/such/path") == mounts.mount_of(b"/")


def test_room(tmp_path):
    """Free bytes are those of the filesystem, also for a directory that will be made later."""
    room = os.statvfs(tmp_path)
    found = mounts.free_bytes(os.fsencode(tmp_path / "later"))
    assert 0 < found <= room.f_blocks * room.f_frsize


def test_names_are_bytes(tmp_path):
    """A directory whose name is not UTF-8 is found."""
    odd = tmp_path / os.fsdecode(b"M\xe9moire")
    odd.mkdir()
    assert mounts.mount_of(bytes(odd)) == mounts.mount_of(os.fsencode(tmp_path))


HIDDEN = """
import subprocess, sys
from pathlib import Path
from pix4d_watcher.host import mounts
base = Path(sys.argv[1])
def mount(path, source):
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", source, str(path)], check=True)
mount(base / "a b" / "deep", "inner")
mount(base / "a b", "outer")
(base / "a b" / "deep").mkdir()
found = mounts.mount_of(bytes(base / "a b" / "deep"))
print(found.source.decode(), found.mount_point == bytes(base / "a b"), mounts.is_local(bytes(base / "a b")))
"""


@pytest.mark.check
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_mount_over_mount(tmp_path):
    """A mount that was hidden by a later one above it is not taken for the answer."""
    command = ["unshare", "--mount", sys.executable, "-c", HIDDEN, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "outer True True\n"


def test_medium_is_told_by_its_own_identity(monkeypatch, tmp_path):
    """A filesystem has one number wherever it is looked at; without an identity of its own, udev's note tells."""
    here = mounts.medium(bytes(tmp_path))
    (tmp_path / "below").mkdir()
    handle = os.open(tmp_path, os.O_PATH)
    assert {mounts.medium(handle), mounts.medium(bytes(tmp_path / "below"))} == {here}
    os.close(handle)
    device = tmp_path.stat().st_dev
    monkeypatch.setattr(mounts, "UDEV", tmp_path)
    note = tmp_path / f"b{os.major(device)}:{os.minor(device)}"

    def numbered(filesystem, uuid=b""):
        monkeypatch.setattr(os, "statvfs", lambda _place: type("Facts", (), {"f_fsid": filesystem}))
        note.write_bytes(b"S:disk/by-id/card\nE:ID_FS_TYPE=vfat\n" + uuid)
        return mounts.medium(bytes(tmp_path))

    for filesystem in (0, device):
        assert numbered(filesystem) == device
        cards = {numbered(filesystem, b"E:ID_FS_UUID=%b\n" % uuid) for uuid in (b"6339-3861", b"6339-3862")}
        assert len(cards) == 2
        assert device not in cards
        assert all(card < 1 << 64 for card in cards)
    assert numbered(4711, b"E:ID_FS_UUID=6339-3861\n") == 4711
