"""A job from its submission to its bytes, over a real frontend and a scripted worker."""

import grpc
import pytest

from frontend_fixture import (DEADLINE, FakeWorker, collect, details, models, reason, request, status_pb2, video,
                              worker)

VIDEO = bytes(range(256)) * 4096  # 1 MiB: several writes


def test_watcher_gets_every_byte_and_the_finished_job(start):
    frontend = start()
    job = frontend.submit(seed=7, num_inference_steps=25, labels={"shot": "1"})
    assert job.state == video.QUEUED
    assert job.request.seed == 7 and job.request.num_inference_steps == 25 and job.request.task == video.TEXT_TO_VIDEO
    fake = FakeWorker(frontend)
    events = frontend.watch(job.id)
    attempt = fake.attempt()
    assert attempt.start.request == job.request
    attempt.started()
    attempt.progress(0.5)
    for i in range(0, len(VIDEO), 200_000):
        attempt.chunk(VIDEO[i:i + 200_000])
    attempt.done()
    states, data, finished = collect(events)
    assert [state for state, _, _ in states] == [video.QUEUED, video.RUNNING, video.SUCCEEDED]
    assert data == VIDEO
    assert finished.artifact.size_bytes == len(VIDEO) and finished.plan.offload == "none"
    assert finished.stages[0].stage == video.DENOISE and finished.server_version
    part = b"".join(r.data for r in frontend.video.DownloadVideo(
        video.DownloadVideoRequest(id=job.id, offset=1000, limit=5000)))
    assert part == VIDEO[1000:6000]


def test_absent_seed_is_drawn_and_stored(start):
    frontend = start()
    assert frontend.submit().request.HasField("seed")
    assert frontend.submit().request.seed != frontend.submit().request.seed


def test_generate_submits_and_watches_and_ending_it_ends_no_job(start):
    frontend = start()
    call = frontend.video.Generate(request(), timeout=DEADLINE)
    first = next(call)
    assert first.state_change.state == video.QUEUED
    call.cancel()
    fake = FakeWorker(frontend)
    fake.attempt().succeed()
    frontend.wait_for(first.job_id, video.SUCCEEDED)


def test_dropped_watch_goes_on_from_its_state_number_and_offset(start):
    frontend = start()
    job = frontend.submit()
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    attempt.started()
    attempt.chunk(VIDEO[:100_000])
    data, number = b"", 0
    call = frontend.watch(job.id)
    for event in call:
        if event.HasField("state_change"):
            number = event.state_change.number
        if event.HasField("video_chunk"):
            data += event.video_chunk.data
        if len(data) == 100_000:
            break
    call.cancel()
    attempt.chunk(VIDEO[100_000:300_000])
    attempt.done()
    states, numbers = [], []
    for event in frontend.watch(job.id, after_state_number=number, attempt=1, offset=len(data)):
        if event.HasField("state_change"):
            numbers.append(event.state_change.number)
            states.append(event.state_change.state)
        if event.HasField("video_chunk"):
            assert event.video_chunk.offset == len(data)
            data += event.video_chunk.data
    assert data == VIDEO[:300_000]
    assert numbers == [number + 1] and states == [video.SUCCEEDED]


@pytest.mark.parametrize("point", [dict(after_state_number=99), dict(attempt=2), dict(attempt=1, offset=10**9)])
def test_resume_point_past_what_exists_is_out_of_range(start, point):
    frontend = start()
    job = frontend.submit()
    FakeWorker(frontend).attempt().succeed()
    frontend.wait_for(job.id, video.SUCCEEDED)
    with pytest.raises(grpc.RpcError) as error:
        list(frontend.watch(job.id, **point))
    assert error.value.code() == grpc.StatusCode.OUT_OF_RANGE


def test_same_request_id_gives_one_job_and_another_request_is_refused(start):
    frontend = start()
    first = frontend.submit(request_id="r1")
    assert frontend.submit(request_id="r1").id == first.id
    with pytest.raises(grpc.RpcError) as error:
        frontend.submit(request_id="r1", prompt="another")
    assert error.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert reason(error.value) == "REQUEST_ID_REUSED"
    assert len(frontend.video.ListJobs(video.ListJobsRequest()).jobs) == 1


def test_full_queue_is_told_with_quota_and_retry(start):
    frontend = start("limits: {max_queued_jobs: 1}\n")
    frontend.submit()
    with pytest.raises(grpc.RpcError) as error:
        frontend.submit()
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert {"QuotaFailure", "RetryInfo", "ErrorInfo"} <= set(details(error.value))


