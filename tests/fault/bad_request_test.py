"""Requests that cannot be: each is refused with its precise status, and the job that runs meanwhile does not notice."""
import io
import math

import grpc
import pytest

import kino_client
from kino_client import Follower


@pytest.fixture(scope="module")
def bystander(stubs, kinod):
    """A job that runs from before the first bad request to after the last one, and succeeds."""
    with kinod.client() as client:
        watch = Follower(client, client.submit(client.long_request(num_inference_steps=300)).id)
        watch.denoised(1)
        children = kinod.children()
        yield watch
        job = watch.finish()
        assert job.state == stubs.video.SUCCEEDED and len(job.attempts) == 1
        assert watch.recording.sha256() == job.artifact.sha256 and watch.reattached == 0
        assert kinod.children() == children  # nobody was restarted


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    details = kino_client.error_details(caught.value)
    assert details["ErrorInfo"].domain == "kino.v1" and details["ErrorInfo"].reason
    return caught.value, details


def violations(details):
    found = {v.field: v.description for v in details["BadRequest"].field_violations}
    assert all(found.values())
    return found


BAD_FIELDS = [
    ("height that is no multiple", dict(height=65), "height"),
    ("no height", dict(height=0), "height"),
    ("negative width", dict(width=-64), "width"),
    ("huge width", dict(width=2**31 - 32), "width"),
    ("huge clip", dict(height=4096, width=4096, num_frames=8193), None),
    ("no frame", dict(num_frames=0), "num_frames"),
    ("huge number of frames", dict(num_frames=2**31 - 1), "num_frames"),
    ("no step", dict(num_inference_steps=0), "num_inference_steps"),
    ("huge number of steps", dict(num_inference_steps=2**31 - 1), "num_inference_steps"),
    ("guidance NaN", dict(guidance_scale=math.nan), "guidance_scale"),
    ("guidance infinite", dict(guidance_scale=math.inf), "guidance_scale"),
    ("fps NaN", dict(fps=math.nan), "fps"),
    ("fps 0", dict(fps=0), "fps"),
    ("fps negative", dict(fps=-8), "fps"),
    ("long prompt", dict(prompt="x" * 8193), "prompt"),
    ("long negative prompt", dict(negative_prompt="x" * 8193), "negative_prompt"),
    ("unknown task", dict(task=99), "task"),
    ("unknown priority", dict(priority=99), "priority"),
    ("task without its condition", dict(task=2), None),
]


@pytest.mark.parametrize("fields, field", [case[1:] for case in BAD_FIELDS], ids=[case[0] for case in BAD_FIELDS])
@pytest.mark.parametrize("method", ["SubmitJob", "Generate"])
def test_bad_field_is_named(stubs, client, bystander, method, fields, field):
    request = client.demo_request(**{k: v for k, v in fields.items() if v})
    for name, value in fields.items():
        setattr(request, name, value)  # zeros too, which merging would skip
    if method == "SubmitJob":
        error, details = refusal(lambda: client.submit(request))
    else:
        error, details = refusal(lambda: client.generate(request))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    found = violations(details)
    assert field is None and found or field in found, found


def nested(stubs):
    video = stubs.video
    image = video.Condition.IMAGE
    return {
        "ltx.frame_rate": dict(ltx=video.LtxOptions(frame_rate=math.nan)),
        "ltx.sigmas[1]": dict(ltx=video.LtxOptions(sigmas=[1, math.nan])),
        "ltx.guidance_rescale": dict(ltx=video.LtxOptions(guidance_rescale=2)),
        "ltx.decode_timestep": dict(ltx=video.LtxOptions(decode_timestep=-1)),
        "mochi": dict(mochi=video.MochiOptions()),
        "output.codec": dict(output=video.OutputOptions(codec=42)),
        "output.quality": dict(output=video.OutputOptions(quality=101)),
        "preview.enabled": dict(preview=video.PreviewOptions(enabled=True, every_n_steps=1)),
        "conditions[0].kind": dict(conditions=[video.Condition(kind=77, data=b"x")]),
        "conditions[0].path": dict(conditions=[video.Condition(kind=image, path="/etc/passwd")]),
        "conditions[0].source": dict(conditions=[video.Condition(kind=image)]),
        "conditions[0].strength": dict(conditions=[video.Condition(kind=image, data=png(), strength=math.nan)]),
        "conditions[0].frame_index": dict(conditions=[video.Condition(kind=image, data=png(), frame_index=999)]),
        "plan.offload": dict(plan=video.Plan(offload="sometimes")),
        "plan.vae_tiling.tile_sample_min_height":
            dict(plan=video.Plan(vae_tiling=video.VaeTiling(tile_sample_min_height=-1))),
    }


