"""Plans against a real worker: the model's, the request's, what ran, what is refused, what was predicted."""
import os
import subprocess

import grpc
import pytest

import kino_client

DEMO = os.path.join(os.environ["KINO_SOURCE_DIR"], "models", "demo")
MIB = 1 << 20


def model(name, **keys):
    defaults = {"height": 64, "width": 64, "num_frames": 17, "num_inference_steps": 2}
    return {"name": name, "folder": DEMO, "defaults": defaults, **keys}


@pytest.fixture(scope="module")
def server(stubs, tmp_path_factory):
    started = kino_client.Kinod(stubs, tmp_path_factory.mktemp("plans"), {
        "workers": [{"name": "cpu", "device": "cpu", "threads": 1, "max_device_memory": "300MiB"}],
        "models": [
            model("plain"), model("leaf", plan={"offload": "leaf", "weights_home": "file"}),
            model("auto", plan={"mode": "auto", "max_device_memory": "40MiB"}),
            model("lossy", plan={"quantize": "text_encoder=nf4"}, allow_plan_override=False)]})
    started.start()
    yield started
    print(started.log_text())
    started.stop()


@pytest.fixture
def client(server):
    with server.client() as connected:
        yield connected


def run(stubs, client, model_name, **plan):
    fields = {"plan": stubs.video.Plan(**plan)} if plan else {}
    request = stubs.video.GenerateRequest(model=model_name, prompt=kino_client.DEMO_PROMPT, negative_prompt="", seed=5,
                                          **fields)
    job = client.generate(request).job
    assert job.state == stubs.video.SUCCEEDED, job.error
    return job


def test_lossless_plans_give_the_same_video_and_are_told_as_they_ran(stubs, client):
    plain = run(stubs, client, "plain")
    assert plain.plan.offload == "none"
    leaf = run(stubs, client, "leaf")
    assert leaf.plan.offload == "leaf" and leaf.plan.weights_home == "file"
    asked = run(stubs, client, "plain", offload="block:1", weights_home="pageable")
    assert asked.plan.offload == "block:1" and asked.plan.weights_home == "pageable"
    chosen = run(stubs, client, "auto")
    assert chosen.plan.offload != "none" and chosen.plan.max_device_memory == 40 * MIB
    assert chosen.request.plan.mode == stubs.video.AUTO
    assert {job.artifact.sha256 for job in (plain, leaf, asked, chosen)} == {plain.artifact.sha256}
    # No stage took more than was allowed.
    assert max(stage.peak_device_bytes for stage in chosen.stages if stage.stage != stubs.video.LOAD) <= 40 * MIB


def test_a_models_own_lossy_plan_runs(stubs, client):
    job = run(stubs, client, "lossy")
    assert job.plan.quantize == "text_encoder=nf4"
    assert job.artifact.sha256 != run(stubs, client, "plain").artifact.sha256


def test_what_the_worker_has_not_is_refused_with_what_would_fit(stubs, client):
    with pytest.raises(grpc.RpcError) as caught:
        client.submit(client.demo_request(model="plain", height=512, width=512, num_frames=121))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert kino_client.error_details(caught.value)["ErrorInfo"].reason == "DOES_NOT_FIT"
    assert "300" in caught.value.details() and "fits" in caught.value.details()


def test_the_table_names_the_plan_that_then_runs(stubs, client):
    request = stubs.video.GenerateRequest(model="auto", prompt=kino_client.DEMO_PROMPT, seed=5)
    (memory,) = client.call("GetPlans", stubs.models.GetPlansRequest(request=request)).memory
    (chosen,) = [plan for plan in memory.plans if plan.chosen]
    job = run(stubs, client, "auto")
    assert job.plan.offload == chosen.plan.offload
    measured = max(stage.peak_device_bytes for stage in job.stages if stage.stage != stubs.video.LOAD)
    assert abs(measured - chosen.peak_device_bytes) <= 0.1 * measured, (measured, chosen.peak_device_bytes)


def test_kino_plan_against_a_real_server(server):
    done = subprocess.run([os.path.join(os.environ["KINO_BIN_DIR"], "kino"), "plan", "plain", "--server", server.address,
                           "--num-frames", "9"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cpu, float32") and "device memory 300.0 MiB" in done.stdout and "\n* " in done.stdout
