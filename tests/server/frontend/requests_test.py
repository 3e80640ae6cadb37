"""What the frontend refuses, and how it says so; uploads; tokens; health; logs."""

import hashlib
import json
import math
import struct
import subprocess

import grpc
import pytest

from frontend_fixture import (BIN, DEADLINE, FakeWorker, eventually, models, reason, request, video, video_grpc)
from request_helpers import fields, png, refusal, upload


IMAGE = video.Condition.IMAGE


@pytest.mark.parametrize("wrong, field", [
    (dict(prompt="x" * 8193), "prompt"),
    (dict(negative_prompt="x" * 8193), "negative_prompt"),
    (dict(height=33), "height"),
    (dict(width=1 << 30), "width"),
    (dict(width=-64), "width"),
    (dict(num_frames=0), "num_frames"),
    (dict(num_frames=2**31 - 1), "num_frames"),
    (dict(num_inference_steps=0), "num_inference_steps"),
    (dict(guidance_scale=math.nan), "guidance_scale"),
    (dict(fps=math.inf), "fps"),
    (dict(ltx=video.LtxOptions(frame_rate=math.nan)), "ltx.frame_rate"),
    (dict(mochi=video.MochiOptions()), "mochi"),
    (dict(task=99), "task"),
    (dict(priority=99), "priority"),
    (dict(preview=video.PreviewOptions(enabled=True)), "preview.enabled"),
    (dict(output=video.OutputOptions(codec=99)), "output.codec"),
    (dict(request_id="x" * 129), "request_id"),
    (dict(request_id="line\nbreak"), "request_id"),
    (dict(labels={"Upper": "x"}), "labels"),
    (dict(labels={str(i): "x" for i in range(17)}), "labels"),
    (dict(labels={"key": "x" * 129}), "labels.key"),
    (dict(conditions=[video.Condition(kind=IMAGE, path="/etc/passwd")]), "conditions[0].path"),
    (dict(conditions=[video.Condition(kind=IMAGE)]), "conditions[0]"),
    (dict(conditions=[video.Condition(kind=77, asset_id="x")]), "conditions[0].kind"),
    (dict(conditions=[video.Condition(kind=IMAGE, data=b"")]), "conditions[0].data"),
    (dict(conditions=[video.Condition(kind=IMAGE, data=b"not a picture")]), "conditions[0].data"),
    (dict(conditions=[video.Condition(kind=IMAGE, data=png()[:60])]), "conditions[0].data"),
])
def test_wrong_field_is_named(shared, wrong, field):
    error = refusal(lambda: shared.submit(**wrong))
    assert field in fields(error)
    assert reason(error) == "INVALID_REQUEST" or field.startswith("conditions")
    assert not shared.video.ListJobs(video.ListJobsRequest()).jobs


def test_effective_request_says_how_many_frames_come_out(start):
    frontend = start()
    job = frontend.submit(num_frames=20)
    assert job.request.num_frames == 17
    assert frontend.video.GetJob(video.GetJobRequest(id=job.id)).request.num_frames == 17


def test_models_tell_their_licence_and_what_they_are_made_for(shared):
    for model in (shared.models.GetModel(models.GetModelRequest(name="demo")),
                  shared.models.ListModels(models.ListModelsRequest()).models[0]):
        assert (model.license, model.license_link) == ("apache-2.0", "")  # models/demo/README.md
        assert model.generation == "", "it is no published model"
        # The family's own, beside the operator's.
        native, ours = model.tasks[0].native, model.tasks[0].defaults
        assert (native.height, native.width, native.num_frames, native.fps) == (512, 704, 161, 25)
        assert (ours.height, ours.width, ours.num_frames, ours.fps) == (64, 64, 17, 25)


def test_the_only_model_need_not_be_named(start):
    assert start().submit(model="").request.model == "demo"


def test_every_violation_is_told_at_once_and_unknown_fields_are_refused(start):
    frontend = start()
    wanted = request(height=33, guidance_scale=math.inf)
    # Field 1000 of a later version, with the value 1.
    wanted.MergeFromString(b"\xc0\x3e\x01")
    envelope = video.SubmitJobRequest(request=wanted)
    for call in (lambda: frontend.video.SubmitJob(envelope), lambda: list(frontend.video.Generate(wanted))):
        assert fields(refusal(call)) == {"field 1000", "height", "guidance_scale"}
    envelope.MergeFromString(b"\xc0\x3e\x01")
    assert fields(refusal(lambda: frontend.video.SubmitJob(envelope))) == {"field 1000"}


