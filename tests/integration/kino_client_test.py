"""The test client itself: the public protos compile on their own, and watches are joined as the protos say."""
import pytest

import kino_client


def chunk(stubs, attempt, offset, data):
    return stubs.video.JobEvent(
        video_chunk=stubs.video.VideoChunk(attempt=attempt, offset=offset, data=data))


def state(stubs, number):
    return stubs.video.JobEvent(state_change=stubs.video.StateChange(number=number))


def test_public_protos_need_no_worker_link(stubs):
    assert stubs.video.GenerateRequest(prompt="x").HasField("prompt")
    assert hasattr(stubs.models_grpc, "ModelServiceStub")
    assert not any("worker" in name for name in dir(stubs.video))


def test_bytes_of_a_new_attempt_replace_the_old(stubs):
    recording = kino_client.Recording()
    for event in (chunk(stubs, 1, 0, b"abc"), chunk(stubs, 1, 3, b"de"), chunk(stubs, 2, 0, b"xy")):
        recording.add(event)
    assert bytes(recording.data) == b"xy"
    assert recording.dropped_bytes == 5
    assert recording.resume_point() == {"after_state_number": 0, "attempt": 2, "offset": 2}


@pytest.mark.parametrize("events", [
    lambda stubs: [chunk(stubs, 1, 0, b"abc"), chunk(stubs, 1, 4, b"d")],
    lambda stubs: [chunk(stubs, 2, 0, b"abc"), chunk(stubs, 1, 0, b"d")],
    lambda stubs: [chunk(stubs, 1, 0, b"abc"), chunk(stubs, 1, 2, b"c")],
    lambda stubs: [state(stubs, 1), state(stubs, 3)],
    lambda stubs: [state(stubs, 1), state(stubs, 1)],
    lambda stubs: [state(stubs, 2)],
    lambda stubs: [stubs.video.JobEvent(finished=stubs.video.Job()), chunk(stubs, 1, 0, b"a")],
], ids=["gap in bytes", "older attempt", "bytes twice", "gap in states", "state twice", "no first state", "after the last"])
def test_gaps_repeats_and_stale_chunks_are_noticed(stubs, events):
    recording = kino_client.Recording()
    with pytest.raises(AssertionError):
        for event in events(stubs):
            recording.add(event)
