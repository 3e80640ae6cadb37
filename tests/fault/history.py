"""What a server promised its clients, held against what it did: an observer outside of it writes down what was acknowledged and
what was seen (History), looks at what there is in the end (Outcome), and `broken_promises` compares the two. It talks to no server,
so history_test.py can show it histories in which a promise was broken."""
import contextlib
import dataclasses
import os
import re
import sqlite3
import threading
import urllib.request

import grpc

import kino_client

ENDED = {"SUCCEEDED", "FAILED", "CANCELLED", "QUARANTINED", "EXPIRED"}
# Every call that takes a job's id.
CALLS_BY_ID = ("GetJob", "CancelJob", "RequeueJob", "DeleteJob", "WatchJob", "DownloadVideo")


def again(call):
    """What a client does whose server went away: until there is an answer."""
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise


class History:
    """Of one server; `video` is its API's module. Thread-safe."""

    def __init__(self, video):
        self.video = video
        self._lock = threading.Lock()
        self.submitted = {}  # (tenant, request_id) -> ids that its submissions were answered with
        self.cancelled = {}  # id -> the state that the acknowledgement told
        self.watched = []    # (id, Recording)
        self.pried = []      # (tenant, a call by id, id of another tenant's job, the status code's name)

    def on_submit(self, tenant, request_id, job):
        with self._lock:
            self.submitted.setdefault((tenant, request_id), set()).add(job.id)

    def on_cancel(self, job):
        with self._lock:
            self.cancelled[job.id] = self.state_of(job)

    def on_watch(self, job_id, recording):
        with self._lock:
            self.watched.append((job_id, recording))

    def pry(self, client, tenant, job_id):
        """Tries all that a tenant could who has learned the id of another one's job."""
        for method in CALLS_BY_ID:
            request = getattr(self.video, f"{method}Request")(id=job_id)
            try:
                again(lambda method=method, request=request: self._first_answer(client.call(method, request)))
                code = "OK"
            except grpc.RpcError as error:
                code = error.code().name
            with self._lock:
                self.pried.append((tenant, method, job_id, code))

    @staticmethod
    def _first_answer(answer):
        if isinstance(answer, grpc.Call):  # a stream's
            try:
                next(answer, None)
            finally:
                answer.cancel()

    def state_of(self, job):
        return self.video.JobState.Name(job.state)

    def acknowledged(self, tenant):
        return set().union(*(ids for (whose, _), ids in self.submitted.items() if whose == tenant))

    def check(self, server, clients):
        """Raises with every promise that was broken. clients: of every tenant, by its name. REQUIRES: all jobs have ended,
        nothing is under way."""
        broken = broken_promises(self, look(self, server, clients))
        assert not broken, "\n".join(broken)


@dataclasses.dataclass
class Outcome:
    """What there is in the end; each fact from the place that is asked for it."""
    jobs: dict             # tenant -> the Jobs that are listed for it
    downloads: dict        # id -> SHA-256 of the video that its tenant downloads
    committed: dict        # id -> its attempts that ended without a failure, in the store
    open_attempts: int     # that did not end, in the store
    store_is_whole: bool
    files: set             # names in the folder of videos
    counts: dict           # state -> jobs, in the metrics

    def all_jobs(self):
        return {job.id: job for jobs in self.jobs.values() for job in jobs}


def files_of(jobs):
    """Names of the files that the jobs' artifacts have."""
    return {f"{job.id}.{job.attempts[-1].number}.mp4" for job in jobs if job.HasField("artifact")}


def counts_of(history, jobs):
    counts = {}
    for job in jobs:
        counts[history.state_of(job)] = counts.get(history.state_of(job), 0) + 1
    return counts


