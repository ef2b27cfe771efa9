"""What a scan sees of a drop directory and of a folder."""

import errno
import os
import subprocess
import threading
from pathlib import Path

import pytest
from intake_kit import as_nobody, open_place, put, scan

from pix4d_watcher.core.errors import HostError, MediaAbsent, SourceMissing, SourceUnreadable
from pix4d_watcher.host import mounts
from pix4d_watcher.intake.files import identify, media_errors, source_errors
from pix4d_watcher.intake.freeze import freeze_image
from pix4d_watcher.intake.leases import writers
from pix4d_watcher.intake.scan import Rules, list_directories, list_root, scan_folder


def names(seen):
    return [one.path for one in seen]


def test_root_lists_folders_with_identity(tmp_path):
    """Folders are listed with device and inode, sorted; a rename keeps the identity."""
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    listing = list_root(os.fsencode(tmp_path))
    assert [folder.name for folder in listing.folders] == [b"a", b"b"]
    facts = (tmp_path / "a").stat()
    medium = mounts.medium(bytes(tmp_path))
    assert (listing.folders[0].device, listing.folders[0].inode) == (medium, facts.st_ino)
    assert (listing.device, listing.inode) == (medium, tmp_path.stat().st_ino)
    (tmp_path / "a").rename(tmp_path / "c")
    assert list_root(os.fsencode(tmp_path)).folders[1].inode == facts.st_ino


def test_root_mentions_loose_images_and_links(tmp_path):
    """Images directly in the root are mentioned, links are listed and never taken for folders."""
    put(tmp_path, "DJI_0001.jpeg")
    put(tmp_path, "notes.txt")
    (tmp_path / "link").symlink_to(tmp_path)
    listing = list_root(os.fsencode(tmp_path))
    assert listing.loose == (b"DJI_0001.jpeg",)
    assert listing.links == (b"link",)
    assert listing.folders == ()
    assert not listing.empty


@pytest.mark.parametrize(
    "name",
    [".hidden", "._x", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".Trash-1000"],
)
def test_ignored_names_are_nowhere(tmp_path, name):
    """Ignored names are no folders of a root, which counts as empty, and hide what lies below them in a folder."""
    put(tmp_path / name, "DJI_0001.JPG")
    listing = list_root(os.fsencode(tmp_path))
    assert listing.folders == ()
    assert listing.empty
    tree = scan(tmp_path)
    assert tree.files == ()
    assert tree.temporary == ()


def test_empty_root_says_so(tmp_path):
    """An empty mount point can be told from a drop directory with folders."""
    assert list_root(os.fsencode(tmp_path)).empty


def test_absent_root_is_media_absent(tmp_path):
    """A root that is missing, or no directory, is MediaAbsent with a text that says what to do."""
    put(tmp_path, "file")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(MediaAbsent, match="nothing is taken for deleted"):
            list_root(os.fsencode(path))


def test_closed_root_is_a_matter_of_permission():
    """A root without permission is not called missing."""
    with open_place() as place:
        (place / "root").mkdir(mode=0o700)
        (place / "root").chmod(0)
        with as_nobody(), pytest.raises(SourceUnreadable, match="no permission"):
            list_root(os.fsencode(place / "root"))


@pytest.mark.parametrize(
    ("code", "root_error", "image_error"),
    [
        (errno.EIO, MediaAbsent, SourceUnreadable),
        (errno.ENOTCONN, MediaAbsent, SourceUnreadable),
        (errno.ENODEV, MediaAbsent, SourceUnreadable),
        (errno.ENOENT, MediaAbsent, SourceMissing),
        (errno.EACCES, SourceUnreadable, SourceUnreadable),
        (errno.EMFILE, HostError, HostError),
    ],
)
def test_errors_of_the_system_become_ours(code, root_error, image_error):
    """Each error number has one meaning for a root and one for an image."""
    for translate, expected in ((media_errors, root_error), (source_errors, image_error)):
        with pytest.raises(expected), translate(b"M\xe9moire"):
            raise OSError(code, os.strerror(code))


def test_folder_tells_images_from_other_files(tmp_path):
    """All suffixes count in any case, everything is sorted, other files are kept apart."""
    for name in ("b.JPG", "a.jpeg", "D/x.TIF", "D/y.tiff", "z.txt", "film.MP4"):
        put(tmp_path, name)
    tree = scan(tmp_path)
    assert names(tree.images) == [b"D/x.TIF", b"D/y.tiff", b"a.jpeg", b"b.JPG"]
    assert tree.not_images == (b"film.MP4", b"z.txt")
    assert tree.directories == (b"", b"D")


