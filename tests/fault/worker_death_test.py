"""Workers are killed with SIGKILL while they compute; their jobs run again, and nobody else notices."""
import os

import pytest

import kino_client
from fault_settings import QUICK, workers
from kino_client import Follower


@pytest.fixture
def undisturbed(client):
    """undisturbed(request) -> the bytes that a run without faults makes of it."""
    return lambda request: bytes(client.generate(request).data)


def names(stubs, recording):
    return [(stubs.video.JobState.Name(change.state), change.attempt) for change in recording.states]


TWO_ATTEMPTS = [("QUEUED", 0), ("RUNNING", 1), ("QUEUED", 1), ("RUNNING", 2), ("SUCCEEDED", 2)]


def check_second_attempt(stubs, server, client, watch, expected):
    job = watch.finish()
    assert names(stubs, watch.recording) == TWO_ATTEMPTS
    assert "lost" in watch.recording.states[2].reason
    assert [attempt.number for attempt in job.attempts] == [1, 2]
    assert job.attempts[0].error.code and not job.attempts[1].HasField("error")
    assert watch.reattached == 0  # the frontend never went away
    assert watch.recording.attempt == 2 and watch.recording.sha256() == job.artifact.sha256
    assert bytes(watch.recording.data) == client.download(job.id) == expected
    of_job = [name for name in os.listdir(os.path.join(server.data_dir, "videos")) if job.id in name]
    assert len(of_job) == 1  # the first attempt's file is gone


def test_killed_in_denoising_gives_the_same_clip_on_the_second_attempt(stubs, start_kinod, undisturbed):
    server = start_kinod(QUICK)
    with server.client() as client:
        request = client.long_request(num_inference_steps=80)
        watch = Follower(client, client.submit(request).id)
        first = watch.denoised(5)
        assert first.total_steps == 80
        server.kill("kino-worker")
        watch.denoised(1, attempt=2)
        check_second_attempt(stubs, server, client, watch, undisturbed(request))


def test_killed_in_decoding_leaves_no_byte_of_the_first_attempt(stubs, start_kinod, undisturbed):
    server = start_kinod(QUICK)
    with server.client() as client:
        request = client.demo_request(num_frames=257, height=128, width=128, num_inference_steps=2)
        watch = Follower(client, client.submit(request).id)
        watch.wait_for("pictures of the first attempt",
                       lambda seen: seen.attempt == 1 and "mdat" in kino_client.mp4_boxes(seen.data))
        server.kill("kino-worker")
        check_second_attempt(stubs, server, client, watch, undisturbed(request))
        assert watch.recording.dropped_bytes > 1000


def test_two_workers_run_two_jobs_and_one_death_leaves_the_other_untouched(stubs, start_kinod):
    server = start_kinod({**QUICK, "workers": workers(2)})
    with server.client() as client:
        watches = [Follower(client, client.submit(client.long_request(seed=seed)).id) for seed in (1, 2)]
        for watch in watches:
            watch.denoised(3)
        running = list(client.jobs(states=[stubs.video.RUNNING]))
        assert len(running) == 2  # at once
        by_worker = {job.attempts[0].worker: job.id for job in running}
        assert set(by_worker) == {"cpu-0", "cpu-1"}
        survivor_pid = server.pid_of("cpu-1")
        server.kill("cpu-0")
        jobs = {job.id: job for job in (watch.finish() for watch in watches)}
        assert all(job.state == stubs.video.SUCCEEDED for job in jobs.values())
        assert len(jobs[by_worker["cpu-0"]].attempts) == 2
        untouched = jobs[by_worker["cpu-1"]]
        assert len(untouched.attempts) == 1 and untouched.attempts[0].worker == "cpu-1"
        assert server.pid_of("cpu-1") == survivor_pid


def test_job_that_kills_its_workers_is_quarantined_and_the_others_finish(stubs, start_kinod):
    server = start_kinod(QUICK)
    with server.client() as client:
        poison = client.submit(client.long_request(num_inference_steps=1000))
        others = [client.submit(client.demo_request(seed=seed)).id for seed in range(3)]
        watch = Follower(client, poison.id)
        for attempt in (1, 2):
            watch.denoised(1, attempt=attempt)
            server.kill("kino-worker")
        job = watch.finish()
        assert job.state == stubs.video.QUARANTINED
        assert len(job.attempts) == 2 and job.error.message
        assert not job.HasField("artifact")
        for job_id in others:
            done = client.wait(job_id)
            assert done.state == stubs.video.SUCCEEDED and len(done.attempts) == 1
        # An end like any other: it can be looked at and deleted.
        client.delete(poison.id)


def test_stuck_worker_is_killed_and_its_job_runs_again(stubs, start_kinod, undisturbed):
    """SIGSTOP: the process lives, its heartbeats end."""
    server = start_kinod({**QUICK, "link": {"heartbeat_interval": "200ms", "lease": "1s"}})
    with server.client() as client:
        request = client.long_request(num_inference_steps=60)
        watch = Follower(client, client.submit(request).id)
        watch.denoised(2)
        stuck = server.kill("kino-worker", how=kino_client.signal.SIGSTOP)
        job = watch.finish()
        assert job.state == stubs.video.SUCCEEDED and len(job.attempts) == 2
        assert server.pid_of("kino-worker") != stuck
        assert bytes(watch.recording.data) == undisturbed(request)
