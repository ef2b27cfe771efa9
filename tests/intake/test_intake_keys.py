"""The keys of images in the bucket."""

import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix4d_watcher.intake.keys import MAX_KEY, give_keys

_part = st.one_of(
    st.binary(min_size=1, max_size=255),
    st.sampled_from([b"DJI_0001", b"dji_0001", b"100MEDIA", b"a b", "é".encode(), b"e\xe9", b".", b"..x", b"x" * 255]),
).map(lambda part: part.replace(b"/", b"_").replace(b"\0", b"_"))
_path = st.tuples(st.lists(_part, max_size=6), _part, st.sampled_from([b".JPG", b".jpg", b".TIFF", b""])).map(
    lambda path: b"/".join([*path[0], path[1][: 255 - len(path[2])] + path[2]])
)
_paths = st.lists(_path, max_size=25, unique=True)


def bases(keys):
    return [key.rpartition("/")[2].lower() for key in keys]


@settings(max_examples=300, deadline=None)
@given(_paths, _paths)
def test_keys_are_unique_safe_and_stable(paths, later):
    """Base names are unique ignoring case, only safe characters occur, lengths are bounded, suffixes are kept."""
    keys = give_keys(paths)
    assert keys == give_keys(list(reversed(paths)))
    more = give_keys([path for path in later if path not in keys], taken=keys.values())
    together = [*keys.values(), *more.values()]
    assert len(set(bases(together))) == len(together)
    for path, key in {**keys, **more}.items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", key)
        assert not any(part.startswith(".") for part in key.split("/"))
        assert len(key) <= MAX_KEY
        suffix = os.path.splitext(path.rpartition(b"/")[2])[1].decode("utf-8", "surrogateescape")  # noqa: PTH122
        if suffix in {".JPG", ".jpg", ".TIFF"}:
            assert key.endswith(suffix)


def test_ordinary_paths_stay_as_they_are():
    """What needs no change is not changed."""
    paths = [b"DCIM/100MEDIA/DJI_0001.JPG", b"DCIM/100MEDIA/DJI_0002.JPG", b"plan.tif"]
    assert give_keys(paths) == {path: path.decode() for path in paths}


def test_same_name_in_two_directories():
    """The second image is prefixed with its directory, and what still collides is numbered."""
    paths = [b"100MEDIA/DJI_0001.JPG", b"101MEDIA/DJI_0001.JPG", b"x/101MEDIA/dji_0001.jpg", b"y/101MEDIA/DJI_0001.JPG"]
    assert list(give_keys(paths).values()) == [
        "100MEDIA/DJI_0001.JPG",
        "101MEDIA/101MEDIA_DJI_0001.JPG",
        "x/101MEDIA/101MEDIA_dji_0001_2.jpg",
        "y/101MEDIA/101MEDIA_DJI_0001_3.JPG",
    ]


def test_names_that_are_reduced_to_the_same():
    """Umlauts, spaces and bytes that are no UTF-8 become underscores, and stay apart."""
    keys = give_keys([b"M\xe9moire/\xc3\xa9.jpg", b"M\xe9moire/ .jpg", b"M\xe9moire/\xff.jpg"])
    assert sorted(keys.values()) == ["M_moire/M_moire__.jpg", "M_moire/M_moire___2.jpg", "M_moire/_.jpg"]


def test_late_images_do_not_move_earlier_keys():
    """Keys that were given count as taken, also with another case and in another directory."""
    first = give_keys([b"b/DJI_0001.JPG"])
    assert give_keys([b"a/dji_0001.jpg"], taken=first.values()) == {b"a/dji_0001.jpg": "a/a_dji_0001.jpg"}


@pytest.mark.parametrize("levels", [4, 300])
def test_long_paths_are_shortened(levels):
    """A path beyond the limit of S3 keeps its base name; its directories become one hash."""
    path = b"/".join([b"d" * 255] * levels)
    keys = give_keys([path + b"/a/x.JPG", path + b"/b/y.JPG"])
    short, other = keys.values()
    assert (len(short), short.endswith("/x.JPG")) == (38, True)
    assert short.split("/")[0] != other.split("/")[0]


def test_many_equal_names_are_numbered_quickly():
    """Thousands of names that are reduced to the same are numbered, in order."""
    paths = [b"d/%b.jpg" % chr(0x4E00 + number).encode() for number in range(4000)]
    keys = give_keys(paths)
    assert len(set(bases(keys.values()))) == 4000
    assert keys[max(paths)] == "d/d___3999.jpg"
