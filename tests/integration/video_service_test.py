"""A client made from the protos alone walks a job's whole way, with the real engine and the demo model."""
import io
import os
import uuid

import grpc
import pytest

import kino_client


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def states(stubs, recording):
    return [stubs.video.JobState.Name(change.state) for change in recording.states]


def test_generate_tells_every_state_and_streams_the_artifact(stubs, client):
    recording = client.generate(client.demo_request())
    assert states(stubs, recording) == ["QUEUED", "RUNNING", "SUCCEEDED"]
    artifact = recording.job.artifact
    assert (artifact.width, artifact.height, artifact.num_frames, artifact.fps) == (64, 64, 17, 8)
    assert artifact.size_bytes == len(recording.data) and artifact.sha256 == recording.sha256()
    assert len(kino_client.rgb_frames(bytes(recording.data))) == 17 * 64 * 64 * 3
    stages = {stubs.video.Stage.Name(s.stage) for s in recording.job.stages}
    assert {"DENOISE", "DECODE", "MUX"} <= stages
    assert all(s.peak_device_bytes > 0 for s in recording.job.stages)
    fractions = [p.fraction for p in recording.progress]
    assert fractions == sorted(fractions)


def test_prompt_alone_gets_the_models_defaults(stubs, client):
    recording = client.generate(stubs.video.GenerateRequest(prompt=kino_client.DEMO_PROMPT, seed=7))
    request = recording.job.request
    assert (request.model, request.task) == ("demo", stubs.video.TEXT_TO_VIDEO)
    assert (request.height, request.width, request.num_frames, request.fps) == (64, 64, 17, 8)
    assert request.ltx.frame_rate == 8
    assert recording.sha256() == client.generate(client.demo_request()).sha256()


def test_watch_dropped_in_mid_stream_goes_on_by_state_number_and_offset(client):
    job = client.submit(client.demo_request(num_frames=65))
    recording = client.watch(job.id, until=lambda event: event.HasField("state_change"))
    drops = 1
    while not recording.finished:
        # Dropped after each chunk, and attached again with a client that has a new connection.
        with kino_client.Client(client.stubs, client.address) as another:
            another.watch(job.id, recording, until=lambda event: event.HasField("video_chunk"))
        drops += 1
    assert drops > 10
    assert [change.number for change in recording.states] == list(range(1, len(recording.states) + 1))
    assert recording.dropped_bytes == 0
    assert recording.sha256() == recording.job.artifact.sha256
    assert bytes(recording.data) == client.download(job.id)



def test_first_pictures_arrive_while_the_rest_is_being_decoded(stubs, client):
    request = client.demo_request(num_frames=257, height=128, width=128, num_inference_steps=2)
    seen = kino_client.Recording()
    steps_after_pictures = []

    def look(event):
        seen.add(event)
        progress = event.progress
        if event.HasField("progress") and progress.stage == stubs.video.DECODE and \
                "mdat" in kino_client.mp4_boxes(seen.data):
            steps_after_pictures.append((progress.step, progress.total_steps, len(seen.data)))

    recording = client.generate(request, until=look)
    assert kino_client.mp4_boxes(recording.data).count("moof") >= 3
    # Frames decoded when progress was made, after pictures had been received.
    early = [step for step, total, _ in steps_after_pictures if step < total]
    assert early, f"no decoding was left after the first pictures: {steps_after_pictures}"


