"""Which filesystem a path is on: local or reached over a network, the very one as before, and how much room it has.

Owns the reading of /proc/self/mountinfo; knows nothing of drop directories or of what follows from the answers. Paths
are bytes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

# Where udev notes what it found on a block device, as lines `E:NAME=VALUE` in a file called b<major>:<minor>.
UDEV = Path("/run/udev/data")

# Where the kernel answers for every local writer: leases, stable inodes, events. overlay: the root of most containers.
LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay"})
# Another machine may write without an event here, and locks may not hold. virtiofs, vboxsf and vmhgfs are folders that
# a virtual machine shares with its host: the same for our purpose.
NETWORK = frozenset(
    {
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
    }
    | {"ocfs2", "orangefs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"}
)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the table. `device` compares with `st_dev` except on btrfs and overlay, which number files anew.

    `filesystem` is the kernel's name of the type, empty where the table does not show the mount (inside a chroot).
    """

    device: int
    mount_point: bytes
    filesystem: str
    source: bytes


def mount_of(path: bytes) -> Mount:
    """Find the mount that holds `path`, or its nearest existing parent; raises OSError where nothing can be opened.

    The kernel itself is asked for the mount's number: comparing prefixes would be fooled by mounts over mounts.
    """
    descriptor = _open_nearest(path)
    try:
        number = _mount_number(descriptor)
        device = os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)
    return _table().get(number) or Mount(device, b"/", "", b"")


def filesystem_type(path: bytes) -> str:
    """Name the type of the filesystem that holds `path`, for example `ext4`; empty where it is not known."""
    return mount_of(path).filesystem


def is_local(path: bytes) -> bool:
    """Whether `path` is on a filesystem where the kernel knows every writer; False also means unknown."""
    return filesystem_type(path) in LOCAL


def is_network(path: bytes) -> bool:
    """Whether `path` is on a filesystem that others may write to behind the kernel's back; False also means unknown.

    Any FUSE counts but fuseblk, a local disk (ntfs-3g, exfat-fuse): the rest is mostly sshfs, rclone and their like.
    """
    filesystem = filesystem_type(path)
    return filesystem in NETWORK or filesystem == "fuse" or filesystem.startswith("fuse.")


def medium(place: int | bytes) -> int:
    """Number the filesystem itself (64 bits) that holds a path or an open descriptor; raises OSError.

    st_dev numbers only the reader that a card is in: cards that take turns there have the same. So the filesystem's
    own identity is asked for: f_fsid is made of its UUID on ext4 and btrfs; it is st_dev again on FAT, exFAT and XFS,
    where udev's note of the UUID tells, and 0 on FUSE and NFS. Where nothing tells, it is st_dev.
    """
    device, number = os.stat(place).st_dev, os.statvfs(place).f_fsid  # noqa: PTH116  (descriptors, names are bytes)
    if number not in (0, device):
        return number
    uuid = _uuid(device)
    return int.from_bytes(hashlib.sha256(uuid).digest()[:8], "big") if uuid else device


def _uuid(device: int) -> bytes:
    try:
        facts = (UDEV / f"b{os.major(device)}:{os.minor(device)}").read_bytes()
    except OSError:
        return b""
    return next((line for line in facts.splitlines() if line.startswith(b"E:ID_FS_UUID=")), b"")


def born(path: bytes) -> float | None:
    """Say when a directory or file was made (s since 1970), which no rename changes; None where nothing keeps that."""
    facts = ctypes.create_string_buffer(256)
    try:
        failed = ctypes.CDLL(None).statx(_AT_FDCWD, path, _NO_FOLLOW, _BIRTH, facts)
    except AttributeError:  # an old C library
        return None
    (told,) = struct.unpack_from("I", facts)
    if failed or not told & _BIRTH:
        return None
    seconds, nanoseconds = struct.unpack_from("qI", facts, 80)
    return float(seconds + nanoseconds / 1e9)


_AT_FDCWD, _NO_FOLLOW, _BIRTH = -100, 0x100, 0x800
"""Of statx(2), which Python does not call by itself."""


def free_bytes(path: bytes) -> int:
    """Count the bytes that a service without privileges may still write where `path`, or its nearest parent, is."""
    descriptor = _open_nearest(path)
    try:
        room = os.fstatvfs(descriptor)
    finally:
        os.close(descriptor)
    return room.f_bavail * room.f_frsize


def _open_nearest(path: bytes) -> int:
    place = Path(os.fsdecode(path)).absolute()
    while True:
        try:
            # O_DIRECTORY makes an automount point mount itself; O_PATH alone would answer "autofs".
            return os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            # A file may be a mount of its own (containers do this); below a file there is nothing.
            if os.path.lexists(place):
                return os.open(place, os.O_PATH | os.O_CLOEXEC)
        if place == place.parent:
            raise FileNotFoundError(place)
        place = place.parent


def _mount_number(descriptor: int) -> int:
    facts = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    return int(facts.partition("mnt_id:")[2].split()[0])


def _table() -> dict[int, Mount]:
    return dict(_parse(line) for line in MOUNTINFO.read_bytes().splitlines())


def _parse(line: bytes) -> tuple[int, Mount]:
    """Read one line: number, parent, major:minor, root, mount point, options, optional fields, `-`, type, source."""
    head, _, tail = line.partition(b" - ")
    fields = head.split(b" ")
    major, _, minor = fields[2].partition(b":")
    filesystem, source = tail.split(b" ")[:2]
    mount = Mount(os.makedev(int(major), int(minor)), _plain(fields[4]), filesystem.decode("ascii"), _plain(source))
    return int(fields[0]), mount


def _plain(field: bytes) -> bytes:
    r"""Undo the kernel's octal escapes: space `\040`, tab `\011`, newline `\012`, backslash `\134`, hash `\043`."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)