def test_list_pages_filter_and_positions(start):
    frontend = start()
    ids = [frontend.submit(labels={"n": str(i % 2)}).id for i in range(5)]
    page = frontend.video.ListJobs(video.ListJobsRequest(page_size=3))
    rest = frontend.video.ListJobs(video.ListJobsRequest(page_size=3, page_token=page.next_page_token))
    assert [job.id for job in page.jobs] + [job.id for job in rest.jobs] == ids[::-1]
    assert not rest.next_page_token
    assert [job.queue_position for job in page.jobs] == [4, 3, 2]
    odd = frontend.video.ListJobs(video.ListJobsRequest(labels={"n": "1"}, states=[video.QUEUED]))
    assert [job.id for job in odd.jobs] == [ids[3], ids[1]]


def test_cancel_queued_running_and_ended(start):
    frontend = start()
    queued = frontend.submit()
    assert frontend.video.CancelJob(video.CancelJobRequest(id=queued.id)).state == video.CANCELLED
    running = frontend.submit()
    fake = FakeWorker(frontend)
    attempt = fake.attempt()
    attempt.started()
    assert frontend.video.CancelJob(video.CancelJobRequest(id=running.id)).cancel_requested
    assert fake.expect("cancel").ref == attempt.ref
    attempt.failed(worker.AttemptFailed.CANCELLED_BY_US, code=1, message="cancelled")
    frontend.wait_for(running.id, video.CANCELLED)
    assert frontend.video.CancelJob(video.CancelJobRequest(id=running.id)).state == video.CANCELLED
    # The worker is free for the next job.
    following = frontend.submit()
    fake.attempt().succeed()
    frontend.wait_for(following.id, video.SUCCEEDED)


def test_delete_takes_ended_jobs_only_and_their_file(start):
    frontend = start()
    job = frontend.submit()
    with pytest.raises(grpc.RpcError) as error:
        frontend.video.DeleteJob(video.DeleteJobRequest(id=job.id))
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    FakeWorker(frontend).attempt().succeed()
    frontend.wait_for(job.id, video.SUCCEEDED)
    assert len(list((frontend.data / "videos").iterdir())) == 1
    frontend.video.DeleteJob(video.DeleteJobRequest(id=job.id))
    assert not list((frontend.data / "videos").iterdir())
    with pytest.raises(grpc.RpcError) as error:
        frontend.job(job.id)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_start_timeout_expires_a_job_that_no_worker_takes(start):
    frontend = start()
    wanted = request()
    wanted.start_timeout.FromMilliseconds(50)
    job = frontend.video.SubmitJob(video.SubmitJobRequest(request=wanted))
    states, _, finished = collect(frontend.watch(job.id))
    assert finished.state == video.EXPIRED and finished.error.code


def test_two_workers_run_two_jobs_at_once(start):
    frontend = start()
    one, two = FakeWorker(frontend, name="cpu"), FakeWorker(frontend, name="cpu-1", pid=4243)
    first, second = frontend.submit(), frontend.submit()
    attempts = [one.attempt(), two.attempt()]
    assert {a.ref.job_id for a in attempts} == {first.id, second.id}
    for attempt in attempts:
        attempt.succeed()
    frontend.wait_for(first.id, video.SUCCEEDED)
    frontend.wait_for(second.id, video.SUCCEEDED)


def test_priority_goes_first_and_equals_in_order(start):
    frontend = start()
    ids = [frontend.submit(priority=p).id for p in (video.LOW, video.NORMAL, video.NORMAL, video.HIGH)]
    fake = FakeWorker(frontend)
    order = []
    for _ in ids:
        attempt = fake.attempt()
        order.append(attempt.ref.job_id)
        attempt.succeed()
    assert order == [ids[3], ids[1], ids[2], ids[0]]


def test_load_and_unload_are_answered_by_the_worker(start):
    frontend = start()
    with pytest.raises(grpc.RpcError) as error:
        frontend.models.LoadModel(models.LoadModelRequest(name="demo"))
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    fake = FakeWorker(frontend)
    fake.expect("hello_reply")
    call = frontend.models.LoadModel.future(models.LoadModelRequest(name="demo"), timeout=DEADLINE)
    command = fake.expect("load_model")
    fake.send(model_result=worker.ModelCommandResult(command_id=command.command_id))
    assert call.result().name == "demo"
    call = frontend.models.UnloadModel.future(models.UnloadModelRequest(name="demo"), timeout=DEADLINE)
    command = fake.expect("unload_model")
    fake.send(model_result=worker.ModelCommandResult(
        command_id=command.command_id, error=status_pb2.Status(code=9, message="busy")))
    assert call.exception().code() == grpc.StatusCode.FAILED_PRECONDITION
    listed = frontend.models.ListModels(models.ListModelsRequest()).models
    assert [m.name for m in listed] == ["demo"]
    assert listed[0].family == "ltx" and listed[0].memory[0].weights_bytes > 0
    assert [w.worker for w in listed[0].workers] == ["cpu"]
    assert {t.task for t in listed[0].tasks} >= {video.TEXT_TO_VIDEO, video.IMAGE_TO_VIDEO}
