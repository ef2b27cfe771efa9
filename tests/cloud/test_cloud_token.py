"""The token: fetched in a body, renewed in time, by one thread at a time."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cloud_kit import WAIT, make_rest

from pix4d_watcher.core import errors


def tokens(emulator):
    return emulator.ledger()["requests"].get("token", 0)


def test_secret_travels_in_the_body_only(raw_server, monkeypatch, tmp_path):
    """Neither address nor headers hold id or secret, and a .netrc of the account changes nothing."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    heard = []

    def story(visitor, _number):
        heard.append(visitor.request())
        answers = (
            b'{"access_token": "t0k3n", "expires_in": 60}',
            b'{"id": 1, "bucket_name": "b", "s3_base_path": "p"}',
        )
        visitor.answer(200, answers[len(heard) - 1], "Connection: close")

    api = make_rest(f"http://127.0.0.1:{raw_server(story)}", client_id="me&you", client_secret="s3cr3t=")
    assert not api.token.obtained
    api.create("a", {"project_type": "pro"})
    assert api.token.obtained
    (token_head, token_body), (create_head, create_body) = heard
    assert token_head.startswith(b"POST /oauth2/token/ HTTP/1.1\r\n")
    assert b"s3cr3t" not in token_head
    assert b"Authorization" not in token_head
    assert token_body == (b"grant_type=client_credentials&client_id=me%26you&client_secret=s3cr3t%3D&token_format=jwt")
    assert b"\r\nAuthorization: Bearer t0k3n\r\n" in create_head
    assert json.loads(create_body) == {"name": "a", "project_type": "pro"}
    assert "t0k3n" not in f"{api!r} {api.token!r} {vars(api)!r}"


def test_short_lifetimes(emulator, rest):
    """Tokens of two seconds do, over as many calls as it takes."""
    emulator.change(token_lifetime=2.0)
    number = rest.create("a", {}).id
    pause = threading.Event()
    for _ in range(8):
        assert rest.project(number).id == number
        pause.wait(0.3)
    assert tokens(emulator) >= 2


@pytest.mark.parametrize(("lifetime", "renewed"), [(100.0, 90.0), (36_000.0, 35_940.0), (172_800.0, 172_740.0)])
def test_renewal_comes_before_the_end(emulator, rest, lifetime, renewed):
    """A tenth of the lifetime early, a minute at most, on the monotonic clock."""
    emulator.change(token_lifetime=lifetime)
    before = time.monotonic()
    value = rest.token.value()
    assert before + renewed <= rest.token._renew_at <= time.monotonic() + renewed
    assert rest.token.value() == value
    rest.token._renew_at = time.monotonic()
    assert rest.token.value() != value


def test_a_refused_token_is_renewed_once(emulator, rest, project):
    """A 401 fetches another token and repeats the request; the effect happens once."""
    emulator.expire("token")
    rest.create("b", {})
    assert tokens(emulator) == 2
    assert len(emulator.ledger()["projects"]) == 2


def test_a_token_refused_twice(emulator, rest, project):
    """A fresh token that is refused as well is an error for a person, after two requests."""
    emulator.faults.add({"op": "project", "do": "status", "code": 401, "times": None})
    with pytest.raises(errors.AuthRefused):
        rest.project(project.id)
    assert emulator.ledger()["requests"]["project"] == 2


def test_one_renewal_for_many_threads(emulator, rest, project):
    """Eight threads whose token is refused at once fetch one new one."""
    emulator.expire("token")
    before = tokens(emulator)
    with ThreadPoolExecutor(8) as pool:
        assert {found.id for found in pool.map(rest.project, [project.id] * 8)} == {project.id}
    assert tokens(emulator) == before + 1


def test_a_wrong_secret(emulator):
    """A refused secret says what to check, and does not show it."""
    api = make_rest(emulator.url, client_secret="hunter2hunter2")
    with pytest.raises(errors.AuthRefused, match="client_secret") as caught:
        api.create("a", {})
    assert "hunter2" not in f"{caught.value} {caught.value.words} {caught.value!r} {caught.value.__cause__!r}"
    assert not api.token.obtained


@pytest.mark.parametrize(
    "trouble", [{"do": "drop_after"}, {"do": "html"}, {"do": "not_json"}, {"do": "status", "code": 502}]
)
def test_no_token_means_nothing_was_sent(emulator, rest, trouble):
    """Whatever happens to the token's request, the effect behind it was surely not sent."""
    emulator.faults.add({"op": "token", **trouble})
    with pytest.raises(errors.NotSent):
        rest.create("a", {})
    assert emulator.ledger()["requests"].get("create", 0) == 0


def test_a_login_page_is_no_word_about_the_secret(raw_server):
    """A page that answers 401 in the place of the service refuses no secret: nothing was sent, look at the network."""

    def story(visitor, _number):
        visitor.request()
        visitor.answer(401, b"<html><title>Log in</title></html>", "Content-Type: text/html")

    with pytest.raises(errors.NotSent, match="log in to this network"):
        make_rest(f"http://127.0.0.1:{raw_server(story)}").token.value()


def test_those_who_wait_share_the_failure(raw_server):
    """While a silent service is asked for a token, all who wait fail with that question, and ask none of their own."""
    heard, go = [], threading.Event()

    def story(visitor, _number):
        heard.append(visitor.request())
        go.wait(WAIT)
        visitor.reset()

    api = make_rest(f"http://127.0.0.1:{raw_server(story)}")

    come = api.token._together.come

    def come_and_tell():
        come()
        waiting.append(None)

    api.token._together.come = come_and_tell

    def ask():
        with pytest.raises(errors.NotSent) as caught:
            api.token.value()
        return str(caught.value)

    waiting = []
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask) for _ in range(6)]
        end = time.monotonic() + WAIT
        while (len(waiting) < 6 or not heard) and time.monotonic() < end:
            time.sleep(0.01)
        go.set()
        assert len({future.result() for future in asked}) == 1
    assert len(heard) == 1
    with pytest.raises(errors.NotSent):
        api.token.value()
    assert len(heard) == 2, "whoever comes later asks anew"


def test_a_throttled_token(emulator, rest):
    """A 429 for the token keeps its pause."""
    emulator.faults.add({"op": "token", "do": "status", "code": 429, "headers": {"Retry-After": "9"}})
    with pytest.raises(errors.Throttled) as caught:
        rest.create("a", {})
    assert caught.value.retry_after == 9.0


def test_a_token_that_no_header_can_carry(raw_server):
    """A token with a line break is not used."""

    def story(visitor, _number):
        visitor.request()
        visitor.answer(200, b'{"access_token": "a\\r\\nX: y"}')

    with pytest.raises(errors.NotSent):
        make_rest(f"http://127.0.0.1:{raw_server(story)}").token.value()
