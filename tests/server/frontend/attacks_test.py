"""Attacks on gRPC 1.51 and on any server of HTTP/2, one test each: others are served all the while, and nothing is lost.

Those with a CVE's number are the known holes of that version, or of the protocol in it."""

import contextlib
import hashlib
import os
import socket
import struct

import grpc
import pytest

import raw_http2 as http2
from frontend_fixture import DEADLINE, FakeWorker, eventually, video, video_grpc


@pytest.fixture
def attacked(start):
    """A frontend with a job under way. Afterwards it is the same process, the job goes on to its end, and a new client is
    served."""
    frontend = start("limits: {max_connections_per_address: 100}\n")
    attempt_of = FakeWorker(frontend)
    job = frontend.submit()
    attempt = attempt_of.attempt()
    attempt.started()
    yield frontend
    attempt.chunk(b"video")
    attempt.done()
    assert frontend.wait_for(job.id, video.SUCCEEDED).artifact.sha256 == hashlib.sha256(b"video").hexdigest()
    assert frontend.process.poll() is None, frontend.log_path.read_text()[-5000:]
    serves(frontend)


def serves(frontend):
    """Whether somebody who comes now is served."""
    channel = grpc.insecure_channel(frontend.address, options=[("grpc.use_local_subchannel_pool", 1)])
    with contextlib.closing(channel):
        video_grpc.VideoServiceStub(channel).ListJobs(video.ListJobsRequest(), timeout=DEADLINE)


def memory(frontend):
    status = open(f"/proc/{frontend.process.pid}/status", encoding="utf-8").read()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def descriptors(frontend):
    return len(os.listdir(f"/proc/{frontend.process.pid}/fd"))


def changed(**headers):
    """The headers of a call, some with other values, some more."""
    call = dict(http2.CALL)
    call.update({name.replace("__", ":").replace("_", "-") if name != "grpclb_client_stats" else name: value
                 for name, value in headers.items()})
    return list(call.items())


@pytest.mark.parametrize("headers", [
    changed(te="x"), changed(__scheme="x"), changed(grpclb_client_stats="x"),
    changed(te="x", __scheme="x", grpclb_client_stats="x"),
], ids=["te", "scheme", "grpclb", "all"])
def test_headers_that_abort_a_server_cve_2023_1428(attacked, headers):
    connection = http2.greet(attacked)
    http2.send(connection, http2.headers(1, headers) + http2.frame(http2.DATA, http2.END_STREAM, 1, http2.EMPTY_MESSAGE))
    serves(attacked)


def test_a_binary_header_that_is_not_base64_costs_its_own_connection_at_most_cve_2023_32732(attacked):
    others = attacked.watch(attacked.submit().id)
    next(others)
    connection = http2.greet(attacked)
    http2.send(connection, http2.headers(1, [*http2.CALL, ("x-bin", "!!!!")]))
    serves(attacked)
    assert others.is_active()
    others.cancel()


def test_endless_numbers_in_headers_take_no_memory_cve_2023_33953(attacked):
    before = memory(attacked)
    connection = http2.greet(attacked)
    # A length whose digits never end, in as many frames as the server takes.
    http2.send(connection, http2.frame(http2.HEADERS, 0, 1, b"\x00\x7f" + b"\x80" * 16000))
    for _ in range(200):
        http2.send(connection, http2.frame(http2.CONTINUATION, 0, 1, b"\x80" * 16000))
    serves(attacked)
    assert memory(attacked) - before < 100 << 20


def test_headers_without_end_take_no_memory(attacked):
    before = memory(attacked)
    connection = http2.greet(attacked)
    http2.send(connection, http2.frame(http2.HEADERS, 0, 1, http2.block(http2.CALL)))
    for i in range(4000):  # 32 MB
        http2.send(connection, http2.frame(http2.CONTINUATION, 0, 1, http2.block([(f"x{i}", "y" * 8000)])))
    serves(attacked)
    assert memory(attacked) - before < 100 << 20


def test_a_small_block_that_unpacks_to_large_headers_is_refused(attacked):
    before = memory(attacked)
    for _ in range(20):
        connection = http2.greet(attacked)
        # One header of 4,000 bytes goes into the table, and 16,000 bytes name it as often.
        block = http2.block([("a", "y" * 4000)], is_kept=True) + b"\xbe" * 16000
        http2.send(connection, http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, 1, block))
    serves(attacked)
    assert memory(attacked) - before < 100 << 20


