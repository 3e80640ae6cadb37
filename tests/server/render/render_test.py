"""kino-render's contract: files in, files out, exit codes. What it renders is tests/parity's business."""
import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest

BINARY = os.path.join(os.environ["KINO_BIN_DIR"], "kino-render")
MODEL = os.path.join(os.environ["KINO_SOURCE_DIR"], "models", "demo")
REQUEST = {"prompt": "a red circle moving up over a white background", "negative_prompt": "", "height": 64, "width": 64,
           "num_frames": 9, "num_inference_steps": 2, "guidance_scale": 4, "seed": 7, "ltx": {"frame_rate": 8}}
OK, FAILED, USAGE, BAD_REQUEST = 0, 1, 2, 3


@pytest.fixture
def render(tmp_path):
    def run(request, *flags, out="out.npy", model=MODEL, expect=OK):
        path = tmp_path / "request.json"
        path.write_text(request if isinstance(request, str) else json.dumps(request))
        done = subprocess.run([BINARY, "--model", model, "--request", str(path), "--out", str(tmp_path / out),
                               "--threads", "1", *flags], capture_output=True, text=True, timeout=120)
        assert done.returncode == expect, done.stderr
        if expect != OK:
            left = [name for name in os.listdir(tmp_path) if name.startswith(out)]
            assert not left, "a failed run leaves no output behind"
        return done.stderr
    return run


def test_npy_holds_float_frames(render, tmp_path):
    render(REQUEST)
    frames = np.load(tmp_path / "out.npy")
    assert frames.shape == (9, 64, 64, 3) and frames.dtype == np.float32
    assert frames.min() >= 0 and frames.max() <= 1 and frames.std() > 0


def test_same_seed_gives_same_frames_and_another_seed_others(render, tmp_path):
    frames = []
    for seed in (7, 7, 8):
        render({**REQUEST, "seed": seed})
        frames.append(np.load(tmp_path / "out.npy"))
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])


def test_absent_seed_is_drawn_and_reported(render, tmp_path):
    request = {key: value for key, value in REQUEST.items() if key != "seed"}
    stderr = render(request, "--stats", str(tmp_path / "stats.json"))
    seed = json.loads((tmp_path / "stats.json").read_text())["effective_request"]["seed"]
    assert f"seed {seed}" in stderr
    drawn = np.load(tmp_path / "out.npy")
    render({**REQUEST, "seed": seed})
    assert np.array_equal(drawn, np.load(tmp_path / "out.npy"))


def test_mp4_is_h264_of_every_frame(render, tmp_path):
    render({**REQUEST, "fps": 8}, out="out.mp4")
    probe = subprocess.run(["ffprobe", "-v", "error", "-count_frames", "-show_entries",
                            "stream=codec_name,width,height,nb_read_frames", "-of", "json", str(tmp_path / "out.mp4")],
                           capture_output=True, text=True, check=True)
    stream = json.loads(probe.stdout)["streams"][0]
    assert (stream["codec_name"], stream["width"], stream["height"], stream["nb_read_frames"]) == ("h264", 64, 64, "9")


def test_stats_tell_stages_memory_and_the_effective_request(render, tmp_path):
    render(REQUEST, "--stats", str(tmp_path / "stats.json"), "--dtype", "bfloat16")
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert set(stats) == {"version", "model", "device", "dtype", "stages", "step_seconds", "first_chunk_seconds",
                          "peak_rss_bytes", "plan", "effective_request"}
    assert (stats["model"], stats["device"], stats["dtype"]) == (MODEL, "cpu", "bfloat16")
    stages = {stage["stage"]: stage for stage in stats["stages"]}
    assert {"load", "encode_text", "denoise", "decode"} <= set(stages)
    assert all(stages[name]["seconds"] > 0 and stages[name]["peak_host_bytes"] > 0 for name in ("denoise", "decode"))
    assert len(stats["step_seconds"]) == 2 and stats["first_chunk_seconds"] > 0 and stats["peak_rss_bytes"] > 1 << 20
    effective = stats["effective_request"]
    assert effective["task"] == "TEXT_TO_VIDEO" and effective["seed"] == "7" and effective["height"] == 64
    assert stats["plan"]["offload"] == "none"