def test_negative_timeout_is_refused(start):
    frontend = start()
    wanted = request()
    wanted.run_timeout.seconds = -1
    assert fields(refusal(lambda: frontend.video.SubmitJob(video.SubmitJobRequest(request=wanted)))) == {"run_timeout"}


def test_unknown_model_job_and_asset_are_not_found(start):
    frontend = start()
    error = refusal(lambda: frontend.submit(model="other"))
    assert error.code() == grpc.StatusCode.NOT_FOUND and reason(error) == "MODEL_NOT_FOUND" and "demo" in error.details()
    error = refusal(lambda: frontend.models.GetModel(models.GetModelRequest(name="other")))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    for call in (lambda: frontend.job("nope"), lambda: list(frontend.watch("nope")),
                 lambda: list(frontend.video.DownloadVideo(video.DownloadVideoRequest(id="nope")))):
        assert refusal(call).code() == grpc.StatusCode.NOT_FOUND
    error = refusal(lambda: frontend.submit(conditions=[video.Condition(kind=IMAGE, asset_id="../../etc/passwd")]))
    assert error.code() == grpc.StatusCode.NOT_FOUND and reason(error) == "ASSET_NOT_FOUND"


def test_broken_model_is_listed_with_its_problem_and_its_jobs_refused(start, tmp_path):
    (tmp_path / "model").mkdir()
    frontend = start(model_folder=tmp_path / "model")
    assert frontend.models.GetModel(models.GetModelRequest(name="demo")).problem
    error = refusal(lambda: frontend.submit())
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and reason(error) == "MODEL_BROKEN"


def test_uploaded_image_reaches_the_worker_as_a_file(start):
    frontend = start()
    asset = upload(frontend, png())
    assert (asset.content_type, asset.width, asset.height) == ("image/png", 16, 8)
    job = frontend.submit(conditions=[video.Condition(kind=IMAGE, asset_id=asset.id),])
    assert job.request.task == video.IMAGE_TO_VIDEO
    attempt = FakeWorker(frontend).attempt()
    with open(attempt.start.condition_files[0], "rb") as file:
        assert file.read() == png()


def test_inline_bytes_become_an_asset(start):
    frontend = start()
    job = frontend.submit(conditions=[video.Condition(kind=IMAGE, data=png())])
    assert job.request.conditions[0].asset_id and not job.request.conditions[0].data
    with open(FakeWorker(frontend).attempt().start.condition_files[0], "rb") as file:
        assert file.read() == png()


