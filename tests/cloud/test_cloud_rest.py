"""The API: each call is sent once, and its answer or its error says what happened."""

import itertools
import json
import socket
import threading

import pytest
from cloud_kit import make_rest

from pix4d_watcher.cloud import call, session
from pix4d_watcher.cloud import rest as rest_module
from pix4d_watcher.core import errors


@pytest.fixture
def upload(project, bucket, line, source):
    """Upload a small image to the project and return its key."""

    def put(name="a.jpg"):
        image = source(name.encode())
        bucket.put(line, f"{project.prefix}/{name}", image.range(), image.sha256)
        return f"{project.prefix}/{name}"

    return put


def test_a_whole_life(emulator, rest, project, upload):
    """Create, upload, register, start, and the outputs of both sources, as the guide says."""
    emulator.change(processing_seconds=0.0)
    keys = [upload(f"{number}.jpg") for number in range(3)]
    assert rest.register(project.id, keys) == 3
    assert rest.project(project.id).image_count == 3
    assert rest.project(project.id).processing_started is None
    rest.start(project.id, None)
    done = rest.project(project.id)
    assert (done.status, done.has_processing_started) == ("DONE", True)
    assert done.processing_started
    listed = rest.outputs(project.id)
    both = rest_module.merge_outputs(listed, done.outputs)
    assert {output.key for output in both if output.availability == "done"}
    assert len({output.key for output in both if output.key}) == len([output for output in both if output.key])
    (seen,) = emulator.ledger()["projects"]
    assert (seen["starts"], seen["start_bodies"], seen["create_fields"]) == (1, [None], {})


def test_fields_pass_as_they_are(emulator, rest):
    """Extra fields of a creation reach the service unchanged."""
    rest.create("a", {"project_type": "pro", "odd": [1, None]})
    (seen,) = emulator.ledger()["projects"]
    assert (seen["name"], seen["create_fields"]) == ("a", {"project_type": "pro", "odd": [1, None]})


@pytest.mark.parametrize(
    ("trouble", "applied"),
    [
        ({"do": "drop_before"}, 0),
        ({"do": "drop_after"}, 1),
        ({"do": "cut", "bytes": 10}, 1),
        ({"do": "not_json"}, 1),
        ({"do": "html"}, 0),
        ({"do": "status", "code": 504}, 0),
        ({"do": "status_after", "code": 500}, 1),
    ],
)
def test_an_effect_is_sent_once(emulator, rest, trouble, applied):
    """Whatever breaks around it, creating is asked for once, and what is not known is Unanswered."""
    rest.token.value()
    emulator.faults.add({"op": "create", **trouble})
    with pytest.raises(errors.Unanswered):
        rest.create("a", {})
    ledger = emulator.ledger()
    assert (ledger["requests"]["create"], len(ledger["projects"])) == (1, applied)


def test_effects_use_fresh_connections(emulator, rest, project):
    """Reads keep their connection, every effect gets its own."""
    rest.project(project.id)
    before = emulator.ledger()["connections"]
    for _ in range(3):
        rest.project(project.id)
    assert emulator.ledger()["connections"] == before
    for _ in range(3):
        rest.create("b", {})
        rest.project(project.id)
    assert emulator.ledger()["connections"] == before + 3


def scripted(raw_server, *answers, heard=None):
    """Serve a token, then the answers in turn (the last one again and again): (status, body, headers…)."""
    turns = itertools.chain(answers, itertools.repeat(answers[-1]))

    def story(visitor, _number):
        while request := visitor.request():
            head, body = request
            if not head:
                return
            if head.startswith(b"POST /oauth2/"):
                visitor.answer(200, b'{"access_token": "t"}')
                continue
            if heard is not None:
                heard.append((head, body))
            visitor.answer(*next(turns))

    return make_rest(f"http://127.0.0.1:{raw_server(story)}")


def test_start_without_a_body_has_none(raw_server):
    """As in the guide's own example: no body, no content type."""
    heard = []
    scripted(raw_server, (204,), heard=heard).start(7, None)
    (head, body), *_ = heard
    assert head.startswith(b"POST /project/api/v3/projects/7/start_processing/ HTTP/1.1\r\n")
    assert (body, b"content-type" in head.lower(), b"content-length: 0" in head.lower()) == (b"", False, True)


def test_start_with_a_body(raw_server):
    """A given body is sent as JSON, verbatim."""
    heard = []
    scripted(raw_server, (200, b"{}"), heard=heard).start(7, {"custom_template_s3_key": "a/b"})
    assert json.loads(heard[0][1]) == {"custom_template_s3_key": "a/b"}


@pytest.mark.parametrize("target", ["https://elsewhere.test/x?token=s3cr3t", "/project/api/v4/projects/"])
def test_a_post_is_never_redirected(raw_server, target):
    """A redirect of an effect is refused, names the target without its query, and is not followed."""
    heard = []
    api = scripted(raw_server, (302, b"", f"Location: {target}"), heard=heard)
    with pytest.raises(errors.Refused, match=target.partition("?")[0]) as caught:
        api.create("a", {})
    assert "s3cr3t" not in str(caught.value)
    assert len(heard) == 1