def png(size=(64, 64)):
    from PIL import Image
    out = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(out, format="PNG")
    return out.getvalue()


@pytest.mark.parametrize("field", [
    "ltx.frame_rate", "ltx.sigmas[1]", "ltx.guidance_rescale", "ltx.decode_timestep", "mochi", "output.codec",
    "output.quality", "preview.enabled", "conditions[0].kind", "conditions[0].path", "conditions[0].source",
    "conditions[0].strength", "conditions[0].frame_index", "plan.offload", "plan.vae_tiling.tile_sample_min_height"])
def test_bad_nested_field_is_named(stubs, client, bystander, field):
    error, details = refusal(lambda: client.submit(client.demo_request(**nested(stubs)[field])))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    found = violations(details)
    assert any(name.startswith(field) or field.startswith(name) for name in found), found


def test_all_bad_fields_are_told_at_once(client, bystander):
    _, details = refusal(lambda: client.submit(client.demo_request(height=65, width=63, num_frames=-1)))
    assert {"height", "width", "num_frames"} <= set(violations(details))
    _, details = refusal(lambda: client.submit(client.demo_request(fps=math.nan, guidance_scale=math.inf, task=99)))
    assert {"fps", "guidance_scale", "task"} <= set(violations(details))


def test_another_tenant_is_not_the_callers(client, bystander):
    error, _ = refusal(lambda: client.submit(client.demo_request(tenant="somebody")))
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED and "tenant" in error.details()


def test_unknown_model_asset_job(stubs, client, bystander):
    video = stubs.video
    error, details = refusal(lambda: client.submit(client.demo_request(model="another")))
    assert error.code() == grpc.StatusCode.NOT_FOUND and "another" in error.details()
    assert details["ErrorInfo"].reason == "MODEL_NOT_FOUND"
    condition = video.Condition(kind=video.Condition.IMAGE, asset_id="no-such-asset")
    error, _ = refusal(lambda: client.submit(client.demo_request(conditions=[condition])))
    assert error.code() == grpc.StatusCode.NOT_FOUND and "no-such-asset" in error.details()
    for call in (client.get, client.cancel, client.delete, client.download, client.watch):
        error, _ = refusal(lambda call=call: call("01m7zzzzzzzzzzzzzzzzzzzzzz"))
        assert error.code() == grpc.StatusCode.NOT_FOUND


def test_unknown_field_number_is_refused(stubs, client, bystander):
    request = stubs.video.GenerateRequest.FromString(
        client.demo_request().SerializeToString() + b"\xf8\x3f\x01")  # field 1023, varint 1
    error, details = refusal(lambda: client.submit(request))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert any("1023" in field for field in violations(details))


@pytest.mark.parametrize("broken", [
    lambda whole: whole[:len(whole) // 2], lambda whole: whole[:20], lambda whole: b"GIF89a" + whole[6:],
    lambda whole: b"not an image at all", lambda whole: b"",
], ids=["half", "head", "gif-in-name", "text", "nothing"])
def test_broken_images_are_refused_where_they_come_in(stubs, client, bystander, broken):
    video = stubs.video
    data = broken(png())
    error, _ = refusal(lambda: client.upload(data))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    condition = video.Condition(kind=video.Condition.IMAGE, data=data)
    error, details = refusal(lambda: client.submit(client.demo_request(conditions=[condition])))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert any(field.startswith("conditions[0]") for field in violations(details))


@pytest.mark.parametrize("lie", [
    lambda whole: dict(size=len(whole) + 1), lambda whole: dict(size=len(whole) - 1), lambda whole: dict(digest="0" * 64),
    lambda whole: dict(size=-1),
], ids=["longer", "shorter", "other-digest", "negative"])
def test_uploads_that_are_not_what_they_declare(client, bystander, lie):
    whole = png()
    error, _ = refusal(lambda: client.upload(whole, **lie(whole)))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_uploads_that_declare_too_much(client, bystander):
    whole = png()
    error, _ = refusal(lambda: client.upload(whole, size=1 << 40))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.upload(whole).id


def test_decompression_bomb_is_refused(client, bystander):
    from PIL import Image
    out = io.BytesIO()
    Image.new("1", (30000, 30000)).save(out, format="PNG")
    error, _ = refusal(lambda: client.upload(out.getvalue()))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "pixel" in error.details()
