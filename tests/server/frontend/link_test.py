"""What must cost no job anything: a server that stands still, stops, or is short of something; and what must cost the right
one: a device on which everything crashes, a job that brings the machine down. Default settings but where a test names one."""

import os
import resource
import signal
import sqlite3
import time

import grpc
import pytest

from frontend_fixture import DEADLINE, FakeWorker, eventually, reason, video, worker
from faults_test import FAST, crash
from request_helpers import png, upload


def beats(fake, count):
    """Returns after so many more heartbeats were answered."""
    end = fake.beats + count
    eventually(lambda: fake.beats >= end or fake.error, f"{count} heartbeats are answered")
    assert fake.error is None, fake.error


def limit(frontend, kind, value):
    soft, hard = resource.prlimit(frontend.process.pid, kind)
    resource.prlimit(frontend.process.pid, kind, (value, hard))
    return soft


def test_frontend_that_stands_still_costs_no_attempt(start):
    """A lease is ten seconds. Who did not listen for thirteen has heard nobody, and must not conclude anything from it."""
    frontend = start(with_control=True)
    jobs = [frontend.submit() for _ in range(3)]
    fakes = [FakeWorker(frontend, name=f"cpu-{i}", pid=1000 + i) for i in range(3)]
    attempts = [fake.attempt() for fake in fakes]
    for attempt in attempts:
        attempt.started()
    frontend.process.send_signal(signal.SIGSTOP)
    time.sleep(13)  # not to wait for anything: this is what the test is about
    frontend.process.send_signal(signal.SIGCONT)
    for fake in fakes:
        beats(fake, 3)
    for attempt in attempts:
        attempt.chunk(b"video" * 1000)
        attempt.done()
    for job in jobs:
        assert len(frontend.wait_for(job.id, video.SUCCEEDED).attempts) == 1
    frontend.control.setblocking(False)
    with pytest.raises(BlockingIOError):
        frontend.control.recv(512)  # nobody was to be killed


def test_silent_worker_is_lost_though_the_frontend_stood_still_before(start):
    """The second step: time that was not listened to is given once, not for ever."""
    frontend = start("link: {heartbeat_interval: 200ms, lease: 1s, reattach_grace: 1s}\n", with_control=True)
    frontend.submit()
    fake = FakeWorker(frontend, pid=1000)
    fake.attempt()
    frontend.process.send_signal(signal.SIGSTOP)
    fake.beating.set()  # it says nothing any more
    time.sleep(2)
    frontend.process.send_signal(signal.SIGCONT)
    frontend.control.settimeout(DEADLINE)
    assert frontend.control.recv(512) == b"kill cpu 1000"


def test_events_renew_a_lease_as_heartbeats_do(start):
    frontend = start("link: {heartbeat_interval: 200ms, lease: 1s, reattach_grace: 1s}\n")
    job = frontend.submit()
    fake = FakeWorker(frontend, heartbeat=3600)
    attempt = fake.attempt()
    attempt.started()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        attempt.chunk(b"x")
        fake.acked(attempt.number)
        time.sleep(0.1)
    attempt.done()
    assert len(frontend.wait_for(job.id, video.SUCCEEDED).attempts) == 1


@pytest.mark.parametrize("stage, is_killed", [(video.LOAD, False), (video.STAGE_UNSPECIFIED, False), (video.DECODE, True)])
def test_loading_has_a_limit_of_its_own(start, stage, is_killed):
    frontend = start("limits: {no_progress: 500ms}\n", with_control=True)
    job = frontend.submit()
    fake = FakeWorker(frontend, pid=777, stage=stage)
    attempt = fake.attempt()
    if is_killed:
        assert frontend.control.recv(512) == b"kill cpu 777"
        return
    beats(fake, 15)  # three times the limit
    attempt.succeed()
    assert len(frontend.wait_for(job.id, video.SUCCEEDED).attempts) == 1


def test_attempt_behind_a_model_that_a_client_has_loaded_is_left_alone_while_it_loads(start):
    frontend = start("limits: {load_timeout: 500ms, no_progress: 500ms}\n", with_control=True)
    job = frontend.submit()
    fake = FakeWorker(frontend, pid=777, stage=video.STAGE_UNSPECIFIED)
    fake.works = True
    attempt = fake.attempt()
    beats(fake, 15)  # three times the limit
    assert frontend.job(job.id).state == video.RUNNING
    fake.works = False
    assert frontend.control.recv(512) == b"kill cpu 777", "neither loads anything nor is anything before the attempt"
    assert attempt.ref.job_id == job.id


