"""W3C trace context: taken from the call or from the request, kept with the job, told to the worker and to the log."""

import pytest

from frontend_fixture import DEADLINE, FakeWorker, request, video
from request_helpers import fields, refusal

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-00"


def submit(frontend, metadata=(), **changes):
    return frontend.video.SubmitJob(video.SubmitJobRequest(request=request(**changes)), metadata=list(metadata), timeout=DEADLINE)


def test_the_calls_trace_is_kept_with_the_job_and_named_in_the_log(start):
    frontend = start()
    fake = FakeWorker(frontend)
    job = submit(frontend, [("traceparent", PARENT)])
    assert job.request.traceparent == PARENT
    assert fake.attempt().start.request.traceparent == PARENT
    frontend.restart()
    assert frontend.job(job.id).request.traceparent == PARENT
    told = [line for line in frontend.log_path.read_text().splitlines() if "4bf92f3577b34da6a3ce929d0e0e4736" in line]
    assert sum("submitted" in line for line in told) == 1 and any("given to worker" in line for line in told), told


def test_the_requests_own_trace_is_stronger_than_the_calls(shared):
    assert submit(shared, [("traceparent", PARENT)], traceparent=OTHER).request.traceparent == OTHER


@pytest.mark.parametrize("wrong", ["00-0-0-00", PARENT[:-1], PARENT.upper(), "x" * 300])
def test_a_malformed_trace_of_the_call_is_none_and_of_the_request_is_refused(shared, wrong):
    assert submit(shared, [("traceparent", wrong)]).request.traceparent == ""
    assert fields(refusal(lambda: submit(shared, traceparent=wrong))) == {"traceparent"}


def test_a_retry_under_another_trace_is_the_same_request(shared):
    first = submit(shared, [("traceparent", PARENT)], request_id="traced", seed=1)
    again = submit(shared, [("traceparent", OTHER)], request_id="traced", seed=1)
    in_request = submit(shared, request_id="traced", seed=1, traceparent=OTHER)
    assert again.id == in_request.id == first.id and again.request.traceparent == PARENT
