"""The observer itself: a history in which all went well passes, and one in which a promise was broken is told, promise by promise."""
import re

import pytest

import kino_client
from history import CALLS_BY_ID, History, Outcome, broken_promises

VIDEO_BYTES = b"what the second attempt made"


class Story:
    """Two tenants with the same request_id. Tenant a's job loses an attempt and succeeds, b's is cancelled while it runs."""

    def __init__(self, stubs):
        video = self.video = stubs.video
        self.made = video.Job(
            id="made", state=video.SUCCEEDED, request=video.GenerateRequest(tenant="a"),
            attempts=[video.Attempt(number=1), video.Attempt(number=2)],
            artifact=video.Artifact(sha256=kino_client.sha256(VIDEO_BYTES), size_bytes=len(VIDEO_BYTES)))
        self.dropped = video.Job(id="dropped", state=video.CANCELLED, request=video.GenerateRequest(tenant="b"),
                                 attempts=[video.Attempt(number=1)])
        self.history = History(video)
        self.history.on_submit("a", "one", self.made)
        self.history.on_submit("a", "one", self.made)  # asked twice, since the first answer was lost
        self.history.on_submit("b", "one", self.dropped)
        self.history.on_cancel(video.Job(id="dropped", state=video.RUNNING))
        self.recording = self.watch(self.made, [(1, b"half of"), (2, VIDEO_BYTES)])
        self.watch(self.dropped, [(1, b"some")])
        self.history.pried = [(tenant, method, job_id, "NOT_FOUND") for tenant, job_id in (("a", "dropped"), ("b", "made"))
                              for method in CALLS_BY_ID]
        self.outcome = Outcome(jobs={"a": [self.made], "b": [self.dropped]}, downloads={"made": self.made.artifact.sha256},
                               committed={"made": 1}, open_attempts=0, store_is_whole=True, files={"made.2.mp4"},
                               counts={"SUCCEEDED": 1, "CANCELLED": 1})

    def watch(self, job, chunks):
        recording = kino_client.Recording()
        for attempt, data in chunks:
            recording.add(self.video.JobEvent(job_id=job.id, video_chunk=self.video.VideoChunk(attempt=attempt, data=data)))
        finished = self.video.JobEvent(job_id=job.id)
        finished.finished.CopyFrom(job)
        recording.add(finished)
        self.history.on_watch(job.id, recording)
        return recording

    def broken(self):
        return broken_promises(self.history, self.outcome)


def lose(story):
    story.outcome.jobs["a"] = []


def never_end(story):
    story.dropped.state = story.video.RUNNING


def end_no_watch(story):
    story.recording.job = None


def commit_twice(story):
    story.outcome.committed["made"] = 2


def commit_what_was_cancelled(story):
    story.outcome.committed["dropped"] = 1


def leave_an_attempt_open(story):
    story.outcome.open_attempts = 1


def skip_an_attempt(story):
    story.made.attempts[1].number = 3


def repeat_an_attempt(story):
    story.made.attempts[1].number = 1


def download_others_bytes(story):
    story.outcome.downloads["made"] = kino_client.sha256(b"others")


def download_nothing(story):
    del story.outcome.downloads["made"]


def stream_other_bytes(story):
    story.recording.data[0] ^= 1


def succeed_after_a_cancel(story):
    story.history.cancelled["made"] = "RUNNING"


def make_two_jobs_of_one_request(story):
    story.history.on_submit("b", "one", story.video.Job(id="twin"))


def keep_a_job_that_nobody_has(story):
    story.outcome.jobs["b"].append(story.video.Job(id="stray", state=story.video.FAILED,
                                                   request=story.video.GenerateRequest(tenant="b")))


def end_differently_afterwards(story):
    story.recording.job.state = story.video.FAILED


def run_again_afterwards(story):
    story.recording.job.attempts.pop()


def list_anothers_job(story):
    story.outcome.jobs["b"].append(story.made)


def answer_with_anothers_job(story):
    story.history.on_submit("b", "one", story.made)


def file_a_job_under_another(story):
    story.dropped.request.tenant = "a"


def watch_anothers_job(story):
    story.recording.job_ids.add("dropped")


def refuse_where_nothing_should_be_known(story):
    story.history.pried[0] = (*story.history.pried[0][:3], "PERMISSION_DENIED")


def let_another_download(story):
    story.history.pried.append(("b", "DownloadVideo", "made", "OK"))


def count_wrongly(story):
    story.outcome.counts["FAILED"] = 1


def leave_a_file(story):
    story.outcome.files.add("made.1.mp4")


def lose_the_file(story):
    story.outcome.files.clear()


def damage_the_store(story):
    story.outcome.store_is_whole = False


BREAKS = {
    "I1": [lose, never_end, end_no_watch],
    "I2": [commit_twice, commit_what_was_cancelled, leave_an_attempt_open],
    "I3": [skip_an_attempt, repeat_an_attempt],
    "I4": [download_others_bytes, download_nothing, stream_other_bytes],
    "I5": [succeed_after_a_cancel],
    "I6": [make_two_jobs_of_one_request, keep_a_job_that_nobody_has],
    "I7": [end_differently_afterwards, run_again_afterwards],
    "I8": [list_anothers_job, answer_with_anothers_job, file_a_job_under_another, watch_anothers_job,
           refuse_where_nothing_should_be_known, let_another_download],
    "I9": [count_wrongly],
    "I10": [leave_a_file, lose_the_file],
    "the store is whole": [damage_the_store],
}


def test_history_in_which_all_went_well_passes(stubs):
    assert Story(stubs).broken() == []


@pytest.mark.parametrize("promise, break_it", [(promise, one) for promise, ways in BREAKS.items() for one in ways],
                         ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_broken_promise_is_told(stubs, promise, break_it):
    story = Story(stubs)
    break_it(story)
    told = {re.split("[,:]", line)[0] for line in story.broken()}
    assert promise in told, told


def test_every_promise_is_broken_here():
    assert [f"I{number}" for number in range(1, 11)] == [promise for promise in BREAKS if promise.startswith("I")]