def test_job_whose_model_is_removed_while_it_runs_fails_when_it_would_run_again(start):
    frontend = start()
    config = frontend.config.read_text()
    frontend.stop()
    frontend.config.write_text(config.replace("models:\n", "models:\n  - {name: gone, folder: "
                                              f"'{config.split('folder: ')[1].split(chr(39))[1]}'}}\n"))
    frontend.start()
    job = frontend.submit(model="gone", height=64, width=64, num_frames=17, num_inference_steps=4)
    fake = FakeWorker(frontend, models=[worker.WorkerModel(name="gone")])
    attempt = fake.attempt()
    attempt.started()
    fake.acked(1)
    frontend.kill()
    frontend.config.write_text(config)
    frontend.start()
    assert frontend.job(job.id).state == video.RUNNING
    again = FakeWorker(frontend, models=[], held=[attempt.ref])
    again.expect("hello_reply")
    attempt.fake = again
    attempt.failed(worker.AttemptFailed.INTERRUPTED, code=14, message="drained")
    failed = frontend.wait_for(job.id, video.FAILED)
    assert "no longer configured" in failed.error.message


def test_last_events_are_acknowledged_once_they_are_durable(start):
    """MUTANTS F01 and FAULTS 15: while the store cannot write, neither a result nor a failure is acknowledged."""
    frontend = start(FAST)
    for _ in range(2):
        frontend.submit()
    fakes = [FakeWorker(frontend, name=f"cpu-{i}", pid=100 + i) for i in range(2)]
    done, failed = [fake.attempt() for fake in fakes]
    for attempt in (done, failed):
        attempt.started()
        attempt.chunk(b"v" * 1000)
        attempt.fake.acked(2)
    soft = limit(frontend, resource.RLIMIT_FSIZE, 1000)
    done.done()
    failed.failed(worker.AttemptFailed.CLIENT, code=3, message="cannot run")
    for attempt in (done, failed):
        beats(attempt.fake, 10)  # what came before them has been dealt with
        assert attempt.fake.messages.empty(), "nothing is acknowledged"
        assert frontend.job(attempt.ref.job_id).state == video.RUNNING
    frontend.kill()
    assert soft == resource.RLIM_INFINITY
    frontend.start()
    for attempt in (done, failed):
        again = FakeWorker(frontend, name=attempt.fake.name, pid=attempt.fake.pid, held=[attempt.ref])
        reply = again.expect("hello_reply")
        assert [r.ref for r in reply.resumed] == [attempt.ref]
        attempt.fake, attempt.number = again, 2
    done.done()
    failed.failed(worker.AttemptFailed.CLIENT, code=3, message="cannot run")
    assert len(frontend.wait_for(done.ref.job_id, video.SUCCEEDED).attempts) == 1
    assert "cannot run" in frontend.wait_for(failed.ref.job_id, video.FAILED).error.message
    for attempt in (done, failed):
        attempt.fake.acked(3)


def test_server_without_descriptors_fails_no_job(start):
    frontend = start()
    job = frontend.submit()
    fake = FakeWorker(frontend, models=[])
    fake.expect("hello_reply")
    open_now = len(os.listdir(f"/proc/{frontend.process.pid}/fd"))
    soft = limit(frontend, resource.RLIMIT_NOFILE, open_now - 3)
    fake.models.append(worker.WorkerModel(name="demo"))
    eventually(lambda: "nothing is started for a while" in frontend.log_path.read_text(), "the shortage is seen")
    limit(frontend, resource.RLIMIT_NOFILE, soft)
    fake.attempt().succeed()
    done = frontend.wait_for(job.id, video.SUCCEEDED)
    assert {a.cause for a in done.attempts[:-1]} == {"INTERRUPTED"}


def test_finished_video_waits_for_a_descriptor(start):
    """The server is short of them when the result comes: no second run for that."""
    frontend = start()
    job = frontend.submit()
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    attempt.started()
    attempt.chunk(b"video" * 1000)
    fake.acked(2)
    open_now = len(os.listdir(f"/proc/{frontend.process.pid}/fd"))
    soft = limit(frontend, resource.RLIMIT_NOFILE, open_now - 3)
    attempt.done()
    eventually(lambda: "its video cannot be synced yet" in frontend.log_path.read_text(), "the shortage is seen")
    beats(fake, 10)
    assert fake.messages.empty(), "nothing is acknowledged"
    limit(frontend, resource.RLIMIT_NOFILE, soft)
    assert [a.cause for a in frontend.wait_for(job.id, video.SUCCEEDED).attempts] == [""]
    fake.acked(3)


