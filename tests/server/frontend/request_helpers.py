"""What tests of requests share: refusals and what they name, a picture, an upload."""

import hashlib
import struct
import zlib

import grpc
import pytest

from frontend_fixture import DEADLINE, details, video


def refusal(call):
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def fields(error):
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    return {v.field for v in details(error)["BadRequest"].field_violations}


def png(width=16, height=8):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes((x * 16) % 256 for x in range(width * 3)) for _ in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def upload_messages(data, **changes):
    header = dict(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), display_name="a picture")
    header.update(changes)
    yield video.UploadAssetRequest(header=video.UploadAssetRequest.Header(**header))
    for i in range(0, len(data), 1000):
        yield video.UploadAssetRequest(data=data[i:i + 1000])


def upload(frontend, data, **changes):
    return frontend.video.UploadAsset(upload_messages(data, **changes), timeout=DEADLINE)