def test_rules_choose_by_glob(tmp_path):
    """Include limits images, exclude wins over it and removes any file; `*` crosses directories, case is ignored."""
    for name in ("100MEDIA/DJI_1.JPG", "100MEDIA/DJI_1_T.JPG", "other/x.jpg", "other/x.log"):
        put(tmp_path, name)
    tree = scan(tmp_path, include=("100media/*",), exclude=("*_t.jpg", "*.LOG"))
    assert names(tree.images) == [b"100MEDIA/DJI_1.JPG"]
    assert tree.not_images == (b"other/x.jpg",)


@pytest.mark.parametrize(
    "name",
    [
        *("a.JPG.part", "a.partial", "a.filepart", "a.crdownload", "a.TMP", "a.temp", "a.download", "a.jpg.!ut"),
        *("a.jpg~", "~a.jpg", ".DJI_0001.JPG.x7Kq2Z", ".~lock.a.jpg#", "deep/.~tmp~/a.jpg", ".a.jpg.part"),
        "half.part/a.jpg",
    ],
)
def test_temporary_names_are_seen(tmp_path, name):
    """Names of copies in progress are found, hidden ones too."""
    put(tmp_path, name)
    tree = scan(tmp_path)
    assert len(tree.temporary) == 1
    assert name.startswith(os.fsdecode(tree.temporary[0]))
    assert not tree.images or name.startswith("half")


@pytest.mark.parametrize("name", [".DS_Store", "._DJI_0001.JPG.tmp", ".photos.sqlite", "a.part.jpg", "tmp.jpg"])
def test_harmless_names_are_not_temporary(tmp_path, name):
    """Names that only look a little like a copy in progress do not hold a folder up."""
    put(tmp_path, name)
    assert scan(tmp_path).temporary == ()


def test_excluded_names_are_not_temporary(tmp_path):
    """A glob gives a person the way out where a program leaves such names behind."""
    put(tmp_path, "Thumbs.tmp")
    assert scan(tmp_path, exclude=("*.tmp",)).temporary == ()


def test_folder_with_temporary_name_is_unfinished(tmp_path):
    """A folder that will get its final name later is itself a copy in progress."""
    put(tmp_path / "survey.partial", "a.jpg")
    assert scan(tmp_path / "survey.partial").temporary == (b"survey.partial/",)


def test_markers_count_only_at_the_top(tmp_path):
    """`.hold` and the ready file are seen at the top, and are no files of the folder."""
    put(tmp_path, "sub/.hold")
    put(tmp_path, "sub/READY.txt")
    tree = scan(tmp_path, ready_file="READY.txt")
    assert (tree.hold_marker, tree.ready) == (False, False)
    put(tmp_path, ".hold")
    put(tmp_path, "READY.txt")
    tree = scan(tmp_path, ready_file="READY.txt")
    assert (tree.hold_marker, tree.ready) == (True, True)
    assert names(tree.files) == [b"sub/READY.txt"]


def test_links_are_listed_and_never_followed(tmp_path):
    """Loops and escapes cannot happen: symlinks to files and directories, inside or outside, are only listed."""
    put(tmp_path, "in/real.jpg")
    put(tmp_path, "out/secret.jpg")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/escape").symlink_to(tmp_path / "out")
    (tmp_path / "in/alias.jpg").symlink_to("real.jpg")
    (tmp_path / "in/dead.jpg").symlink_to("nowhere")
    tree = scan(tmp_path / "in")
    assert names(tree.files) == [b"real.jpg"]
    assert tree.links == (b"alias.jpg", b"dead.jpg", b"escape", b"loop")
    (tmp_path / "top").symlink_to(tmp_path / "in")
    with pytest.raises(SourceMissing):
        scan(tmp_path / "top")


def test_pipes_and_sockets_are_nothing(tmp_path):
    """What is no regular file does not disturb a scan."""
    os.mkfifo(tmp_path / "pipe.jpg")
    assert scan(tmp_path).files == ()


def test_any_bytes_are_a_name(tmp_path):
    """Names that are no UTF-8, twins of normalisation, newlines and 255 bytes all come through unchanged."""
    wanted = sorted([b"DJI_\xe9.JPG", "é.jpg".encode(), "e\u0301.jpg".encode(), b"new\nline.jpg", b"x" * 251 + b".jpg"])
    for name in wanted:
        put(tmp_path, name)
    put(tmp_path, b"M\xe9moire/a.jpg")
    assert names(scan(tmp_path).images) == sorted([*wanted, b"M\xe9moire/a.jpg"])


@pytest.fixture
def deep(tmp_path):
    """Make a directory that is removed by `rm`: what goes as deep as these tests is too much for Python's own way."""
    place = tmp_path / "deep"
    place.mkdir()
    yield place
    subprocess.run(["rm", "-rf", place], check=True)


