"""HTTP and sockets become the errors of `core.errors`."""

import socket
import time
from email.utils import formatdate

import pytest
import requests
from cloud_kit import WAIT, make_rest

from pix4d_watcher.cloud import faults
from pix4d_watcher.core import errors


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (301, b"", errors.Refused),
        (400, b'{"name": ["This field is required."]}', errors.Refused),
        (400, b'{"detail": "You have no credits left."}', errors.NoCredit),
        (401, b'{"detail": "Token has expired."}', errors.AuthRefused),
        (402, b"", errors.NoCredit),
        (403, b'{"detail": "Authentication credentials were not provided."}', errors.AuthRefused),
        (403, b'{"detail": "You do not have permission to perform this action."}', errors.Refused),
        (404, b'{"detail": "Not found."}', errors.NotThere),
        (407, b"<html><title>Who are you?</title></html>", errors.NotSent),
        (408, b"", errors.Unanswered),
        (409, b"", errors.Conflict),
        (412, b"", errors.Conflict),
        (413, b"<html><title>413 Request Entity Too Large</title></html>", errors.Refused),
        (429, b"", errors.Throttled),
        (500, b"", errors.Unanswered),
        (502, b"<html><head><title>502 Bad Gateway</title></head></html>", errors.Unanswered),
        (503, b"", errors.Unanswered),
    ],
)
def test_rest_answers(status, body, kind):
    """Each REST status is one error, which keeps the status."""
    error = faults.from_rest(status, {}, body, "Creating project 'a'")
    assert (type(error), error.status) == (kind, status)
    assert str(error).startswith("Creating project 'a': the service answered")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "ExpiredToken", errors.CredentialsExpired),
        (400, "InvalidToken", errors.CredentialsExpired),
        (403, "InvalidAccessKeyId", errors.CredentialsExpired),
        (400, "TokenRefreshRequired", errors.CredentialsExpired),
        (403, "RequestTimeTooSkewed", errors.ClockSkewed),
        (403, "AccessDenied", errors.Refused),
        (403, "SignatureDoesNotMatch", errors.Refused),
        (503, "SlowDown", errors.Throttled),
        (503, "ServiceUnavailable", errors.Throttled),
        (400, "XAmzContentSHA256Mismatch", errors.Corrupted),
        (400, "BadDigest", errors.Corrupted),
        (400, "InvalidDigest", errors.Corrupted),
        (404, "NoSuchKey", errors.NotThere),
        (404, "NoSuchUpload", errors.NotThere),
        (404, "NoSuchBucket", errors.Refused),
        (412, "PreconditionFailed", errors.Conflict),
        (416, "InvalidRange", errors.Conflict),
        (500, "InternalError", errors.Unanswered),
        (200, "InternalError", errors.Unanswered),
        (200, "SlowDown", errors.Throttled),
        (400, "RequestTimeout", errors.Unanswered),
        (400, "IncompleteBody", errors.Unanswered),
        (400, "InvalidPart", errors.Corrupted),
        (407, "", errors.NotSent),
        (301, "PermanentRedirect", errors.Refused),
        (404, "", errors.NotThere),
        (403, "", errors.CredentialsExpired),
        (503, "", errors.Throttled),
    ],
)
def test_s3_answers(status, code, kind):
    """Each S3 error code is one error; without a body the status decides."""
    body = f"<Error><Code>{code}</Code><Message>It is so.</Message></Error>".encode() if code else b""
    error = faults.from_s3(status, {}, body, "Upload of a.jpg")
    assert (type(error), error.status) == (kind, status)
    assert "Upload of a.jpg: S3 answered" in str(error)
    assert not code or error.words == f"{code} It is so."


@pytest.mark.parametrize(
    ("status", "title", "kind"),
    [
        (401, "Log in", errors.AuthRefused),
        (403, "Your token is invalid", errors.Refused),
        (403, "Buy credits for this hotspot", errors.Refused),
        (404, "Not found", errors.NotThere),
    ],
)
def test_pages_in_the_place_of_rest(status, title, kind):
    """A refusal that comes as a page is marked, since a firewall may have given it, and its words decide nothing."""
    page = f"<html><title>{title}</title></html>".encode()
    error = faults.from_rest(status, {"Content-Type": "text/html"}, page, "Reading project 7")
    assert (type(error), error.is_page) == (kind, True)
    assert not faults.from_rest(status, {}, b'{"detail": "No."}', "Reading project 7").is_page


@pytest.mark.parametrize("status", [302, 403, 404, 503, 511])
def test_pages_in_the_place_of_s3(status):
    """A page of HTML is no answer of S3, whatever its status: neither a refusal nor a word about the object."""
    error = faults.from_s3(status, {"Location": "http://login.test/"}, b"<!DOCTYPE html><title>Hello</title>", "x")
    assert type(error) is errors.Unanswered
    assert "Hello" in str(error)


def test_redirects_of_s3():
    """A redirect with words or a region is S3's own, one without is not."""
    own = (faults.from_s3(307, {}, b"<Error><Code>TemporaryRedirect</Code></Error>", "x"),
           faults.from_s3(301, {"x-amz-bucket-region": "eu-west-1"}, b"", "x"))  # fmt: skip
    assert {type(error) for error in own} == {errors.Refused}
    assert type(faults.from_s3(302, {"Location": "http://login.test/"}, b"", "x")) is errors.Unanswered


