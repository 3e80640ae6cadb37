"""What breaks: workers, links, the frontend itself, disks, requests. The server and its other jobs go on."""

import hashlib
import resource
import subprocess
import time

import grpc
import pytest

from frontend_fixture import BIN, DEADLINE, FakeWorker, collect, details, eventually, status_reason, video, worker

FAST = "link: {heartbeat_interval: 100ms, lease: 2s, reattach_grace: 20s}\nretry: {min_backoff: 0s, max_backoff: 0s}\n"


def crash(frontend, name="cpu", pid=4242, signal=9):
    """What kinod says when a worker dies."""
    frontend.control.send(f"exited {name} {pid} {signal} 0".encode())


def test_crashed_worker_reruns_the_job_and_no_byte_of_the_first_attempt_stays(start):
    frontend = start(FAST, with_control=True)
    job = frontend.submit()
    first = FakeWorker(frontend)
    attempt = first.attempt()
    attempt.started()
    attempt.chunk(b"first attempt" * 1000)
    attempt.fake.acked(2)
    events = frontend.watch(job.id)
    seen = []
    for event in events:
        seen.append(event)
        if event.HasField("video_chunk"):
            break
    crash(frontend)
    first.disconnect()
    second = FakeWorker(frontend, pid=5000).attempt()
    assert second.ref.attempt == 2 and second.ref.token != attempt.ref.token
    second.succeed(b"second attempt" * 1000)
    states, data, finished = collect(seen + list(events))
    assert [s[:2] for s in states] == [(video.QUEUED, 0), (video.RUNNING, 1), (video.QUEUED, 1), (video.RUNNING, 2),
                                       (video.SUCCEEDED, 2)]
    assert "worker lost" in states[2][2]
    assert data == b"second attempt" * 1000
    assert len(list((frontend.data / "videos").iterdir())) == 1
    assert finished.attempts[0].error.code and not finished.attempts[1].HasField("error")
    assert status_reason(finished.attempts[0].error) == "CRASH"


def test_job_that_kills_two_workers_is_quarantined_and_others_run(start):
    frontend = start(FAST, with_control=True)
    poison = frontend.submit()
    good = frontend.submit()
    for pid in (1001, 1002):
        fake = FakeWorker(frontend, pid=pid)
        attempt = fake.attempt()
        assert attempt.ref.job_id == poison.id
        attempt.progress(0.5, step=3)
        next(event for event in frontend.watch(poison.id) if event.HasField("progress") and event.progress.step == 3)
        crash(frontend, pid=pid, signal=11)
        fake.disconnect()
        # Its end is durable before another worker may have it.
        frontend.wait_for(poison.id, video.QUEUED if pid == 1001 else video.QUARANTINED)
    ended = frontend.job(poison.id)
    assert [(a.cause, a.evidence.signal, a.evidence.stage, a.evidence.step, a.evidence.device) for a in ended.attempts] == [
        ("CRASH", 11, video.DENOISE, 3, "cpu")] * 2
    FakeWorker(frontend, pid=1003).attempt().succeed()
    frontend.wait_for(good.id, video.SUCCEEDED)


def test_stuck_worker_is_killed_by_kinod_and_the_job_runs_again(start):
    frontend = start(FAST + "limits: {no_progress: 300ms}\n", with_control=True)
    job = frontend.submit()
    fake = FakeWorker(frontend, pid=777)
    fake.attempt().started()
    assert frontend.control.recv(512) == b"kill cpu 777"
    crash(frontend, pid=777)
    FakeWorker(frontend, pid=778).attempt().succeed()
    done = frontend.wait_for(job.id, video.SUCCEEDED)
    assert len(done.attempts) == 2


def test_uncooperative_cancel_costs_the_worker(start):
    frontend = start(FAST + "limits: {cancel_grace: 300ms}\n", with_control=True)
    job = frontend.submit()
    fake = FakeWorker(frontend, pid=777)
    fake.attempt().started()
    frontend.video.CancelJob(video.CancelJobRequest(id=job.id))
    assert frontend.control.recv(512) == b"kill cpu 777"
    frontend.wait_for(job.id, video.CANCELLED)


def test_broken_link_resumes_where_it_was(start):
    frontend = start(FAST)
    job = frontend.submit()
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    attempt.started()
    attempt.chunk(b"a" * 1000)
    assert fake.acked(2).offset == 1000
    fake.disconnect()
    again = FakeWorker(frontend, held=[attempt.ref])
    resumed = again.expect("hello_reply").resumed
    assert [(r.number, r.offset) for r in resumed] == [(2, 1000)]
    attempt.fake = again
    attempt.number = 1  # an event that was applied is sent again: no harm
    attempt.chunk(b"a" * 1000, offset=0)
    attempt.data = b"a" * 1000
    attempt.chunk(b"b" * 500)
    attempt.done()
    done = frontend.wait_for(job.id, video.SUCCEEDED)
    assert len(done.attempts) == 1
    assert done.artifact.sha256 == hashlib.sha256(b"a" * 1000 + b"b" * 500).hexdigest()


