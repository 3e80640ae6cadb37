"""A store that cannot write, or cannot be used at all, for a while: what was to be stored is stored once it can."""

import contextlib
import sqlite3
import subprocess

from frontend_fixture import BIN, DEADLINE, FakeWorker, eventually, video, worker
from faults_test import FAST
from link_test import beats


@contextlib.contextmanager
def held_store(frontend, *statements):
    """Another program holds the store's file."""
    with contextlib.closing(sqlite3.connect(frontend.data / "kino.db", isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)
        yield


def test_store_that_is_busy_at_a_restart_is_tried_again(start):
    """By kinod, which ends at the exit code of a frontend that no restart can help."""
    frontend = start()
    job = frontend.submit()
    assert frontend.stop() == 0
    with held_store(frontend, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
        result = subprocess.run([BIN / "kino-frontend", "--config", frontend.config], capture_output=True, text=True,
                                timeout=DEADLINE)
    assert "the job store cannot be used now" in result.stderr and result.returncode == 1, result
    frontend.start()
    assert frontend.job(job.id).state == video.QUEUED


def test_job_whose_model_was_removed_fails_once_the_store_can_write(start):
    frontend = start()
    job = frontend.submit()
    frontend.configure("name: demo,", "name: other,")
    frontend.kill()
    with held_store(frontend, "BEGIN IMMEDIATE"):
        frontend.start()
        told = f"job {job.id}: failed, model 'demo' is no longer configured"
        eventually(lambda: frontend.log_path.read_text().count(told) >= 2, "the store is asked again")
        assert frontend.job(job.id).state == video.QUEUED
    assert "no longer configured" in frontend.wait_for(job.id, video.FAILED).error.message


def test_ends_that_the_store_could_not_take_are_stored_once_it_can(start):
    frontend = start(FAST)
    fakes = [FakeWorker(frontend, name=f"cpu-{i}", pid=100 + i) for i in range(2)]
    for _ in range(2):
        frontend.submit()
    done, failed = [fake.attempt() for fake in fakes]
    for attempt in (done, failed):
        attempt.started()
        attempt.chunk(b"v" * 1000)
        attempt.fake.acked(2)
    with held_store(frontend, "BEGIN IMMEDIATE"):
        done.done()
        failed.failed(worker.AttemptFailed.CLIENT, code=3, message="cannot run")
        for attempt in (done, failed):
            told = f"job {attempt.ref.job_id} attempt 1: its end cannot be stored yet"
            eventually(lambda told=told: told in frontend.log_path.read_text(), "the store could not take it")
        for attempt in (done, failed):
            assert frontend.job(attempt.ref.job_id).state == video.RUNNING
            beats(attempt.fake, 2)
            assert attempt.fake.messages.empty(), "nothing is acknowledged"
    for attempt in (done, failed):
        attempt.fake.acked(3)
    assert len(frontend.wait_for(done.ref.job_id, video.SUCCEEDED).attempts) == 1
    ended = frontend.wait_for(failed.ref.job_id, video.FAILED)
    assert [a.cause for a in ended.attempts] == ["CLIENT"] and "cannot run" in ended.error.message
    data = b"".join(r.data for r in frontend.video.DownloadVideo(video.DownloadVideoRequest(id=done.ref.job_id)))
    assert data == b"v" * 1000
