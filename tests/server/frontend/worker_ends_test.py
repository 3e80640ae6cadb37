"""How a worker ends, and what comes of it: who is to blame, what is told of it, and who was waiting for its word."""

import grpc
import pytest

from frontend_fixture import DEADLINE, FakeWorker, eventually, models, video, worker
from faults_test import FAST, crash
from request_helpers import refusal


def take_out(frontend):
    """Three different jobs crash on the device "cpu", which is out of service then. Returns the jobs, which wait again."""
    jobs = [frontend.submit() for _ in range(3)]
    fakes = [FakeWorker(frontend, name=f"cpu-{i}", pid=1000 + i) for i in range(3)]
    for fake in fakes:
        fake.attempt()
    crash_all(frontend, fakes)
    for job in jobs:
        frontend.wait_for(job.id, video.QUEUED)
    eventually(lambda: "taken out of service" in frontend.log_path.read_text(), "the device is out")
    return jobs


def crash_all(frontend, fakes):
    for fake in fakes:
        crash(frontend, name=fake.name, pid=fake.pid)
        fake.disconnect()


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


@pytest.mark.parametrize("signal, exit_code", [(11, 0), (0, 70)])
def test_evidence_of_a_crash_tells_how_it_ended_and_how_full_the_device_was(start, signal, exit_code):
    frontend = start("link: {lease: 60s}\n", with_control=True)
    job = frontend.submit()
    fake = FakeWorker(frontend, heartbeat=3600)
    attempt = fake.attempt()
    fake.send(heartbeat=worker.WorkerHeartbeat(models=fake.models, device_memory_used_bytes=123456789))
    attempt.started()
    fake.acked(1)
    frontend.control.send(f"exited cpu 4242 {signal} {exit_code}".encode())
    evidence = frontend.wait_for(job.id, video.QUEUED).attempts[0].evidence
    assert (evidence.signal, evidence.exit_code) == (signal, exit_code)
    assert (evidence.device, evidence.device_memory_bytes) == ("cpu", 123456789)


def test_crashes_after_a_frontends_restart_count_against_the_device(start):
    frontend = start(FAST, with_control=True)
    jobs = [frontend.submit() for _ in range(3)]
    attempts = [FakeWorker(frontend, name=f"cpu-{i}", pid=1000 + i).attempt() for i in range(3)]
    frontend.kill()
    frontend.start()
    again = [FakeWorker(frontend, name=a.fake.name, pid=a.fake.pid, held=[a.ref]) for a in attempts]
    for fake in again:
        assert fake.expect("hello_reply").resumed
    crash_all(frontend, again)
    for job in jobs:
        attempts = frontend.wait_for(job.id, video.QUEUED).attempts
        assert [(a.cause, a.evidence.device) for a in attempts] == [("CRASH", "cpu")]
    FakeWorker(frontend, pid=2000).expect("check_device")


@pytest.mark.parametrize("end_is_seen", [True, False])
def test_client_that_waits_for_a_model_hears_that_its_worker_died(start, end_is_seen):
    frontend = start()
    fake = FakeWorker(frontend)
    fake.expect("hello_reply")
    for call, request, kind in ((frontend.models.LoadModel, models.LoadModelRequest(name="demo"), "load_model"),
                                (frontend.models.UnloadModel, models.UnloadModelRequest(name="demo"), "unload_model")):
        answer = call.future(request, timeout=DEADLINE)
        assert fake.expect(kind).model == "demo"
        if end_is_seen:
            fake.disconnect()
        else:
            fake = FakeWorker(frontend)
            fake.expect("hello_reply")
        error = refusal(answer.result)
        assert error.code() == grpc.StatusCode.UNAVAILABLE and "went away" in error.details()
        if end_is_seen:
            fake = FakeWorker(frontend)
            fake.expect("hello_reply")


# A worker may be back before the frontend has seen the end of its last stream.
@pytest.mark.parametrize("end_is_seen", [True, False])
def test_check_of_a_device_whose_worker_dies_is_made_by_the_next(start, end_is_seen):
    frontend = start(FAST, with_control=True)
    jobs = take_out(frontend)
    first = FakeWorker(frontend, pid=2000)
    first.expect("check_device")
    if end_is_seen:
        first.disconnect()
        eventually(lambda: "worker cpu: disconnected" in frontend.log_path.read_text(), "the end of the stream is seen")
    second = FakeWorker(frontend, pid=2001)
    command = second.expect("check_device")
    second.send(model_result=worker.ModelCommandResult(command_id=command.command_id))
    for job in jobs:
        second.attempt().succeed()
        frontend.wait_for(job.id, video.SUCCEEDED)


@pytest.mark.parametrize("obeys", [True, False])
def test_cancel_that_was_asked_for_before_the_frontend_died_is_asked_for_again(start, obeys):
    frontend = start(FAST + "limits: {cancel_grace: 10m}\n", with_control=True)
    job = frontend.submit()
    fake = FakeWorker(frontend, pid=777)
    attempt = fake.attempt()
    attempt.started()
    fake.acked(1)
    frontend.cancel(job.id)
    fake.expect("cancel")
    if not obeys:
        frontend.configure("cancel_grace: 10m", "cancel_grace: 5s")
    frontend.restart()
    assert frontend.job(job.id).cancel_requested
    again = FakeWorker(frontend, pid=777, held=[attempt.ref])
    assert again.expect("hello_reply").resumed
    assert again.expect("cancel").ref == attempt.ref
    if obeys:
        attempt.fake = again
        attempt.failed(worker.AttemptFailed.CANCELLED_BY_US, code=1, message="cancelled")
    else:
        assert frontend.control.recv(512) == b"kill cpu 777"
    frontend.wait_for(job.id, video.CANCELLED)
