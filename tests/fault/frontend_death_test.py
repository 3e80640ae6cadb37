"""The frontend, or kinod with everything, is killed with SIGKILL. What was acknowledged is not lost."""
import os
import random
import subprocess
import threading
import time

import grpc
import pytest

from fault_settings import at_fixed_port
from kino_client import Follower, eventually


def test_queued_jobs_run_after_the_frontend_was_killed(stubs, start_kinod):
    server = start_kinod(at_fixed_port())
    with server.client(patient=True) as client:
        running = Follower(client, client.submit(client.long_request(num_inference_steps=60)).id)
        queued = [client.submit(client.demo_request(seed=seed)).id for seed in range(3)]
        running.denoised(1)
        old = server.kill("kino-frontend")
        watches = [Follower(client, job_id) for job_id in queued]
        assert all(watch.finish().state == stubs.video.SUCCEEDED for watch in watches)
        assert server.pid_of("kino-frontend") != old


def test_running_attempt_goes_on_after_the_frontend_was_killed(stubs, start_kinod, client):
    """The worker keeps computing and comes back with its attempt: no step is done twice."""
    server = start_kinod(at_fixed_port())
    request = client.long_request()
    with server.client(patient=True) as own:
        watch = Follower(own, own.submit(request).id)
        watch.denoised(5)
        worker = server.pid_of("kino-worker")
        server.kill("kino-frontend")
        job = watch.finish()
        assert job.state == stubs.video.SUCCEEDED
        assert watch.reattached > 0
        assert len(job.attempts) == 1 and server.pid_of("kino-worker") == worker
        assert watch.recording.sha256() == job.artifact.sha256
        assert bytes(watch.recording.data) == bytes(client.generate(request).data) == own.download(job.id)


@pytest.mark.parametrize("seed", [20260101, 7])
def test_no_acknowledged_job_is_lost_however_often_the_frontend_dies(stubs, start_kinod, seed):
    """Jobs are submitted while the frontend is killed at random moments; each request_id gives one job that succeeds."""
    print(f"seed {seed}")
    moments = random.Random(seed)
    server = start_kinod(at_fixed_port())
    acknowledged, stop = {}, threading.Event()

    def submit_all():
        with server.client(patient=True) as client:
            for i in range(400):
                if stop.is_set() and i >= 30:
                    return
                request = client.demo_request(num_inference_steps=2, num_frames=1, seed=i, request_id=f"job-{i}")
                while True:
                    try:
                        acknowledged[f"job-{i}"] = client.submit(request).id
                        break
                    except grpc.RpcError as error:
                        if error.code() != grpc.StatusCode.UNAVAILABLE:
                            raise

    submitter = threading.Thread(target=submit_all)
    submitter.start()
    with server.client(patient=True) as client:
        for _ in range(4):
            seen = len(acknowledged)
            eventually("more jobs are acknowledged", lambda seen=seen: len(acknowledged) > seen + 2)
            time.sleep(moments.uniform(0, 0.2))  # not to wait for anything: a random moment
            server.kill("kino-frontend")
        stop.set()
        submitter.join(60)
        assert not submitter.is_alive()
        assert len(acknowledged) >= 30
        for job_id in acknowledged.values():
            job = Follower(client, job_id).finish()
            assert job.state == stubs.video.SUCCEEDED, job
        listed = [job.id for job in client.jobs()]
        assert sorted(listed) == sorted(acknowledged.values())  # not one more


def test_killed_kinod_takes_its_children_with_it_and_recovers(stubs, start_kinod, client):
    server = start_kinod(at_fixed_port())
    request = client.long_request(num_inference_steps=100)
    with server.client(patient=True) as own:
        running = Follower(own, own.submit(request).id)
        queued = own.submit(own.demo_request()).id
        running.denoised(3)
        children = server.kill_kinod()
        assert len(children) == 2
        eventually("the children have ended", lambda: not any(is_running(pid) for pid in children), timeout=20)
        server.start()
        job = running.finish()
        assert job.state == stubs.video.SUCCEEDED and len(job.attempts) == 2
        assert bytes(running.recording.data) == bytes(client.generate(request).data)
        assert Follower(own, queued).finish().state == stubs.video.SUCCEEDED
        videos = os.listdir(os.path.join(server.data_dir, "videos"))
        assert len(videos) == 2  # the lost attempt's file was removed at the start


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_stopped_kinod_gives_running_jobs_back_without_a_fault(stubs, start_kinod):
    """SIGTERM is no crash: the job goes on at the next start, and the interruption counts against nothing."""
    server = start_kinod(at_fixed_port(supervisor={"restart_min": "100ms", "stop_deadline": "2s"},
                                       retry={"max_attempts": 1, "min_backoff": "0s", "max_backoff": "0s"}))
    with server.client(patient=True) as client:
        watch = Follower(client, client.submit(client.long_request(num_inference_steps=150)).id)
        watch.denoised(3)
        assert server.stop() == 0
        server.start()
        assert watch.finish().state == stubs.video.SUCCEEDED


@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_command_line_client_survives_the_server(start_kinod, tmp_path, how):
    server = start_kinod(at_fixed_port(supervisor={"restart_min": "100ms", "stop_deadline": "2s"}))
    out = tmp_path / "clip.mp4"
    with server.client(patient=True) as client:
        command = subprocess.Popen(
            [os.path.join(os.environ["KINO_BIN_DIR"], "kino"), "generate", "a red star", "--server", server.address,
             "--model", "demo", "--height", "64", "--width", "64", "--num-frames", "17", "--fps", "8", "--steps", "150",
             "--frame-rate", "8", "--guidance-scale", "4", "--out", str(out)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        job, = eventually("it has submitted", lambda: list(client.jobs()))
        Follower(client, job.id).denoised(2)
        if how == "killed":
            server.kill("kino-frontend")
        else:
            server.stop()
            server.start()
        stdout, stderr = command.communicate(timeout=60)
        assert command.returncode == 0, stderr
        assert str(out) in stdout
        assert out.read_bytes() == client.download(job.id)
