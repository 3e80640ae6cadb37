"""Every kind of generation as a user asks for it: `kino generate` against a real server and worker, with small random-weight
models of each family (tests/parity). The video is what kino-render makes of the job's request, bit by bit, and what
diffusers makes."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import kino_client

sys.path.insert(0, os.path.join(os.environ["KINO_SOURCE_DIR"], "tests", "parity"))
import fixtures  # noqa: E402
import kino_render  # noqa: E402

KINO = os.path.join(os.environ["KINO_BIN_DIR"], "kino")
DONE, REFUSED = 0, 4
# Cases of the parity matrices. What a user leaves out is taken out of the request: sizes and frames of a video that goes in
# are its own. Then what the effective request says besides what was asked, and the frames that come out.
KINDS = {
    "upsample-0": (("height", "width", "num_frames"), dict(task="UPSCALE", num_frames=9), 9),
    # Of ten frames nine fill whole latents; twice as many at twice the video's rate come out, but for the first.
    "upsample-3": (("num_frames", "fps", "task"), dict(task="UPSCALE", num_frames=9, fps=48), 17),
    "two_pass-0": ((), dict(task="TEXT_TO_VIDEO"), 17),
    "two_pass-2": ((), dict(task="VIDEO_TO_VIDEO"), 17),
    # As in diffusers, more come out than are asked for where windows share two latent frames.
    "long-1": ((), dict(task="IMAGE_TO_VIDEO", num_frames=49), 65),
    "long-4": ((), dict(task="TEXT_TO_VIDEO", num_frames=49), 65),
    "condition-5": ((), dict(task="VIDEO_TO_VIDEO"), 25),
    "v2v-0": ((), dict(task="VIDEO_TO_VIDEO"), 25),
    # 13 latent frames are four, of which 16 are decoded.
    "cogvideox-v2v-0": (("num_frames",), dict(num_frames=16), 16),
    "cogvideox-v2v-2": (("num_frames", "task"), dict(task="VIDEO_TO_VIDEO", num_frames=16), 16),
    "cogvideox-control-0": (("num_frames", "task"), dict(task="VIDEO_TO_VIDEO", num_frames=16), 16),
    "cogvideox-i2v-1": (("task",), dict(task="IMAGE_TO_VIDEO", num_frames=16), 16),
    "allegro-t2v-0": ((), dict(task="TEXT_TO_VIDEO", num_frames=24), 24),
}
# Of LTX-Video, where it runs in two.
TWO_PASSES = ("two_pass-0", "two_pass-2")
FAMILIES = ("ltx", "cogvideox", "allegro")


def fixture_of(name):
    return fixtures.make(next(case for case in fixtures.every_case() if case.name == name))


@pytest.fixture(scope="module")
def models():
    return {name: fixture_of(name) for name in KINDS}


@pytest.fixture(scope="module")
def served(stubs, tmp_path_factory, models):
    """A server with all of them."""
    server = kino_client.Kinod(stubs, tmp_path_factory.mktemp("kinod"), {"models": [
        {"name": name, "folder": fixture.model, "dtype": "float32"} for name, fixture in models.items()]})
    yield server.start()
    server.stop()


@pytest.fixture
def kino(served, tmp_path):
    """kino("jobs", code=0) -> its output; fails unless it ends with `code`."""
    def run(*arguments, code=DONE):
        done = subprocess.run([KINO, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=tmp_path,
                              env={**os.environ, "KINO_SERVER": served.address}, check=False)
        assert done.returncode == code, f"kino {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        run.stderr = done.stderr
        return done.stdout

    return run


def asked_of(fixture):
    with open(fixture.request("untiled"), encoding="utf-8") as file:
        return json.load(file)


def path_of(fixture, condition):
    return os.path.join(fixture.folder, condition["path"])


def flags_of(fixture, asked):
    """The command line for a request."""
    names = {"num_inference_steps": "steps"}
    flags = []
    for name, value in asked.items():
        if name in FAMILIES:
            for knob, number in value.items():
                numbers = ",".join(map(str, number)) if isinstance(number, list) else number
                flags += [f"--{knob.replace('_', '-')}", numbers]
        elif name != "conditions":
            flags += [f"--{names.get(name, name).replace('_', '-')}", value.lower() if name == "task" else value]
    for condition in asked.get("conditions", []):
        flags += [f"--{condition['kind'].lower().replace('_', '-')}", path_of(fixture, condition)]
        for name in ("frame_index", "strength"):
            if name in condition:
                flags += [f"--{name.replace('_', '-')}", condition[name]]
    return flags


def probe(path):
    """(width, height, frames, frames per second) of a video."""
    shown = json.loads(subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=width,height,nb_read_frames,r_frame_rate", "-of",
         "json", path], stdout=subprocess.PIPE, check=True).stdout)["streams"][0]
    over, under = map(int, shown["r_frame_rate"].split("/"))
    return shown["width"], shown["height"], int(shown["nb_read_frames"]), over / under


def generate(kino, tmp_path, flags):
    """The job that came of it, its progress, and its pixels as they are in the file."""
    events = [json.loads(line) for line in kino("generate", "--json", "--lossless", "--out", "clip.mp4", *flags).splitlines()]
    job = events[-1]["finished"]
    progress = [event["progress"] for event in events if event.get("progress", {}).get("attempt")]
    made = job["artifact"]
    clip = tmp_path / "clip.mp4"
    assert probe(clip) == (made["width"], made["height"], made["num_frames"], made["fps"])
    pixels = np.frombuffer(kino_client.rgb_frames(clip.read_bytes()), np.uint8)
    return job, progress, pixels.reshape(made["num_frames"], made["height"], made["width"], 3)


def rendered(fixture, job):
    """What kino-render makes of the job's own request."""
    request = {key: value for key, value in job["request"].items()
               if key not in ("model", "request_id", "tenant", "priority", "labels")}
    for condition, original in zip(request.get("conditions", []), asked_of(fixture).get("conditions", [])):
        del condition["asset_id"]
        condition["path"] = path_of(fixture, original)
    return np.round(kino_render.render(fixture.model, request) * 255).astype(np.uint8)


