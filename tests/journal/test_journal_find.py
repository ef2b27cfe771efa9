"""Which project a person means by `root/folder`, `folder`, and `#2` behind it."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_kit import found

from pix4d_watcher.journal import naming, views


def names(journal, reference):
    return [project.title for project in naming.find(journal, reference)]


@pytest.fixture
def rounds(journal):
    """Give a journal with two roots, three rounds of one folder, and the same name in both roots."""
    for inode in (11, 12, 13):
        found(journal, b"quarry", inode=inode)
    found(journal, b"quarry", root="inspection")
    found(journal, b"bridge", root="inspection")
    return journal


@pytest.mark.parametrize(
    ("reference", "meant"),
    [
        ("bridge", ["inspection/bridge"]),
        ("bridge/", ["inspection/bridge"]),
        ("inspection/bridge", ["inspection/bridge"]),
        ("survey/quarry", ["survey/quarry#3"]),
        ("survey/quarry/", ["survey/quarry#3"]),
        ("survey/quarry#1", ["survey/quarry"]),
        ("survey/quarry#2", ["survey/quarry#2"]),
        ("quarry#2", ["survey/quarry#2"]),
        ("quarry", ["survey/quarry#3", "inspection/quarry"]),
        ("quarry#1", ["survey/quarry", "inspection/quarry"]),
        ("survey/quarry#4", []),
        ("survey/quarry#", []),
        ("survey/quarry#\u00b2", []),
        ("survey/quarry#-1", []),
        ("other/quarry", []),
        ("survey", []),
        ("survey/", []),
        ("/quarry", []),
        ("", []),
        ("#1", []),
        ("quar", []),
        ("QUARRY", []),
    ],
)
def test_reference(rounds, reference, meant):
    """A reference means the newest round unless it names one, and every root that has the folder."""
    assert names(rounds, reference) == meant


def test_number_sign_in_a_name(journal):
    """A name with a number sign means itself; its rounds and those of the name before the sign are still reached."""
    found(journal, b"lot#7")
    assert names(journal, "lot#7") == names(journal, "survey/lot#7") == names(journal, "lot#7#1") == ["survey/lot#7"]
    assert names(journal, "lot#7#2") == names(journal, "lot") == []
    found(journal, b"lot#7", inode=12)
    assert names(journal, "lot#7") == names(journal, "lot#7#2") == ["survey/lot#7#2"]


@pytest.mark.parametrize(
    ("folder", "reference"),
    [
        (b"M\xe9moire", r"M\xe9moire"),
        (b"M\xe9moire", "M\udce9moire"),
        (b"M\xc3\xa9moire", "Mémoire"),
        (b"M\xc3\xa9moire", r"M\xc3\xa9moire"),
        (b"back\\slash", r"back\\slash"),
        (b"back\\slash", r"back\slash"),
        (b"M\\xe9moire", r"M\\xe9moire"),
        (b"line\nfeed", r"line\x0afeed"),
        (b"50% done", "50% done"),
        (b"_", "_"),
    ],
)
def test_odd_names(journal, folder, reference):
    """Names that cannot be typed are given with backslash escapes; a shell may also hand over the bytes themselves."""
    found(journal, folder)
    found(journal, b"other")
    for asked in (reference, f"survey/{reference}", f"{reference}#1"):
        assert [project.folder for project in naming.find(journal, asked)] == [folder]


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.binary(min_size=1, max_size=30).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_shown_is_found(journal, name):
    """What `status` shows as the name of any folder finds that folder."""
    number = found(journal, name)
    (row,) = views.status(journal, [number])
    assert number in {project.id for project in naming.find(journal, f"survey/{row['folder']}")}