def test_list_filters_and_pages(stubs, client):
    run = uuid.uuid4().hex
    made = [client.submit(client.demo_request(
        num_inference_steps=2, labels={"run": run, "kind": "odd" if i % 2 else "even"})).id
        for i in range(5)]
    for job_id in made:
        assert client.wait(job_id).state == stubs.video.SUCCEEDED
    newest_first = made[::-1]
    assert [job.id for job in client.jobs(page_size=2, labels={"run": run})] == newest_first
    assert [job.id for job in client.jobs(labels={"run": run, "kind": "odd"})] == [made[3], made[1]]
    assert [job.id for job in client.jobs(labels={"run": run}, states=[stubs.video.SUCCEEDED])] == newest_first
    assert not list(client.jobs(labels={"run": run}, states=[stubs.video.FAILED, stubs.video.QUEUED]))
    assert not list(client.jobs(labels={"run": run}, model="another"))
    page = client.call("ListJobs", stubs.video.ListJobsRequest(page_size=2, labels={"run": run}))
    assert [job.id for job in page.jobs] == newest_first[:2] and page.next_page_token
    error = refusal(lambda: client.call("ListJobs", stubs.video.ListJobsRequest(page_token="nonsense")))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_cancelled_in_the_queue_and_deleted_when_ended(stubs, client):
    first = client.submit(client.long_request())
    second = client.submit(client.demo_request())
    assert client.get(second.id).state == stubs.video.QUEUED
    assert refusal(lambda: client.delete(second.id)).code() == grpc.StatusCode.FAILED_PRECONDITION
    assert client.cancel(second.id).state == stubs.video.CANCELLED
    assert client.wait(second.id).state == stubs.video.CANCELLED
    client.cancel(first.id)
    assert client.wait(first.id).state == stubs.video.CANCELLED
    assert client.cancel(first.id).state == stubs.video.CANCELLED  # no error, no change
    for job in (first, second):
        client.delete(job.id)
        assert refusal(lambda: client.get(job.id)).code() == grpc.StatusCode.NOT_FOUND


def test_download_from_any_offset(client, kinod):
    done = client.generate(client.demo_request())
    whole, job_id = bytes(done.data), done.job.id
    size = len(whole)
    wrong = [(offset, limit) for offset, limit in ((0, 0), (1, 0), (1000, 0), (size - 1, 0), (0, 1), (500, 2000))
             if client.download(job_id, offset, limit) != whole[offset:offset + limit if limit else size]]
    assert not wrong
    assert client.download(job_id, size) == b""
    assert refusal(lambda: client.download(job_id, size + 1)).code() == grpc.StatusCode.OUT_OF_RANGE
    assert refusal(lambda: client.download(job_id, -1)).code() in (
        grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INVALID_ARGUMENT)
    client.delete(job_id)
    assert refusal(lambda: client.download(job_id)).code() == grpc.StatusCode.NOT_FOUND
    assert not [name for name in os.listdir(os.path.join(kinod.data_dir, "videos")) if job_id in name]


def picture(colour, size=(96, 80)):
    from PIL import Image
    out = io.BytesIO()
    image = Image.new("RGB", size, (20, 20, 60))
    image.paste(colour, (30, 20, 60, 50))
    image.save(out, format="PNG")
    return out.getvalue()


def test_uploaded_image_starts_the_clip(stubs, client):
    video = stubs.video
    red, green = picture((220, 30, 30)), picture((30, 220, 30))
    asset = client.upload(red, name="red.png")
    assert (asset.width, asset.height, asset.content_type) == (96, 80, "image/png")
    assert asset.sha256 == kino_client.sha256(red)

    def first_pixel_of_the_square(**source):
        done = client.generate(client.demo_request(
            conditions=[video.Condition(kind=video.Condition.IMAGE, **source)]))
        assert done.job.state == video.SUCCEEDED, done.job.error
        assert done.job.request.task == video.IMAGE_TO_VIDEO
        assert done.job.request.conditions[0].asset_id and not done.job.request.conditions[0].data
        frames = kino_client.rgb_frames(bytes(done.data))
        at = (64 * (35 * 64 // 80) + 45 * 64 // 96) * 3  # the square's middle
        return frames[at], frames[at + 1]

    red_part, green_part = first_pixel_of_the_square(asset_id=asset.id)
    assert red_part > 120 > green_part
    red_part, green_part = first_pixel_of_the_square(data=green)
    assert green_part > 120 > red_part


def test_request_id_gives_one_job(stubs, client):
    name = uuid.uuid4().hex
    request = client.demo_request(request_id=name, num_inference_steps=2)
    first = client.submit(request)
    assert client.submit(request).id == first.id
    assert client.generate(request).job.id == first.id  # watching is the same for either
    other = client.demo_request(request_id=name, num_inference_steps=3)
    error = refusal(lambda: client.submit(other))
    assert error.code() == grpc.StatusCode.ALREADY_EXISTS
    assert kino_client.error_details(error)["ErrorInfo"].domain == "kino.v1"
    client.delete(first.id)
    assert client.submit(other).id != first.id  # the name is free again
