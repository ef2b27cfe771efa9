"""Names from disk as people see and type them: nothing is lost on the way, and nothing can be smuggled in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix4d_watcher.core.model import printable, round_name, unprintable

ODD = st.binary(max_size=40) | st.lists(
    st.sampled_from([b"\\", b"\\x41", b"\\\\", b"x41", b"\xe9", "é".encode(), "\u202e".encode(), b"\n", b" ", b"a"])
).map(b"".join)


@given(name=ODD)
def test_every_name_comes_back(name):
    """Any bytes are shown as text, and that text means just these bytes."""
    assert unprintable(printable(name)) == name


@given(first=ODD, second=ODD)
def test_no_two_names_look_alike(first, second):
    """Two names that are shown alike are the same name."""
    assert (printable(first) == printable(second)) == (first == second)


@given(name=ODD)
def test_what_is_shown_is_harmless(name):
    """What is shown has no control characters, no line breaks and no surrogates: it is safe in logs, JSON and pages."""
    shown = printable(name)
    assert shown.isprintable()
    assert shown.encode("utf-8").decode("utf-8") == shown


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\\")))
def test_plain_text_means_itself(text):
    """A name without escapes, typed in any script, means its UTF-8 bytes."""
    assert unprintable(text) == text.encode()


@given(text=st.text(st.characters(codec="utf-8", categories=["L", "N"], exclude_characters="\\")))
def test_readable_names_are_shown_as_they_are(text):
    """Letters and digits of any script are shown as they are."""
    assert printable(text.encode()) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"M\xe9moire", r"M\xe9moire"),
        ("Mémoire".encode(), "Mémoire"),
        (b"a\\b", r"a\\b"),
        (b"tab\there", r"tab\x09here"),
        ("left\u202eright".encode(), r"left\xe2\x80\xaeright"),
        (b"\xed\xb3\xa9", r"\xed\xb3\xa9"),
        (b"", ""),
    ],
)
def test_known_names(name, shown):
    """The forms that the documentation names."""
    assert printable(name) == shown
    assert unprintable(shown) == name


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        (r"a\b", b"a\\b"),
        (r"a\xzz", b"a\\xzz"),
        ("a\\", b"a\\"),
        (r"a\x4", b"a\\x4"),
        (r"a\XE9", b"a\\XE9"),
        (r"a\xE9", b"a\xe9"),
        ("M\udce9moire", b"M\xe9moire"),
    ],
)
def test_typed_carelessly(typed, name):
    """A backslash that begins no escape means itself; what a shell hands over as undecodable bytes is taken, too."""
    assert unprintable(typed) == name


@pytest.mark.parametrize("name", [b"flight", b"n" * 249, b"n" * 255, ("\u00e9" * 127).encode(), b"\xe9" * 255])
def test_names_of_rounds_fit_on_disk(name):
    """Every round has a name of its own that a disk takes, readable where the folder's is."""
    assert round_name(name, 1) == name
    names = [round_name(name, 2), round_name(name, 10), round_name(name[:-1] + b"x", 2)]
    assert len(set(names)) == 3
    assert all(len(one) <= 255 and b".round" in one for one in names)
    if name != b"\xe9" * 255:
        names[0].decode("utf-8")
    if len(name) < 240:
        assert names[0] == name + b".round2"
