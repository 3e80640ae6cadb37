"""When a queued job will start and end, and which step is usual: by what finished runs took."""

import hashlib

import pytest

from frontend_fixture import DEADLINE, FakeWorker, eventually, models, request, video, worker

STEPS = dict(num_inference_steps=4)


def finish(attempt, denoise=20.0, others=3.0, load=5.0):
    """A run of four steps."""
    attempt.started()
    attempt.chunk(b"video" * 1000)
    attempt.send(done=worker.AttemptDone(
        artifact=video.Artifact(content_type="video/mp4", size_bytes=len(attempt.data), width=64, height=64,
                                num_frames=17, fps=8, sha256=hashlib.sha256(attempt.data).hexdigest()),
        plan=video.Plan(offload="none"),
        stages=[video.StageStats(stage=video.LOAD, seconds=load),
                video.StageStats(stage=video.DENOISE, seconds=denoise, steps=4, step_seconds=denoise / 4),
                video.StageStats(stage=video.DECODE, seconds=others)]))


def seconds(duration):
    return duration.seconds + duration.nanos / 1e9


def told(frontend, job):
    """(start, end) in seconds from now, or nothing."""
    now = frontend.job(job.id)
    return (seconds(now.start_eta), seconds(now.eta)) if now.HasField("eta") and now.HasField("start_eta") else None


def worker_that_told(frontend, *sizes):
    """A worker that has said what runs of these sizes compute. A submission waits for its word for a moment only."""
    fake = FakeWorker(frontend)
    fake.expect("hello_reply")
    for size in sizes or [{}]:
        eventually(lambda: any(memory.plans for memory in frontend.models.GetPlans(
            models.GetPlansRequest(request=request(**STEPS, **size)), timeout=DEADLINE).memory), "the run's operations are known")
    return fake


def test_queued_jobs_tell_when_they_start_and_end(start):
    frontend = start()
    fake = worker_that_told(frontend, {}, dict(height=128, width=128))
    first = frontend.submit(**STEPS)
    attempt = fake.attempt()
    second = frontend.submit(**STEPS)
    assert not frontend.job(second.id).HasField("eta"), "nothing is known of any run"
    finish(attempt)
    frontend.wait_for(first.id, video.SUCCEEDED)
    running = fake.attempt()
    running.started()
    longer, after = frontend.submit(num_inference_steps=8), frontend.submit(**STEPS)
    larger = frontend.submit(height=128, width=128, **STEPS)
    # The fake says that its model is not loaded, so the first in line loads it.
    start_1, end_1 = eventually(lambda: told(frontend, longer), "the first in line is foreseen")
    assert start_1 <= 23 and end_1 - start_1 == pytest.approx(5 + 8 * 5 + 3, abs=0.01)
    start_2, end_2 = eventually(lambda: told(frontend, after), "the second is")
    assert end_2 - start_2 == pytest.approx(4 * 5 + 3, abs=0.01)
    assert start_1 < start_2 <= end_1 + 1
    start_3, end_3 = eventually(lambda: told(frontend, larger), "the third is, by its operations")
    assert start_2 < start_3 < end_3
    assert all(job.HasField("eta") for job in frontend.list(states=[video.QUEUED]).jobs)
    for event in frontend.watch(longer.id):
        if event.HasField("progress"):
            assert event.progress.HasField("start_eta") and event.progress.HasField("eta")
            break
    # The worker's own word counts for more.
    fake.send(event=worker.AttemptEvent(ref=running.ref, progress=video.Progress(
        stage=video.DENOISE, fraction=0.5, step=2, total_steps=4, eta={"seconds": 3000}, **{"pass": 1}, total_passes=1)))
    eventually(lambda: frontend.job(second.id).eta.seconds == 3000, "the running job tells it")
    eventually(lambda: (told(frontend, longer) or (0,))[0] > 2000, "those behind it wait so long")


def after_a_run(start):
    """A frontend that knows how long a run takes, and its worker."""
    frontend = start()
    fake = worker_that_told(frontend)
    first = frontend.submit(**STEPS)
    finish(fake.attempt())
    frontend.wait_for(first.id, video.SUCCEEDED)
    return frontend, fake


def test_what_runs_took_is_known_after_a_restart(start):
    frontend, fake = after_a_run(start)
    fake.disconnect()
    frontend.kill()
    frontend.start()
    fake = worker_that_told(frontend)
    frontend.submit(**STEPS)
    fake.attempt().started()
    waiting = frontend.submit(**STEPS)
    eventually(lambda: told(frontend, waiting), "it is foreseen")


def test_run_that_goes_on_under_the_next_frontend_tells_when_those_behind_it_start(start):
    frontend, fake = after_a_run(start)
    frontend.submit(**STEPS)
    attempt = fake.attempt()
    attempt.started()
    fake.acked(1)
    waiting = frontend.submit(**STEPS)
    frontend.kill()
    frontend.start()
    again = FakeWorker(frontend, held=[attempt.ref])
    again.expect("hello_reply")
    attempt.fake = again
    attempt.progress(0.5, eta={"seconds": 3000})
    start_eta, _ = eventually(lambda: told(frontend, waiting), "it is foreseen")
    assert 2900 < start_eta <= 3000


@pytest.mark.parametrize("restarts", [False, True])
def test_step_is_usual_by_earlier_runs(start, restarts):
    """Where a kind of run is known its limit holds before the first step; another kind has the long one."""
    frontend = start("limits: {no_progress: 1h, load_timeout: 1h, min_no_progress: 100ms}\n"
                     "retry: {min_backoff: 0s, max_backoff: 0s}\n")
    fake = FakeWorker(frontend, max_attempts=2)
    first = frontend.submit(**STEPS)
    finish(fake.attempt(), denoise=0.4)
    frontend.wait_for(first.id, video.SUCCEEDED)
    other, known = frontend.submit(height=128, width=128, **STEPS), frontend.submit(**STEPS)
    attempts = [fake.attempt(), fake.attempt()]
    if restarts:
        # Both begin under one frontend and go on under the next.
        fake.stage = video.LOAD
    for attempt in attempts:
        attempt.started()
    if restarts:
        eventually(lambda: frontend.job(known.id).plan.offload, "its plan is stored")
        frontend.kill()
        fake.disconnect()
        frontend.start()
        fake = FakeWorker(frontend, max_attempts=2, held=[attempt.ref for attempt in attempts])
    lost = eventually(lambda: (lambda j: j if j.attempts[0].cause == "HANG" else None)(frontend.job(known.id)), "it hangs")
    assert "no progress for 500ms" in lost.attempts[0].error.message
    assert not any(attempt.cause == "HANG" for attempt in frontend.job(other.id).attempts)