@pytest.mark.parametrize("name", KINDS)
def test_the_video_is_that_of_kino_render_and_of_diffusers(kino, tmp_path, models, name):
    fixture = models[name]
    left_out, says, frames = KINDS[name]
    asked = {key: value for key, value in asked_of(fixture).items() if key not in left_out}
    job, progress, pixels = generate(kino, tmp_path, ["--model", name, *flags_of(fixture, asked)])

    effective = job["request"]
    expected = {**asked, "seed": str(asked["seed"]), **says}
    for key in set(expected) - {"conditions", *FAMILIES}:
        assert effective[key] == expected[key], key
    for family in set(FAMILIES) & set(asked):
        assert {knob: effective[family][knob] for knob in asked[family]} == asked[family]
    conditions = asked.get("conditions", [])
    assert [{**condition, "asset_id": ""} for condition in effective.get("conditions", [])] == [
        {"frame_index": 0, "strength": 1, **{key: value for key, value in condition.items() if key != "path"}, "asset_id": "",
         **({"num_frames": 13} if "cogvideox" in name and condition["kind"] != "IMAGE" else {})} for condition in conditions]

    fractions = [each.get("fraction", 0) for each in progress]
    assert fractions == sorted(fractions) and 0 < fractions[-1] <= 1
    passes = [each["pass"] for each in progress]
    assert passes == sorted(passes) and passes[-1] == (2 if name in TWO_PASSES else 1)

    assert len(pixels) == frames
    assert np.array_equal(pixels, rendered(fixture, job))
    theirs = np.round(fixture.frames("untiled") * 255)
    assert np.abs(pixels - theirs).max() <= 1  # what lies between two values may be rounded either way
    assert pixels.std() > 4


def test_long_videos_come_of_any_folder_and_say_how_long_they_are(kino, tmp_path, models):
    """Of windows that share two latent frames more come out than are asked for, as in diffusers."""
    job, _, pixels = generate(kino, tmp_path, [
        "a cat | a dog | a bird", "--model", "condition-5", "--height", 64, "--width", 96, "--num-frames", 49, "--steps", 3,
        "--temporal-tile-size", 32, "--temporal-overlap", 16, "--decode-horizontal-tiles", 1, "--decode-vertical-tiles", 1])
    assert job["request"]["num_frames"] == 49 and job["request"]["ltx"]["temporal_overlap"] == 16
    assert job["artifact"]["num_frames"] == len(pixels) == 65
    assert np.array_equal(pixels, rendered(models["condition-5"], job))


def test_media_in_the_request_is_as_uploaded_media(stubs, served, models):
    """Its own size is the default."""
    video = stubs.video
    fixture = models["upsample-0"]
    with open(os.path.join(fixture.folder, "input_video.mkv"), "rb") as file:
        condition = video.Condition(kind=video.Condition.VIDEO, data=file.read(), num_frames=9)
    with served.client() as client:
        job = client.generate(video.GenerateRequest(model="upsample-0", conditions=[condition])).job
        assert job.state == video.SUCCEEDED
        assert job.request.task == video.UPSCALE
        wanted = asked_of(fixture)
        assert (job.request.height, job.request.width, job.request.num_frames, job.request.fps) == (
            wanted["height"], wanted["width"], wanted["num_frames"], wanted["fps"])
        again = client.generate(job.request)
        assert again.job.artifact.sha256 == job.artifact.sha256
        # Some of the frames.
        condition.num_frames = 5
        job = client.generate(video.GenerateRequest(model="upsample-0", conditions=[condition])).job
        assert job.artifact.num_frames == 1


