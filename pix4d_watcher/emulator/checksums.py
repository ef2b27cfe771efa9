"""The checksums that S3 compares, each as an object with `update` and `digest`.

CRC-32C and CRC-64/NVME are written here as plain tables: slow, and computed only when a client sends them.
"""

import hashlib
import zlib
from collections.abc import Callable
from typing import Protocol


class Checksum(Protocol):
    """What a running checksum can do."""

    def update(self, data: memoryview, /) -> None:
        """Take more bytes."""

    def digest(self) -> bytes:
        """Return the checksum of all bytes so far, big-endian."""


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _TableCrc:
    """A reflected CRC with all ones at the beginning and the end."""

    def __init__(self, polynomial: int, width: int) -> None:
        self._width, self._ones = width, (1 << width) - 1
        self._value = self._ones
        self._table = [_entry(byte, polynomial) for byte in range(256)]

    def update(self, data: memoryview) -> None:
        value, table = self._value, self._table
        for byte in data:
            value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
        self._value = value

    def digest(self) -> bytes:
        return (self._value ^ self._ones).to_bytes(self._width // 8, "big")


def _entry(byte: int, polynomial: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (polynomial if byte & 1 else 0)
    return byte


ALGORITHMS: dict[str, Callable[[], Checksum]] = {
    "crc32": _Crc32,
    "crc32c": lambda: _TableCrc(0x82F63B78, 32),  # Castagnoli, reflected
    "crc64nvme": lambda: _TableCrc(0x9A6C9329AC4BC9B5, 64),  # NVM Express, reflected
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
}
