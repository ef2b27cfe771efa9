"""Our signatures are those of botocore."""

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from pix4d_watcher.cloud.sign import EMPTY_SHA256, encode_path, encode_query, sign

KEYS = {"access_key": "AKIDEXAMPLE", "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
NOW = datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)


class Oracle(botocore.auth.S3SigV4Auth):
    """botocore's signer with a payload hash that is known already, and our time."""

    def payload(self, request):
        """Take the hash that the request carries."""
        return request.headers["x-amz-content-sha256"]

    def _modify_request_before_signing(self, request):
        digest = request.headers["x-amz-content-sha256"]
        super()._modify_request_before_signing(request)
        request.headers.replace_header("X-Amz-Content-SHA256", digest)


def botocore_says(monkeypatch, method, url, headers, *, token, region, now=NOW):
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now.replace(tzinfo=None), raising=False)
    request = AWSRequest(method=method, url=url, headers={k: v for k, v in headers.items() if k != "host"})
    Oracle(Credentials(KEYS["access_key"], KEYS["secret_key"], token), "s3", region).add_auth(request)
    return request.headers


@pytest.mark.parametrize(
    "key",
    [
        "user-1/project-2/DJI_0001.JPG",
        "with space.jpg",
        "plus+tilde~star*.jpg",
        "a=b&c?d#e%41.jpg",
        "Mémoire/日本/é.tif",
        "//double//./../dots.jpg",
        "quote'\"(1)[2]{3}.jpg",
        "100%.jpg",
    ],
)
@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("PUT", {}),
        ("GET", {"uploadId": "a+b/c=d e~", "part-number-marker": "7"}),
        ("POST", {"uploads": ""}),
        ("PUT", {"partNumber": "10", "uploadId": "2~x"}),
    ],
)
@pytest.mark.parametrize("token", ["", "FwoGZXIvYXdzEXAMPLE//////token=="])
def test_signature_is_that_of_botocore(monkeypatch, key, method, query, token):
    """For odd keys and queries, with and without a session token, header for header."""
    path, asked = encode_path(f"/bucket/{key}"), encode_query(query)
    headers = {"host": "s3.test:8443", "content-type": "image/jpeg", "x-amz-meta-a": "two  blanks"}
    ours = sign(
        method,
        path,
        asked,
        headers,
        **KEYS,
        session_token=token,
        region="eu-central-1",
        payload_sha256="ab" * 32,
        now=NOW,
    )
    url = f"https://s3.test:8443{path}{'?' + asked if asked else ''}"
    assert urlsplit(url).path == path
    theirs = botocore_says(
        monkeypatch, method, url, headers | {"x-amz-content-sha256": "ab" * 32}, token=token, region="eu-central-1"
    )
    assert ours["authorization"] == theirs["Authorization"]
    assert ours["x-amz-date"] == theirs["X-Amz-Date"]
    assert ours.get("x-amz-security-token") == theirs.get("X-Amz-Security-Token")


def test_another_day_and_region_get_another_key(monkeypatch):
    """The cached signing key belongs to one secret, day and region."""
    for now in (NOW, NOW + timedelta(seconds=2)):
        for region in ("us-east-1", "ap-south-1"):
            ours = sign(
                "GET",
                "/b/k",
                "",
                {"host": "h"},
                **KEYS,
                session_token="t",
                region=region,
                payload_sha256=EMPTY_SHA256,
                now=now,
            )
            theirs = botocore_says(
                monkeypatch,
                "GET",
                "https://h/b/k",
                {"x-amz-content-sha256": EMPTY_SHA256},
                token="t",
                region=region,
                now=now,
            )
            assert ours["authorization"] == theirs["Authorization"]
