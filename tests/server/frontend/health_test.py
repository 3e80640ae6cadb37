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


def test_device_that_is_out_does_not_serve_until_its_check_has_passed(start):
    frontend = start(FAST + "workers: [{name: cpu}, {name: other}]\n", with_control=True)
    check = frontend.channel.unary_unary("/grpc.health.v1.Health/Check")
    take_out(frontend)
    fake = FakeWorker(frontend, pid=2000)
    command = fake.expect("check_device")
    FakeWorker(frontend, name="other", device="cuda:0", models=[], pid=2001)
    # Whoever sees this worker sees the other one too, which was there before it.
    eventually(lambda: check(asked("worker/other")) == SERVING, "a worker on another device serves")
    names = ["worker/cpu", "device/cpu", "model/demo"]
    assert [check(asked(name)) for name in names] == [NOT_SERVING] * 3
    fake.send(model_result=worker.ModelCommandResult(command_id=command.command_id))
    eventually(lambda: all(check(asked(name)) == SERVING for name in names), "the device serves again")