def write_upscaler(folder):
    """A latent upsampler's model as far as the frontend reads it."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    for name in ("latent_upsampler", "vae"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        (folder / name / "diffusion_pytorch_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    (folder / "model_index.json").write_text(json.dumps({
        "_class_name": "LTXLatentUpsamplePipeline", "latent_upsampler": ["ltx", "LTXLatentUpsamplerModel"],
        "vae": ["diffusers", "AutoencoderKLLTXVideo"]}))
    return folder


def test_upscaling_takes_an_uploaded_video_at_its_own_size(start, tmp_path):
    frontend = start(model_folder=write_upscaler(tmp_path / "upscaler"))
    frontend.configure("height: 64, width: 64, num_frames: 17, num_inference_steps: 25", "num_inference_steps: 25")
    frontend.restart()
    model = frontend.models.GetModel(models.GetModelRequest(name="demo"))
    assert [task.task for task in model.tasks] == [video.UPSCALE] and not model.tasks[0].defaults.HasField("num_inference_steps")
    clip = tmp_path / "clip.mkv"
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=size=100x80:rate=5:duration=4", "-c:v", "ffv1", clip],
                   check=True, timeout=DEADLINE)
    condition = video.Condition(kind=video.Condition.VIDEO, asset_id=upload(frontend, clip.read_bytes()).id)
    wanted = request(task=video.UPSCALE, conditions=[condition])
    wanted.ClearField("prompt")

    def submit():
        return frontend.video.SubmitJob(video.SubmitJobRequest(request=wanted))

    job = submit()
    assert (job.request.height, job.request.width, job.request.num_frames) == (64, 96, 17)
    assert not job.request.HasField("prompt") and not job.request.HasField("num_inference_steps")
    wanted.num_frames = 25
    assert fields(refusal(submit)) == {"num_frames"}
    # Inline media is decoded later, and its size counts then.
    wanted.conditions[0].data = clip.read_bytes()
    assert fields(refusal(submit)) == {"num_frames"}
    wanted.ClearField("num_frames")
    assert (submit().request.height, submit().request.width) == (64, 96)


@pytest.mark.parametrize("data, changes, code", [
    (png(), dict(sha256="0" * 64), "INVALID_ARGUMENT"),
    (png(), dict(sha256="xyz"), "INVALID_ARGUMENT"),
    (png(), dict(size_bytes=10), "INVALID_ARGUMENT"),
    (png(), dict(size_bytes=10**6), "INVALID_ARGUMENT"),
    (png(), dict(size_bytes=0), "INVALID_ARGUMENT"),
    (png(), dict(size_bytes=10**12), "RESOURCE_EXHAUSTED"),
    (png()[:-30], {}, "INVALID_ARGUMENT"),
    (b"#!/bin/sh\n", {}, "INVALID_ARGUMENT"),
])
def test_broken_upload_is_refused_and_leaves_nothing(shared, data, changes, code):
    assert refusal(lambda: upload(shared, data, **changes)).code() == grpc.StatusCode[code]
    eventually(lambda: not list((shared.data / "uploads").iterdir()), "the upload's file is gone")
    assert not list((shared.data / "assets").iterdir())


def test_download_errors_are_precise(start):
    frontend = start()
    job = frontend.submit()

    def download(**fields):
        return b"".join(r.data for r in frontend.video.DownloadVideo(video.DownloadVideoRequest(id=job.id, **fields)))

    assert refusal(download).code() == grpc.StatusCode.FAILED_PRECONDITION
    FakeWorker(frontend).attempt().succeed(b"0123456789")
    frontend.wait_for(job.id, video.SUCCEEDED)
    assert download(offset=10) == b""
    assert refusal(lambda: download(offset=11)).code() == grpc.StatusCode.OUT_OF_RANGE
    assert refusal(lambda: download(offset=-1)).code() == grpc.StatusCode.INVALID_ARGUMENT


def raw_call(frontend, service, method, payload, **options):
    """The call with bytes that no stub would send."""
    kind = "unary_stream" if method.server_streaming else "unary_unary"
    call = getattr(frontend.channel, kind)(f"/kino.v1.{service}/{method.name}", request_serializer=lambda data: data,
                                           response_deserializer=lambda data: data)
    answer = call(payload, timeout=DEADLINE, **options)
    return list(answer) if method.server_streaming else answer


def single_request_methods():
    for service, module in (("VideoService", video), ("ModelService", models)):
        for method in module.DESCRIPTOR.services_by_name[service].methods:
            if not method.client_streaming:
                yield service, method


def test_bytes_that_do_not_parse_are_told_as_such(shared):
    names = set()
    for service, method in single_request_methods():
        for payload in (b"\xff\xff\xff", b"\x0a\x7f"):
            error = refusal(lambda m=method, s=service, p=payload: raw_call(shared, s, m, p))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, (method.name, error)
            assert method.name in error.details() and "UTF-8" in error.details()
            assert reason(error) == "MALFORMED_MESSAGE"
        names.add(method.name)
    assert {"SubmitJob", "Generate", "WatchJob", "GetPlans"} <= names


@pytest.mark.parametrize("fields", [dict(prompt="cafX"), dict(negative_prompt="cafX"), dict(labels={"k": "cafX"}),
                                    dict(request_id="cafX"), dict(model="cafX")])
def test_text_that_is_not_utf8_is_told_as_such(shared, fields):
    methods = {method.name: (service, method) for service, method in single_request_methods()}
    for name, message in (("SubmitJob", video.SubmitJobRequest(request=request(**fields))),
                          ("Generate", request(**fields))):
        payload = message.SerializeToString().replace(b"cafX", b"caf\xe9")
        service, method = methods[name]
        error = refusal(lambda s=service, m=method, p=payload: raw_call(shared, s, m, p))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "UTF-8" in error.details()
    assert not shared.video.ListJobs(video.ListJobsRequest()).jobs


def test_an_upload_that_does_not_parse_is_refused_with_words(shared):
    call = shared.channel.stream_unary("/kino.v1.VideoService/UploadAsset", request_serializer=lambda data: data,
                                       response_deserializer=video.Asset.FromString)
    error = refusal(lambda: call(iter([b"\xff\xff\xff"]), timeout=DEADLINE))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "nothing that parses" in error.details()


def test_an_unknown_method_is_unimplemented(shared):
    call = shared.channel.unary_unary("/kino.v1.VideoService/Nonsense", request_serializer=lambda data: data,
                                      response_deserializer=lambda data: data)
    assert refusal(lambda: call(b"\xff", timeout=DEADLINE)).code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_client_that_pings_often_keeps_its_quiet_stream(start):
    """Ten seconds are usual; here it pings faster, so that the strikes of a server that counts them come soon."""
    frontend = start()
    job = frontend.submit()
    options = [("grpc.keepalive_time_ms", 1500), ("grpc.keepalive_timeout_ms", 1000 * DEADLINE),
               ("grpc.http2.max_pings_without_data", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(frontend.address, options) as channel:
        events = video_grpc.VideoServiceStub(channel).WatchJob(video.WatchJobRequest(id=job.id), timeout=12)
        error = refusal(lambda: list(events))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def test_token_is_asked_for_and_tenants_do_not_see_each_other(start):
    tokens = {"a": "secret of a", "b": "secret of b"}
    entries = "".join(f"    - {{tenant: {t}, sha256: {hashlib.sha256(s.encode()).hexdigest()}}}\n" for t, s in tokens.items())
    frontend = start("auth:\n  tokens:\n" + entries)

    def submit(token, **wanted):
        metadata = [("authorization", f"Bearer {token}")] if token else []
        return frontend.video.SubmitJob(video.SubmitJobRequest(request=request(**wanted)), metadata=metadata)

    assert refusal(lambda: submit(None)).code() == grpc.StatusCode.UNAUTHENTICATED
    assert refusal(lambda: submit("wrong")).code() == grpc.StatusCode.UNAUTHENTICATED
    assert refusal(lambda: list(frontend.watch("x"))).code() == grpc.StatusCode.UNAUTHENTICATED
    assert refusal(lambda: upload(frontend, png())).code() == grpc.StatusCode.UNAUTHENTICATED
    assert refusal(lambda: frontend.models.ListModels(models.ListModelsRequest())).code() == grpc.StatusCode.UNAUTHENTICATED
    job = submit("secret of a")
    assert job.request.tenant == "a"
    error = refusal(lambda: submit("secret of a", tenant="b"))
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED and reason(error) == "TENANT_MISMATCH"
    theirs = [("authorization", "Bearer secret of b")]
    for call in (lambda: frontend.video.GetJob(video.GetJobRequest(id=job.id), metadata=theirs),
                 lambda: frontend.video.CancelJob(video.CancelJobRequest(id=job.id), metadata=theirs),
                 lambda: list(frontend.video.WatchJob(video.WatchJobRequest(id=job.id), metadata=theirs))):
        assert refusal(call).code() == grpc.StatusCode.NOT_FOUND
    assert not frontend.video.ListJobs(video.ListJobsRequest(), metadata=theirs).jobs


def test_health_and_reflection_answer(start):
    frontend = start()
    check = frontend.channel.unary_unary("/grpc.health.v1.Health/Check")
    for service in (b"", b"kino.v1.VideoService", b"kino.v1.ModelService"):
        asked = b"\x0a" + bytes([len(service)]) + service if service else b""
        assert check(asked, timeout=DEADLINE) == b"\x08\x01"  # SERVING
    assert refusal(lambda: check(b"\x0a\x01x", timeout=DEADLINE)).code() == grpc.StatusCode.NOT_FOUND
    reflect = frontend.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    answer = next(reflect(iter([b"\x3a\x01*"]), timeout=DEADLINE))  # list_services
    assert b"kino.v1.VideoService" in answer and b"kino.v1.ModelService" in answer


def test_no_prompt_in_log_or_metrics(start):
    frontend = start()
    canary = "canary-5f1c prompt nobody may read"
    job = frontend.submit(prompt=canary, negative_prompt=canary, labels={"note": "canary-5f1c"}, request_id="canary-5f1c")
    refusal(lambda: frontend.submit(prompt=canary, height=33))
    FakeWorker(frontend).attempt().succeed()
    frontend.wait_for(job.id, video.SUCCEEDED)
    text = frontend.metrics()
    assert frontend.stop() == 0
    log = frontend.log_path.read_text()
    assert job.id in log and "canary-5f1c" not in log + text


@pytest.mark.parametrize("program", ["kino-frontend", "kinod"])
def test_version_is_told(program):
    told = subprocess.run([BIN / program, "--version"], capture_output=True, text=True, timeout=DEADLINE)
    assert told.returncode == 0 and told.stdout.startswith(program + " ")