def test_plans_are_of_the_uploaded_videos_size(stubs, served, models):
    """A model that only upscales needs no task, and no prompt is made up for it."""
    video = stubs.video
    with open(os.path.join(models["upsample-3"].folder, "input_video.mkv"), "rb") as file, served.client() as client:
        asset = client.upload(file.read())
        assert (asset.num_frames, asset.fps) == (10, 24)
        condition = video.Condition(kind=video.Condition.VIDEO, asset_id=asset.id)
        plans = client.call("GetPlans", stubs.models.GetPlansRequest(
            request=video.GenerateRequest(model="upsample-3", conditions=[condition])))
    assert plans.request.task == video.UPSCALE and not plans.request.HasField("prompt")
    # In multiples of 32 and one more than a multiple of 8.
    assert (asset.height, asset.width) == (96, 144)
    assert (plans.request.height, plans.request.width, plans.request.num_frames) == (96, 128, 9)
    assert plans.memory[0].plans


def test_where_not_all_of_a_video_fits_what_fits_is_named(kino, models):
    clip = os.path.join(models["cogvideox-v2v-0"].folder, "input_video.mkv")
    kino("generate", "a cat", "--model", "cogvideox-v2v-0", "--max-sequence-length", 16, "--steps", 4, "--video", clip,
         "--max-host-memory", "8MiB", code=REFUSED)
    assert "fits up to 9 frames" in kino.stderr


IMAGE, VIDEO = "input_image.png", "input_video.mkv"
SMALL = ["--height", "64", "--width", "64", "--num-frames", "9"]


@pytest.mark.parametrize("model, flags, says", [
    ("allegro-t2v-0", ["a cat", "--image", IMAGE], "conditions: TEXT_TO_VIDEO takes none, got 1"),
    ("upsample-0", [], "conditions: UPSCALE takes exactly one VIDEO here, got 0"),
    ("upsample-0", ["a cat", "--video", VIDEO], "prompt: UPSCALE denoises nothing"),
    ("upsample-0", ["--video", VIDEO, "--num-frames", "33"], "num_frames: the video has 9 frames"),
    ("two_pass-2", ["--task", "upscale", "--video", VIDEO], "task: this model does TEXT_TO_VIDEO, IMAGE_TO_VIDEO, VIDEO_TO_VIDEO"),
    ("condition-5", ["a cat", *SMALL, "--passes", "2"], "ltx.passes: 2 needs a latent upsampler"),
    ("two_pass-2", ["a cat", *SMALL, "--passes", "2", "--height", "96"], "height: two passes need a multiple of 64, got 96"),
    ("condition-5", ["a cat", *SMALL, "--image", IMAGE, "--frame-index", "9"], "conditions[0].frame_index: expected 0 to 8, got 9"),
    ("condition-5", ["a cat", *SMALL, "--image", IMAGE, "--image", IMAGE, "--strength", "1.5"],
     "conditions[1].strength: expected 0 to 1, got 1.5"),
    ("condition-5", ["a cat", *SMALL, "--temporal-overlap", "8"], "ltx.temporal_overlap: is of a video in windows"),
    ("cogvideox-control-0", ["a cat", "--max-sequence-length", "24"], "VIDEO_TO_VIDEO takes exactly one CONTROL_VIDEO here, got 0"),
    ("cogvideox-v2v-0", ["a cat", "--max-sequence-length", "16", "--video", VIDEO, "--num-frames", "10"],
     "num_frames: the video has 9 frames"),
    ("cogvideox-v2v-2", ["a cat", "--video", VIDEO, "--height", "48", "--width", "64"],
     "num_frames: the VAE makes 3 latent ones of 9 frames, expected a multiple of 2, which it makes of 8"),
])
def test_what_cannot_be_is_refused_and_says_what_can(kino, models, model, flags, says):
    folder = models["two_pass-2"].folder  # whose video has nine frames
    flags = [os.path.join(folder, flag) if flag in (IMAGE, VIDEO) else flag for flag in flags]
    kino("generate", "--model", model, *flags, code=REFUSED)
    assert says in kino.stderr


def test_models_tell_of_upscaling_what_it_has(kino):
    shown = kino("models", "upsample-0")
    assert "UPSCALE" in shown and "adain_factor" in shown
    assert "steps" not in shown and "guidance" not in shown
    assert "IMAGE_TO_VIDEO" in kino("models", "cogvideox-i2v-1")
