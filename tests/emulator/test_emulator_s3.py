"""What the emulated S3 promises, with botocore as the judge of what a right request is."""

import datetime as dt
import hashlib
import os

import pytest
import requests
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from pix4d_watcher.emulator.s3_multipart import SMALLEST_PART


def refused(call, **arguments):
    """Return (code, status) of the refusal that the call earns."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize(
    "name", ["a.jpg", "100MEDIA/DJI_0001.JPG", "a b+c%2F&=~!'()*.jpg", "Mémoire/ünï.tif", "x//y.jpg"]
)
def test_objects_come_back(pilot, name):
    """What boto3 puts under any name, with its default checksum, can be read, listed, and deleted by that name."""
    s3, place = pilot.s3(), {"Bucket": pilot.keys["bucket"], "Key": pilot.key(name)}
    body = os.urandom(300_000)
    md5 = hashlib.md5(body).hexdigest()
    put = s3.put_object(**place, Body=body, ACL="bucket-owner-full-control", ContentType="image/jpeg")
    assert put["ETag"] == f'"{md5}"'
    assert put["ChecksumCRC32"]
    got = s3.get_object(**place)
    assert (got["Body"].read(), got["ContentType"], got["ChecksumCRC32"]) == (body, "image/jpeg", put["ChecksumCRC32"])
    assert s3.head_object(**place)["ContentLength"] == 300_000
    listed = s3.list_objects_v2(Bucket=place["Bucket"], Prefix=pilot.key(""))["Contents"]
    assert [(item["Key"], item["Size"], item["ETag"]) for item in listed] == [(place["Key"], 300_000, f'"{md5}"')]
    kept = pilot.emulator.ledger()["objects"][place["Key"]]
    assert kept == {
        "size": 300_000,
        "sha256": hashlib.sha256(body).hexdigest(),
        "etag": md5,
        "puts": 1,
        "multipart": False,
        "project": pilot.project["id"],
    }
    s3.delete_object(**place)
    s3.delete_object(**place)
    assert refused(s3.get_object, **place) == ("NoSuchKey", 404)
    assert pilot.emulator.ledger()["objects"] == {}


def test_last_put_wins_and_is_counted(pilot):
    """An object that is stored again is replaced, and the ledger counts both; If-None-Match keeps the first."""
    key = pilot.put(body=b"one")
    pilot.put(body=b"two")
    s3, place = pilot.s3(), {"Bucket": pilot.keys["bucket"], "Key": key}
    assert refused(s3.put_object, **place, Body=b"three", IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert s3.get_object(**place)["Body"].read() == b"two"
    assert pilot.emulator.ledger()["objects"][key]["puts"] == 2
    assert len(list(pilot.emulator.state.directory.iterdir())) == 1


def test_listing_is_paged(pilot):
    """A listing goes on where the page before ended."""
    keys = [pilot.put(f"{number}.jpg") for number in range(5)]
    pages = pilot.s3().get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=pilot.keys["bucket"], Prefix=pilot.key(""), PaginationConfig={"PageSize": 2})
    assert [[item["Key"] for item in page["Contents"]] for page in found] == [keys[:2], keys[2:4], keys[4:]]


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-", 10, 99),
        ("bytes=-10", 90, 99),
        ("bytes=90-500", 90, 99),
        ("bytes=-500", 0, 99),
    ],
)
def test_ranges(pilot, wanted, first, last):
    """A range is answered with 206, its bytes and where they lie."""
    body = os.urandom(100)
    got = pilot.s3().get_object(Bucket=pilot.keys["bucket"], Key=pilot.put(body=body), Range=wanted)
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert (got["Body"].read(), got["ContentRange"]) == (body[first : last + 1], f"bytes {first}-{last}/100")


def test_conditions_of_reading(pilot):
    """A range behind the end is 416; an object that is another one by now is 412."""
    s3, place = pilot.s3(), {"Bucket": pilot.keys["bucket"], "Key": pilot.put(body=b"0123456789")}
    etag = s3.head_object(**place)["ETag"]
    assert refused(s3.get_object, **place, Range="bytes=10-") == ("InvalidRange", 416)
    assert s3.get_object(**place, Range="bytes=9-", IfMatch=etag)["Body"].read() == b"9"
    pilot.put(body=b"another")
    assert refused(s3.get_object, **place, Range="bytes=3-", IfMatch=etag) == ("PreconditionFailed", 412)


def test_presigned_links(pilot):
    """Presigned links read and write without headers, and only what they were signed for."""
    s3, place = pilot.s3(), {"Bucket": pilot.keys["bucket"], "Key": pilot.key("a b.jpg")}
    link = s3.generate_presigned_url("put_object", Params=place, ExpiresIn=60)
    assert requests.put(link, data=b"through a link", timeout=10).status_code == 200
    link = s3.generate_presigned_url("get_object", Params=place, ExpiresIn=60)
    assert requests.get(link, timeout=10).content == b"through a link"
    assert requests.get(link, headers={"Range": "bytes=8-"}, timeout=10).content == b"a link"
    assert "SignatureDoesNotMatch" in requests.get(link.replace("a%20b", "a%20c"), timeout=10).text
    assert "SignatureDoesNotMatch" in requests.put(link, data=b"", timeout=10).text
    pilot.emulator.change(clock_skew=61)
    assert "Request has expired" in requests.get(link, timeout=10).text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"secret_key": "x" * 40}, ("SignatureDoesNotMatch", 403)),
        ({"access_key": "ASIAUNKNOWNEXAMPLE"}, ("InvalidAccessKeyId", 403)),
        ({"session_token": "another"}, ("InvalidToken", 400)),
        ({"session_token": None}, ("InvalidAccessKeyId", 403)),
        ({"bucket": "elsewhere"}, ("NoSuchBucket", 404)),
        ({"key": "user-x/project-1"}, ("AccessDenied", 403)),
    ],
)
def test_wrong_credentials_are_told_apart(pilot, changes, expected):
    """Each wrong part of the credentials, another bucket and another prefix earn S3's own code; nothing is stored."""
    place = {"Bucket": pilot.keys["bucket"], "Key": pilot.key("a.jpg")}
    place["Bucket"] = changes.get("bucket", place["Bucket"])
    place["Key"] = f"{changes['key']}/a.jpg" if "key" in changes else place["Key"]
    s3 = pilot.s3(**changes)
    assert refused(s3.put_object, **place, Body=b"x") == expected
    assert refused(s3.create_multipart_upload, **place) == expected
    assert pilot.emulator.ledger()["objects"] == {}
    assert pilot.emulator.ledger()["uploads"] == []