def nest(top, levels, name):
    """Make nested directories below `top` with a file at the bottom, where no path is long enough to name them."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("a.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


def test_deep_nesting_with_long_names(deep):
    """300 levels of 255-byte names, far beyond the longest path of the system, are scanned, probed and frozen."""
    nest(deep, 300, "d" * 255)
    tree = scan(deep)
    assert len(tree.images) == 1
    assert len(tree.images[0].path) == 300 * 256 + 5
    assert len(list_directories(os.fsencode(deep))) == 301
    assert writers(os.fsencode(deep), tree, local=True) == ()
    image = freeze_image(os.fsencode(deep), tree.images[0].path, blocks_above=0)
    assert image.file_id == tree.images[0].file_id


def test_endless_nesting_is_said(deep, monkeypatch):
    """Beyond the greatest depth a folder is not silently cut: the place is listed as unreadable."""
    monkeypatch.setattr("pix4d_watcher.intake.scan.MAX_DEPTH", 20)
    nest(deep, 20, "d")
    assert len(scan(deep).images) == 1
    nest(deep / "d", 20, "e")
    tree = scan(deep)
    assert len(tree.images) == 1
    assert tree.unreadable == ((b"d" + b"/e" * 20, "nested deeper than 20 directories"),)


def _open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_files_leave_no_descriptor_open(tmp_path):
    """A scan gives back every descriptor, also where it fails."""
    for number in range(50):
        put(tmp_path, f"d{number}/a.jpg")
    before = _open_descriptors()
    scan(tmp_path)
    list_root(os.fsencode(tmp_path))
    with pytest.raises(SourceMissing):
        scan(tmp_path / "missing")
    assert _open_descriptors() == before


def test_missing_folder_is_source_missing(tmp_path):
    """A folder that is gone is SourceMissing, with the remedy in the text."""
    with pytest.raises(SourceMissing, match="Put it back"):
        scan(tmp_path / "gone")


def test_closed_directories_are_listed():
    """What permissions hide is listed with its path, and the rest is seen."""
    with open_place() as place:
        put(place, "closed/a.jpg")
        put(place, "open/b.jpg")
        (place / "closed").chmod(0)
        with as_nobody():
            tree = scan(place)
        (place / "closed").chmod(0o755)
    assert tree.unreadable == ((b"closed", "permission denied"),)
    assert names(tree.images) == [b"open/b.jpg"]


def test_scan_survives_a_tree_in_motion(tmp_path):
    """Entries that vanish and are renamed while they are scanned are skipped, never an error."""
    end = threading.Event()

    def churn():
        number = 0
        while not end.is_set():
            number += 1
            put(tmp_path, f"d/sub/{number}.jpg")
            (tmp_path / "d").rename(tmp_path / "e")
            (tmp_path / f"e/sub/{number}.jpg").unlink()
            (tmp_path / "e/sub").rmdir()
            (tmp_path / "e").rmdir()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(300):
            scan(tmp_path)
    finally:
        end.set()
        thread.join()


def test_signature_changes_with_the_tree(tmp_path):
    """Names, sizes and mtimes change the signature; inodes do where they are asked for."""
    put(tmp_path, "a.jpg", b"1")
    os.utime(tmp_path / "a.jpg", ns=(5, 5))
    seen = {scan(tmp_path).signature(with_inodes=False)}
    plain, strict = scan(tmp_path).signature(with_inodes=False), scan(tmp_path).signature(with_inodes=True)
    put(tmp_path, "b.jpg", b"1")
    os.utime(tmp_path / "b.jpg", ns=(5, 5))
    (tmp_path / "b.jpg").replace(tmp_path / "a.jpg")
    assert scan(tmp_path).signature(with_inodes=False) == plain
    assert scan(tmp_path).signature(with_inodes=True) != strict
    for change in (
        lambda: os.utime(tmp_path / "a.jpg", ns=(6, 6)),
        lambda: put(tmp_path, "a.jpg", b"12"),
        lambda: (tmp_path / "a.jpg").rename(tmp_path / "c.jpg"),
    ):
        change()
        seen.add(scan(tmp_path).signature(with_inodes=False))
    assert len(seen) == 4


def test_identify_knows_versions(tmp_path):
    """A path and an open descriptor of it are the same version; a missing file is SourceMissing."""
    path = put(tmp_path, "a.jpg")
    with path.open("rb") as file:
        assert identify(os.fsencode(path)) == identify(file.fileno())
    with pytest.raises(SourceMissing):
        identify(os.fsencode(path) + b"x")


def test_scan_writes_nothing(tmp_path):
    """A drop directory is as it was after a scan: same entries, same mtimes."""
    put(tmp_path, "d/a.jpg")
    before = [(path, path.stat().st_mtime_ns) for path in sorted(tmp_path.rglob("*"))]
    scan_folder(os.fsencode(tmp_path), Rules(ready_file=".ready"))
    assert [(path, path.stat().st_mtime_ns) for path in sorted(tmp_path.rglob("*"))] == before
