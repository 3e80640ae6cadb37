"""What a server promised its clients, held against what it did: an observer outside of it writes down what was acknowledged and
what was seen, and `check` looks for a promise that was broken."""
import os
import re
import sqlite3
import threading
import urllib.request

import grpc

import kino_client

ENDED = {"SUCCEEDED", "FAILED", "CANCELLED", "QUARANTINED", "EXPIRED"}


def again(call):
    """What a client does whose server went away: until there is an answer."""
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise


class History:
    """Of one server. Thread-safe."""

    def __init__(self, server):
        self.server = server
        self._lock = threading.Lock()
        self.submitted = {}  # request_id -> ids that its submissions were answered with
        self.cancelled = {}  # id -> the state that the acknowledgement told
        self.watched = []    # (id, Recording)
        self.ended = {}      # id -> states in which it was seen to have ended

    def on_submit(self, request_id, job):
        with self._lock:
            self.submitted.setdefault(request_id, set()).add(job.id)

    def on_cancel(self, job):
        with self._lock:
            self.cancelled[job.id] = self.server.stubs.video.JobState.Name(job.state)

    def on_watch(self, job_id, recording):
        with self._lock:
            self.watched.append((job_id, recording))

    def check(self, client):
        """Raises with every promise that was broken. REQUIRES: all jobs have ended, nothing is under way."""
        name = self.server.stubs.video.JobState.Name
        broken = []
        # The process that was stopped last may just be coming back.
        jobs = {job.id: job for job in again(lambda: list(client.jobs()))}

        def demand(holds, promise, *what):
            if not holds:
                broken.append(f"{promise}: {what}")

        for request_id, ids in self.submitted.items():
            demand(len(ids) == 1, "I6, one job per request_id", request_id, ids)
            demand(ids <= jobs.keys(), "I1, an acknowledged job is there", request_id, ids)
        acknowledged = set().union(*self.submitted.values()) if self.submitted else set()
        demand(jobs.keys() == acknowledged, "I6, no job that nobody has", jobs.keys() ^ acknowledged)
        for job in jobs.values():
            demand(name(job.state) in ENDED, "I1, an acknowledged job ends", job.id, name(job.state))
            numbers = [attempt.number for attempt in job.attempts]
            demand(numbers == list(range(1, len(numbers) + 1)), "I3, attempts are numbered without gaps", job.id, numbers)
            if name(job.state) == "SUCCEEDED":
                demand(kino_client.sha256(again(lambda job=job: client.download(job.id))) == job.artifact.sha256, "I4, bytes are the artifact", job.id)
        for job_id, state in self.cancelled.items():
            demand(state == "SUCCEEDED" or name(jobs[job_id].state) != "SUCCEEDED", "I5, no success after a cancel", job_id, state)
        for job_id, recording in self.watched:
            # Order and gaps (I3) are what a Recording refuses by itself.
            end = name(recording.job.state)
            demand(end == name(jobs[job_id].state), "I7, an ended job stays as it is", job_id, end, name(jobs[job_id].state))
            if end == "SUCCEEDED":
                demand(recording.sha256() == jobs[job_id].artifact.sha256, "I4, joined bytes are the artifact", job_id)
        self._check_store(demand, jobs)
        self._check_files(demand, jobs)
        self._check_metrics(demand, jobs, name)
        assert not broken, "\n".join(broken)

    def _check_store(self, demand, jobs):
        path = os.path.join(self.server.data_dir, "kino.db")
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            won = dict(db.execute("SELECT jobs.id, count(*) FROM attempts JOIN jobs ON jobs.seq = attempts.job "
                                  "WHERE end_us IS NOT NULL AND cause = 0 GROUP BY 1".replace("end_us", "attempts.end_us")))
            open_attempts = db.execute("SELECT count(*) FROM attempts WHERE end_us IS NULL").fetchone()[0]
            demand(db.execute("PRAGMA integrity_check").fetchone()[0] == "ok", "the store is whole")
        succeeded = {job.id for job in jobs.values() if job.HasField("artifact")}
        demand(won == {job_id: 1 for job_id in succeeded}, "I2, exactly one attempt is committed", won, succeeded)
        demand(open_attempts == 0, "I2, no attempt is left open", open_attempts)

    def _check_files(self, demand, jobs):
        def files():
            return set(os.listdir(os.path.join(self.server.data_dir, "videos")))

        wanted = {f"{job.id}.{job.attempts[-1].number}.mp4" for job in jobs.values() if job.HasField("artifact")}
        try:
            # A file goes after the state that makes it left over is told.
            kino_client.eventually("only artifacts are left", lambda: files() == wanted, timeout=10)
        except TimeoutError:
            demand(False, "I10, no file is left over", files() ^ wanted)

    def _check_metrics(self, demand, jobs, name):
        counts = {}
        for job in jobs.values():
            counts[name(job.state)] = counts.get(name(job.state), 0) + 1

        def told():
            with urllib.request.urlopen(f"http://{self.server.metrics_address()}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            found = re.findall(r'^kino_jobs\{state="(\w+)"\} (\d+)', text, re.MULTILINE)
            return {state.upper(): int(count) for state, count in found if int(count)}

        try:
            kino_client.eventually("metrics tell the jobs", lambda: told() == counts, timeout=10)
        except TimeoutError:
            demand(False, "I9, metrics are the store's", told(), counts)
