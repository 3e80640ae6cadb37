"""What a queued job is told of where it stands; cancelling many; second steps of a recovery."""

import hashlib
import threading

import grpc
import pytest

from frontend_fixture import DEADLINE, FakeWorker, collect, eventually, request, video, worker
from request_helpers import fields, refusal

FAST = "link: {heartbeat_interval: 100ms, lease: 2s, reattach_grace: 20s}\nretry: {min_backoff: 0s, max_backoff: 0s}\n"


def standing(job):
    return job.queue_position, job.waiting_reason


def test_reason_follows_the_workers_in_get_list_and_watch(start):
    frontend = start()
    first, second = frontend.submit(), frontend.submit()
    events = frontend.watch(second.id)
    assert next(events).state_change.state == video.QUEUED

    def told():
        event = next(events)
        assert event.HasField("progress"), event
        return standing(event.progress)

    assert told() == standing(frontend.job(second.id)) == (1, "NO_WORKER")
    assert [standing(job) for job in frontend.list().jobs] == [(1, "NO_WORKER"), (0, "NO_WORKER")]
    other = FakeWorker(frontend, models=[worker.WorkerModel(name="another")])
    other.expect("hello_reply")
    assert standing(frontend.job(first.id)) == (0, "NO_WORKER")
    other.disconnect()
    fake = FakeWorker(frontend, pid=5)
    attempt = fake.attempt()
    attempt.started()
    third = frontend.submit()
    eventually(lambda: standing(frontend.job(second.id)) == (0, "WORKERS_BUSY"), "it is next")
    assert standing(frontend.job(third.id)) == (1, "AHEAD")
    # In between it may have been told that it is ahead of a worker which is about to take the first.
    eventually(lambda: told() == (0, "WORKERS_BUSY"), "the watcher hears of it")
    running = frontend.job(first.id)
    assert not running.HasField("queue_position") and not running.waiting_reason


def test_a_watcher_hears_that_its_job_has_moved_up_though_nobody_else_asks(start):
    frontend = start()
    first, second = frontend.submit(), frontend.submit()
    events = frontend.watch(second.id)
    assert next(events).state_change.state == video.QUEUED
    assert standing(next(events).progress) == (1, "NO_WORKER")
    frontend.cancel(first.id)
    assert standing(next(events).progress) == (0, "NO_WORKER")


def test_back_off_is_told_with_its_end(start):
    frontend = start("retry: {min_backoff: 60s, max_backoff: 60s}\n")
    job = frontend.submit()
    FakeWorker(frontend).attempt().failed(worker.AttemptFailed.INTERNAL)
    waiting = eventually(lambda: (lambda j: j if j.waiting_reason == "BACK_OFF" else None)(frontend.job(job.id)),
                         "the job is in back-off")
    assert waiting.waiting_until.ToNanoseconds() > waiting.attempts[0].end_time.ToNanoseconds()
    for event in frontend.watch(job.id):
        if event.progress.waiting_reason == "BACK_OFF":
            assert event.progress.waiting_until == waiting.waiting_until
            break


def test_watcher_that_resumed_sees_the_next_attempt_from_its_beginning(start):
    frontend = start(FAST, with_control=True)
    job = frontend.submit()
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    attempt.started()
    attempt.chunk(b"first attempt" * 100)
    fake.acked(2)
    events = frontend.watch(job.id, after_state_number=2, attempt=1, offset=1000)
    chunk = next(events).video_chunk
    assert (chunk.attempt, chunk.offset, chunk.data) == (1, 1000, (b"first attempt" * 100)[1000:])
    frontend.control.send(b"exited cpu 4242 9 0")
    fake.disconnect()
    FakeWorker(frontend, pid=5).attempt().succeed(b"second attempt" * 100)
    states, data, finished = collect(events)
    assert [s[:2] for s in states] == [(video.QUEUED, 1), (video.RUNNING, 2), (video.SUCCEEDED, 2)]
    assert data == b"second attempt" * 100 and finished.state == video.SUCCEEDED


@pytest.mark.parametrize("comes_back", [True, False])
def test_broken_link_then_cancel(start, comes_back):
    frontend = start(FAST.replace("20s", "1s"))
    job = frontend.submit()
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    attempt.started()
    fake.acked(1)
    fake.disconnect()
    assert frontend.cancel(job.id).cancel_requested
    if comes_back:
        again = FakeWorker(frontend, held=[attempt.ref])
        assert again.expect("cancel").ref == attempt.ref
        attempt.fake = again
        attempt.failed(worker.AttemptFailed.CANCELLED_BY_US, code=1, message="cancelled")
    assert frontend.wait_for(job.id, video.CANCELLED).attempts[0].number == 1