def test_calls_that_are_taken_back_at_once_cost_their_connection_cve_2023_44487(attacked):
    call = http2.block(http2.CALL)

    def burst(first):
        return b"".join(http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, 2 * i + 1, call) +
                        http2.frame(http2.RST_STREAM, 0, 2 * i + 1, struct.pack(">I", 8)) for i in range(first, first + 500))

    connection = http2.greet(attacked)

    def is_closed():
        try:
            connection.sendall(burst(is_closed.sent))
        except ConnectionError:
            return True
        is_closed.sent += 500
        return False

    is_closed.sent = 0
    eventually(is_closed, "the connection is closed")
    assert "takes back more calls than it may" in attacked.log_path.read_text()
    serves(attacked)


@pytest.mark.parametrize("path", ["/kino.v1.VideoService/Nope", "/nothing", "/grpc.health.v1.Health/Check",
                                  "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"])
def test_calls_of_others_methods_that_are_taken_back_hurt_nobody(attacked, path):
    """gRPC itself answers them, and lets go of them in an order of its own."""
    call = http2.block(changed(__path=path))
    before = memory(attacked)
    connection = http2.greet(attacked)
    for first in range(0, 10_000, 500):
        http2.send(connection, b"".join(
            http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, 2 * i + 1, call) +
            http2.frame(http2.RST_STREAM, 0, 2 * i + 1, struct.pack(">I", 8)) for i in range(first, first + 500)))
    serves(attacked)
    assert memory(attacked) - before < 512 << 20  # gRPC's quota


def test_a_client_that_cancels_now_and_then_keeps_its_connection(attacked):
    channel = grpc.insecure_channel(attacked.address, options=[("grpc.use_local_subchannel_pool", 1)])
    watch = video_grpc.VideoServiceStub(channel).WatchJob(video.WatchJobRequest(id=attacked.submit().id))
    next(watch)
    for _ in range(200):
        call = video_grpc.VideoServiceStub(channel).WatchJob(video.WatchJobRequest(id=attacked.submit().id))
        next(call)
        call.cancel()
    assert watch.is_active()
    channel.close()


@pytest.mark.parametrize("kind, payload", [(http2.PING, b"x" * 8), (http2.SETTINGS, b""), (http2.WINDOW_UPDATE, b"\0\0\0\1")],
                         ids=["pings", "settings", "windows"])
def test_frames_that_ask_for_an_answer_each_take_no_memory(attacked, kind, payload):
    before = memory(attacked)
    connection = http2.greet(attacked)
    # Nobody reads the answers.
    connection.settimeout(1)
    with contextlib.suppress(TimeoutError):
        http2.send(connection, http2.frame(kind, 0, 0, payload) * 200_000)
    serves(attacked)
    assert memory(attacked) - before < 200 << 20


def test_connections_that_end_before_they_begin_leak_no_descriptor_cve_2023_4785(attacked):
    before = descriptors(attacked)
    for _ in range(3000):
        connection = http2.connect(attacked)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # with a reset
    serves(attacked)
    eventually(lambda: descriptors(attacked) < before + 20, "the descriptors are given back")


def test_a_flood_of_connections_is_cut_and_those_who_are_in_stay_in(attacked):
    watch = attacked.watch(attacked.submit().id)
    next(watch)
    flood = [http2.greet(attacked) for _ in range(300)]
    refused = [connection for connection in flood if has_ended(connection)]
    assert 200 <= len(refused) < 250, len(refused)  # 100 are let in, some of them others'
    assert watch.is_active()
    watch.cancel()
    for connection in flood:
        connection.close()

    def is_served():
        with contextlib.suppress(grpc.RpcError):
            serves(attacked)
            return True
        return False

    eventually(is_served, "whoever comes after the flood is served")


def has_ended(connection):
    """Whether the server closes it instead of greeting."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_connections_that_say_too_little_are_closed_after_a_while(attacked):
    silent, slow = http2.connect(attacked), http2.connect(attacked)
    slow.sendall(http2.PREFACE[:10])
    assert http2.is_closed(silent) and http2.is_closed(slow)


def test_headers_above_eight_kilobytes_are_refused(attacked):
    with pytest.raises(grpc.RpcError) as error:
        attacked.video.ListJobs(video.ListJobsRequest(), metadata=[("x", "y" * 9000)], timeout=DEADLINE)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_message_above_four_megabytes_is_refused(attacked):
    with pytest.raises(grpc.RpcError) as error:
        attacked.submit(prompt="x" * (4 << 20))
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_more_streams_than_a_connection_may_have_wait_for_the_others(attacked):
    connection = http2.greet(attacked)
    settings = {}
    data = b""
    while not settings:  # the first frame is the server's settings
        data += connection.recv(4096)
        if len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
            settings = dict(struct.unpack(">HI", data[i:i + 6]) for i in range(9, 9 + int.from_bytes(data[:3], "big"), 6))
    assert settings[3] == 1024  # SETTINGS_MAX_CONCURRENT_STREAMS