def plan_that_ran(render, tmp_path, request, *flags):
    render(request, "--stats", str(tmp_path / "stats.json"), *flags)
    return json.loads((tmp_path / "stats.json").read_text())["plan"], np.load(tmp_path / "out.npy")


@pytest.mark.parametrize("request_plan, flags, offload", [
    (None, ["--offload", "block:1", "--offload", "vae=none", "--weights-home", "pageable"], "block:1,vae=none"),
    ({"offload": "leaf"}, ["--offload", "block:1", "--prefetch", "0"], "leaf"),
    (None, ["--plan", "smallest", "--offload", "leaf"], "leaf"),
])
def test_the_flags_plan_runs_under_the_requests_and_lossless_ones_change_nothing(render, tmp_path, request_plan, flags,
                                                                                 offload):
    _, frames = plan_that_ran(render, tmp_path, REQUEST)
    wanted = {**REQUEST, "plan": request_plan} if request_plan else REQUEST
    plan, same = plan_that_ran(render, tmp_path, wanted, *flags)
    assert plan["offload"] == offload and np.array_equal(frames, same)


def test_lossy_flags_change_the_frames_and_show_in_the_plan(render, tmp_path):
    _, frames = plan_that_ran(render, tmp_path, REQUEST)
    plan, lossy = plan_that_ran(render, tmp_path, REQUEST, "--quantize", "transformer=int8wo")
    assert plan["quantize"] == "transformer=int8wo"
    assert not np.array_equal(frames, lossy) and np.abs(frames - lossy).mean() < 0.1


@pytest.mark.parametrize("flags, message", [
    (["--offload", "sometimes"], "plan.offload"), (["--quantize", "nf5"], "plan.quantize"),
    (["--storage-dtype", "int4"], "plan.storage_dtype"), (["--offload", "attic=leaf"], "attic"),
    (["--weights-home", "pinned"], "pinned"),
])
def test_a_plan_that_cannot_be_is_named(render, flags, message):
    assert message in render(REQUEST, *flags, expect=BAD_REQUEST)


