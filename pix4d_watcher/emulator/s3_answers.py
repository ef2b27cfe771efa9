"""How S3 answers: its errors and its XML.

Owns `S3Error` and the writing of XML. Must not know what the bucket holds.
"""

import datetime as dt
from collections.abc import Mapping
from secrets import token_hex
from xml.sax.saxutils import escape

from pix4d_watcher.emulator.wire import Answer

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class S3Error(Exception):
    """A refusal with S3's code, HTTP status and message; `fields` are further elements of the error's XML."""

    def __init__(self, status: int, code: str, message: str, **fields: str) -> None:
        """Hold what the error body says."""
        super().__init__(f"{code}: {message}")
        self.status, self.code, self.message, self.fields = status, code, message, fields


def element(name: str, *children: str) -> str:
    """Return an XML element around children that are XML already."""
    return f"<{name}>{''.join(children)}</{name}>"


def text(name: str, value: object) -> str:
    """Return an XML element that holds text."""
    return f"<{name}>{escape(str(value))}</{name}>"


def xml_answer(root: str, *children: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a 200 with an XML document in S3's namespace."""
    inner = "".join(children)
    document = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="{NAMESPACE}">{inner}</{root}>'
    return Answer(200, {"Content-Type": "application/xml", **(headers or {})}, document.encode())


def error_answer(error: S3Error, resource: str) -> Answer:
    """Return an error in S3's XML with a request id."""
    request_id = token_hex(8).upper()
    fields = [text(name, value) for name, value in error.fields.items()]
    inside = [text("Code", error.code), text("Message", error.message), *fields, text("Resource", resource)]
    document = '<?xml version="1.0" encoding="UTF-8"?>\n' + element("Error", *inside, text("RequestId", request_id))
    return Answer(error.status, {"Content-Type": "application/xml", "x-amz-request-id": request_id}, document.encode())


def iso_date(seconds: float) -> str:
    """Return wall-clock seconds as S3 writes dates in XML."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
