"""Answers are read tolerantly, and refused only where something is missing that we cannot do without."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix4d_watcher.cloud.answers import (
    FALLBACK_LIFETIME,
    merge_outputs,
    parse_grant,
    parse_outputs,
    parse_project,
    safe_name,
)
from pix4d_watcher.core.errors import Unanswered

GRANT = {
    "access_key": "AKIDEXAMPLE",
    "secret_key": "SECRETEXAMPLE",
    "session_token": "TOKENEXAMPLE",
    "expiration": "2021-05-10T21:55:47Z",
    "server_time": "2021-05-10T09:55:47.357641+00:00",
    "bucket": "prod-pix4d-cloud-default",
    "key": "user-1/project-2/",
    "region": "us-west-2",
}


def grant(**changes):
    """Parse the guide's sample with changes; None takes a field away."""
    fields = {name: value for name, value in (GRANT | changes).items() if value is not None}
    return parse_grant(fields, "S3 credentials", now=1620640547.0)


def test_the_guides_grant():
    """Lifetime and skew come from the service's own two times, whatever our clock says."""
    parsed = grant()
    assert round(parsed.expires_in) == 12 * 3600
    assert round(parsed.skew) == 1620640547 - 1620640547
    assert (parsed.bucket, parsed.prefix, parsed.region) == (GRANT["bucket"], "user-1/project-2", "us-west-2")
    assert (parsed.endpoint_override, parsed.accelerated) == (None, False)


def test_a_grant_shows_no_secret():
    """Neither repr nor str of a grant hold its keys."""
    assert "EXAMPLE" not in f"{grant()!r} {grant()}"


@pytest.mark.parametrize(
    "changes",
    [
        {"server_time": None},
        {"expiration": None},
        {"expiration": "never"},
        {"server_time": "2021-05-19T09:55:47Z"},
        {"expiration": "2031-05-10T21:55:47Z"},
    ],
)
def test_absurd_times(changes):
    """Where the two times make no sense, an hour is assumed."""
    assert grant(**changes).expires_in == FALLBACK_LIFETIME


def test_a_clock_of_another_age():
    """A time that no clock has is none: nothing is corrected by it."""
    for year in ("0001", "1970", "9999"):
        assert grant(server_time=f"{year}-12-31T23:59:59Z").skew == 0.0


def test_other_forms_of_times():
    """Offsets count, and a time without a zone is UTC."""
    assert grant(expiration="2021-05-10T09:55:49", server_time="2021-05-10T11:55:47+02:00").expires_in == 2.0


def test_optional_fields_of_a_grant():
    """Region, override and acceleration may be absent, empty or odd."""
    assert grant(region=None).region == "us-east-1"
    assert grant(endpoint_override="").endpoint_override is None
    assert grant(endpoint_override="s3.example.com").endpoint_override == "s3.example.com"
    assert grant(is_bucket_accelerated="True").accelerated
    assert not grant(is_bucket_accelerated=False).accelerated


@pytest.mark.parametrize(
    "changes",
    [
        {"access_key": None},
        {"key": None},
        {"bucket": ""},
        {"session_token": "a\r\nHost: b"},
        {"region": "eu\r\nx: y"},
        {"region": "eu\u2011central\u20111"},
        {"region": "eu.evil.test/"},
        {"endpoint_override": "ht\ntp://s3.test"},
        {"endpoint_override": "clöud.test"},
    ],
)
def test_an_unusable_grant(changes):
    """Without keys, a region and an address that fit into headers, hosts and signatures there is no answer."""
    with pytest.raises(Unanswered):
        grant(**changes)


PROJECT = {
    "id": "883349",
    "name": "a",
    "bucket_name": "b",
    "s3_base_path": "user-1/project-883349",
    "image_count": "10",
    "public_status": "PROCESSING",
    "last_datetime_processing_started": "2021-05-19T10:58:10.514800Z",
    "last_datetime_processing_ended": None,
    "s3_bucket_region": "us-east-1",
    "outputs": {
        "mesh": {"texture_res": {}},
        "images": {
            "project_thumb": {"status": "processed", "name": "t.jpg", "s3_key": "p/thumb/t.jpg", "s3_bucket": "b"},
            "reflectance": {},
        },
        "map": {"layers": {}, "bounds": {"sw": [0, 0], "ne": [0, 0]}},
        "bundles": {"inputs": {"status": "requestable", "request_url": "https://x/zip/"}},
        "reports": {},
    },
}


def test_the_guides_project():
    """Numbers may be texts; outputs are the leaves of the tree."""
    project = parse_project(PROJECT, "x", created=True)
    assert (project.id, project.image_count, project.status) == (883349, 10, "PROCESSING")
    assert project.processing_started == "2021-05-19T10:58:10.514800Z"
    assert (project.processing_ended, project.has_processing_started) == (None, True)
    found = [(output.kind, output.name, output.key, output.availability) for output in project.outputs]
    assert found == [("project_thumb", "t.jpg", "p/thumb/t.jpg", "done"), ("inputs", "inputs", "", "requestable")]
    assert project.outputs[0].region == "us-east-1"