def test_worker_without_descriptors_fails_no_job(start):
    """More of them than attempts are allowed; after each, nothing is started for a moment."""
    frontend = start("retry: {max_attempts: 1}\n")
    job = frontend.submit()
    fake = FakeWorker(frontend)
    for _ in range(3):
        fake.attempt().failed(worker.AttemptFailed.SHORTAGE, code=8, message="cannot create spool: Too many open files")
    fake.attempt().succeed()
    done = frontend.wait_for(job.id, video.SUCCEEDED)
    assert [a.cause for a in done.attempts] == ["INTERRUPTED"] * 3 + [""]
    assert "nothing is started for a while: cannot create spool" in frontend.log_path.read_text()


def test_disk_below_its_reserve_holds_jobs_back(start):
    frontend = start("limits: {min_free_disk: 900000GiB}\n")
    fake = FakeWorker(frontend)
    fake.expect("hello_reply")
    eventually(lambda: "no job is started" in frontend.log_path.read_text(), "the hold is told")
    beats(fake, 3)
    assert fake.messages.empty()


@pytest.mark.parametrize("orderly", [False, True])
def test_machine_that_stops_costs_no_attempt(start, orderly):
    """Not even a wait: workers die with their kinod, so nobody can come back."""
    frontend = start(with_control=True, supervisor="kinod-1")
    job = frontend.submit()
    FakeWorker(frontend, pid=1).attempt().started()
    frontend.wait_for(job.id, video.RUNNING)
    if orderly:
        frontend.control.send(b"stopping")
        note = frontend.data / "run" / "supervisor"
        eventually(lambda: note.read_text().endswith("stopped"), "the stop is noted")
    frontend.kill()
    frontend.start(supervisor="kinod-2")
    FakeWorker(frontend, pid=2).attempt().succeed()
    done = frontend.wait_for(job.id, video.SUCCEEDED)
    assert [a.cause for a in done.attempts] == ["INTERRUPTED" if orderly else "UNCLEAN_STOP", ""]


def test_frontend_that_dies_before_it_has_noted_what_a_stop_cost_finds_it_again(start):
    """The second step of that recovery: its end is not in the store yet."""
    frontend = start("retry: {max_crashes: 1}\n", supervisor="kinod-1")
    job = frontend.submit()
    FakeWorker(frontend, pid=1).attempt().started()
    frontend.wait_for(job.id, video.RUNNING)
    frontend.kill()
    frontend.start_and_die_at("frontend.end.before_store", supervisor="kinod-2")
    frontend.start(supervisor="kinod-2")
    FakeWorker(frontend, pid=2).attempt().succeed()
    done = frontend.wait_for(job.id, video.SUCCEEDED)
    assert [a.cause for a in done.attempts] == ["UNCLEAN_STOP", ""]


def test_restarted_frontend_of_the_same_kinod_waits_for_its_workers(start):
    frontend = start(supervisor="kinod-1")
    job = frontend.submit()
    attempt = FakeWorker(frontend).attempt()
    attempt.started()
    frontend.kill()
    frontend.start(supervisor="kinod-1")
    again = FakeWorker(frontend, held=[attempt.ref])
    assert again.expect("hello_reply").resumed
    attempt.fake, attempt.number = again, 1
    attempt.chunk(b"x")
    attempt.done()
    assert len(frontend.wait_for(job.id, video.SUCCEEDED).attempts) == 1


def test_job_that_runs_at_three_unclean_stops_is_quarantined(start):
    frontend = start(supervisor="kinod-0")
    job = frontend.submit()
    for i in range(1, 4):
        assert FakeWorker(frontend, pid=i).attempt().ref.job_id == job.id
        frontend.kill()
        frontend.start(supervisor=f"kinod-{i}")
    ended = frontend.wait_for(job.id, video.QUARANTINED)
    assert [a.cause for a in ended.attempts] == ["UNCLEAN_STOP"] * 3
    assert "unclean stops" in ended.error.message


def take_out_device(frontend, jobs):
    """By crashes of three jobs. The first crashes twice and is quarantined; with the second and the third the device is to
    blame."""
    def run(pid, job, name="cpu"):
        fake = FakeWorker(frontend, pid=pid, name=name)
        assert fake.attempt().ref.job_id == job.id
        return fake

    def end(fake, job, state):
        crash(frontend, name=fake.name, pid=fake.pid, signal=6)
        fake.disconnect()
        frontend.wait_for(job.id, state)

    end(run(100, jobs[0]), jobs[0], video.QUEUED)
    end(run(101, jobs[0]), jobs[0], video.QUARANTINED)
    second, third = run(102, jobs[1]), run(103, jobs[2], name="cpu-1")
    end(second, jobs[1], video.QUEUED)
    end(third, jobs[2], video.QUEUED)