def test_credentials_are_for_one_project(pilot):
    """Credentials of one project open nothing of another, not even where its number begins with the same digits."""
    mine = pilot.keys
    pilot.project = {}
    other = pilot.begin().put()
    s3 = pilot.s3(**mine)
    assert refused(s3.get_object, Bucket=mine["bucket"], Key=other) == ("AccessDenied", 403)
    assert refused(s3.list_objects_v2, Bucket=mine["bucket"], Prefix=mine["key"]) == ("AccessDenied", 403)
    assert refused(s3.put_object, Bucket=mine["bucket"], Key=f"{mine['key']}9/a", Body=b"") == ("AccessDenied", 403)
    assert refused(s3.list_objects_v2, Bucket=mine["bucket"]) == ("AccessDenied", 403)


def test_wrong_region(pilot):
    """A signature for another region is refused with the right one, with which botocore finds its way."""
    pilot.keys["region"] = "us-east-1"
    status, body = pilot.send("PUT", "a.jpg", b"x")
    assert (status, b"<Code>AuthorizationHeaderMalformed</Code>" in body) == (400, True)
    assert b"<Region>eu-central-1</Region>" in body
    assert pilot.emulator.ledger()["objects"] == {}
    assert pilot.put()


def test_credentials_expire(fly):
    """Expired credentials are ExpiredToken with 400; new ones work."""
    pilot = fly()
    key = pilot.put()
    pilot.emulator.expire("credentials")
    assert refused(pilot.s3().get_object, Bucket=pilot.keys["bucket"], Key=key) == ("ExpiredToken", 400)
    pilot.renew()
    assert pilot.put() == key


def test_skewed_clock_is_refused(fly):
    """A request dated more than 15 minutes off the service's clock is refused with the service's time."""
    pilot = fly(clock_skew=16 * 60)
    status, body = pilot.send("PUT", "a.jpg", b"x")
    assert (status, b"<Code>RequestTimeTooSkewed</Code>" in body) == (403, True)
    assert dt.datetime.now(dt.UTC).strftime("<ServerTime>%Y").encode() in body
    pilot.emulator.change(clock_skew=-14 * 60)
    assert pilot.put()