def test_killed_frontend_loses_no_queued_job_and_no_running_attempt(start):
    frontend = start(FAST)
    running = frontend.submit()
    queued = frontend.submit(request_id="kept")
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    attempt.started()
    attempt.chunk(b"before" * 1000)
    fake.acked(2)
    frontend.kill()
    frontend.start()
    again = FakeWorker(frontend, held=[attempt.ref])
    assert again.expect("hello_reply").resumed[0].offset == 6000
    attempt.fake = again
    attempt.chunk(b"after" * 1000)
    attempt.done()
    done = frontend.wait_for(running.id, video.SUCCEEDED)
    assert len(done.attempts) == 1 and done.artifact.sha256 == hashlib.sha256(attempt.data).hexdigest()
    assert frontend.submit(request_id="kept").id == queued.id
    again.attempt().succeed()
    frontend.wait_for(queued.id, video.SUCCEEDED)


def test_worker_that_stays_away_loses_its_attempt(start):
    frontend = start("link: {heartbeat_interval: 100ms, lease: 500ms, reattach_grace: 500ms}\n"
                     "retry: {min_backoff: 0s, max_backoff: 0s}\n")
    job = frontend.submit()
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    fake.disconnect()
    other = FakeWorker(frontend, name="cpu-1", pid=5).attempt()
    assert other.ref.attempt == 2
    # The first comes back too late: it is told to drop the attempt, and its word counts for nothing.
    late = FakeWorker(frontend, held=[attempt.ref])
    assert not late.expect("hello_reply").resumed
    assert late.expect("drop").ref == attempt.ref
    attempt.fake, attempt.number = late, 0
    attempt.succeed(b"late")
    assert late.expect("drop").ref == attempt.ref
    other.succeed(b"in time")
    assert frontend.wait_for(job.id, video.SUCCEEDED).artifact.sha256 == hashlib.sha256(b"in time").hexdigest()


@pytest.mark.parametrize("wrong", ["token", "attempt", "job"])
def test_message_for_an_attempt_that_is_not_its_own_is_refused(start, wrong):
    frontend = start()
    frontend.submit()
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    ref = worker.AttemptRef()
    ref.CopyFrom(attempt.ref)
    if wrong == "token":
        ref.token = "0" * 32
    elif wrong == "attempt":
        ref.attempt = 2
    else:
        ref.job_id = "../../etc/passwd"
    fake.send(event=worker.AttemptEvent(ref=ref, number=1, chunk=worker.Chunk(data=b"x")))
    assert fake.expect("drop").ref == ref
    attempt.succeed()
    frontend.wait_for(attempt.ref.job_id, video.SUCCEEDED)


@pytest.mark.parametrize("lie", ["gap", "large", "sha256", "size", "number"])
def test_worker_that_talks_garbage_costs_an_attempt_only(start, lie):
    frontend = start(FAST)
    job = frontend.submit()
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    attempt.started()
    if lie == "gap":
        attempt.chunk(b"x", offset=5)
    elif lie == "large":
        attempt.chunk(b"x" * (256 * 1024 + 1))
    elif lie == "number":
        attempt.number += 5
        attempt.chunk(b"x")
    else:
        attempt.chunk(b"x" * 10)
        attempt.done(**({"sha256": "0" * 64} if lie == "sha256" else {"size_bytes": 11}))
    assert fake.expect("drop").ref == attempt.ref
    fake.attempt().succeed()
    assert len(frontend.wait_for(job.id, video.SUCCEEDED).attempts) == 2


@pytest.mark.parametrize("hello, code", [(dict(link_secret="0" * 64), grpc.StatusCode.UNAUTHENTICATED),
                                         (dict(protocol_version=2), grpc.StatusCode.FAILED_PRECONDITION),
                                         (dict(worker="../x"), grpc.StatusCode.INVALID_ARGUMENT)])
def test_stranger_is_not_let_on_the_link(start, hello, code):
    frontend = start()
    assert FakeWorker(frontend, **hello).expect_end().code() == code


@pytest.mark.parametrize("cause, runs_again", [
    ("CLIENT", False), ("MODEL", False), ("INTERNAL", True), ("INTERRUPTED", True)])
def test_cause_of_a_failure_decides_whether_the_job_runs_again(start, cause, runs_again):
    frontend = start(FAST)
    job = frontend.submit()
    fake = FakeWorker(frontend)
    fake.attempt().failed(worker.AttemptFailed.Cause.Value(cause), message="why it failed")
    if runs_again:
        assert fake.attempt().ref.attempt == 2
    done = frontend.wait_for(job.id, video.RUNNING if runs_again else video.FAILED)
    assert "why it failed" in done.attempts[0].error.message