@pytest.mark.parametrize("restarts", [False, True])
def test_device_on_which_three_jobs_crash_is_taken_out_and_the_jobs_are_not_blamed(start, restarts):
    frontend = start(FAST, with_control=True)
    jobs = [frontend.submit() for _ in range(3)]
    take_out_device(frontend, jobs)
    for job in jobs:
        frontend.wait_for(job.id, video.QUEUED)
    if restarts:
        frontend.restart()
    fake = FakeWorker(frontend, pid=200)
    first = fake.expect("check_device")
    beats(fake, 3)
    assert fake.messages.empty(), "a device that is out gets no job"
    waiting = frontend.job(jobs[0].id)
    assert waiting.waiting_reason == "DEVICE_OUT" and not waiting.HasField("start_eta")
    fake.send(model_result=worker.ModelCommandResult(command_id=first.command_id,
                                                     error={"code": 13, "message": "the product is wrong"}))
    second = fake.expect("check_device")
    fake.send(model_result=worker.ModelCommandResult(command_id=second.command_id))
    for job in jobs:
        attempt = fake.attempt()
        assert attempt.ref.job_id == job.id
        attempt.succeed()
        assert frontend.wait_for(job.id, video.SUCCEEDED).waiting_reason == ""


def test_worker_that_does_not_end_the_check_of_its_device_is_killed(start):
    frontend = start(FAST + "limits: {load_timeout: 500ms}\n", with_control=True)
    take_out_device(frontend, [frontend.submit() for _ in range(3)])
    fake = FakeWorker(frontend, pid=200)
    fake.expect("check_device")
    assert frontend.control.recv(512) == b"kill cpu 200"
    fake.disconnect()
    FakeWorker(frontend, pid=201).expect("check_device")


def test_job_that_failed_runs_again_at_an_operators_word(start):
    frontend = start()
    job = frontend.submit()
    fake = FakeWorker(frontend)
    fake.attempt().failed(worker.AttemptFailed.CLIENT, code=3, message="cannot run")
    frontend.wait_for(job.id, video.FAILED)
    again = frontend.video.RequeueJob(video.RequeueJobRequest(id=job.id))
    assert again.state == video.QUEUED and not again.HasField("error")
    attempt = fake.attempt()
    assert attempt.ref.attempt == 2
    with pytest.raises(grpc.RpcError) as error:
        frontend.video.RequeueJob(video.RequeueJobRequest(id=job.id))
    assert reason(error.value) == "JOB_NOT_REQUEUABLE"
    attempt.succeed()
    assert [a.cause for a in frontend.wait_for(job.id, video.SUCCEEDED).attempts] == ["CLIENT", ""]


def test_receipt_tells_what_made_the_video(start):
    frontend = start()
    job = frontend.submit()
    model = worker.WorkerModel(name="demo", fingerprint="ab" * 32)
    fake = FakeWorker(frontend, models=[model], device="cuda:0", device_name="a fast one")
    fake.attempt().succeed()
    receipt = frontend.wait_for(job.id, video.SUCCEEDED).receipt
    expected = video.Receipt(worker="cpu", worker_version="test", device="cuda:0", device_name="a fast one",
                             model_sha256="ab" * 32)
    assert receipt == expected, "the weights' hash is not known"
    # It is known at the end, whatever the heartbeats say by then.
    expected.weights_sha256 = "cd" * 32
    job = frontend.submit()
    attempt = fake.attempt()
    attempt.chunk(b"video")
    attempt.done(weights_sha256="cd" * 32)
    assert frontend.wait_for(job.id, video.SUCCEEDED).receipt == expected
    # It is known before, and the attempt fails.
    model.weights_sha256 = "ef" * 32
    beats(fake, 2)
    job = frontend.submit()
    fake.attempt().failed(worker.AttemptFailed.CLIENT, code=3)
    expected.weights_sha256 = "ef" * 32
    assert frontend.wait_for(job.id, video.FAILED).receipt == expected


def test_disk_below_its_reserve_refuses_jobs_and_uploads_clearly(start):
    frontend = start("limits: {min_free_disk: 900000GiB}\n")
    for call in (frontend.submit, lambda: upload(frontend, png())):
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and reason(error.value) == "DISK_FULL"


