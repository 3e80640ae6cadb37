"""A request sent again under its request_id gives the job it made, whatever has changed since."""

import resource
import subprocess
import threading

import grpc

from frontend_fixture import SOURCE, DEADLINE, FakeWorker, HeldMedia, eventually, models, reason, request, video
from request_helpers import fields, png, refusal, upload

IMAGE = video.Condition.IMAGE


def submit_again(frontend, first, **wanted):
    """Both ways of submitting; and with anything changed it is refused as another request."""
    assert frontend.submit(request_id="r", **wanted).id == first.id
    call = frontend.video.Generate(request(request_id="r", **wanted), timeout=DEADLINE)
    assert next(call).job_id == first.id
    call.cancel()
    error = refusal(lambda: frontend.submit(request_id="r", **{**wanted, "seed": 12345}))
    assert error.code() == grpc.StatusCode.ALREADY_EXISTS and reason(error) == "REQUEST_ID_REUSED"
    assert len(frontend.list().jobs) == 1


def test_after_its_asset_is_gone(start):
    frontend = start("retention: {assets: 1s}\n")
    asset = upload(frontend, png())
    wanted = dict(conditions=[video.Condition(kind=IMAGE, asset_id=asset.id)])
    first = frontend.submit(request_id="r", **wanted)
    frontend.cancel(first.id)
    eventually(lambda: not list((frontend.data / "assets").iterdir()), "the asset has aged out")
    assert reason(refusal(lambda: frontend.submit(**wanted))) == "ASSET_NOT_FOUND"
    submit_again(frontend, first, **wanted)


def test_after_the_worker_that_it_fitted_is_gone(start):
    frontend = start()
    fake = FakeWorker(frontend, device_memory_bytes=1 << 40)
    eventually(lambda: frontend.models.GetModel(models.GetModelRequest(name="demo")).workers, "the worker is up")
    first = frontend.submit(request_id="r")
    fake.attempt().started()
    fake.disconnect()
    # The one that comes instead has next to no memory.
    FakeWorker(frontend, pid=5, device_memory_bytes=1000, host_memory_bytes=1000)
    eventually(lambda: reason_of_submission(frontend) == "DOES_NOT_FIT", "nothing fits any more")
    assert frontend.submit(request_id="r").id == first.id


def reason_of_submission(frontend):
    try:
        frontend.cancel(frontend.submit().id)
    except grpc.RpcError as error:
        return reason(error)
    return None


def test_after_its_model_was_removed(start):
    frontend = start()
    first = frontend.submit(request_id="r")
    frontend.configure("name: demo,", "name: other,")
    frontend.restart()
    submit_again(frontend, first)


def test_after_its_model_broke(start, tmp_path):
    frontend = start()
    first = frontend.submit(request_id="r")
    (tmp_path / "model").mkdir()
    frontend.configure(str(SOURCE / "models" / "demo"), str(tmp_path / "model"))
    frontend.restart()
    assert reason(refusal(frontend.submit)) == "MODEL_BROKEN"
    submit_again(frontend, first)


def test_after_limits_were_lowered(start):
    frontend = start()
    first = frontend.submit(request_id="r")
    with open(frontend.config, "a", encoding="utf-8") as config:
        config.write("limits: {max_prompt_size: 10}\n")
    frontend.restart()
    assert refusal(frontend.submit).code() == grpc.StatusCode.INVALID_ARGUMENT
    submit_again(frontend, first)


def test_while_the_queue_is_full(start, tmp_path):
    held = HeldMedia(tmp_path)
    frontend = start("limits: {max_queued_jobs: 1}\n", bin_folder=held.bin)
    held.let_go()
    first = frontend.submit(request_id="r", conditions=[video.Condition(kind=IMAGE, data=png())])
    assert reason(refusal(frontend.submit)) == "QUEUE_FULL"
    error = refusal(lambda: frontend.submit(conditions=[video.Condition(kind=IMAGE, data=png())]))
    assert reason(error) == "QUEUE_FULL"
    submit_again(frontend, first, conditions=[video.Condition(kind=IMAGE, data=png())])
    assert len(list((frontend.data / "assets").iterdir())) == 1
    # Nothing was decoded for a queue without room.
    assert len(list(held.bin.glob("waits.*"))) == 1


def test_while_the_disk_is_full(start):
    frontend = start()
    first = frontend.submit(request_id="r")
    resource.prlimit(frontend.process.pid, resource.RLIMIT_FSIZE, (1, 1))
    assert refusal(frontend.submit).code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    submit_again(frontend, first)


def test_after_it_has_ended(start):
    frontend = start()
    first = frontend.submit(request_id="r")
    FakeWorker(frontend).attempt().succeed()
    frontend.wait_for(first.id, video.SUCCEEDED)
    assert frontend.submit(request_id="r").state == video.SUCCEEDED
    submit_again(frontend, first)


def test_request_id_that_no_job_can_have_is_a_wrong_field(start):
    frontend = start()
    frontend.submit(request_id="x" * 128)
    assert refusal(lambda: frontend.submit(request_id="x" * 129)).code() == grpc.StatusCode.INVALID_ARGUMENT


def test_inline_media_is_decoded_once(start, tmp_path):
    held = HeldMedia(tmp_path)
    frontend = start(bin_folder=held.bin)
    held.let_go()
    wanted = dict(request_id="r", conditions=[video.Condition(kind=IMAGE, data=png())])
    first = frontend.submit(**wanted)
    again = frontend.submit(**wanted)
    assert again.id == first.id and again.request.conditions[0].asset_id == first.request.conditions[0].asset_id
    held.wait_for(1)
    assert len(list(held.bin.glob("waits.*"))) == 1
    other = refusal(lambda: frontend.submit(request_id="r", conditions=[video.Condition(kind=IMAGE, data=png(8, 8))]))
    assert reason(other) == "REQUEST_ID_REUSED"
    assert len(list(held.bin.glob("waits.*"))) == 1


def test_two_at_once_with_inline_media_leave_one_job_and_one_asset(start, tmp_path):
    held = HeldMedia(tmp_path)
    frontend = start(bin_folder=held.bin)
    wanted = dict(request_id="r", conditions=[video.Condition(kind=IMAGE, data=png())])
    jobs = []
    callers = [threading.Thread(target=lambda: jobs.append(frontend.submit(**wanted))) for _ in range(2)]
    for caller in callers:
        caller.start()
    held.wait_for(2)  # neither has its job yet
    held.let_go()
    for caller in callers:
        caller.join(DEADLINE)
    assert len(jobs) == 2 and jobs[0].id == jobs[1].id
    assert [path.name for path in (frontend.data / "assets").iterdir()] == [jobs[0].request.conditions[0].asset_id]
    with open(FakeWorker(frontend).attempt().start.condition_files[0], "rb") as file:
        assert file.read() == png()


def test_media_that_is_refused_once_it_is_decoded_leaves_nothing(start, tmp_path):
    frontend = start()
    clip = tmp_path / "clip.mkv"
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=size=16x16:rate=5:duration=1", "-c:v", "ffv1", clip],
                   check=True, timeout=DEADLINE)
    for data, field in ((clip.read_bytes(), "conditions[0].kind"), (b"no picture", "conditions[0].data")):
        error = refusal(lambda: frontend.submit(conditions=[video.Condition(kind=IMAGE, data=data)]))
        assert fields(error) == {field}
        assert not list((frontend.data / "assets").iterdir()) and not list((frontend.data / "uploads").iterdir())
