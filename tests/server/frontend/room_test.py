"""What a job's result and a tenant's files may take, and for how long."""

import hashlib

import grpc
import pytest

from frontend_fixture import DEADLINE, FakeWorker, eventually, reason, request, video
from request_helpers import png, upload


def test_result_goes_when_its_job_says_so(start):
    frontend = start("retention: {results: 1h}\n")
    fake = FakeWorker(frontend)
    usual, brief = frontend.submit(), frontend.submit(result_ttl={"seconds": 1})
    assert usual.request.result_ttl.seconds == 3600 and brief.request.result_ttl.seconds == 1
    fake.attempt().succeed()
    fake.attempt().succeed()
    kept = frontend.wait_for(usual.id, video.SUCCEEDED)
    assert kept.artifact.expire_time.ToNanoseconds() == kept.end_time.ToNanoseconds() + 3600 * 10**9
    frontend.wait_for(brief.id, video.SUCCEEDED)
    eventually(lambda: not frontend.job(brief.id).HasField("artifact"), "the brief one's video is removed")
    with pytest.raises(grpc.RpcError) as error:
        list(frontend.video.DownloadVideo(video.DownloadVideoRequest(id=brief.id), timeout=DEADLINE))
    assert reason(error.value) == "ARTIFACT_PURGED"
    assert frontend.job(usual.id).HasField("artifact")
    eventually(lambda: len(list((frontend.data / "videos").iterdir())) == 1, "its file goes")


def test_result_is_kept_no_longer_than_its_job(start):
    frontend = start("retention: {results: 1h, jobs: 2h}\n")
    assert frontend.submit(result_ttl={"seconds": 10**6}).request.result_ttl.seconds == 7200


@pytest.mark.parametrize("ttl", [{"seconds": 0}, {"seconds": -1}, {"seconds": 1, "nanos": -1}])
def test_result_ttl_that_is_no_time_is_refused(shared, ttl):
    with pytest.raises(grpc.RpcError) as error:
        shared.submit(result_ttl=ttl)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def as_tenant(name):
    return [("authorization", f"Bearer {name}")]


def test_tenant_without_room_waits_and_others_do_not(start):
    entries = "".join(f"    - {{tenant: {t}, sha256: {hashlib.sha256(t.encode()).hexdigest()}}}\n" for t in "ab")
    frontend = start("limits: {max_disk_per_tenant: 1000}\nauth:\n  tokens:\n" + entries)

    def call(method, wanted, tenant):
        return method(wanted, metadata=as_tenant(tenant), timeout=DEADLINE)

    def submit(tenant, **fields):
        return call(frontend.video.SubmitJob, video.SubmitJobRequest(request=request(**fields)), tenant)

    def job(job_id, tenant):
        return call(frontend.video.GetJob, video.GetJobRequest(id=job_id), tenant)

    first, second = submit("a"), submit("a", request_id="again")
    fake = FakeWorker(frontend)
    fake.attempt().succeed(b"x" * 1000)
    eventually(lambda: job(first.id, "a").state == video.SUCCEEDED, "the first one ends")
    eventually(lambda: job(second.id, "a").waiting_reason == "TENANT_DISK_FULL", "the second one is held")
    with pytest.raises(grpc.RpcError) as error:
        submit("a")
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and reason(error.value) == "TENANT_DISK_FULL"
    assert "delete jobs" in error.value.details()
    assert submit("a", request_id="again").id == second.id, "a retry finds its job"
    data = png()
    header = video.UploadAssetRequest.Header(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(grpc.RpcError) as error:
        call(frontend.video.UploadAsset, iter([video.UploadAssetRequest(header=header)]), "a")
    assert reason(error.value) == "TENANT_DISK_FULL"
    other = submit("b")
    attempt = fake.attempt()
    assert attempt.ref.job_id == other.id
    attempt.succeed(b"y")
    eventually(lambda: job(other.id, "b").state == video.SUCCEEDED, "the other tenant's job runs")
    call(frontend.video.DeleteJob, video.DeleteJobRequest(id=first.id), "a")
    attempt = fake.attempt()
    assert attempt.ref.job_id == second.id
    attempt.succeed(b"z")
    eventually(lambda: job(second.id, "a").state == video.SUCCEEDED, "with room it runs")


def test_whole_budget_holds_everybody_until_there_is_room(start):
    frontend = start("limits: {max_disk: 1000}\n")
    first = frontend.submit()
    fake = FakeWorker(frontend)
    second = frontend.submit()
    fake.attempt().succeed(b"x" * 1000)
    frontend.wait_for(first.id, video.SUCCEEDED)
    eventually(lambda: frontend.job(second.id).waiting_reason == "DISK_FULL", "the second one is held")
    with pytest.raises(grpc.RpcError) as error:
        frontend.submit()
    assert reason(error.value) == "DISK_FULL" and "limits.max_disk" in error.value.details()
    frontend.video.DeleteJob(video.DeleteJobRequest(id=first.id), timeout=DEADLINE)
    fake.attempt().succeed(b"small")
    frontend.wait_for(second.id, video.SUCCEEDED)


def test_upload_larger_than_what_is_left_is_refused_at_its_header(start):
    data = png()
    frontend = start(f"limits: {{max_disk: {2 * len(data) - 1}}}\n")
    upload(frontend, data)
    with pytest.raises(grpc.RpcError) as error:
        upload(frontend, data)
    assert reason(error.value) == "DISK_FULL"
    eventually(lambda: not list((frontend.data / "uploads").iterdir()), "nothing is left of it")
    with pytest.raises(grpc.RpcError) as error:
        frontend.submit(task=video.IMAGE_TO_VIDEO, conditions=[video.Condition(kind=video.Condition.IMAGE, data=data)])
    assert reason(error.value) == "DISK_FULL"


@pytest.mark.parametrize("fields, expected", [({}, 3600), ({"result_ttl": {"seconds": 90}}, 90)])
def test_artifact_tells_when_it_ages_out(start, fields, expected):
    frontend = start("retention: {results: 1h}\n")
    job = frontend.submit(**fields)
    FakeWorker(frontend).attempt().succeed()
    done = frontend.wait_for(job.id, video.SUCCEEDED)
    assert done.artifact.expire_time.ToNanoseconds() - done.end_time.ToNanoseconds() == expected * 10**9
