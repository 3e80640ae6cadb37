"""What the frontend's metrics say of a worker that does as the test says."""

import subprocess

from frontend_fixture import DEADLINE, FakeWorker, collect, eventually, video, worker


def test_metrics_tell_of_jobs_and_promtool_finds_no_fault(start):
    frontend = start()
    fake = FakeWorker(frontend, device_memory_bytes=1 << 30)
    job = frontend.submit()
    fake.attempt().succeed(b"x" * 5000)
    collect(frontend.watch(job.id))
    frontend.submit(priority=video.HIGH)
    fake.attempt()
    queued = frontend.submit(priority=video.LOW)
    # What has not happened is counted all the same.
    for never in ('kino_jobs_ended_total{state="quarantined"}', 'kino_attempts_ended_total{result="crash"}',
                  'kino_attempts_ended_total{result="unclean_stop"}'):
        assert frontend.metric(never) == 0, never

    wanted = ['kino_queue_depth{class="low"} 1', 'kino_jobs_ended_total{state="succeeded"} 1',
              'kino_attempts_ended_total{result="succeeded"} 1', 'kino_worker_up{device="cpu",worker="cpu"} 1',
              'kino_step_seconds_count{model="demo"} 2', 'kino_stage_seconds_count{model="demo",stage="denoise"} 1',
              'kino_first_chunk_seconds_count{model="demo"} 1', 'kino_device_seconds_total{model="demo"} 1.5',
              'kino_output_seconds_total{model="demo"} 2.125', 'kino_streamed_bytes_total 5000', 'kino_watchers 0',
              'kino_queue_wait_seconds_count{class="normal"} 1', 'kino_device_memory_bytes{device="cpu",worker="cpu"} 1073741824',
              'le="3600"']
    text = eventually(lambda: (lambda t: t if all(w in t for w in wanted) else None)(frontend.metrics()), f"all of {wanted}")
    assert queued.id not in text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, timeout=DEADLINE)
    assert checked.returncode == 0 and not checked.stderr, checked.stderr


def test_the_spool_the_loads_and_the_device_are_told_by_worker(start):
    frontend = start()
    fake = FakeWorker(frontend, device_memory_bytes=1000)
    fake.send(heartbeat=worker.WorkerHeartbeat(
        models=fake.models, spool_bytes=12345,
        loads=[worker.ModelLoad(model="demo", seconds=1.5), worker.ModelLoad(model="demo", seconds=0.5),
               worker.ModelLoad(model="invented", seconds=1)]))
    frontend.metric_becomes('kino_model_load_seconds_count{model="demo"}', 2)
    assert frontend.metric('kino_model_load_seconds_sum{model="demo"}') == 2
    frontend.metric_becomes('kino_spool_bytes{worker="cpu"}', 0)  # the fake's other heartbeats say so
    frontend.metric_becomes('kino_device_out{device="cpu",worker="cpu"}', 0)
    assert "invented" not in frontend.metrics()


def test_the_spools_bytes_are_those_of_the_last_heartbeat(start):
    frontend = start()
    fake = FakeWorker(frontend, heartbeat=10 * DEADLINE)
    fake.expect("hello_reply")
    fake.send(heartbeat=worker.WorkerHeartbeat(models=fake.models, spool_bytes=12345))
    frontend.metric_becomes('kino_spool_bytes{worker="cpu"}', 12345)


def test_a_cancellation_is_timed_until_the_worker_has_stopped(start):
    frontend = start()
    fake = FakeWorker(frontend)
    job = frontend.submit()
    attempt = fake.attempt()
    attempt.started()
    frontend.cancel(job.id)
    fake.expect("cancel")
    assert frontend.metric("kino_cancel_seconds_count") == 0
    attempt.failed(worker.AttemptFailed.CANCELLED_BY_US, code=1)
    frontend.wait_for(job.id, video.CANCELLED)
    frontend.metric_becomes("kino_cancel_seconds_count", 1)
    other = frontend.submit()
    fake.attempt().succeed()
    frontend.wait_for(other.id, video.SUCCEEDED)
    assert frontend.metric("kino_cancel_seconds_count") == 1


def test_tenants_are_counted_and_one_that_has_no_job_left_says_zero(start):
    frontend = start()
    fake = FakeWorker(frontend)
    running, queued = frontend.submit(), frontend.submit()
    attempt = fake.attempt()
    frontend.metric_becomes('kino_tenant_jobs{state="running",tenant="default"}', 1)
    frontend.metric_becomes('kino_tenant_jobs{state="queued",tenant="default"}', 1)
    frontend.cancel(queued.id)
    attempt.succeed()
    frontend.wait_for(running.id, video.SUCCEEDED)
    frontend.metric_becomes('kino_tenant_jobs{state="running",tenant="default"}', 0)
    frontend.metric_becomes('kino_tenant_jobs{state="queued",tenant="default"}', 0)


def test_the_disk_and_the_store_are_measured(start):
    frontend = start()
    fake = FakeWorker(frontend)
    job = frontend.submit()
    fake.attempt().succeed(b"v" * 5000)
    frontend.wait_for(job.id, video.SUCCEEDED)
    frontend.metric_becomes("kino_disk_used_bytes", 5000)
    assert frontend.metric("kino_disk_free_bytes") > 0
    assert frontend.metric("kino_store_commit_seconds_count") >= 3  # submitted, claimed, committed
    assert frontend.metric("kino_certificate_expiry_timestamp_seconds") is None  # no TLS, no certificate
