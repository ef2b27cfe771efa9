"""Durations and sizes as people write them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix4d_watcher.config.units import (
    DURATION_PATTERN,
    LONGEST_S,
    SIZE_PATTERN,
    parse_duration,
    parse_size,
    show_duration,
    show_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("60s", 60),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        ("1h 30 min", 5400),
        ("1.5h", 5400),
        (" 90 seconds ", 90),
        ("2 days", 172800),
    ],
)
def test_durations_are_read_as_people_write_them(text, seconds):
    """Numbers with units, also several in falling order, are seconds; the schema's pattern agrees."""
    assert parse_duration(text) == seconds
    assert re.search(DURATION_PATTERN, text.strip())


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (60, "60 what? write 60s"),
        (2.5, "2.5 what? write 2.5s"),
        ("60", "60 what? write 60s"),
        (-5, "-5 what? write 5s"),
        ("", "is empty"),
        ("0s", "longer than zero"),
        ("0.1ms", "longer than zero"),
        ("-5s", "is no duration"),
        ("5x", "is no duration"),
        ("5m tomorrow", "is no duration"),
        ("30m1h", "larger units come first"),
        ("1h1h", "larger units come first"),
        ("11y", "is no duration"),
        ("4000d", "longer than ten years"),
        (True, "is no duration"),
        (None, "is no duration"),
        (["60s"], "is no duration"),
    ],
)
def test_what_is_no_duration_is_refused_with_a_hint(value, hint):
    """Bare numbers, zero, mixed order and nonsense are refused with what to write."""
    with pytest.raises(ValueError, match=re.escape(hint)):
        parse_duration(value)


@given(st.integers(min_value=1, max_value=int(LONGEST_S) * 1000))
def test_a_shown_duration_reads_back(milliseconds):
    """Whatever is shown can be written into the file again, to the millisecond."""
    assert round(parse_duration(show_duration(milliseconds / 1000)) * 1000) == milliseconds


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("32MiB", 32 * 2**20),
        ("8MB", 8_000_000),
        ("500k", 500_000),
        ("500 kB", 500_000),
        ("1.5GiB", 3 * 2**29),
        ("10mib", 10 * 2**20),
        ("17", 17),
        ("17B", 17),
        (33554432, 33554432),
    ],
)
def test_sizes_are_read_as_people_write_them(value, size):
    """Powers of 1000 and of 1024 are told apart, whole numbers are bytes; the schema's pattern agrees."""
    assert parse_size(value) == size
    assert not isinstance(value, str) or re.search(SIZE_PATTERN, value)


@pytest.mark.parametrize("value", ["", "MiB", "8 apples", "-1", "8MBit", True, None, 1.5, -1, "9999999TB"])
def test_what_is_no_size_is_refused(value):
    """Negative, unit-only, unknown and unheard-of sizes are refused."""
    with pytest.raises(ValueError, match=r"is no size|larger than any file"):
        parse_size(value)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_shown_size_reads_back(size):
    """Whatever is shown can be written into the file again."""
    assert parse_size(show_size(size)) == size
    assert show_size(32 * 2**20) == "32MiB"
