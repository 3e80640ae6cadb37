"""Plans: what a model lets requests ask for, what fits, what is told before a job is queued and after it ran."""

import signal
import subprocess
import time

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from frontend_fixture import BIN, DEADLINE, SOURCE, FakeWorker, details, eventually, models, reason, video, worker

MIB = 1 << 20


def refusal(call):
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def violations(error):
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    return {v.field: v.description for v in details(error)["BadRequest"].field_violations}


def plans(frontend, **fields):
    fields.setdefault("model", "demo")
    return frontend.models.GetPlans(models.GetPlansRequest(request=video.GenerateRequest(**fields)), timeout=DEADLINE)


def model_of(start, name="other", **keys):
    """A second model over the demo's files, with these keys."""
    keys.setdefault("defaults", "{height: 64, width: 64, num_frames: 17, num_inference_steps: 25}")
    text = "".join(f", {key}: {value}" for key, value in keys.items())
    return start(f"  - {{name: {name}, folder: '{SOURCE / 'models' / 'demo'}'{text}}}\n")


# --- what a model allows

@pytest.mark.parametrize("plan, field", [
    (video.Plan(quantize="nf4"), "plan.quantize"),
    (video.Plan(quantize="text_encoder=int8"), "plan.quantize"),
    (video.Plan(storage_dtype="float8_e4m3fn"), "plan.storage_dtype"),
    (video.Plan(storage_dtype="transformer=float8_e5m2"), "plan.storage_dtype"),
    (video.Plan(quantize="vae=nf4"), "plan.quantize"),
])
def test_lossy_options_need_the_models_leave(shared, plan, field):
    told = violations(refusal(lambda: shared.submit(plan=plan)))
    assert set(told) == {field} and "models[].allow_lossy" in told[field] and "demo" in told[field]
    assert field in violations(refusal(lambda: plans(shared, plan=plan)))


@pytest.mark.parametrize("plan", [
    video.Plan(offload="leaf", weights_home="pageable", prefetch=2, chunk_feed_forward=64),
    video.Plan(quantize="none", storage_dtype="none"),
    video.Plan(quantize_skip=["proj_out"], llm_int8_threshold=3),
    video.Plan(mode=video.SMALLEST, vae_tiling=video.VaeTiling(framewise=False)),
])
def test_lossless_options_are_every_requests(shared, plan):
    job = shared.submit(plan=plan)
    assert job.request.plan == plan
    shared.video.CancelJob(video.CancelJobRequest(id=job.id), timeout=DEADLINE)


def test_lossy_options_with_leave(start):
    frontend = model_of(start, allow_lossy="true")
    job = frontend.submit(model="other", plan=video.Plan(quantize="nf4", storage_dtype="float8_e4m3fn"))
    assert job.request.plan.quantize == "nf4"
    assert "plan.quantize" in violations(refusal(lambda: frontend.submit(plan=video.Plan(quantize="nf4"))))


def test_a_request_may_keep_or_drop_the_models_own_lossy_options_and_not_widen_them(start):
    frontend = model_of(start, plan="{quantize: text_encoder=nf4, storage_dtype: transformer=float8_e4m3fn}")

    def submit(**plan):
        return frontend.submit(model="other", plan=video.Plan(**plan)).request.plan

    assert submit().quantize == "text_encoder=nf4"
    assert submit(quantize="text_encoder=nf4").storage_dtype == "transformer=float8_e4m3fn"
    assert submit(quantize="none", storage_dtype="none").quantize == "none"
    assert set(violations(refusal(lambda: submit(quantize="nf4")))) == {"plan.quantize"}
    assert set(violations(refusal(lambda: submit(quantize="text_encoder=int8")))) == {"plan.quantize"}
    assert set(violations(refusal(lambda: submit(quantize_skip=["x"])))) == {"plan.quantize_skip"}
    assert set(violations(refusal(lambda: submit(storage_dtype="float8_e4m3fn")))) == {"plan.storage_dtype"}


def test_a_model_may_take_no_plans_from_requests(start):
    frontend = model_of(start, allow_plan_override="false", plan="{offload: leaf}")
    told = violations(refusal(lambda: frontend.submit(model="other", plan=video.Plan(offload="none"))))
    assert "models[].allow_plan_override" in told["plan"]
    # Its own plan again is no other plan: an effective request can be sent as it is.
    effective = frontend.submit(model="other").request
    assert effective.plan == video.Plan(offload="leaf")
    frontend.submit(model="other", plan=effective.plan)