@pytest.mark.parametrize("body", [b"{}", b'{"id": 5}', b'{"id": 5, "bucket_name": "b"}', b"[]", b"null", b""])
def test_a_creation_without_its_facts(raw_server, body):
    """A 2xx without id or bucket may have created something."""
    with pytest.raises(errors.Unanswered):
        scripted(raw_server, (201, body)).create("a", {})


@pytest.mark.parametrize(
    ("body", "count"), [(b"{}", None), (b"", None), (b"[]", None), (b'{"nb_images_registered": "2"}', 2)]
)
def test_registering_without_a_count(raw_server, body, count):
    """A 2xx means registered, also where the count is missing or a text."""
    assert scripted(raw_server, (200, body)).register(7, ["a", "b"]) == count


def test_registering_html(raw_server):
    """A login page is no registration."""
    with pytest.raises(errors.Unanswered):
        scripted(raw_server, (200, b"<html>")).register(7, ["a"])


def test_refusals(emulator, rest, project):
    """The service's own words come along."""
    with pytest.raises(errors.Refused, match="no images") as caught:
        rest.start(project.id, None)
    assert (caught.value.status, caught.value.words) == (400, "The project has no images.")
    with pytest.raises(errors.NotThere):
        rest.project(project.id + 1)
    emulator.change(max_register=1)
    with pytest.raises(errors.Refused) as caught:
        rest.register(project.id, [f"{project.prefix}/a", f"{project.prefix}/b"])
    assert (type(caught.value), caught.value.status) == (errors.Refused, 413)


def test_no_credit(emulator, rest, project, upload):
    """An account without credits is told from other refusals."""
    rest.register(project.id, [upload()])
    emulator.change(credits_refuse=True)
    with pytest.raises(errors.NoCredit):
        rest.start(project.id, None)


def test_an_endless_answer(raw_server, monkeypatch):
    """An answer beyond the bound is not read."""
    monkeypatch.setattr(call, "MOST_BYTES", 100_000)
    with pytest.raises(errors.Unanswered, match="longer than"):
        scripted(raw_server, (200, b" " * 200_000)).project(7)


@pytest.mark.parametrize(
    ("begin", "more"), [(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" "), (b"HTTP/1.1 200 OK\r\nX: ", b"x")]
)
def test_a_trickling_answer(raw_server, begin, more):
    """Bytes that keep coming do not keep a call for ever, in the body or in the head."""

    def story(visitor, _number):
        visitor.head()
        visitor.say(begin)
        while True:
            visitor.say(more)
            visitor.sock.settimeout(0.05)
            try:
                visitor.body(1)
            except TimeoutError:
                continue
            return

    with pytest.raises(errors.Unanswered, match="trickles"):
        make_rest(f"http://127.0.0.1:{raw_server(story)}", timeout=2.0).ping()


def test_outputs_without_their_endpoint(emulator, rest, project):
    """The endpoint is not in the guide: its absence is no error."""
    emulator.change(outputs_endpoint="off")
    assert rest.outputs(project.id) is None


@pytest.mark.parametrize("listing", ["on", "paged"])
def test_finding_our_project(emulator, rest, project, listing):
    """The marker is found on any page; what is not there is known only from a list that holds a known project."""
    emulator.change(project_list=listing, page_size=2)
    others = [rest.create(f"other {number}", {}).id for number in range(5)]
    (match,) = rest.find_projects("m4rk3r", known=others).matches
    assert (match.id, match.name) == (project.id, "field 7 [m4rk3r]")
    absent = rest.find_projects("n0b0dy", known=[project.id])
    assert (absent.matches, absent.read_to_end, absent.saw_known) == ((), True, True)
    assert not rest.find_projects("n0b0dy", known=[-1]).saw_known


@pytest.mark.parametrize(
    "trouble",
    [{"code": 404}, {"code": 403}, {"code": 405}, {"code": 500}, {"code": 503}, {"code": 200, "body": '{"a": 1}'}],
)
def test_a_list_that_cannot_be_read(emulator, rest, project, trouble):
    """A list that is refused, broken or of another shape is one that was not read to its end."""
    emulator.faults.add({"op": "list", "do": "status", **trouble})
    found = rest.find_projects("m4rk3r", known=[project.id])
    assert (found.matches, found.read_to_end, found.saw_known) == ((), False, False)


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        ({"do": "drop_before"}, errors.Unanswered),
        ({"do": "html"}, errors.Unanswered),
        ({"do": "status", "code": 429}, errors.Throttled),
        ({"do": "status", "code": 401, "times": 2}, errors.AuthRefused),
    ],
)
def test_a_list_that_did_not_come(emulator, rest, project, trouble, kind):
    """A network that failed says nothing about the list: ask again later."""
    emulator.faults.add({"op": "list", **trouble})
    with pytest.raises(kind):
        rest.find_projects("m4rk3r", known=[project.id])


def test_a_plain_list(raw_server):
    """A list without pages is read to its end."""
    api = scripted(raw_server, (200, b'[{"id": 1, "display_name": "x [abc]"}, {"id": "2"}, 3, {"name": "[abc]"}]'))
    found = api.find_projects("abc", known=[2])
    assert ([match.id for match in found.matches], found.read_to_end, found.saw_known) == ([1], True, True)


