"""HTTP/2 as no library would speak it: frames of any kind and order, headers of any bytes (RFC 9113, RFC 7541)."""

import contextlib
import socket
import struct

from frontend_fixture import DEADLINE

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CALL = [(":method", "POST"), (":scheme", "http"), (":path", "/kino.v1.VideoService/ListJobs"), (":authority", "localhost"),
        ("content-type", "application/grpc"), ("te", "trailers")]
EMPTY_MESSAGE = b"\0" * 5


def integer(value, bits, first=0):
    """HPACK's, with a prefix of so many bits."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = bytes([first | limit]), value - limit
    while value >= 128:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])


def block(pairs, is_kept=False):
    """Headers as literals; is_kept: the other end puts them into its table."""
    out = b""
    for pair in pairs:
        out += b"\x40" if is_kept else b"\x00"
        for text in pair:
            raw = text if isinstance(text, bytes) else text.encode()
            out += integer(len(raw), 7) + raw
    return out


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(stream, pairs, flags=END_HEADERS):
    return frame(HEADERS, flags, stream, block(pairs))


def connect(frontend):
    host, port = frontend.address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=DEADLINE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def greet(frontend):
    """A connection that has said what a client says first."""
    connection = connect(frontend)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return connection


def send(connection, data):
    """As much of it as the server lets through: it may close the connection meanwhile."""
    with contextlib.suppress(ConnectionError):
        connection.sendall(data)


def is_closed(connection):
    """Reads all there is to read until the server closes the connection; a time-out is a failure of the test."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True
