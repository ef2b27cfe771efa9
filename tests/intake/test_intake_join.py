"""Grouping folders into missions, and several trees seen as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from intake_kit import put, scan

from pix4d_watcher.intake.join import Mission, await_parts, missions, union
from pix4d_watcher.intake.settle import Verdict

PATTERN = "{mission}_{part}"
DONE = Verdict(complete=True, why="9 images; quiet for 60 s", again_in=0.0)
READY = Verdict(complete=True, why="9 images; the ready marker is there", again_in=0.0, ready=True)


def tree_of(tmp_path, *names):
    """Make folders with an image each and see them as one."""
    for name in names:
        put(tmp_path / name, "DJI_0001.JPG")
    return union({name.encode(): scan(tmp_path / name) for name in names})


@pytest.mark.parametrize(
    ("pattern", "names", "found"),
    [
        (PATTERN, [b"harbour_1", b"harbour_2", b"pier"], {b"harbour": (b"harbour_1", b"harbour_2")}),
        (PATTERN, [b"a_b_10", b"a_b_9", b"a_1"], {b"a": (b"a_1",), b"a_b": (b"a_b_9", b"a_b_10")}),
        (PATTERN, [b"_1", b"harbour_", b"harbour_x", b"Harbour_1", b"harbour_1 "], {b"Harbour": (b"Harbour_1",)}),
        ("card{part} {mission}", [b"card1 north", b"card2 north"], {b"north": (b"card1 north", b"card2 north")}),
        ("{mission}.{part}", [b"m\xe9r.1", b"mXr1"], {b"m\xe9r": (b"m\xe9r.1",)}),
        (None, [b"harbour_1", b"harbour_2"], {}),
    ],
)
def test_pattern(pattern, names, found):
    """Names that match the pattern share a mission, in the order of their numbers; all else is left alone."""
    assert {mission.name: mission.members for mission in missions(names, pattern=pattern, lists={})} == found


def test_list():
    """A list wins over the pattern; its first folder names it, what is not there is missing, what is known is taken."""
    names = [b"a_1", b"b", b"c"]
    lists = {b"b": [b"a_1", b"b", b"d", b"old"]}
    (found,) = missions(names, pattern=PATTERN, lists=lists, taken=[b"old"])
    assert found == Mission(b"a_1", (b"a_1", b"b"), listed=True, missing=(b"d",), taken=(b"old",))


def test_lists_that_overlap():
    """Folders that list each other are one mission, and one that lists only itself is none."""
    lists = {b"a": [b"b"], b"b": [b"a"], b"c": [b"c"], b"d": [b"e"], b"f": [b"e"]}
    found = missions([b"a", b"b", b"c", b"d", b"e", b"f"], pattern=None, lists=lists)
    assert [mission.members for mission in found] == [(b"a", b"b"), (b"d", b"e", b"f")]


@given(
    st.sets(st.binary(min_size=1, max_size=4), max_size=8),
    st.dictionaries(st.binary(min_size=1, max_size=4), st.lists(st.binary(min_size=1, max_size=4), max_size=4)),
)
def test_each_folder_joins_once(names, lists):
    """Whatever is listed and called, no folder joins two missions, and only folders that are free join."""
    found = [member for mission in missions(sorted(names), pattern=PATTERN, lists=lists) for member in mission.members]
    assert len(found) == len(set(found))
    assert set(found) <= names


def test_union(tmp_path):
    """Several folders are seen as sub-folders of one; a marker in one holds all, and ready are they together only."""
    put(tmp_path / "a", "100MEDIA/DJI_0001.JPG")
    put(tmp_path / "a", "notes.txt")
    put(tmp_path / "a", ".ready")
    put(tmp_path / "b", "DJI_0001.JPG.part")
    put(tmp_path / "b", ".hold")
    trees = {name.encode(): scan(tmp_path / name, ready_file=".ready") for name in ("a", "b")}
    both = union(trees)
    assert [seen.path for seen in both.images] == [b"a/100MEDIA/DJI_0001.JPG"]
    assert both.not_images == (b"a/notes.txt", b"b/DJI_0001.JPG.part")
    assert both.temporary == (b"b/DJI_0001.JPG.part",)
    assert both.directories == (b"a", b"a/100MEDIA", b"b")
    assert (both.hold_marker, both.ready, union({b"a": trees[b"a"]}).ready) == (True, False, True)


def test_join_wait(tmp_path):
    """Complete folders of a pattern wait join_wait for more; a marker in each of two ends it, one alone does not."""
    one, two = Mission(b"m", (b"m_1",)), Mission(b"m", (b"m_1", b"m_2"))
    tree = tree_of(tmp_path, "m_1", "m_2")
    waits = await_parts(two, DONE, tree, 100.0, 600.0)
    assert (waits.complete, waits.again_in) == (False, 500.0)
    assert waits.why == "9 images in m_1 and m_2; complete, waits 600 s for further parts of m"
    assert await_parts(two, DONE, tree, 600.0, 600.0) == DONE
    assert await_parts(two, READY, tree, 0.0, 600.0) == READY
    assert not await_parts(one, READY, tree, 0.0, 600.0).complete


def test_list_waits_for_all(tmp_path):
    """Listed folders wait for those that are missing, empty or taken, and say which; with all there no longer."""
    tree = tree_of(tmp_path, "a", "b")
    whole = Mission(b"a", (b"a", b"b"), listed=True)
    assert await_parts(whole, DONE, tree, 0.0, 600.0) == DONE
    for mission, words in (
        (Mission(b"a", (b"a",), listed=True, missing=(b"c",)), "waits for c, which"),
        (Mission(b"a", (b"a",), listed=True, taken=(b"c",)), "lists c under"),
        (Mission(b"a", (b"a", b"c"), listed=True), "waits for images in c"),
    ):
        verdict = await_parts(mission, READY, tree, 1e9, 600.0)
        assert (verdict.complete, verdict.again_in) == (False, None)
        assert words in verdict.why
