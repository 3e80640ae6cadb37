"""How a worker ends, and what comes of it: who is to blame, what is told of it, and who was waiting for its word."""

import grpc
import pytest

from frontend_fixture import DEADLINE, FakeWorker, eventually, models, video, worker
from faults_test import FAST, crash
from request_helpers import refusal


@pytest.mark.parametrize("message, cause", [
    ("exited cpu 4242 15 0", "INTERRUPTED"), ("exited cpu 4242 0 0", "INTERRUPTED"), ("exited cpu 4242 9 0", "CRASH"),
    ("exited cpu 4242 0 70", "CRASH")])
def test_worker_that_was_told_to_end_has_not_crashed(start, message, cause):
    frontend = start("retry: {min_backoff: 0s, max_backoff: 0s}\n", with_control=True)
    job = frontend.submit()
    FakeWorker(frontend).attempt()
    frontend.control.send(message.encode())
    assert [a.cause for a in frontend.wait_for(job.id, video.QUEUED).attempts] == [cause]


def test_worker_that_is_killed_while_the_machine_stops_has_not_crashed(start):
    frontend = start(with_control=True)
    job = frontend.submit()
    FakeWorker(frontend).attempt()
    frontend.control.send(b"stopping")
    frontend.control.send(b"exited cpu 4242 9 0")
    assert [a.cause for a in frontend.wait_for(job.id, video.QUEUED).attempts] == ["INTERRUPTED"]
