"""What one client sends too much of: others are served, and it is told."""

import threading

import grpc
import pytest

from frontend_fixture import DEADLINE, FakeWorker, HeldMedia, details, eventually, models, reason, request, video, video_grpc, worker
from request_helpers import fields, png, refusal, upload

IMAGE = video.Condition.IMAGE


def is_served_or_told(call):
    try:
        call.result(DEADLINE)
        return True
    except grpc.RpcError as error:
        return (error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and reason(error) == "SERVER_BUSY"
                and "RetryInfo" in details(error) and "QuotaFailure" in details(error))


def other_client(frontend):
    channel = grpc.insecure_channel(frontend.address, options=[("grpc.use_local_subchannel_pool", 1)])
    return channel, video_grpc.VideoServiceStub(channel)


def test_thousand_lists_at_once_leave_others_served(start):
    frontend = start()
    long = dict(prompt="x" * 8000, negative_prompt="x" * 8000)
    for _ in range(100):
        frontend.submit(**long)
    flood = [frontend.video.ListJobs.future(video.ListJobsRequest(page_size=1000), timeout=DEADLINE)
             for _ in range(1000)]
    channel, other = other_client(frontend)
    job = other.SubmitJob(video.SubmitJobRequest(request=request()), timeout=DEADLINE)
    assert other.GetJob(video.GetJobRequest(id=job.id), timeout=DEADLINE).id == job.id
    assert other.ListJobs(video.ListJobsRequest(page_size=1), timeout=DEADLINE).jobs[0].id == job.id
    assert next(other.WatchJob(video.WatchJobRequest(id=job.id), timeout=DEADLINE)).job_id == job.id
    assert other.CancelJob(video.CancelJobRequest(id=job.id), timeout=DEADLINE).state == video.CANCELLED
    assert all(is_served_or_told(call) for call in flood)
    channel.close()


def test_slow_decodes_block_neither_receiving_nor_other_calls(start, tmp_path):
    held = HeldMedia(tmp_path)
    frontend = start(bin_folder=held.bin)
    decodes = [threading.Thread(target=upload, args=(frontend, png())) for _ in range(2)]
    for thread in decodes:
        thread.start()
    held.wait_for(2)  # as many as are decoded at a time
    received = b"y" * 3000
    # Broken off at its end, and answered: its bytes were taken while both decoders stood.
    error = refusal(lambda: upload(frontend, received, sha256="0" * 64))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "received bytes have" in error.details()
    assert frontend.submit().state == video.QUEUED
    held.let_go()
    for thread in decodes:
        thread.join(DEADLINE)
    assert len(list((frontend.data / "assets").iterdir())) == 2


def test_more_media_than_may_wait_is_refused_at_once(start, tmp_path):
    held = HeldMedia(tmp_path)
    frontend = start(bin_folder=held.bin)
    wanted = request(conditions=[video.Condition(kind=IMAGE, data=png())])

    def submissions(count):
        return [frontend.video.SubmitJob.future(video.SubmitJobRequest(request=wanted), timeout=DEADLINE)
                for _ in range(count)]

    calls = submissions(2)
    held.wait_for(2)  # as many as are decoded at a time
    calls += submissions(40)
    refused = eventually(lambda: (lambda done: done if len(done) == 40 - 16 else None)(
        [call for call in calls if call.done()]), "all but those that wait are refused")
    assert all(is_served_or_told(call) for call in refused)
    held.let_go()
    assert all(call.result(DEADLINE).state == video.QUEUED for call in calls if call not in refused)
    assert frontend.submit(conditions=wanted.conditions).state == video.QUEUED


def test_uploads_of_one_client_are_bounded(start):
    frontend = start()
    parts = threading.Event()

    def never():
        yield video.UploadAssetRequest(header=video.UploadAssetRequest.Header(size_bytes=10, sha256="0" * 64))
        parts.wait(DEADLINE)

    calls = [frontend.video.UploadAsset.future(never(), timeout=DEADLINE) for _ in range(65)]
    done = eventually(lambda: [call for call in calls if call.done()], "one too many is refused")
    assert len(done) == 1 and reason(done[0].exception()) == "SERVER_BUSY"
    channel, other = other_client(frontend)
    data = png()
    frontend.video = other
    assert upload(frontend, data).size_bytes == len(data)
    parts.set()
    for call in calls:
        call.cancel()
    channel.close()