def test_a_login_page_is_no_answer_of_s3():
    """A 200 with HTML leaves open what happened."""
    error = faults.from_s3(200, {}, b"<html><title>Log in</title></html>", "Upload of a.jpg")
    assert isinstance(error, errors.Unanswered)
    assert error.words == "Log in"


def test_words_of_the_service():
    """The service's own words are quoted readably: fields by name, pages by title, never endless."""
    words = [
        faults.from_rest(400, {}, body, "x").words
        for body in (
            b'{"name": ["Too long.", "Odd."], "detail": "Mind this."}',
            b'["One.", "Two."]',
            b"<html><title>\n Proxy &amp; Co </title><body>long</body></html>",
            b"<html>",
            b"plain words",
            b"x" * 5000,
        )
    ]
    assert words[:5] == [
        "name: Too long., Odd.; Mind this.",
        "One., Two.",
        "Proxy & Co",
        "a page of HTML",
        "plain words",
    ]
    assert len(words[5]) == faults.WORDS


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), (" 2.5 ", 2.5), ("-3", 0.0), ("99999999", 600.0), ("nan", None), ("soon", None), ("", None)],
)
def test_retry_after_in_seconds(value, seconds):
    """A pause in seconds is kept within ten minutes; what is no pause is none."""
    error = faults.from_rest(429, {"Retry-After": value}, b"", "x")
    assert error.retry_after == seconds


def test_retry_after_as_a_date():
    """A date is read against the service's own clock, not ours."""
    then = time.time() - 90000
    headers = {"Date": formatdate(then, usegmt=True), "Retry-After": formatdate(then + 40, usegmt=True)}
    assert faults.from_s3(503, headers, b"", "x").retry_after == 40.0


SECRETS = ("eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl", "hunter2", "AbCdSig", "FwoGZXIvYXdzEXAMPLE")


def test_no_secret_gets_into_a_text():
    """Tokens, signatures, passwords and query strings are cut out of what others say."""
    text = (
        f"Bearer {SECRETS[0]} bad {SECRETS[0]} at https://user:{SECRETS[1]}@proxy/x?X-Amz-Signature={SECRETS[2]}"
        f" X-Amz-Security-Token={SECRETS[3]} Signature={SECRETS[2]}, client_secret={SECRETS[1]}"
    )
    for error in (
        faults.from_rest(400, {}, text.encode(), "x"),
        faults.from_rest(302, {"Location": f"https://a:{SECRETS[1]}@b.c/d?token={SECRETS[2]}"}, b"", "x"),
        faults.from_s3(403, {}, f"<Error><Code>A</Code><Message>{text}</Message></Error>".encode(), "x"),
        faults.translate_requests(requests.ConnectionError(OSError(text)), "x", "y"),
        faults.translate_socket(OSError(text), "x", sent=True),
    ):
        assert not [secret for secret in SECRETS if secret in f"{error} {error!r} {error.words}"]


def failing(url, **changes):
    """Ask a service for a project list and return the error."""
    api = make_rest(url, **{"timeout": 0.5} | changes)
    try:
        with pytest.raises(errors.RemoteError) as caught:
            api.ping()
    finally:
        api.close()
    return caught.value


def test_nobody_listens():
    """A refused connection never left this machine."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listen
        error = failing(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert type(error) is errors.NotSent
    assert "Connection refused" in str(error)


def test_no_such_name():
    """A name that does not resolve never left this machine."""
    assert type(failing("http://no-such-host.invalid", timeout=WAIT)) is errors.NotSent


@pytest.mark.parametrize("rudeness", ["garbage", "reset", "silence"])
def test_trouble_in_the_tls_handshake(raw_server, rudeness):
    """Whatever goes wrong before TLS stands, the request never left."""

    def story(visitor, _number):
        visitor.body(1)
        if rudeness == "garbage":
            visitor.say(b"SSH-2.0-nobody\r\n" * 10)
        elif rudeness == "reset":
            visitor.reset()
        else:
            visitor.body(1 << 20)

    assert type(failing(f"https://127.0.0.1:{raw_server(story)}")) is errors.NotSent


def test_an_untrusted_certificate(emulator, tls_front):
    """A certificate of an unknown CA never leaves, and the text names the setting that helps."""
    error = failing(f"https://127.0.0.1:{tls_front(int(emulator.url.rpartition(':')[2]))}", timeout=WAIT)
    assert type(error) is errors.NotSent
    assert "cloud.ca_file" in str(error)


@pytest.mark.parametrize("rudeness", ["reset", "close", "silence", "garbage", "cut"])
def test_trouble_after_the_request(raw_server, rudeness):
    """Once the request is out, only an answer tells whether it was applied."""

    def story(visitor, _number):
        visitor.head()
        if rudeness == "reset":
            visitor.reset()
        elif rudeness == "silence":
            visitor.body(1)
        elif rudeness == "garbage":
            visitor.say(b"220 mail ready\r\n\r\n")
        elif rudeness == "cut":
            visitor.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

    error = failing(f"http://127.0.0.1:{raw_server(story)}")
    assert type(error) is errors.Unanswered
    assert error.happened is errors.Happened.UNKNOWN