def test_health_tells_of_models_and_workers(start):
    frontend = start("workers: [{name: cpu}]\n")
    health = frontend.channel.unary_unary("/grpc.health.v1.Health/Check")

    def is_serving(name):
        return health(bytes([10, len(name)]) + name.encode()) == bytes([8, 1])

    names = ["model/demo", "worker/cpu", "device/cpu"]
    assert not any(is_serving(name) for name in names)
    fake = FakeWorker(frontend)
    eventually(lambda: all(is_serving(name) for name in names), "they serve")
    fake.send(draining=worker.Draining())
    eventually(lambda: not any(is_serving(name) for name in names), "they serve no more")
    assert is_serving("")


@pytest.mark.parametrize("damaged", [False, True])
def test_health_tells_of_a_damaged_store(start, damaged):
    frontend = start()
    frontend.submit()
    frontend.kill()
    with sqlite3.connect(frontend.data / "kino.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root, size = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'requests'").fetchone()[0], \
            db.execute("PRAGMA page_size").fetchone()[0]
    if damaged:
        with open(frontend.data / "kino.db", "r+b") as file:
            file.seek((root - 1) * size)
            file.write(b"\xff" * size)
    frontend.start()
    health = frontend.channel.unary_unary("/grpc.health.v1.Health/Check")
    status = 2 if damaged else 1  # NOT_SERVING, SERVING
    eventually(lambda: health(bytes([10, 5]) + b"store") == bytes([8, status]), "its health is told")
    assert ("damaged" in frontend.log_path.read_text()) == damaged


def test_jobs_are_forgotten_after_their_time(start):
    frontend = start("retention: {jobs: 1s}\n")
    job = frontend.submit()
    FakeWorker(frontend).attempt().succeed()

    def is_gone():
        try:
            frontend.job(job.id)
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.NOT_FOUND
        return False

    eventually(is_gone, "the job is forgotten")
    eventually(lambda: not list((frontend.data / "videos").iterdir()), "its file is removed")


def test_worker_that_dies_while_its_result_is_made_durable_costs_nothing(start):
    """MUTANTS F12: all bytes are here, and only their digest and sync are under way. A large video makes that take a while."""
    frontend = start(with_control=True)
    job = frontend.submit()
    fake = FakeWorker(frontend, pid=300)
    attempt = fake.attempt()
    attempt.started()
    piece = b"v" * (256 * 1024)
    for _ in range(256):
        attempt.chunk(piece)
    fake.acked(attempt.number)
    attempt.done()
    beats(fake, 1)  # it has been heard
    crash(frontend, pid=300, signal=9)
    fake.disconnect()
    assert [a.cause for a in frontend.wait_for(job.id, video.SUCCEEDED).attempts] == [""]


def test_cancel_that_was_obeyed_while_the_frontend_stood_still_costs_no_worker(start):
    """The grace of a cancel passed while nobody listened; the worker's answer lies unread."""
    frontend = start("limits: {cancel_grace: 1s}\n", with_control=True)
    job = frontend.submit()
    fake = FakeWorker(frontend, pid=300)
    attempt = fake.attempt()
    attempt.started()
    fake.acked(1)
    frontend.video.CancelJob(video.CancelJobRequest(id=job.id))
    fake.expect("cancel")
    frontend.process.send_signal(signal.SIGSTOP)
    attempt.failed(worker.AttemptFailed.CANCELLED_BY_US, code=1, message="cancelled")
    time.sleep(2.5)  # not to wait for anything: this is what the test is about
    frontend.process.send_signal(signal.SIGCONT)
    frontend.wait_for(job.id, video.CANCELLED)
    beats(fake, 3)
    frontend.control.setblocking(False)
    with pytest.raises(BlockingIOError):
        frontend.control.recv(512)  # nobody was to be killed


def test_attempt_beside_one_that_hangs_is_not_blamed(start):
    frontend = start(FAST + "limits: {no_progress: 500ms}\n", with_control=True)
    jobs = [frontend.submit() for _ in range(2)]
    fake = FakeWorker(frontend, pid=300, max_attempts=2)
    fake.moving.add(jobs[1].id)
    assert {fake.attempt().ref.job_id for _ in range(2)} == {job.id for job in jobs}
    assert frontend.control.recv(512) == b"kill cpu 300"
    crash(frontend, pid=300, signal=9)
    fake.disconnect()
    for job, cause in zip(jobs, ("HANG", "INTERRUPTED")):
        assert [a.cause for a in frontend.wait_for(job.id, video.QUEUED).attempts] == [cause]
