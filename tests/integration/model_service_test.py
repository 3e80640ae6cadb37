"""ModelService, health and reflection; one worker serves several models, in the order of the queue."""
import os
import shutil

import grpc
import pytest

import kino_client

DEMO = os.path.join(os.environ["KINO_SOURCE_DIR"], "models", "demo")


def loaded(model):
    return {worker.worker: worker.loaded for worker in model.workers}


def worker_rss_bytes(server):
    with open(f"/proc/{server.pid_of('kino-worker')}/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def test_models_are_described_by_their_files(stubs, client):
    models = client.call("ListModels", stubs.models.ListModelsRequest()).models
    assert [m.name for m in models] == ["demo"]
    model = client.call("GetModel", stubs.models.GetModelRequest(name="demo"))
    assert model.family == "ltx" and model.pipeline_class == "LTXPipeline" and not model.problem
    tasks = {stubs.video.Task.Name(info.task): info.defaults for info in model.tasks}
    assert {"TEXT_TO_VIDEO", "IMAGE_TO_VIDEO"} <= set(tasks)
    assert all(defaults.model == "demo" and defaults.num_inference_steps > 0 for defaults in tasks.values())
    assert model.limits.size_multiple == 32 and model.limits.frames_multiple == 4
    assert model.memory[0].device == "cpu" and model.memory[0].weights_bytes > 20 << 20
    # The family's own knobs, with the operator's default where there is one; those of other tasks are not told.
    for info in model.tasks:
        knobs = {knob.name: knob for knob in info.knobs}
        assert {"frame_rate", "max_sequence_length", "sigmas"} <= set(knobs)
        assert ("image_cond_noise_scale" in knobs) == (info.task != stubs.video.TEXT_TO_VIDEO)
        assert knobs["frame_rate"].default.number == 8 and knobs["frame_rate"].max == 1000
        assert knobs["guidance_rescale"].default.number == 0 and not knobs["max_sequence_length"].HasField("default")
        assert not knobs["sigmas"].HasField("default")
    # config/models/demo.yaml's defaults.
    clip = tasks["TEXT_TO_VIDEO"]
    assert (clip.height, clip.width, clip.num_frames, clip.num_inference_steps) == (64, 64, 17, 25)
    with pytest.raises(grpc.RpcError) as caught:
        client.call("GetModel", stubs.models.GetModelRequest(name="another"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "demo" in caught.value.details()


def test_load_and_unload_take_and_free_the_weights(stubs, start_kinod):
    server = start_kinod()
    with server.client() as client:
        def get():
            return client.call("GetModel", stubs.models.GetModelRequest(name="demo"))

        weights = get().memory[0].weights_bytes
        assert loaded(get()) == {"cpu": False}
        before = worker_rss_bytes(server)
        assert loaded(client.call("LoadModel", stubs.models.LoadModelRequest(name="demo"))) == {"cpu": True}
        assert loaded(get()) == {"cpu": True}
        held = worker_rss_bytes(server)
        assert held - before > weights // 2
        # A job finds the model there: no time is spent on loading it.
        job = client.generate(client.demo_request(num_inference_steps=2)).job
        assert stubs.video.LOAD not in [stage.stage for stage in job.stages]
        assert loaded(client.call("UnloadModel", stubs.models.UnloadModelRequest(name="demo"))) == {"cpu": False}
        assert loaded(get()) == {"cpu": False}
        log = server.log_text()
        assert log.count("model demo loaded") == 1 and log.count("model demo unloaded") == 1
        job = client.generate(client.demo_request(num_inference_steps=2)).job
        assert stubs.video.LOAD in [stage.stage for stage in job.stages]
        kino_client.eventually("a heartbeat has told of it", lambda: loaded(get()) == {"cpu": True})


def test_unload_waits_for_the_running_job(stubs, start_kinod):
    server = start_kinod()
    with server.client() as client:
        job_id = client.submit(client.long_request(num_inference_steps=60)).id
        kino_client.Follower(client, job_id).denoised(1)
        assert loaded(client.call("UnloadModel", stubs.models.UnloadModelRequest(name="demo"))) == {"cpu": False}
        log = server.log_text()
        assert log.index("attempt 1 done") < log.index("model demo unloaded")
        job = client.wait(job_id)
        assert job.state == stubs.video.SUCCEEDED and len(job.attempts) == 1


def test_one_worker_serves_every_model_and_high_goes_before_normal(stubs, start_kinod, tmp_path):
    """FIFO within a class, whichever model a job needs."""
    video = stubs.video
    second = tmp_path / "second"
    shutil.copytree(DEMO, second)
    server = start_kinod({"models": [{"name": "demo", "folder": DEMO}, {"name": "second", "folder": str(second)}]})
    with server.client() as client:
        def submit(model, priority, steps=2):
            return client.submit(client.demo_request(model=model, priority=priority, num_inference_steps=steps)).id

        # Holds the only worker until the others are queued.
        blocker = submit("demo", video.NORMAL, steps=400)
        kino_client.Follower(client, blocker).denoised(1)
        low = submit("demo", video.LOW)
        normal = [submit(model, video.NORMAL) for model in ("demo", "second", "demo", "second")]
        high = [submit(model, video.HIGH) for model in ("second", "demo")]
        assert client.get(high[0]).queue_position == 0 and client.get(low).queue_position == 6
        client.cancel(blocker)
        order = high + normal + [low]
        done = [client.wait(job_id) for job_id in order]
        assert all(job.state == video.SUCCEEDED for job in done)
        starts = [job.start_time.ToNanoseconds() for job in done]
        assert starts == sorted(starts)
        assert {job.attempts[0].worker for job in done} == {"cpu"}
        # The same weights under two names give the same clip.
        assert len({job.artifact.sha256 for job in done}) == 1


def test_model_that_must_be_named_when_there_are_two(stubs, start_kinod):
    models = [{"name": "demo", "folder": DEMO}, {"name": "second", "folder": DEMO}]
    with start_kinod({"models": models}).client() as client:
        request = client.demo_request()
        request.model = ""
        with pytest.raises(grpc.RpcError) as caught:
            client.submit(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        violations = kino_client.error_details(caught.value)["BadRequest"].field_violations
        assert [v.field for v in violations] == ["model"]


def test_health_and_reflection_answer(stubs, kinod, client):
    health = stubs.health_grpc.HealthStub(client.channel)
    for service in ("", "kino.v1.VideoService", "kino.v1.ModelService"):
        reply = health.Check(stubs.health.HealthCheckRequest(service=service), timeout=10)
        assert reply.status == stubs.health.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(stubs.health.HealthCheckRequest(service="nobody"), timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    services = list_services(client.channel)
    assert {"kino.v1.VideoService", "kino.v1.ModelService", "grpc.health.v1.Health"} <= services
    assert not any("Worker" in name for name in services)


def list_services(channel):
    """ServerReflectionRequest{list_services: ""} and its answer, by hand: no stub package is needed for two fields."""
    call = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda data: data, response_deserializer=lambda data: data)
    reply = next(call(iter([b"\x3a\x00"]), timeout=10))
    return {part[2:2 + part[1]].decode() for part in _names(reply)}


def _names(reply):
    """Every "name" field (tag 0x0a, length, text) in the reply that holds a service's dotted name."""
    for at, byte in enumerate(reply):
        if byte == 0x0a and at + 1 < len(reply):
            text = reply[at + 2:at + 2 + reply[at + 1]]
            if len(text) == reply[at + 1] and b"." in text and all(0x20 < c < 0x7f for c in text):
                yield reply[at:at + 2 + reply[at + 1]]
