"""Metrics and logs of a server that has done real work."""
import json
import pathlib
import re
import shutil
import subprocess
import urllib.request

import pytest

import kino_client

CANARY = "ultramarine-canary-7391"


def scrape(server):
    with urllib.request.urlopen(f"http://{server.metrics_address()}/metrics", timeout=10) as reply:
        return reply.read().decode()


def value(text, series):
    """Of one series, named with its labels as they are written."""
    for line in text.splitlines():
        if line.startswith(series + " "):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"no series {series} in\n{text}")


@pytest.fixture(scope="module")
def busy_server(stubs, tmp_path_factory):
    """A server with one succeeded and one cancelled job, its logs in JSON at the finest level."""
    server = kino_client.Kinod(stubs, tmp_path_factory.mktemp("busy"), {"log": {"level": "debug", "format": "json"}})
    server.start()
    with server.client() as client:
        prompt = dict(prompt=f"a {CANARY} star", negative_prompt=f"no {CANARY} square", labels={"note": "plain"})
        done = client.generate(client.demo_request(**prompt))
        cancelled = client.submit(client.long_request(**prompt))
        kino_client.Follower(client, cancelled.id).denoised(1)
        client.cancel(cancelled.id)
        client.wait(cancelled.id)
        refused = client.demo_request(**prompt)
        refused.height = 65
        with pytest.raises(kino_client.grpc.RpcError):
            client.submit(refused)
        server.jobs = [done.job, client.get(cancelled.id)]
        server.metrics = kino_client.eventually(
            "the queue's gauges are up to date",
            lambda: (lambda text: text if 'kino_jobs{state="cancelled"} 1' in text else None)(scrape(server)))
    yield server
    server.stop()


def test_promtool_finds_nothing_to_complain_of(busy_server):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(["promtool", "check", "metrics"], input=busy_server.metrics, capture_output=True, text=True,
                          timeout=30, check=False)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr


def test_metrics_tell_what_was_done(busy_server):
    text = busy_server.metrics
    assert value(text, 'kino_jobs_ended_total{state="succeeded"}') == 1
    assert value(text, 'kino_jobs_ended_total{state="cancelled"}') == 1
    assert value(text, 'kino_attempts_ended_total{result="succeeded"}') == 1
    assert value(text, 'kino_step_seconds_count{model="demo"}') == 25
    assert value(text, 'kino_first_chunk_seconds_count{model="demo"}') == 1
    for stage in ("load", "encode_text", "denoise", "decode", "mux"):
        assert value(text, f'kino_stage_seconds_count{{model="demo",stage="{stage}"}}') >= 1
    assert value(text, 'kino_queue_wait_seconds_count{class="normal"}') == 2
    assert value(text, 'kino_queue_depth{class="normal"}') == 0
    assert value(text, 'kino_worker_up{device="cpu",worker="cpu"}') == 1
    assert value(text, 'kino_device_memory_bytes{device="cpu",worker="cpu"}') > 0
    # With the worker's next heartbeat.
    kino_client.eventually("the load is told", lambda: 'kino_model_load_seconds_count{model="demo"} 1' in scrape(busy_server))
    assert value(text, "kino_cancel_seconds_count") == 1
    assert value(text, 'kino_device_seconds_total{model="demo"}') > 0
    assert value(text, 'kino_output_seconds_total{model="demo"}') == pytest.approx(
        busy_server.jobs[0].artifact.num_frames / busy_server.jobs[0].artifact.fps)
    assert value(text, "kino_streamed_bytes_total") >= busy_server.jobs[0].artifact.size_bytes
    # gRPC tells the server that a client is gone a moment after the client knows it.
    kino_client.eventually("no watcher is counted", lambda: value(scrape(busy_server), "kino_watchers") == 0)


def test_logs_have_the_job_and_never_the_prompt(busy_server):
    log = busy_server.log_text(last=None)
    assert CANARY not in log and CANARY not in busy_server.metrics
    lines = [json.loads(line) for line in log.splitlines()]
    for job in busy_server.jobs:
        of_job = [line for line in lines if job.id in json.dumps(line)]
        assert len(of_job) >= 3, of_job  # given out, taken, ended


def test_no_process_shows_a_prompt_or_could_leave_one_in_a_core_file(busy_server):
    processes = {busy_server.process.pid: "kinod", **busy_server.children()}
    assert {"kino-frontend", "kino-worker"} <= set(processes.values())
    for pid, name in processes.items():
        told = b"".join(pathlib.Path(f"/proc/{pid}/{file}").read_bytes() for file in ("cmdline", "environ", "comm"))
        told += b"".join(thread.read_bytes() for thread in pathlib.Path(f"/proc/{pid}/task").glob("*/comm"))
        assert CANARY.encode() not in told, name
        if name != "kinod":  # it has no prompts
            assert re.search(r"Max core file size +0 +0 ", pathlib.Path(f"/proc/{pid}/limits").read_text()), name


def test_deleted_jobs_leave_nothing_of_their_prompts_on_the_disk(busy_server):
    def files_with_the_prompt():
        files = [path for path in pathlib.Path(busy_server.data_dir).rglob("*") if path.is_file()]
        return [path for path in files if CANARY.encode() in path.read_bytes()]

    assert files_with_the_prompt()  # it is kept as long as its job
    with busy_server.client() as client:
        for job in busy_server.jobs:
            client.delete(job.id)
    kino_client.eventually("nothing is left", lambda: not files_with_the_prompt())


def test_worker_that_is_gone_is_down(stubs, start_kinod):
    server = start_kinod({"supervisor": {"restart_min": "60s"}, "link": {"reattach_grace": "60s"}})
    up = 'kino_worker_up{device="cpu",worker="cpu"}'
    kino_client.eventually("the worker is up", lambda: f"{up} 1" in scrape(server))
    server.kill("kino-worker")
    kino_client.eventually("the worker is down", lambda: f"{up} 0" in scrape(server))