def cancel_jobs(frontend, **wanted):
    return frontend.video.CancelJobs(video.CancelJobsRequest(**wanted), timeout=DEADLINE)


def test_cancel_jobs_takes_what_matches_and_nothing_else(start):
    frontend = start()
    running = frontend.submit(labels={"set": "a"})
    attempt = FakeWorker(frontend).attempt()
    attempt.started()
    # More than are cancelled at a time, three times.
    wanted = [frontend.submit(labels={"set": "a", "n": str(i)}).id for i in range(40)]
    others = [frontend.submit(labels={"set": "b"}).id for _ in range(3)]
    answer = cancel_jobs(frontend, labels={"set": "a"}, states=[video.QUEUED])
    assert answer.count == 40 and list(answer.ids) == wanted[::-1]
    assert frontend.job(running.id).state == video.RUNNING
    assert cancel_jobs(frontend, labels={"set": "a"}, states=[video.QUEUED]).count == 0
    answer = cancel_jobs(frontend, labels={"set": "a"})
    assert answer.count == 1 and list(answer.ids) == [running.id]
    assert attempt.fake.expect("cancel").ref == attempt.ref
    assert cancel_jobs(frontend, labels={"set": "a"}).count == 0  # asked for already
    assert {job.id for job in frontend.list(states=[video.QUEUED]).jobs} == set(others)
    assert cancel_jobs(frontend, model="other").count == 0
    assert cancel_jobs(frontend, model="demo").count == 3
    assert not frontend.list(states=[video.QUEUED]).jobs


def test_cancel_jobs_tells_the_first_thousand(start):
    frontend = start()
    ids = [frontend.submit().id for _ in range(1010)]
    answer = cancel_jobs(frontend, states=[video.QUEUED])
    assert answer.count == 1010 and list(answer.ids) == ids[:9:-1]
    assert not frontend.list(states=[video.QUEUED]).jobs


@pytest.mark.parametrize("wanted, field", [
    ({}, "states, model, labels"),
    (dict(states=[video.SUCCEEDED]), "states[0]"),
    (dict(states=[video.JOB_STATE_UNSPECIFIED]), "states[0]"),
    (dict(states=[99]), "states[0]"),
    (dict(labels={str(i): "x" for i in range(17)}), "labels"),
])
def test_cancel_jobs_refuses_filters_that_say_nothing(shared, wanted, field):
    job = shared.submit()
    assert fields(refusal(lambda: cancel_jobs(shared, **wanted))) == {field}
    assert shared.job(job.id).state == video.QUEUED


def test_cancel_jobs_leaves_other_tenants_alone(start):
    entries = "".join(f"    - {{tenant: {t}, sha256: {hashlib.sha256(t.encode()).hexdigest()}}}\n" for t in "ab")
    frontend = start("auth:\n  tokens:\n" + entries)

    def call(method, wanted, tenant):
        return method(wanted, metadata=[("authorization", f"Bearer {tenant}")], timeout=DEADLINE)

    job = call(frontend.video.SubmitJob, video.SubmitJobRequest(request=request()), "a")
    everything = video.CancelJobsRequest(states=[video.QUEUED, video.RUNNING])
    assert refusal(lambda: frontend.video.CancelJobs(everything)).code() == grpc.StatusCode.UNAUTHENTICATED
    assert call(frontend.video.CancelJobs, everything, "b").count == 0
    assert call(frontend.video.GetJob, video.GetJobRequest(id=job.id), "a").state == video.QUEUED
    assert call(frontend.video.CancelJobs, everything, "a").count == 1


def test_jobs_submitted_while_many_are_cancelled_stay(start):
    frontend = start()
    for _ in range(100):
        frontend.submit(labels={"set": "a"})
    later = []
    submitter = threading.Thread(target=lambda: later.extend(frontend.submit(labels={"set": "b"}).id for _ in range(50)))
    submitter.start()
    assert cancel_jobs(frontend, labels={"set": "a"}).count == 100
    submitter.join(DEADLINE)
    assert {job.id for job in frontend.list(states=[video.QUEUED]).jobs} == set(later)