def test_full_disk_costs_no_attempt_however_long_it_lasts(start):
    """Under the default limits: what no room ends is nobody's fault, and the job runs once there is some."""
    frontend = start(max_file_bytes=2 << 20)
    job = frontend.submit()
    fake = FakeWorker(frontend)
    begin = time.monotonic()
    for _ in range(5):
        attempt = fake.attempt()
        attempt.started()
        for _ in range(12):
            attempt.chunk(b"x" * 200_000)
        assert fake.expect("drop").ref == attempt.ref
        # The file goes after the state is told.
        eventually(lambda: not list((frontend.data / "videos").iterdir()), "the half video is removed")
    assert time.monotonic() > begin + 4, "it is not tried again at once"
    resource.prlimit(frontend.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    fake.attempt().succeed()
    done = frontend.wait_for(job.id, video.SUCCEEDED)
    assert [a.cause for a in done.attempts] == ["DISK_FULL"] * 5 + [""]
    assert done.attempts[0].error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


def test_leftover_files_are_removed_at_start_and_artifacts_stay(start):
    frontend = start()
    job = frontend.submit()
    FakeWorker(frontend).attempt().succeed()
    frontend.wait_for(job.id, video.SUCCEEDED)
    frontend.kill()
    leftovers = [frontend.data / "videos" / "0123.1.mp4", frontend.data / "assets" / "0123", frontend.data / "uploads" / "9"]
    for path in leftovers:
        path.write_bytes(b"left")
    frontend.start()
    assert not any(path.exists() for path in leftovers)
    data = b"".join(r.data for r in frontend.video.DownloadVideo(video.DownloadVideoRequest(id=job.id)))
    assert data == b"video" * 1000


def test_unusable_data_folder_is_named_and_no_restart_is_asked_for(tmp_path):
    (tmp_path / "file").write_text("")
    config = tmp_path / "kino.yaml"
    config.write_text("data_dir: file/data\n")
    result = subprocess.run([BIN / "kino-frontend", "--config", config], capture_output=True, text=True, timeout=DEADLINE)
    assert result.returncode == 78 and "data folder" in result.stderr


def test_second_frontend_on_the_same_folder_is_refused(start):
    frontend = start()
    result = subprocess.run([BIN / "kino-frontend", "--config", frontend.config], capture_output=True, text=True,
                            timeout=DEADLINE)
    assert result.returncode == 78
    assert frontend.submit().state == video.QUEUED


def test_drain_tells_watchers_where_to_go_on(start):
    frontend = start(FAST)
    job = frontend.submit()
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    attempt.started()
    attempt.chunk(b"x" * 1000)
    call = frontend.watch(job.id)
    for event in call:
        if event.HasField("video_chunk"):
            break
    frontend.process.terminate()
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    info = details(error.value)["ErrorInfo"]
    assert info.reason == "GOING_AWAY" and info.metadata["offset"] == "1000" and info.metadata["attempt"] == "1"
    assert frontend.process.wait(DEADLINE) == 0
    frontend.start()
    again = FakeWorker(frontend, held=[attempt.ref])
    assert again.expect("hello_reply").resumed
    attempt.fake = again
    attempt.done()
    assert len(frontend.wait_for(job.id, video.SUCCEEDED).attempts) == 1


def test_machine_that_stops_waits_for_the_workers_and_counts_no_fault(start):
    frontend = start(FAST, with_control=True)
    job = frontend.submit()
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    attempt.started()
    fake.acked(1)
    frontend.control.send(b"stopping")
    frontend.process.terminate()
    attempt.failed(worker.AttemptFailed.INTERRUPTED, code=14, message="drained")
    fake.acked(2)
    assert frontend.process.wait(DEADLINE) == 0
    frontend.start()
    again = frontend.job(job.id)
    assert again.state == video.QUEUED and "drained" in again.attempts[0].error.message
    FakeWorker(frontend).attempt().succeed()
    frontend.wait_for(job.id, video.SUCCEEDED)


def test_artifact_that_aged_out_is_removed_and_the_job_stays(start):
    frontend = start("retention: {results: 1s}\n")
    job = frontend.submit()
    FakeWorker(frontend).attempt().succeed()
    frontend.wait_for(job.id, video.SUCCEEDED)
    done = eventually(lambda: (lambda j: None if j.HasField("artifact") else j)(frontend.job(job.id)), "it has aged out")
    assert done.state == video.SUCCEEDED
    eventually(lambda: not list((frontend.data / "videos").iterdir()), "its file is removed")
    with pytest.raises(grpc.RpcError) as error:
        list(frontend.video.DownloadVideo(video.DownloadVideoRequest(id=job.id)))
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