@pytest.mark.parametrize("plan, field", [
    (video.Plan(offload="sometimes"), "plan.offload"),
    (video.Plan(offload="leaf,attic=none"), "plan.offload"),
    (video.Plan(weights_home="attic"), "plan.weights_home"),
    (video.Plan(quantize="nf5"), "plan.quantize"),
    (video.Plan(storage_dtype="int4"), "plan.storage_dtype"),
    (video.Plan(prefetch=9), "plan.prefetch"),
    (video.Plan(chunk_feed_forward=0), "plan.chunk_feed_forward"),
    (video.Plan(llm_int8_threshold=-1), "plan.llm_int8_threshold"),
    (video.Plan(llm_int8_threshold=float("nan")), "plan.llm_int8_threshold"),
    (video.Plan(max_device_memory=0), "plan.max_device_memory"),
    (video.Plan(max_host_memory=-1), "plan.max_host_memory"),
    (video.Plan(mode=77), "plan.mode"),
])
def test_what_no_plan_can_be_is_named(shared, plan, field):
    assert field in violations(refusal(lambda: shared.submit(plan=plan)))


def test_a_configured_plan_for_components_the_model_lacks_is_the_models_problem(start):
    frontend = model_of(start, plan="{offload: attic=leaf}")
    model = frontend.models.GetModel(models.GetModelRequest(name="other"), timeout=DEADLINE)
    assert "plan.offload" in model.problem and "attic" in model.problem
    error = refusal(lambda: frontend.submit(model="other"))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and reason(error) == "MODEL_BROKEN"


# --- what fits

def fits_nowhere(call):
    error = refusal(call)
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert reason(error) == "DOES_NOT_FIT"
    return error.details()


BIG = dict(height=512, width=512, num_frames=121)


def with_worker(frontend, *names, **hello):
    """A worker that can tell what jobs of these models need."""
    fake = FakeWorker(frontend, models=[worker.WorkerModel(name=name) for name in ("demo", *names)], **hello)
    fake.expect("hello_reply", passing=())
    return fake


def test_a_job_beyond_the_configured_limit_is_refused(start):
    frontend = start("workers: [{max_device_memory: 100MiB}]\n")
    # While no worker can tell what a job needs, none is refused.
    frontend.submit(**BIG)
    with_worker(frontend)
    told = fits_nowhere(lambda: frontend.submit(**BIG))
    assert "100" in told and "MiB" in told and "fits" in told and "cpu" in told
    # A limit that does for a small job, and one that only offload keeps.
    frontend.submit()
    assert "fits with" in fits_nowhere(lambda: frontend.submit(plan=video.Plan(max_device_memory=40 * MIB)))
    frontend.submit(plan=video.Plan(max_device_memory=40 * MIB, offload="leaf"))
    frontend.submit(plan=video.Plan(max_device_memory=40 * MIB, mode=video.AUTO))


def test_what_a_worker_said_of_its_memory_counts_also_when_it_is_gone(start):
    frontend = start()
    frontend.submit(**BIG)
    fake = with_worker(frontend, device_memory_bytes=200 * MIB, host_memory_bytes=200 * MIB)
    assert "fits" in fits_nowhere(lambda: frontend.submit(**BIG))
    fake.disconnect()
    fits_nowhere(lambda: frontend.submit(**BIG))


def test_one_worker_that_is_large_enough_or_unknown_will_do(start):
    frontend = start("workers: [{name: small, max_device_memory: 100MiB}, {name: large}]\n")
    frontend.submit(**BIG)
    with_worker(frontend, name="large", device_memory_bytes=150 * MIB, host_memory_bytes=150 * MIB)
    fits_nowhere(lambda: frontend.submit(**BIG))
    with_worker(frontend, name="guest", device_memory_bytes=8 << 30, host_memory_bytes=8 << 30)
    frontend.submit(**BIG)


def test_a_request_lowers_the_models_limits_and_never_raises_them(start):
    frontend = model_of(start, plan="{mode: auto, max_device_memory: 40MiB}")
    with_worker(frontend, "other")
    assert frontend.submit(model="other").request.plan.max_device_memory == 40 * MIB
    raised = frontend.submit(model="other", plan=video.Plan(max_device_memory=1 << 40)).request.plan
    assert raised.max_device_memory == 40 * MIB and raised.mode == video.AUTO
    fits_nowhere(lambda: frontend.submit(model="other", plan=video.Plan(max_device_memory=MIB)))


# --- what is told