def test_a_transformer_file_that_is_none_is_named(render, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\x03\x00\x00\x00 and no more")
    assert "broken.gguf" in render(REQUEST, "--model", str(tmp_path / "broken.gguf"), expect=BAD_REQUEST)
    (tmp_path / "model.bin").write_bytes(b"x")
    assert "model.bin" in render(REQUEST, "--model", str(tmp_path / "model.bin"), expect=USAGE)


def plan(*flags, expect=OK):
    done = subprocess.run([BINARY, "plan", *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == expect, done.stderr
    return done


SIZES = ["--height", "64", "--width", "64", "--num-frames", "9"]


def test_plan_prints_a_table_without_running_anything(tmp_path):
    lines = plan("--model", MODEL, *SIZES).stdout.splitlines()
    assert lines[0].startswith("cpu, float32, ") and "PLAN" in lines[1]
    resident = [line for line in lines if line.startswith("* ")]
    assert len(resident) == 1 and "1.00x" in resident[0] and "lossless" in resident[0]
    (tmp_path / "request.json").write_text(json.dumps({"height": 64, "width": 64, "num_frames": 33}))
    flags = ["--model", MODEL, "--request", str(tmp_path / "request.json")]
    assert plan(*flags, "--num-frames", "9").stdout.splitlines() == lines
    assert plan(*flags).stdout.splitlines() != lines


def test_plan_in_json_obeys_limits_and_modes():
    told = json.loads(plan("--model", MODEL, *SIZES, "--plan", "auto", "--max-device-memory", "40MiB", "--json").stdout)
    assert int(told["device_memory_bytes"]) == 40 << 20
    chosen = [one for one in told["plans"] if one.get("chosen")]
    assert len(chosen) == 1 and int(chosen[0]["peak_device_bytes"]) <= 40 << 20 and chosen[0]["plan"]["offload"] != "none"
    assert all(one["lossless"] for one in told["plans"])
    lossy = json.loads(plan("--model", MODEL, *SIZES, "--plan", "auto", "--allow-lossy", "--json").stdout)
    assert any(not one.get("lossless") for one in lossy["plans"])


def test_plan_counts_what_each_thread_of_the_run_holds():
    def denoise(threads):
        told = json.loads(plan("--model", MODEL, *SIZES, "--threads", threads, "--json").stdout)
        return next(int(stage["activations_bytes"]) for stage in told["plans"][0]["stages"] if stage["stage"] == "DENOISE")

    # So many that what they hold is the most of a step on any processor.
    first, next_one, later = denoise("300"), denoise("301"), denoise("309")
    assert first < next_one and later - first == 9 * (next_one - first)


def test_plan_for_what_fits_nowhere_says_what_would():
    done = plan("--model", MODEL, "--height", "512", "--width", "512", "--num-frames", "121", "--max-device-memory", "60M",
                expect=BAD_REQUEST)
    assert "does not run: needs" in done.stdout and "fits" in done.stdout


def test_plan_for_a_device_that_is_not_here():
    done = plan("--model", MODEL, *SIZES, "--device", "cuda:77", "--max-device-memory", "8GiB", "--weights-home", "pinned")
    assert done.stdout.startswith("cuda:77, bfloat16") and "8.00 GiB" in done.stdout and "unknown memory" in done.stderr


@pytest.mark.parametrize("flags, expect, message", [
    (["--model", MODEL, "--height", "65"], BAD_REQUEST, "height"), (["--model", "/absent"], BAD_REQUEST, "/absent"),
    ([], USAGE, "--model"), (["--model", MODEL, "--device", "tpu", *SIZES], USAGE, "tpu"),
    (["--model", MODEL, *SIZES, "--threads", "-1"], USAGE, "--threads"),
    (["--model", MODEL, *SIZES, "--offload", "sometimes"], BAD_REQUEST, "plan.offload"),
])
def test_plan_refuses_by_name(flags, expect, message):
    assert message in plan(*flags, expect=expect).stderr


def test_taps_are_numpy_files(render, tmp_path):
    render(REQUEST, "--taps", str(tmp_path / "taps"))
    tokens = json.loads((tmp_path / "taps" / "tokens.json").read_text())["input_ids"]
    assert len(tokens) == 2, "the negative prompt's row, then the prompt's"
    assert tokens[0][0] == 1 and tokens[1] != tokens[0]
    states = np.load(tmp_path / "taps" / "text_states.npy")
    assert states.dtype == np.float32 and states.shape[:2] == (2, len(tokens[0]))
    assert np.load(tmp_path / "taps" / "latents.npy").ndim == 5


def test_condition_path_is_relative_to_the_request_and_npy_equals_png(render, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    np.save(tmp_path / "image.npy", pixels)
    image_module.fromarray(pixels).save(tmp_path / "image.png")
    frames = []
    for name in ("image.npy", "image.png"):
        render({**REQUEST, "conditions": [{"kind": "IMAGE", "path": name}]})
        frames.append(np.load(tmp_path / "out.npy"))
    assert np.array_equal(*frames)
    render(REQUEST)
    assert not np.array_equal(frames[0], np.load(tmp_path / "out.npy")), "the image matters"


@pytest.mark.parametrize("array, message", [
    (np.zeros((64, 64, 3), np.float32), "expected uint8"),
    (np.zeros((64, 64, 4), np.uint8), "[64, 64, 4]"),
    (np.zeros((2, 64, 64, 3), np.uint8), "expected an image, got 2 frames"),
])
def test_unfit_npy_condition_is_refused(render, tmp_path, array, message):
    np.save(tmp_path / "image.npy", array)
    stderr = render({**REQUEST, "conditions": [{"kind": "IMAGE", "path": "image.npy"}]}, expect=BAD_REQUEST)
    assert "conditions[0]" in stderr and message in stderr


@pytest.mark.parametrize("request_, message", [
    ({**REQUEST, "height": 65}, "height: expected a multiple of 32, got 65"),
    ({**REQUEST, "heigt": 64}, "heigt"),
    ({**REQUEST, "task": "DANCE"}, "DANCE"),
    ({**REQUEST, "guidance_scale": "NaN"}, "guidance_scale: expected a finite number"),
    ({**REQUEST, "num_frames": 0}, "num_frames"),
    ({**REQUEST, "ltx": {"sigmas": [1.0], "timesteps": [1000.0]}}, "ltx.sigmas"),
    ({**REQUEST, "mochi": {}}, "mochi"),
    ({**REQUEST, "conditions": [{"kind": "IMAGE", "asset_id": "a"}]}, "no uploaded assets"),
    ({**REQUEST, "conditions": [{"kind": "IMAGE", "path": "absent.png"}]}, "absent.png"),
    ("{", "JSON"),
])
def test_bad_request_is_named(render, request_, message):
    assert message in render(request_, expect=BAD_REQUEST)


@pytest.mark.parametrize("flags, message", [
    (["--device", "tpu"], "tpu"), (["--dtype", "int8"], "int8"), (["--dtype", "vae=int8"], "vae=float32"), (["--colour", "red"], "--colour"),
    (["--threads", "-1"], "--threads"), (["--steps", "3"], "--steps"), (["--plan", "best"], "--plan"),
    (["--max-device-memory", "lots"], "--max-device-memory"), (["--vae-tile-size", "64"], "--vae-tile-size"),
    (["--model", MODEL], "expected one folder"),
])
def test_bad_flag_is_usage(render, flags, message):
    assert message in render(REQUEST, *flags, expect=USAGE)


def test_a_dtype_of_an_unknown_component_is_named(render):
    assert "component 'attic'" in render(REQUEST, "--dtype", "attic=float32", expect=BAD_REQUEST)


def test_output_of_another_kind_is_usage(render):
    assert ".npy or FILE.mp4" in render(REQUEST, out="out.gif", expect=USAGE)


def test_missing_and_broken_models_are_named(render, tmp_path):
    assert "absent" in render(REQUEST, model=str(tmp_path / "absent"), expect=BAD_REQUEST)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{")
    assert "model_index.json" in render(REQUEST, model=str(tmp_path / "broken"), expect=BAD_REQUEST)


def run_kino_render(tmp_path, *arguments, model=MODEL, **options):
    (tmp_path / "request.json").write_text(json.dumps(REQUEST))
    return subprocess.run([BINARY, "--model", model, "--threads", "1", "--request", str(tmp_path / "request.json"),
                           *arguments], stderr=subprocess.PIPE, timeout=120, **options)


def test_a_pipe_a_link_and_standard_output_get_what_a_file_gets(render, tmp_path):
    render(REQUEST, out="out.mp4")
    wanted = (tmp_path / "out.mp4").read_bytes()
    done = run_kino_render(tmp_path, "--out", "-", stdout=subprocess.PIPE)
    assert done.returncode == OK and done.stdout == wanted, done.stderr
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert run_kino_render(tmp_path, "--out", str(pipe)).returncode == OK
        assert reader.stdout.read() == wanted
    assert pipe.is_fifo()
    (tmp_path / "real.mp4").write_bytes(b"what was there")
    (tmp_path / "link.mp4").symlink_to("real.mp4")
    assert run_kino_render(tmp_path, "--out", str(tmp_path / "link.mp4")).returncode == OK
    assert (tmp_path / "link.mp4").is_symlink() and (tmp_path / "real.mp4").read_bytes() == wanted
    assert not list(tmp_path.glob("*.part"))
    with open("/dev/full", "wb") as full:
        done = run_kino_render(tmp_path, "--out", "-", stdout=full)
    assert done.returncode == FAILED and b"No space left" in done.stderr


def test_what_cannot_take_frames_is_refused_before_the_model_is_read(render, tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "no_model").mkdir()
    for out, message in (("pipe.npy", b"first bytes are known last"), ("folder.mp4", b"it is a folder")):
        done = run_kino_render(tmp_path, "--out", str(tmp_path / out), model=str(tmp_path / "no_model"))
        assert done.returncode == FAILED and message in done.stderr, done.stderr


def test_an_interrupt_ends_the_wait_for_a_pipes_reader(tmp_path):
    (tmp_path / "request.json").write_text(json.dumps(REQUEST))
    os.mkfifo(tmp_path / "pipe.mp4")
    process = subprocess.Popen([BINARY, "--model", MODEL, "--request", str(tmp_path / "request.json"), "--out",
                                str(tmp_path / "pipe.mp4")], stderr=subprocess.PIPE, text=True)

    def catches_sigterm():
        with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
            caught = next(line.split()[1] for line in status if line.startswith("SigCgt:"))
        return int(caught, 16) >> (signal.SIGTERM - 1) & 1

    while not catches_sigterm():
        assert process.poll() is None
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:  # one that comes before it waits is no end
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    process.kill()
    assert process.wait() == FAILED and "Interrupted" in process.stderr.read()


def test_a_request_comes_from_standard_input(render, tmp_path):
    render(REQUEST)
    text = json.dumps(REQUEST).encode()
    command = [BINARY, "--model", MODEL, "--threads", "1", "--out", str(tmp_path / "b.npy"), "--request"]
    assert subprocess.run([*command, "-"], input=text, timeout=120, check=False).returncode == OK
    assert np.array_equal(np.load(tmp_path / "out.npy"), np.load(tmp_path / "b.npy"))
    twice = subprocess.run([*command, "-", "--request", "-", "--out", str(tmp_path / "c.npy")], input=text, timeout=120,
                           stderr=subprocess.PIPE, check=False)
    assert twice.returncode == USAGE and b"once" in twice.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["plan", "--help"],
                                       ["plan", "--model", MODEL, "--height", "64", "--width", "64", "--num-frames",
                                        "9"]])
def test_standard_output_that_cannot_be_written_is_not_done(arguments):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([BINARY, *arguments], stdout=full, stderr=subprocess.PIPE, timeout=120, check=False)
    assert done.returncode == FAILED and b"standard output cannot be written" in done.stderr


def test_unwritable_folder_is_told_of(render, tmp_path):
    assert "nowhere" in render(REQUEST, out="nowhere/out.npy", expect=FAILED)


def test_interrupt_ends_the_run_and_leaves_nothing(tmp_path):
    (tmp_path / "request.json").write_text(json.dumps({**REQUEST, "num_inference_steps": 500}))
    # The second step's tap shows that the run is under way.
    process = subprocess.Popen([BINARY, "--model", MODEL, "--request", str(tmp_path / "request.json"), "--out",
                                str(tmp_path / "out.npy"), "--taps", str(tmp_path / "taps"), "--threads", "1"],
                               stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "taps" / "denoise_001.npy").exists():
        pass
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == FAILED and "cancelled" in stderr
    assert not [name for name in os.listdir(tmp_path) if name.startswith("out")]


@pytest.fixture
def render_many(tmp_path):
    def run(requests, *flags, expect=OK):
        """Standard error, and for each request its frames or None."""
        command = [BINARY, "--model", MODEL, "--threads", "1", *flags]
        for index, request in enumerate(requests):
            path = tmp_path / f"request-{index}.json"
            if request is not None:
                path.write_text(json.dumps(request))
            command += ["--request", str(path), "--out", str(tmp_path / f"out-{index}.npy"),
                        "--stats", str(tmp_path / f"stats-{index}.json"), "--taps", str(tmp_path / f"taps-{index}")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == expect, done.stderr
        assert not list(tmp_path.glob("*.part"))
        outs = [tmp_path / f"out-{index}.npy" for index in range(len(requests))]
        return done.stderr, [np.load(out) if out.exists() else None for out in outs]
    return run


def test_many_requests_give_each_its_own_frames_with_one_model(render, render_many, tmp_path):
    np.save(tmp_path / "image.npy", np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8))
    requests = [REQUEST, {**REQUEST, "prompt": "a blue star spinning over a black background", "seed": 9},
                {**REQUEST, "num_frames": 17, "plan": {"offload": "leaf"}},
                {**REQUEST, "conditions": [{"kind": "IMAGE", "path": "image.npy"}]}, REQUEST]
    _, frames = render_many(requests)
    for index, request in enumerate(requests):
        render(request, "--taps", str(tmp_path / "taps"))
        assert np.array_equal(frames[index], np.load(tmp_path / "out.npy")), index
        stats = json.loads((tmp_path / f"stats-{index}.json").read_text())
        assert stats["effective_request"]["prompt"] == request["prompt"]
        assert stats["plan"]["offload"] == request.get("plan", {}).get("offload", "none")
        for name in ("text_states", "latents"):
            assert np.array_equal(np.load(tmp_path / f"taps-{index}" / f"{name}.npy"),
                                  np.load(tmp_path / "taps" / f"{name}.npy")), (index, name)


@pytest.mark.parametrize("bad, code, message", [
    (None, BAD_REQUEST, "request-{}.json' cannot be read"),
    ({**REQUEST, "heigt": 64}, BAD_REQUEST, "heigt"),
    ({**REQUEST, "height": 65}, BAD_REQUEST, "request-{}.json: the request cannot be run"),
    ({**REQUEST, "conditions": [{"kind": "IMAGE", "path": "absent.png"}]}, BAD_REQUEST, "absent.png"),
    ({**REQUEST, "plan": {"offload": "block:1", "weights_home": "pinned"}}, FAILED, "pinned"),
], ids=["absent", "unknown-field", "unfit-height", "absent-image", "pinned"])
def test_of_many_requests_a_bad_one_is_named_and_the_others_run(render_many, bad, code, message):
    stderr, frames = render_many([bad, REQUEST, bad], expect=code)
    assert [each is None for each in frames] == [True, False, True]
    for index in (0, 2):
        assert message.format(index) in stderr and f"request-{index}.json" in stderr
    assert "request-1.json" not in stderr


def test_of_many_requests_the_first_failures_code_is_told(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(REQUEST))
    (tmp_path / "b.json").write_text(json.dumps({**REQUEST, "height": 65}))
    done = subprocess.run([BINARY, "--model", MODEL, "--threads", "1",
                           "--request", str(tmp_path / "a.json"), "--out", str(tmp_path / "nowhere" / "a.npy"),
                           "--request", str(tmp_path / "b.json"), "--out", str(tmp_path / "b.npy")],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == FAILED and "a.json: cannot write" in done.stderr and "b.json: the request" in done.stderr


@pytest.mark.parametrize("flags, message", [
    (["--request", "b.json"], "--out: expected one for each of 2 requests, got 1"),
    (["--request", "b.json", "--out", "out.npy"], "'out.npy' would be written twice"),
    (["--request", "b.json", "--out", "b.npy", "--stats", "s.json"], "--stats: expected none or one for each of 2 requests"),
    (["--request", "b.json", "--out", "b.npy", "--taps", "t", "--taps", "t"], "'t' would be written twice"),
])
def test_files_that_do_not_go_with_the_requests_are_usage(flags, message):
    done = subprocess.run([BINARY, "--model", MODEL, "--request", "a.json", "--out", "out.npy", *flags],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == USAGE and message in done.stderr


def test_an_interrupt_ends_all_requests(tmp_path):
    (tmp_path / "request.json").write_text(json.dumps({**REQUEST, "num_inference_steps": 500}))
    command = [BINARY, "--model", MODEL, "--threads", "1"]
    for name in ("a", "b"):
        command += ["--request", str(tmp_path / "request.json"), "--out", str(tmp_path / f"{name}.npy"),
                    "--taps", str(tmp_path / name)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "a" / "denoise_001.npy").exists():
        pass
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == FAILED and stderr.count("cancelled") == 1
    assert not list(tmp_path.glob("*.npy*")) and not (tmp_path / "b").exists()


def test_version_and_help():
    version = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("kino-render ")
    assert "Exit codes" in subprocess.run([BINARY, "--help"], capture_output=True, text=True, check=True).stdout