def test_unsigned_requests_are_refused(pilot):
    """No signature, a signature of another kind, and unsigned x-amz headers are refused."""
    url = f"{pilot.emulator.url}/{pilot.keys['bucket']}/{pilot.put()}"
    assert requests.get(url, timeout=10).status_code == 403
    assert requests.get(url, headers={"Authorization": "AWS key:signature"}, timeout=10).status_code == 400
    target, headers = pilot.signed("GET", "a.jpg")
    answer = requests.get(pilot.emulator.url + target, headers=headers, timeout=10)
    assert answer.content == b"image"
    more = {**headers, "x-amz-acl": "public-read"}
    answer = requests.get(pilot.emulator.url + target, headers=more, timeout=10)
    assert (answer.status_code, "<HeadersNotSigned>x-amz-acl<" in answer.text) == (403, True)
    answer = requests.get(pilot.emulator.url + target + "?acl", headers=headers, timeout=10)
    assert "SignatureDoesNotMatch" in answer.text


def test_what_is_not_emulated_is_refused(pilot):
    """Copies, sub-resources and old listings are NotImplemented, never half done."""
    s3, place = pilot.s3(), {"Bucket": pilot.keys["bucket"], "Key": pilot.put()}
    assert refused(s3.get_object_tagging, **place) == ("NotImplemented", 501)
    assert refused(s3.copy_object, **place, CopySource=dict(place)) == ("NotImplemented", 501)
    assert refused(s3.list_objects, Bucket=place["Bucket"], Prefix=pilot.key("")) == ("NotImplemented", 501)
    assert refused(s3.put_object, **{**place, "Key": pilot.key("x" * 1024)}) == ("KeyTooLongError", 400)
    assert requests.get(f"{pilot.emulator.url}/{place['Bucket']}/%ff", timeout=10).status_code == 403
    listing = {"Bucket": place["Bucket"], "Prefix": pilot.key(""), "Delimiter": "/"}
    assert refused(s3.list_objects_v2, **listing) == ("NotImplemented", 501)


def test_virtual_host_style(pilot):
    """The bucket may be the first part of the host's name."""
    key = pilot.put(body=b"found")
    link = pilot.s3(style="virtual").generate_presigned_url(
        "get_object", Params={"Bucket": pilot.keys["bucket"], "Key": key}, ExpiresIn=60
    )
    host, _, path = link.removeprefix("http://").partition("/")
    assert host.startswith(pilot.keys["bucket"])
    assert requests.get(f"{pilot.emulator.url}/{path}", headers={"Host": host}, timeout=10).content == b"found"


def test_upload_file_in_parts(pilot, tmp_path):
    """A large file that boto3 uploads in parts arrives whole; its ETag is that of the parts."""
    file = tmp_path / "ortho.tif"
    file.write_bytes(body := os.urandom(3 * SMALLEST_PART + 12_345))
    config = TransferConfig(multipart_threshold=SMALLEST_PART, multipart_chunksize=SMALLEST_PART)
    s3 = pilot.s3()
    s3.upload_file(str(file), pilot.keys["bucket"], pilot.key("ortho.tif"), Config=config)
    kept = pilot.emulator.ledger()["objects"][pilot.key("ortho.tif")]
    pieces = [body[start : start + SMALLEST_PART] for start in range(0, len(body), SMALLEST_PART)]
    etag = hashlib.md5(b"".join(hashlib.md5(piece).digest() for piece in pieces)).hexdigest() + "-4"
    assert (kept["sha256"], kept["etag"], kept["multipart"]) == (hashlib.sha256(body).hexdigest(), etag, True)
    assert s3.head_object(Bucket=pilot.keys["bucket"], Key=pilot.key("ortho.tif"))["ETag"] == f'"{etag}"'
    upload = pilot.emulator.ledger()["uploads"][0]
    assert (upload["state"], len(upload["parts"])) == ("completed", 4)
    assert len(list(pilot.emulator.state.directory.iterdir())) == 1