def test_orders_to_load_a_model_are_bounded(start):
    frontend = start()
    fake = FakeWorker(frontend)
    eventually(lambda: frontend.models.GetModel(models.GetModelRequest(name="demo")).workers, "the worker is up")
    calls = [frontend.models.LoadModel.future(models.LoadModelRequest(name="demo"), timeout=DEADLINE) for _ in range(17)]
    done = eventually(lambda: [call for call in calls if call.done()], "one too many is refused")
    assert len(done) == 1 and reason(done[0].exception()) == "SERVER_BUSY"
    for _ in range(16):
        order = fake.expect("load_model")
        fake.send(model_result=worker.ModelCommandResult(command_id=order.command_id))
    assert all(call.result(DEADLINE).name == "demo" for call in calls if call not in done)
    again = frontend.models.LoadModel.future(models.LoadModelRequest(name="demo"), timeout=DEADLINE)
    fake.send(model_result=worker.ModelCommandResult(command_id=fake.expect("load_model").command_id))
    assert again.result(DEADLINE).name == "demo"


@pytest.mark.parametrize("wrong, field", [
    (dict(plan=video.Plan(quantize="nf4", quantize_skip=["x"] * 65)), "plan.quantize_skip"),
    (dict(plan=video.Plan(quantize="nf4", quantize_skip=["x" * 257])), "plan.quantize_skip[0]"),
    (dict(plan=video.Plan(quantize_skip=["x" * 50_000] * 70)), "plan.quantize_skip"),
    (dict(plan=video.Plan(quantize_skip=[""] * 1_000_000)), "plan.quantize_skip"),
    (dict(plan=video.Plan(offload="x" * 1025)), "plan.offload"),
    (dict(model="x" * 129), "model"),
    (dict(ltx=video.LtxOptions(sigmas=[0.5] * 1001)), "ltx.sigmas"),
    (dict(knobs={f"knob{i}": video.KnobValue(number=1) for i in range(65)}), "knobs"),
    (dict(knobs={"sigmas": video.KnobValue(numbers=video.NumberList(values=[0.5] * 1001))}),
     "knobs[0].value.numbers.values"),
    (dict(labels={str(i): "x" for i in range(100_000)}), "labels"),
    (dict(conditions=[video.Condition(kind=IMAGE, asset_id="x")] * 17), "conditions"),
    (dict(conditions=[video.Condition(kind=IMAGE, asset_id="x" * 129)]), "conditions[0].asset_id"),
])
def test_every_list_and_text_is_bounded(shared, wrong, field):
    assert fields(refusal(lambda: shared.submit(**wrong))) == {field}


def test_refusal_of_a_request_that_is_wrong_everywhere_can_be_read(shared):
    wrong = dict(plan=video.Plan(quantize_skip=["é" * 200] * 64), prompt="x" * 9000, height=33, width=33,
                 knobs={"é" * 60 + str(i): video.KnobValue(number=1) for i in range(64)})
    assert len(fields(refusal(lambda: shared.submit(**wrong)))) > 1
    unknown = request()
    unknown.MergeFromString(b"".join(b"\xc0\x3e\x01" for _ in range(1000)))
    assert fields(refusal(lambda: shared.video.SubmitJob(video.SubmitJobRequest(request=unknown)))) == {"field 1000"}


@pytest.mark.parametrize("call, field", [
    (lambda f: f.job("x" * 1025), "id"),
    (lambda f: f.list(model="x" * 1025), "model"),
    (lambda f: f.list(labels={str(i): "" for i in range(17)}), "labels"),
    (lambda f: f.list(states=[video.QUEUED] * 17), "states"),
    (lambda f: list(f.watch("x" * 1025)), "id"),
    (lambda f: list(f.video.DownloadVideo(video.DownloadVideoRequest(id="x" * 1025))), "id"),
])
def test_envelopes_are_bounded_too(shared, call, field):
    assert fields(refusal(lambda: call(shared))) == {field}


def test_page_of_large_jobs_is_cut_and_goes_on_where_it_was(start):
    frontend = start()
    skip = [f"{i:0255}" for i in range(64)]
    wanted = dict(prompt="x" * 8192, negative_prompt="y" * 8192, plan=video.Plan(quantize="none", quantize_skip=skip))
    ids = [frontend.submit(**wanted).id for _ in range(120)]
    got, token, pages = [], "", 0
    while True:
        page = frontend.list(page_size=1000, page_token=token)
        assert page.ByteSize() < 4 << 20
        got += [job.id for job in page.jobs]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert got == ids[::-1] and pages > 1


def test_largest_request_reaches_its_worker(start):
    frontend = start()
    skip = [f"{i:0256}" for i in range(64)]
    job = frontend.submit(prompt="x" * 8192, negative_prompt="y" * 8192, labels={f"{i:0128}": "v" * 128 for i in range(16)},
                          plan=video.Plan(quantize="none", quantize_skip=skip), request_id="r" * 128)
    attempt = FakeWorker(frontend).attempt()
    assert attempt.start.request.plan.quantize_skip == skip
    attempt.succeed()
    frontend.wait_for(job.id, video.SUCCEEDED)
