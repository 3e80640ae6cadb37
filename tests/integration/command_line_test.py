"""The command line client against a live server, as a person or a script uses it."""
import json
import os
import subprocess

import pytest

import kino_client

BIN = os.environ["KINO_BIN_DIR"]
CLIP = ["--model", "demo", "--height", "64", "--width", "64", "--num-frames", "17", "--fps", "8", "--steps", "25",
        "--guidance-scale", "4", "--frame-rate", "8", "--seed", "7"]
DONE, FAILED, USAGE, UNREACHABLE, REFUSED, CANCELLED = 0, 1, 2, 3, 4, 5


@pytest.fixture
def kino(kinod, tmp_path):
    """kino("jobs", "--json", code=0) -> its output; fails unless it ends with `code`."""
    def run(*arguments, code=DONE):
        done = subprocess.run([os.path.join(BIN, "kino"), *arguments], capture_output=True, text=True, timeout=60,
                              cwd=tmp_path, env={**os.environ, "KINO_SERVER": kinod.address}, check=False)
        assert done.returncode == code, f"kino {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        run.stderr = done.stderr
        return done.stdout

    return run


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_generate_writes_the_clip(kino, client, tmp_path):
    out = kino("generate", kino_client.DEMO_PROMPT, *CLIP, "--out", "clip.mp4")
    assert out.strip().endswith("clip.mp4")
    data = (tmp_path / "clip.mp4").read_bytes()
    assert len(kino_client.rgb_frames(data)) == 17 * 64 * 64 * 3
    assert data == bytes(client.generate(client.demo_request()).data)


def test_generate_as_json_ends_with_the_job(kino, tmp_path):
    events = json_lines(kino("generate", kino_client.DEMO_PROMPT, *CLIP, "--json", "--out", "clip.mp4"))
    job = events[-1].get("finished", events[-1])
    assert job["state"] == "SUCCEEDED"
    assert job["artifact"]["sha256"] == kino_client.sha256((tmp_path / "clip.mp4").read_bytes())
    assert any("progress" in event for event in events)


def test_submit_watch_show_download_delete(kino, client, tmp_path):
    job_id = kino("submit", kino_client.DEMO_PROMPT, *CLIP, "--label", "made=here").strip()
    kino("watch", job_id, "--out", "watched.mp4", "--quiet")
    assert "SUCCEEDED" in kino("show", job_id)
    shown, = json_lines(kino("show", job_id, "--json"))
    assert shown["id"] == job_id and shown["request"]["seed"] == "7"
    kino("download", job_id, "--out", "downloaded.mp4")
    watched = (tmp_path / "watched.mp4").read_bytes()
    assert watched == (tmp_path / "downloaded.mp4").read_bytes() == client.download(job_id)
    assert json_lines(kino("download", job_id, "--json", "--out", "again.mp4"))[0]["sha256"] == \
        kino_client.sha256(watched)
    assert job_id in kino("jobs", "--state", "succeeded", "--label", "made=here")
    assert job_id not in kino("jobs", "--state", "failed")
    assert job_id in [job["id"] for job in json_lines(kino("jobs", "--json", "--limit", "5"))]
    kino("delete", job_id)
    kino("show", job_id, code=REFUSED)
    assert job_id in kino.stderr


def test_cancel_ends_the_watch_with_its_own_exit_code(kino, client):
    job_id = kino("submit", kino_client.DEMO_PROMPT, *CLIP, "--steps", "400").strip()
    kino_client.Follower(client, job_id).denoised(1)
    assert json_lines(kino("cancel", job_id, "--json"))[0]["id"] == job_id
    kino("watch", job_id, "--quiet", code=CANCELLED)
    assert "CANCELLED" in kino("show", job_id)
    kino("delete", job_id, "--json")


def test_models_load_and_unload(kino):
    assert "demo" in kino("models")
    assert json_lines(kino("load", "demo", "--json"))[0]["workers"][0]["loaded"]
    assert "(loaded)" in kino("models", "demo")
    unloaded, = json_lines(kino("unload", "demo", "--json"))
    assert not unloaded["workers"][0].get("loaded", False)
    kino("load", "another", code=REFUSED)
    assert "another" in kino.stderr


def test_image_is_uploaded_and_used(kino, tmp_path):
    from PIL import Image
    Image.new("RGB", (64, 64), (200, 40, 40)).save(tmp_path / "start.png")
    job_id = kino("submit", kino_client.DEMO_PROMPT, *CLIP, "--image", "start.png").strip()
    kino("watch", job_id, "--quiet")
    assert json_lines(kino("show", job_id, "--json"))[0]["request"]["task"] == "IMAGE_TO_VIDEO"
    asset, = json_lines(kino("upload", "start.png", "--json"))
    assert asset["width"] == 64 and asset["id"]


def test_streams_in_and_out(kinod, client, tmp_path):
    """A request from a pipe, a picture from a pipe, the video to a pipe: as a script strings programs together."""
    from PIL import Image
    Image.new("RGB", (64, 64), (200, 40, 40)).save(tmp_path / "start.png")
    request = {"model": "demo", "prompt": kino_client.DEMO_PROMPT, "height": 64, "width": 64, "num_frames": 17, "fps": 8,
               "num_inference_steps": 25, "guidance_scale": 4, "seed": "7", "ltx": {"frame_rate": 8}}
    command = f"{os.path.join(BIN, 'kino')} generate --request - --image <(cat start.png) --out - | cat"
    done = subprocess.run(["/bin/bash", "-c", f"set -o pipefail; {command}"], input=json.dumps(request).encode(),
                          capture_output=True, timeout=60, cwd=tmp_path, check=False,
                          env={**os.environ, "KINO_SERVER": kinod.address, "http_proxy": "http://127.0.0.1:1"})
    assert done.returncode == DONE, done.stderr
    assert len(kino_client.rgb_frames(done.stdout)) == 17 * 64 * 64 * 3
    job_id = done.stderr.decode().split("job ", 1)[1].split()[0]
    assert done.stdout == client.download(job_id)


def test_text_that_is_not_utf8_is_usage(kinod):
    done = subprocess.run([os.path.join(BIN, "kino"), "submit", b"caf\xe9"], capture_output=True, timeout=60,
                          env={**os.environ, "KINO_SERVER": kinod.address}, check=False)
    assert done.returncode == USAGE and b"PROMPT: expected a text in UTF-8" in done.stderr


def test_refusals_name_the_field_and_have_an_exit_code(kino):
    kino("generate", "x", *CLIP, "--height", "65", code=REFUSED)
    assert "height" in kino.stderr
    kino("generate", "x", "--no-such-flag", code=USAGE)
    kino("show", "nonsense", code=REFUSED)
    kino("models", "--server", "127.0.0.1:1", code=UNREACHABLE)


def test_every_binary_tells_the_same_version(client):
    programs = ("kinod", "kino-frontend", "kino-worker", "kino-media", "kino", "kino-render")
    versions = {}
    for program in programs:
        done = subprocess.run([os.path.join(BIN, program), "--version"], capture_output=True, text=True, timeout=30,
                              check=True)
        name, versions[program] = done.stdout.split()
        assert name == program
    assert len(set(versions.values())) == 1, versions
    job = client.generate(client.demo_request(num_inference_steps=2)).job
    assert job.server_version == versions["kinod"]
