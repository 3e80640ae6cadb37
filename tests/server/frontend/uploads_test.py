"""Uploads that take long: a client that says nothing is ended, one that goes on is not; and a server that stops while it
decodes one."""

import hashlib
import os
import threading
import time

import grpc
import pytest

from frontend_fixture import DEADLINE, HeldMedia, eventually, reason, video
from request_helpers import png, refusal, upload

Header = video.UploadAssetRequest.Header


def header(data):
    return video.UploadAssetRequest(header=Header(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))


class SilentUpload:
    """Sends some messages, and nothing more until it is let go."""

    def __init__(self, frontend, *messages):
        self.go = threading.Event()
        self.call = frontend.video.UploadAsset.future(self._send(messages), timeout=DEADLINE)

    def _send(self, messages):
        yield from messages
        self.go.wait(DEADLINE)


@pytest.mark.parametrize("sent, awaited", [
    (0, "while the header was expected"),
    (1, "while the rest of the data (0 of 89 bytes are here) was expected"),
    (2, "while the rest of the data (10 of 89 bytes are here) was expected"),
    (3, "while the end of the stream was expected"),
])
def test_silent_upload_is_ended_with_what_was_awaited(start, sent, awaited):
    frontend = start("limits: {upload_idle_timeout: 200ms}\n")
    data = png()
    assert len(data) == 89, "the words above name it"
    messages = [header(data), video.UploadAssetRequest(data=data[:10]), video.UploadAssetRequest(data=data[10:])]
    silent = SilentUpload(frontend, *messages[:sent])
    error = refusal(silent.call.result)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and reason(error) == "UPLOAD_IDLE"
    assert "nothing came for 200ms (limits.upload_idle_timeout)" in error.details() and awaited in error.details()
    eventually(lambda: not list((frontend.data / "uploads").iterdir()), "the upload's file is gone")
    silent.go.set()


def test_silent_uploads_give_their_places_back(start):
    frontend = start("limits: {upload_idle_timeout: 1s}\n")
    data = png()
    # As many as one client may have, several times over.
    for _ in range(3):
        silent = [SilentUpload(frontend, header(data)) for _ in range(64)]
        assert {refusal(each.call.result).code() for each in silent} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        for each in silent:
            each.go.set()
        # An answer may come a moment before its place is free.
        eventually(lambda: not list((frontend.data / "uploads").iterdir()), "the uploads' files are gone")
    assert upload(frontend, data).size_bytes == len(data)


def test_steady_upload_may_take_longer_than_the_limit(start):
    limit = 2.0
    frontend = start(f"limits: {{upload_idle_timeout: {limit:.0f}s}}\n")
    data = png()
    longest = 0.0

    def steady():
        nonlocal longest
        yield header(data)
        begin = last = time.monotonic()
        for i in range(len(data)):
            # Until twice the limit has passed, a byte every now and then; then the rest.
            if time.monotonic() < begin + 2 * limit:
                time.sleep(limit / 20)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            yield video.UploadAssetRequest(data=data[i:i + 1])
        assert time.monotonic() > begin + 2 * limit

    for _ in range(5):
        longest = 0.0
        try:
            assert frontend.video.UploadAsset(steady(), timeout=DEADLINE).size_bytes == len(data)
            return
        except grpc.RpcError as error:
            # A test that was not steady itself, since its machine was too busy, shows nothing.
            assert reason(error) == "UPLOAD_IDLE" and longest > limit / 2, error
    pytest.skip("this machine is too busy for a steady client")


def test_server_that_stops_ends_what_it_decodes(start, tmp_path):
    """A decoder that never answers has a minute."""
    held = HeldMedia(tmp_path)
    frontend = start(bin_folder=held.bin)
    data = png()
    call = SilentUpload(frontend, header(data), video.UploadAssetRequest(data=data))
    call.go.set()
    held.wait_for(1)
    decoder = int(next(held.bin.glob("waits.*")).suffix[1:])
    frontend.process.terminate()
    error = refusal(call.call.result)
    assert error.code() == grpc.StatusCode.UNAVAILABLE and "the server is stopping" in error.details()
    assert frontend.process.wait(DEADLINE) == 0
    assert not os.path.exists(f"/proc/{decoder}")
    assert not list((frontend.data / "uploads").iterdir())
