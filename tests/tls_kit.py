"""TLS for stories: a throw-away authority, servers' certificates of several kinds, and the emulator behind them."""

import hashlib
import ssl
import warnings
from datetime import UTC, datetime, timedelta

KINDS = {
    "server": (("cloud.test", "s3.test", "localhost", "127.0.0.1"), 2),
    "expired": (("localhost", "127.0.0.1"), -1),
    "elsewhere": (("elsewhere.test",), 2),
}
"""Certificates by name: whom they are for, and how many days they hold."""


def make_authority(place):
    """Make a CA (`ca.pem`), another one (`stranger.pem`), and the certificates of `KINDS` that the first one signed."""
    import trustme

    authorities = {
        name: trustme.CA(organization_name="tests", organization_unit_name=name) for name in ("ca", "stranger")
    }
    for name, authority in authorities.items():
        authority.cert_pem.write_to_path(place / f"{name}.pem")
    for name, (names, days) in KINDS.items():
        made = authorities["ca"].issue_cert(*names, not_after=datetime.now(UTC) + timedelta(days=days))
        made.private_key_pem.write_to_path(place / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(place / f"{name}.pem")
    return place


def name_in_directories(certificate):
    """Give the name that `openssl rehash` gives a CA of ours, by which it is found: of a subject in small letters."""
    from cryptography import x509

    subject = x509.load_pem_x509_certificate(certificate.read_bytes()).subject.public_bytes()
    return f"{int.from_bytes(hashlib.sha1(subject[2:]).digest()[:4], 'little'):08x}.0"


def behind_tls(emulator, authority, kind="server", *, newest=None):
    """Have a running emulator speak TLS from now on, and give its https address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / f"{kind}.pem", authority / f"{kind}.key")
    if newest is not None:
        with warnings.catch_warnings(action="ignore"):  # that it is old is the point
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = newest
        context.set_ciphers("ALL:@SECLEVEL=0")
    server = emulator._server
    server.socket = context.wrap_socket(server.socket, server_side=True)  # the same descriptor, which is listened on
    return emulator.url.replace("http://", "https://")
