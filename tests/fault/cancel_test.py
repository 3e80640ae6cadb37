"""Cancelling in the middle of denoising frees the device within one step."""
from kino_client import Follower


def test_cancelled_run_stops_within_a_step_and_the_next_job_runs(stubs, kinod, client):
    # Steps of several tenths of a second: each is told of, and no step fits between a cancel and its arrival.
    slow = client.demo_request(height=128, width=128, num_frames=97, num_inference_steps=50)
    watch = Follower(client, client.submit(slow).id)
    following = client.submit(client.demo_request())
    worker = kinod.pid_of("kino-worker")
    at_cancel = watch.denoised(2).step
    asked = client.cancel(watch.job_id)
    assert asked.cancel_requested or asked.state == stubs.video.CANCELLED
    job = watch.finish()
    assert job.state == stubs.video.CANCELLED and not job.HasField("artifact")
    assert max(p.step for p in watch.recording.progress) <= at_cancel + 1
    assert not any(p.stage == stubs.video.DECODE for p in watch.recording.progress)
    done = client.wait(following.id)
    assert done.state == stubs.video.SUCCEEDED
    assert done.start_time.ToNanoseconds() >= job.end_time.ToNanoseconds()
    assert kinod.pid_of("kino-worker") == worker  # it stopped by itself


def test_cancelled_in_decoding_streams_no_more(stubs, client):
    request = client.demo_request(num_frames=257, height=128, width=128, num_inference_steps=2)
    watch = Follower(client, client.submit(request).id)
    watch.wait_for("the first pictures", lambda seen: len(seen.data) > 1000)
    client.cancel(watch.job_id)
    job = watch.finish()
    assert job.state == stubs.video.CANCELLED and not job.HasField("artifact")


def test_cancel_of_a_job_that_waits_for_its_second_attempt(stubs, start_kinod):
    server = start_kinod({"supervisor": {"restart_min": "60s"}, "link": {"reattach_grace": "60s"},
                          "retry": {"min_backoff": "0s", "max_backoff": "0s"}})
    with server.client() as client:
        watch = Follower(client, client.submit(client.long_request()).id)
        watch.denoised(1)
        server.kill("kino-worker")
        watch.wait_for("the job is queued again",
                       lambda seen: seen.states[-1].state == stubs.video.QUEUED and seen.states[-1].attempt == 1)
        assert client.cancel(watch.job_id).state == stubs.video.CANCELLED
        assert watch.finish().state == stubs.video.CANCELLED
