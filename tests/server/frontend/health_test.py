"""What the health service says of a server that stops, and of a device that is out of service."""

from frontend_fixture import FakeWorker, eventually, video, worker
from faults_test import FAST
from worker_ends_test import take_out

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def asked(name):
    """A HealthCheckRequest."""
    return bytes([10, len(name)]) + name.encode() if name else b""


def test_server_that_finishes_a_job_before_it_ends_says_at_once_that_it_serves_no_more(start):
    frontend = start(with_control=True, supervisor="kinod-1")
    job = frontend.submit()
    attempt = FakeWorker(frontend).attempt()
    attempt.started()
    watches = [frontend.channel.unary_stream("/grpc.health.v1.Health/Watch")(asked(name))
               for name in ("", "kino.v1.VideoService")]
    for watch in watches:
        assert next(watch) == SERVING
    frontend.control.send(b"stopping")
    note = frontend.data / "run" / "supervisor"
    eventually(lambda: note.read_text().endswith("stopped"), "the frontend knows that the machine stops")
    frontend.process.terminate()
    for watch in watches:
        assert next(watch) == NOT_SERVING
        watch.cancel()
    assert frontend.process.poll() is None, "it waits for the job"
    attempt.chunk(b"video" * 1000)
    attempt.done()
    assert frontend.stop() == 0
    frontend.start()
    assert len(frontend.wait_for(job.id, video.SUCCEEDED).attempts) == 1