def test_get_plans_tells_every_plan_and_the_chosen_one(start):
    frontend = start("workers: [{max_device_memory: 40MiB}]\n")
    unknown, = plans(frontend, num_frames=9).memory
    assert not unknown.plans and "no worker" in unknown.refusal
    with_worker(frontend)
    got = plans(frontend, plan=video.Plan(mode=video.AUTO), num_frames=9)
    assert got.request.height == 64 and got.request.num_frames == 9 and got.request.plan.mode == video.AUTO
    assert len(got.memory) == 1
    memory = got.memory[0]
    assert (memory.device, memory.dtype, memory.device_memory_bytes) == ("cpu", "float32", 40 * MIB)
    assert memory.weights_bytes > 0 and not memory.refusal
    names = [plan.name for plan in memory.plans]
    assert len(names) == len(set(names)) > 3
    for plan in memory.plans:
        assert plan.fits == (plan.peak_device_bytes <= 40 * MIB)
        assert plan.slowdown > 0 and plan.lossless and plan.time_class
        peaks = [s.weights_bytes + s.activations_bytes + s.workspace_bytes for s in plan.stages]
        assert max(peaks) == plan.peak_device_bytes
    chosen = [plan for plan in memory.plans if plan.chosen]
    assert len(chosen) == 1 and chosen[0].fits
    resident = next(plan for plan in memory.plans if plan.plan.offload == "none")
    assert not resident.fits and resident.peak_device_bytes > chosen[0].peak_device_bytes
    assert not frontend.video.ListJobs(video.ListJobsRequest(), timeout=DEADLINE).jobs, "nothing is submitted"


def test_get_plans_lists_lossy_plans_only_where_they_are_allowed(start):
    frontend = model_of(start, allow_lossy="true")
    with_worker(frontend, "other")
    auto = video.Plan(mode=video.AUTO)
    assert all(plan.lossless for plan in plans(frontend, plan=auto).memory[0].plans)
    lossy = [plan for plan in plans(frontend, model="other", plan=auto).memory[0].plans if not plan.lossless]
    assert lossy


def test_get_plans_needs_neither_prompt_nor_files(shared):
    image = video.Condition(kind=video.Condition.IMAGE)
    got = plans(shared, conditions=[image])
    assert got.request.task == video.IMAGE_TO_VIDEO and got.request.conditions[0].WhichOneof("source") is None
    assert not got.request.HasField("prompt")
    assert "height" in violations(refusal(lambda: plans(shared, height=33)))
    assert refusal(lambda: plans(shared, model="absent")).code() == grpc.StatusCode.NOT_FOUND


def test_models_show_their_default_requests_plans(start):
    frontend = model_of(start, plan="{mode: smallest}")
    with_worker(frontend, "other")
    model = frontend.models.GetModel(models.GetModelRequest(name="other"), timeout=DEADLINE)
    (memory,) = model.memory
    assert memory.device == "cpu" and memory.device_memory_bytes == 0 and all(plan.fits for plan in memory.plans)
    smallest = min(plan.peak_device_bytes for plan in memory.plans)
    (chosen,) = [plan for plan in memory.plans if plan.chosen]
    assert chosen.peak_device_bytes == smallest
    listed = frontend.models.ListModels(models.ListModelsRequest(), timeout=DEADLINE).models
    assert [len(one.memory) for one in listed] == [1, 1] and not listed[0].memory[0].plans


def test_the_plan_that_ran_is_the_jobs_even_when_it_is_another_than_was_started(start):
    frontend = start()
    fake = FakeWorker(frontend)
    job = frontend.submit(plan=video.Plan(mode=video.AUTO))
    attempt = fake.attempt()
    assert attempt.start.request.plan == video.Plan(mode=video.AUTO)
    attempt.started()
    eventually(lambda: frontend.job(job.id).plan.offload == "none", "the started plan shows")
    attempt.chunk(b"video" * 100)
    attempt.done(plan=video.Plan(offload="leaf", weights_home="file"))
    finished = frontend.wait_for(job.id, video.SUCCEEDED)
    assert finished.plan == video.Plan(offload="leaf", weights_home="file")
    assert finished.request.plan == video.Plan(mode=video.AUTO)


# --- the client

def kino(frontend, *arguments):
    return subprocess.run([BIN / "kino", *arguments, "--server", frontend.address], capture_output=True, text=True,
                          timeout=DEADLINE)


def test_kino_plan_prints_the_table(start):
    frontend = start("workers: [{max_device_memory: 100MiB}]\n")
    with_worker(frontend)
    done = kino(frontend, "plan", "demo", "--num-frames", "9", "--plan", "smallest")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("cpu, float32,") and "device memory 100.0 MiB" in lines[0]
    assert all(word in lines[1] for word in ("PLAN", "DEVICE", "HOST", "FITS", "TIME", "FRAMES"))
    assert sum(line.startswith("* ") for line in lines) == 1
    told = kino(frontend, "plan", "demo", "--height", "512", "--width", "512", "--num-frames", "121")
    assert told.returncode == 4 and "does not run: needs" in told.stdout and " no " in told.stdout
    as_json = kino(frontend, "plan", "--model", "demo", "--json")
    assert as_json.returncode == 0 and '"peak_device_bytes"' in as_json.stdout
    assert "--plan" in kino(frontend, "plan", "demo", "--plan", "best").stderr
    assert kino(frontend, "plan", "demo", "--height", "33").returncode == 4


