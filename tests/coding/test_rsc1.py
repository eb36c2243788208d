"""Models of version RSC1 are still read, and damaged ones refused."""

from __future__ import annotations

import json
import struct
import zlib

import pytest

from rank_search.coding import decode
from rank_search.errors import TrialError


def forged(header: object, body: bytes = b"") -> bytes:
    """A byte string whose checksum holds, with this header."""
    packed = zlib.compress(json.dumps(header).encode())
    content = struct.pack("<I", len(packed)) + packed + body
    return b"RSC1" + struct.pack("<I", zlib.crc32(content)) + content


def columns(**changed: object) -> dict[str, object]:
    return {"name": ["w"], "shape": [[2]], "type": ["float32"], "form": ["float32"], "check": 0, **changed}


def test_the_forger_can_write_a_true_one() -> None:
    assert decode(forged(columns(), struct.pack("<2f", 1, 2)))["w"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ([], "makes no sense"),
        ({}, "makes no sense"),
        (columns(shape=[[-2]]), "shape"),
        (columns(shape=[["2"]]), "shape"),
        (columns(shape=[]), "makes no sense"),
        (columns(type=["string"]), "makes no sense"),
        (columns(form=["zip"]), "form"),
        (columns(form=[0]), "form"),
        (columns(form=[[]]), "makes no sense"),
        (columns(shape=[[10**6]]), "4000000 bytes of tensors are announced, 8 are there"),
        (columns(shape=[[10**12]]), "at most"),
        (columns(shape=[[10**12]], form=["coded"]), "at most"),
        (columns(form=["coded"]), "announced"),
        (columns(check=1), "checksum"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(header: object, complaint: str) -> None:
    with pytest.raises(TrialError, match=complaint):
        decode(forged(header, struct.pack("<2f", 1, 2)))


def test_a_prior_that_lies_is_refused() -> None:
    for scale, low, high in ((float("nan"), 0, 1), (-1.0, 0, 1), (1.0, 1, 0)):
        with pytest.raises(TrialError, match="prior of scale"):
            decode(forged(columns(form=["coded"]), struct.pack("<ffhh", 1.0, scale, low, high)))