def look(history, server, clients):
    """The Outcome of a server that rests. Files and metrics follow a job's end; they are given ten seconds."""
    # The process that was stopped last may just be coming back.
    jobs = {tenant: again(lambda client=client: list(client.jobs())) for tenant, client in clients.items()}
    everything = [job for listed in jobs.values() for job in listed]
    downloads = {
        job.id: kino_client.sha256(again(lambda tenant=tenant, job=job: clients[tenant].download(job.id)))
        for tenant, listed in jobs.items() for job in listed if job.state == history.video.SUCCEEDED}
    with sqlite3.connect(f"file:{os.path.join(server.data_dir, 'kino.db')}?mode=ro", uri=True) as db:
        committed = dict(db.execute("SELECT jobs.id, count(*) FROM attempts JOIN jobs ON jobs.seq = attempts.job "
                                    "WHERE attempts.end_us IS NOT NULL AND cause = 0 GROUP BY 1"))
        open_attempts = db.execute("SELECT count(*) FROM attempts WHERE end_us IS NULL").fetchone()[0]
        store_is_whole = db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"

    def files():
        return set(os.listdir(os.path.join(server.data_dir, "videos")))

    def counts():
        with urllib.request.urlopen(f"http://{server.metrics_address()}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.findall(r'^kino_jobs\{state="(\w+)"\} (\d+)', text, re.MULTILINE)
        return {state.upper(): int(count) for state, count in found if int(count)}

    with contextlib.suppress(TimeoutError):
        kino_client.eventually("only artifacts are left", lambda: files() == files_of(everything), timeout=10)
    with contextlib.suppress(TimeoutError):
        kino_client.eventually("metrics tell the jobs", lambda: counts() == counts_of(history, everything), timeout=10)
    return Outcome(jobs, downloads, committed, open_attempts, store_is_whole, files(), counts())


def broken_promises(history, outcome):
    """A line for each. I1 to I10 are the promises' names."""
    broken = []

    def demand(holds, promise, *what):
        if not holds:
            broken.append(f"{promise}: {what}")

    _check_submissions(demand, history, outcome)
    _check_jobs(demand, history, outcome)
    _check_watches(demand, history, outcome)
    _check_tenants(demand, history, outcome)
    jobs = outcome.all_jobs()
    succeeded = {job.id: 1 for job in jobs.values() if job.HasField("artifact")}
    demand(outcome.store_is_whole, "the store is whole")
    demand(outcome.committed == succeeded, "I2, exactly one attempt is committed", outcome.committed, succeeded)
    demand(outcome.open_attempts == 0, "I2, no attempt is left open", outcome.open_attempts)
    counts = counts_of(history, jobs.values())
    demand(outcome.counts == counts, "I9, metrics are the store's", outcome.counts, counts)
    files = files_of(jobs.values())
    demand(outcome.files == files, "I10, no file is left over, none is missing", outcome.files ^ files)
    return broken


def _check_submissions(demand, history, outcome):
    jobs = outcome.all_jobs()
    for request_id, ids in history.submitted.items():
        demand(len(ids) == 1, "I6, one job per request_id", request_id, ids)
        demand(ids <= jobs.keys(), "I1, an acknowledged job is there", request_id, ids)
    acknowledged = set().union(*history.submitted.values())
    demand(jobs.keys() <= acknowledged, "I6, no job that nobody has", jobs.keys() - acknowledged)


def _check_jobs(demand, history, outcome):
    for job in outcome.all_jobs().values():
        state = history.state_of(job)
        demand(state in ENDED, "I1, an acknowledged job ends", job.id, state)
        numbers = [attempt.number for attempt in job.attempts]
        demand(numbers == list(range(1, len(numbers) + 1)), "I3, attempts are numbered without gaps", job.id, numbers)
        if state == "SUCCEEDED":
            demand(outcome.downloads.get(job.id) == job.artifact.sha256, "I4, bytes are the artifact", job.id)
        if history.cancelled.get(job.id, "SUCCEEDED") != "SUCCEEDED":
            demand(state != "SUCCEEDED", "I5, no success after a cancel", job.id, history.cancelled[job.id])


def _check_watches(demand, history, outcome):
    jobs = outcome.all_jobs()
    for job_id, recording in history.watched:
        # Order and gaps are what a Recording refuses by itself.
        demand(recording.job_ids <= {job_id}, "I8, a watch tells of its own job", job_id, recording.job_ids)
        if not recording.finished:
            demand(False, "I1, a watch ends with its job", job_id)
            continue
        told, job = recording.job, jobs.get(job_id)
        demand(job is not None and (told.state, told.artifact, len(told.attempts)) == (job.state, job.artifact, len(job.attempts)),
               "I7, an ended job stays as it is", job_id, told, job)
        if history.state_of(told) == "SUCCEEDED":
            demand(recording.sha256() == told.artifact.sha256, "I4, joined bytes are the artifact", job_id)


def _check_tenants(demand, history, outcome):
    for tenant, jobs in outcome.jobs.items():
        ids = {job.id for job in jobs}
        for other in outcome.jobs.keys() - {tenant}:
            theirs = history.acknowledged(other)
            demand(not ids & theirs, "I8, no tenant is shown another's job", tenant, ids & theirs)
            demand(not history.acknowledged(tenant) & theirs, "I8, a request_id is the tenant's own", tenant, other)
        for job in jobs:
            demand(job.request.tenant == tenant, "I8, a job is its tenant's", job.id, tenant, job.request.tenant)
    for tenant, method, job_id, code in history.pried:
        demand(code == "NOT_FOUND", "I8, another tenant's job is not found", tenant, method, job_id, code)