def test_kino_submits_the_plan_it_is_given(start):
    frontend = start()
    done = kino(frontend, "submit", "a star", "--offload", "block:1", "--offload", "vae=none", "--weights-home", "pageable",
                "--max-device-memory", "6G")
    assert done.returncode == 0, done.stderr
    plan = frontend.job(done.stdout.strip()).request.plan
    assert plan == video.Plan(offload="block:1,vae=none", weights_home="pageable", max_device_memory=6 * 10**9)


# --- what was admitted before anybody could tell

def failed_as_unfit(frontend, job):
    job = frontend.wait_for(job.id, video.FAILED)
    info, = (error_details_pb2.ErrorInfo.FromString(detail.value) for detail in job.error.details)
    assert info.reason == "DOES_NOT_FIT" and job.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert not job.attempts, "no attempt is counted"
    return job.error.message


def test_a_job_that_fits_no_worker_fails_before_it_is_given_to_one(start):
    frontend = start()
    big, small = frontend.submit(**BIG), frontend.submit()
    fake = with_worker(frontend, host_memory_bytes=100 * MIB)
    told = failed_as_unfit(frontend, big)
    assert "the job fits on no worker of model 'demo': cpu: " in told and "100 MiB" in told and "fits up to" in told
    assert fake.attempt().ref.job_id == small.id


def test_a_job_waits_for_the_worker_that_it_fits_and_holds_up_nobody(start):
    frontend = start("workers: [{name: small, max_host_memory: 100MiB}, {name: large}]\n")
    small = with_worker(frontend, name="small", host_memory_bytes=8 << 30)
    large = with_worker(frontend, name="large", host_memory_bytes=8 << 30)
    frontend.submit(**BIG)
    first = large.attempt()
    second, third = frontend.submit(**BIG), frontend.submit()
    assert small.attempt().ref.job_id == third.id
    assert frontend.job(second.id).state == video.QUEUED
    first.succeed()
    assert large.attempt().ref.job_id == second.id


def test_a_configured_worker_that_may_still_come_is_waited_for(start):
    frontend = start("workers: [{name: small, max_host_memory: 100MiB}, {name: large}]\nlink: {reattach_grace: 10m}\n")
    big = frontend.submit(**BIG)
    small = with_worker(frontend, name="small")
    behind = frontend.submit()
    assert small.attempt().ref.job_id == behind.id
    assert frontend.job(big.id).state == video.QUEUED, "judged before the one behind it, and not failed"
    large = with_worker(frontend, name="large")
    assert large.attempt().ref.job_id == big.id


def test_a_frontend_that_stood_still_listens_before_it_gives_up_a_worker(start):
    """Longer than the grace, of which it heard nothing."""
    frontend = start("workers: [{name: small, max_host_memory: 100MiB}, {name: large}]\nlink: {reattach_grace: 10s}\n")
    small = with_worker(frontend, name="small")
    frontend.process.send_signal(signal.SIGSTOP)
    time.sleep(11)  # standing still is what is tested
    frontend.process.send_signal(signal.SIGCONT)
    big = frontend.submit(**BIG)
    behind = frontend.submit()
    assert small.attempt().ref.job_id == behind.id
    assert frontend.job(big.id).state == video.QUEUED, "judged before the one behind it, and not failed"
    large = with_worker(frontend, name="large")
    assert large.attempt().ref.job_id == big.id


def test_a_worker_that_does_not_come_is_waited_for_no_longer_than_the_grace(start):
    frontend = start("workers: [{name: small, max_host_memory: 100MiB}, {name: large}]\nlink: {reattach_grace: 1s}\n")
    small = with_worker(frontend, name="small")
    assert "100 MiB" in failed_as_unfit(frontend, frontend.submit(**BIG))
    # Nor is one that went.
    large = with_worker(frontend, name="large")
    running, waiting = frontend.submit(**BIG), frontend.submit(**BIG)
    assert large.attempt().ref.job_id == running.id
    assert frontend.job(waiting.id).state == video.QUEUED
    large.disconnect()
    failed_as_unfit(frontend, waiting)
    frontend.submit()
    small.attempt()


def test_a_job_is_given_where_the_worker_cannot_tell_what_it_needs(start):
    frontend = start("workers: [{max_host_memory: 100MiB}]\n")
    big = frontend.submit(**BIG)
    fake = with_worker(frontend, tell_profiles=False)
    query = fake.expect("profile")
    fake.send(profile=worker.ProfileAnswer(query_id=query.query_id, error=status_pb2.Status(code=13, message="no trace")))
    assert fake.attempt().ref.job_id == big.id