@pytest.mark.parametrize("following", ["http://elsewhere.test/project/", "//elsewhere.test/", "http://[", "?page=1"])
def test_links_of_a_list(raw_server, following):
    """A link to another host or back to a page already read ends the reading, without an error."""
    heard = []
    page = json.dumps({"results": [{"id": 1, "name": "a"}], "next": following}).encode()
    found = scripted(raw_server, (200, page), heard=heard).find_projects("abc", known=[1])
    assert (found.read_to_end, found.saw_known) == (False, True)
    assert len(heard) <= 2


def test_relative_links_and_their_bound(raw_server, monkeypatch):
    """Relative links are followed, up to the bound."""
    monkeypatch.setattr(rest_module, "MOST_PAGES", 5)
    pages = [(200, json.dumps({"results": [], "next": f"?page={number}"}).encode()) for number in range(9)]
    heard = []
    assert not scripted(raw_server, *pages, heard=heard).find_projects("abc", known=[]).read_to_end
    assert [head.split()[1].partition(b"?")[2] for head, _ in heard] == [
        b"",
        b"page=0",
        b"page=1",
        b"page=2",
        b"page=3",
    ]


@pytest.mark.parametrize(
    ("answer", "alive"),
    [
        ((401, b'{"detail": "?"}'), True),
        ((404, b"<html>"), True),
        ((429, b""), True),
        ((301, b"", "Location: /elsewhere/"), True),
        ((302, b"", "Location: http://login.test/"), False),
        ((200, b"<html><title>Log in</title></html>"), False),
        ((407, b""), False),
        ((502, b"<html>"), False),
        ((511, b""), False),
    ],
)
def test_is_the_service_there(raw_server, answer, alive):
    """Any answer of the service counts, none of what lies between; no token is needed to ask."""
    api = scripted(raw_server, answer)
    if alive:
        api.ping()
    else:
        with pytest.raises(errors.Unanswered):
            api.ping()
    assert not api.token.obtained


def test_an_idle_connection_is_not_used_again(emulator, rest, project, monkeypatch):
    """After a while the next question goes out on a fresh connection: nobody tells us that an old one leads nowhere."""
    rest.project(project.id)
    before = emulator.ledger()["connections"]
    monkeypatch.setattr(session, "IDLE_SECONDS", 0.0)
    rest.project(project.id)
    assert emulator.ledger()["connections"] == before + 1


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"outputs":' * 400 + b"1" + b"}" * 400,
        b'{"id": 1180591620717411303424}',
        b'{"id": "\\ud800"}',
        b"9" * 10_000,
    ],
)
def test_mad_json(raw_server, body):
    """JSON that nothing could hold is no answer, and as the body of an error it is still one."""
    with pytest.raises(errors.Unanswered):
        scripted(raw_server, (200, body)).project(7)
    with pytest.raises(errors.Refused) as caught:
        scripted(raw_server, (400, body)).project(7)
    assert len(str(caught.value)) < 500


def test_ready(emulator, rest):
    """The API is ready where it answers and gives out tokens; a kept token is not asked for again."""
    emulator.faults.add({"op": "token", "do": "status", "code": 500})
    with pytest.raises(errors.NotSent):
        rest.ready()
    rest.ready()
    rest.ready()
    assert emulator.ledger()["requests"]["token"] == 2


def test_ready_in_spite_of_a_page(emulator, rest):
    """A page that refuses the list may be a firewall's: a new token is the proof that the service is there."""
    blocked = {"do": "status", "code": 403, "body": "<html>Blocked</html>", "content_type": "text/html", "times": None}
    rest.ready()
    emulator.faults.add({"op": "list", **blocked})
    rest.ready()
    assert emulator.ledger()["requests"]["token"] == 2
    emulator.faults.add({"op": "token", **blocked})
    with pytest.raises(errors.NotSent):
        rest.ready()


def test_signs_of_life(emulator):
    """Each request is a sign of life of its thread, that for the token too."""
    signs = []
    api = make_rest(emulator.url, alive=lambda: signs.append(threading.current_thread()))
    api.project(api.create("a", {}).id)
    assert signs == [threading.current_thread()] * 3
    api.close()


@pytest.mark.parametrize(
    ("addresses", "seconds", "each"), [(1, 60.0, 60.0), (4, 60.0, 15.0), (20, 60.0, 5.0), (9, 2, 2)]
)
def test_all_addresses_share_the_time(monkeypatch, addresses, seconds, each):
    """A host with many addresses that swallow everything takes no longer than one, but each has a fair chance."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))] * addresses
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_rest, **_more: found)
    assert session._share("cloud.test", 443, seconds) == each


def test_throttling(emulator, rest, project):
    """The pause that the service asks for is kept."""
    emulator.faults.add({"op": "project", "do": "status", "code": 429, "headers": {"Retry-After": "12"}})
    with pytest.raises(errors.Throttled) as caught:
        rest.project(project.id)
    assert caught.value.retry_after == 12.0
