"""Models whose files are broken or missing: told precisely, and the other models run on."""
import os
import shutil

import grpc
import pytest

import kino_client

DEMO = os.path.join(os.environ["KINO_SOURCE_DIR"], "models", "demo")
WEIGHTS = os.path.join("transformer", "diffusion_pytorch_model.safetensors")


def copy(folder, damage):
    shutil.copytree(DEMO, folder)
    damage(str(folder))
    return str(folder)


def edit(file, change):
    def damage(folder):
        path = os.path.join(folder, file)
        with open(path, "rb") as source:
            data = source.read()
        with open(path, "wb") as target:
            target.write(change(data))
    return damage


def remove(file):
    return lambda folder: os.remove(os.path.join(folder, file))


def rename_first_tensor(data):
    """The same length of header, one key that the model does not have."""
    length = int.from_bytes(data[:8], "little")
    header = data[8:8 + length]
    assert b'"proj_in.weight"' in header
    return data[:8] + header.replace(b'"proj_in.weight"', b'"proj_on.weight"') + data[8 + length:]


DAMAGES = {  # what is done to a copy of the demo model, and what the problem must name
    "header-flipped": (edit(WEIGHTS, lambda data: data[:8] + bytes([data[8] ^ 0xff]) + data[9:]), WEIGHTS),
    "header-length-huge": (edit(WEIGHTS, lambda data: b"\xff" * 8 + data[8:]), WEIGHTS),
    "data-truncated": (edit(WEIGHTS, lambda data: data[:-1000]), WEIGHTS),
    "weights-empty": (edit(WEIGHTS, lambda data: b""), WEIGHTS),
    "weights-missing": (remove(WEIGHTS), "transformer"),
    "config-broken": (edit(os.path.join("transformer", "config.json"), lambda data: data[:-20]), "config.json"),
    "config-missing": (remove(os.path.join("vae", "config.json")), "vae"),
    "index-missing": (remove("model_index.json"), "model_index.json"),
    "family-unknown": (edit("model_index.json", lambda data: data.replace(b"LTXPipeline", b"LTYPipeline")),
                       "LTYPipeline"),
    "key-renamed": (edit(WEIGHTS, rename_first_tensor), "proj_in.weight"),
}


@pytest.fixture(scope="module")
def damaged(stubs, tmp_path_factory):
    """A server with the demo model and every damaged copy of it."""
    folder = tmp_path_factory.mktemp("damaged")
    models = [{"name": "demo", "folder": DEMO}]
    models += [{"name": name, "folder": copy(folder / name, damage)} for name, (damage, _) in DAMAGES.items()]
    server = kino_client.Kinod(stubs, folder, {"models": models})
    server.start()
    yield server
    print(server.log_text())
    server.stop()


@pytest.mark.parametrize("name", DAMAGES)
def test_broken_model_says_how_and_the_others_run(stubs, damaged, name):
    what = DAMAGES[name][1]
    with damaged.client() as client:
        worker = damaged.pid_of("kino-worker")
        problem = client.call("GetModel", stubs.models.GetModelRequest(name=name)).problem
        with pytest.raises(grpc.RpcError) as caught:
            client.call("LoadModel", stubs.models.LoadModelRequest(name=name))
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert what in caught.value.details()
        try:
            job = client.wait(client.submit(client.demo_request(model=name)).id)
        except grpc.RpcError as error:
            # Seen from the headers alone: refused before it is queued.
            assert problem and what in problem
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and what in error.details()
            assert kino_client.error_details(error)["ErrorInfo"].domain == "kino.v1"
        else:
            assert job.state == stubs.video.FAILED and what in job.error.message
            assert job.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
            assert len(job.attempts) == 1  # trying again would not help
        done = client.generate(client.demo_request(num_inference_steps=2))
        assert done.job.state == stubs.video.SUCCEEDED
        assert damaged.pid_of("kino-worker") == worker


@pytest.mark.parametrize("damage", ["header-flipped", "data-truncated", "weights-missing"])
def test_files_that_break_after_the_start_fail_the_job_and_nothing_else(stubs, start_kinod, tmp_path, damage):
    folder = copy(tmp_path / "fragile", lambda _: None)
    server = start_kinod({"models": [{"name": "demo", "folder": DEMO}, {"name": "fragile", "folder": folder}]})
    with server.client() as client:
        DAMAGES[damage][0](folder)
        request = client.demo_request(model="fragile", num_inference_steps=2)
        job = client.wait(client.submit(request).id)
        assert job.state == stubs.video.FAILED
        assert "transformer" in job.error.message and len(job.attempts) == 1
        assert client.generate(client.demo_request(num_inference_steps=2)).job.state == stubs.video.SUCCEEDED
        # Repaired, it runs: nothing of the failure is kept.
        shutil.copy(os.path.join(DEMO, WEIGHTS), os.path.join(folder, WEIGHTS))
        assert client.generate(request).job.state == stubs.video.SUCCEEDED


def test_folder_that_does_not_exist_is_a_problem_of_that_model_alone(stubs, start_kinod, tmp_path):
    models = [{"name": "demo", "folder": DEMO}, {"name": "gone", "folder": str(tmp_path / "gone")}]
    with start_kinod({"models": models}).client() as client:
        listed = {m.name: m.problem for m in client.call("ListModels", stubs.models.ListModelsRequest()).models}
        assert not listed["demo"] and "model_index.json" in listed["gone"]
        assert str(tmp_path) not in listed["gone"]  # a client learns nothing of the server's folders
        assert client.generate(client.demo_request(num_inference_steps=2)).job.state == stubs.video.SUCCEEDED