def test_a_bare_project():
    """A project that only has an id is one; what is not said is empty and known to be unsaid."""
    project = parse_project({"id": 1, "outputs": None, "image_count": "many", "name": ["odd"]}, "x")
    assert (project.name, project.image_count, project.status, project.outputs) == ("", None, "", ())
    assert not project.has_processing_started


@pytest.mark.parametrize("value", [None, [], "text", {}, {"id": None}, {"id": True}, {"id": "x"}])
def test_no_project(value):
    """Without an id there is no answer."""
    with pytest.raises(Unanswered):
        parse_project(value, "x")


def test_half_characters_and_mad_numbers():
    """What no journal could hold does not get as far: lone surrogates, numbers beyond 64 bits, endless nesting."""
    nested = {"s3_key": "k"}
    for _ in range(500):
        nested = {"a": nested}
    found = parse_project({"id": 1, "name": "a\ud800", "image_count": 2**63, "outputs": nested}, "x")
    assert (found.name, found.image_count, found.outputs) == ("a?", None, ())


@pytest.mark.parametrize("missing", ["bucket_name", "s3_base_path"])
def test_a_created_project_has_its_bucket(missing):
    """Without a place to upload to a creation is not answered."""
    with pytest.raises(Unanswered):
        parse_project(PROJECT | {missing: ""}, "x", created=True)


def test_listed_outputs():
    """The same object under two types is one output; what is not done may lack nearly everything."""
    listed = parse_outputs(
        {
            "outputs": [
                {"result_type": "project_zip", "output_type": "project_zip", "availability": "in_progress"},
                {"output_type": "project_zip", "availability": "done", "s3_key": "p/a.zip", "output_id": 7},
                {"output_type": "mapper_log", "availability": "done", "s3_key": "p/a.zip", "output_id": 7},
                {"output_type": "dsm", "availability": "not available"},
                {"output_type": "ortho", "availability": "done"},
                "odd",
                {},
            ]
        },
        "x",
    )
    assert [(output.ident, output.availability) for output in listed] == [
        ("project_zip", "in_progress"),
        ("7", "done"),
        ("dsm", "not available"),
        ("ortho", "not available"),
    ]


@pytest.mark.parametrize("key", ["p/a.tif ", " p/a.tif", "p/a.tif\n", "p/ "])
def test_keys_of_outputs_are_taken_as_they_are(key):
    """Blanks belong to a key, in the project and in the list: without them another object, or none, would be meant."""
    (shown,) = parse_project(PROJECT | {"outputs": {"a": {"s3_key": key, "status": "processed"}}}, "x").outputs
    (listed,) = parse_outputs([{"output_type": "dsm", "availability": "done", "s3_key": key}], "x")
    assert (shown.key, listed.key) == (key, key)
    assert not set(" \n/") & set(shown.name)


@pytest.mark.parametrize("region", ["eu\r\nx: y", "eu\u2011central\u20111", "", None, ["eu-west-1"]])
def test_outputs_in_no_region(region):
    """An output of a region that is none is looked for in its project's, or in that of the credentials."""
    leaf = {"a": {"s3_key": "k", "s3_bucket": "b", "status": "processed", "s3_region": region}}
    assert parse_project(PROJECT | {"outputs": leaf}, "x").outputs[0].region == "us-east-1"
    assert parse_project(PROJECT | {"outputs": leaf, "s3_bucket_region": region}, "x").outputs[0].region is None
    (listed,) = parse_outputs([{"output_id": 1, "s3_key": "k", "s3_region": region}], "x")
    assert listed.region is None


def test_outputs_of_both_sources_are_merged():
    """What the project and the outputs endpoint both show is one output, done if either says so."""
    listed = parse_outputs([{"output_id": 1, "availability": "in_progress", "s3_key": "k", "s3_bucket": "b"}], "x")
    shown = parse_project(PROJECT | {"outputs": {"a": {"s3_key": "k", "s3_bucket": "b", "status": "processed"}}}, "x")
    (merged,) = merge_outputs(listed, shown.outputs)
    assert merged.availability == "done"


def test_no_list_of_outputs():
    """An answer without a list is none."""
    with pytest.raises(Unanswered):
        parse_outputs({"detail": "?"}, "x")


@pytest.mark.parametrize(
    ("candidate", "name"),
    [
        ("user-1/p/3_dsm/ortho.tif", "ortho.tif"),
        ("..", "output"),
        ("a/../..", "output"),
        ("C:\\x\\y.tif", "y.tif"),
        (".complete", "complete"),
        ("a\nb\0c.tif", "a_b_c.tif"),
        ("Ortho Ä (1).tif", "Ortho Ä (1).tif"),
        ("dir/", "dir"),
        ("", "output"),
    ],
)
def test_names_of_files(candidate, name):
    """A name from the cloud becomes a plain base name."""
    assert safe_name(candidate) == name


@given(st.text(max_size=400))
def test_any_name_is_safe(candidate):
    """No text makes a path, an empty or hidden name, or one that a file system refuses."""
    name = safe_name(candidate)
    assert name
    assert not name.startswith(".")
    assert not set("/\\\0\n") & set(name)
    assert len(name.encode()) <= 200