class Parts:
    """A multipart upload of the test's own."""

    def __init__(self, pilot):
        self.s3, self.place = pilot.s3(), {"Bucket": pilot.keys["bucket"], "Key": pilot.key("big.tif")}
        self.place["UploadId"] = self.s3.create_multipart_upload(**self.place)["UploadId"]

    def put(self, number, body):
        """Store a part and return what a Complete says of it."""
        etag = self.s3.upload_part(**self.place, PartNumber=number, Body=body)["ETag"]
        return {"PartNumber": number, "ETag": etag}

    def complete(self, *parts):
        """Complete the upload with these parts."""
        return self.s3.complete_multipart_upload(**self.place, MultipartUpload={"Parts": list(parts)})


def test_complete_is_strict(fly):
    """Unknown parts, wrong ETags, wrong order and small parts are refused; the upload stays open until it is right."""
    pilot = fly()
    upload = Parts(pilot)
    one, two = upload.put(1, b"a" * 1000), upload.put(2, b"b")
    assert refused(lambda: upload.complete(two, one)) == ("InvalidPartOrder", 400)
    assert refused(lambda: upload.complete(one, {**two, "PartNumber": 3})) == ("InvalidPart", 400)
    assert refused(lambda: upload.complete({**one, "ETag": two["ETag"]}, two)) == ("InvalidPart", 400)
    assert refused(lambda: upload.complete(one, two)) == ("EntityTooSmall", 400)
    assert refused(upload.complete)[1] == 400
    assert refused(lambda: upload.put(0, b"")) == ("InvalidArgument", 400)
    assert refused(lambda: upload.put(10_001, b"")) == ("InvalidArgument", 400)
    pilot.emulator.change(small_parts=True)
    one = upload.put(1, b"c" * 500)
    assert upload.complete(one, two)["ETag"].endswith('-2"')
    assert (
        upload.s3.get_object(Bucket=pilot.keys["bucket"], Key=pilot.key("big.tif"))["Body"].read() == b"c" * 500 + b"b"
    )
    assert refused(lambda: upload.complete(one, two)) == ("NoSuchUpload", 404)
    assert pilot.emulator.ledger()["uploads"][0]["parts"]["1"]["puts"] == 2


def test_lists_of_parts_and_uploads(pilot):
    """ListParts and ListMultipartUploads show what is there, page by page; an aborted upload is gone with its parts."""
    first, second = Parts(pilot), Parts(pilot)
    etags = [first.put(number, b"x" * number)["ETag"] for number in (1, 2, 5)]
    pages = first.s3.get_paginator("list_parts").paginate(**first.place, PaginationConfig={"PageSize": 2})
    found = [[(part["PartNumber"], part["Size"], part["ETag"]) for part in page["Parts"]] for page in pages]
    assert found == [[(1, 1, etags[0]), (2, 2, etags[1])], [(5, 5, etags[2])]]
    listing = {"Bucket": pilot.keys["bucket"], "Prefix": pilot.key(""), "PaginationConfig": {"PageSize": 1}}
    listed = [page["Uploads"] for page in first.s3.get_paginator("list_multipart_uploads").paginate(**listing)]
    ids = {upload["UploadId"] for page in listed for upload in page}
    assert (len(listed), ids) == (2, {first.place["UploadId"], second.place["UploadId"]})
    first.s3.abort_multipart_upload(**first.place)
    assert refused(first.s3.list_parts, **first.place) == ("NoSuchUpload", 404)
    assert refused(lambda: first.put(1, b"")) == ("NoSuchUpload", 404)
    assert [upload["state"] for upload in pilot.emulator.ledger()["uploads"]] == ["aborted", "open"]
    assert list(pilot.emulator.state.directory.iterdir()) == []


def test_head_and_list_parts_can_be_forbidden(fly):
    """What the service's policy may not permit can be switched off."""
    pilot = fly(head="off", list_parts=False)
    key, upload = pilot.put(), Parts(pilot)
    assert refused(upload.s3.head_object, Bucket=pilot.keys["bucket"], Key=key) == ("403", 403)
    assert refused(upload.s3.list_parts, **upload.place) == ("AccessDenied", 403)


def test_head_where_listing_is_not_allowed(fly):
    """What is there can be looked at, and what is not is refused instead of missing."""
    pilot = fly(head="present")
    place, s3 = {"Bucket": pilot.keys["bucket"], "Key": pilot.put()}, pilot.s3()
    assert s3.head_object(**place)["ContentLength"]
    assert refused(s3.head_object, **place | {"Key": place["Key"] + "x"}) == ("403", 403)
