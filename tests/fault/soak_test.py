"""Hours of mixed load under default limits while workers are killed: no job is lost and nothing grows. Runs for KINO_SOAK_SECONDS (scripts/check
soak sets it); skipped without."""
import itertools
import os
import random
import statistics
import threading
import time

import pytest

import kino_client
from fault_settings import QUICK, workers

SECONDS = float(os.environ.get("KINO_SOAK_SECONDS") or 0)
SEED = int(os.environ.get("KINO_TEST_SEED") or 20261122)
# Two hours see more than a thousand of them.
KILL_EVERY_SECONDS = (2, 8)
# What allocators and caches may still gain between the soak's middle and its end.
GROWTH_BYTES, GROWTH_SHARE = 8 << 20, 0.05
# Descriptors and threads that come with a rare moment (a further database reader has two files) and stay.
GROWTH_COUNT = 8


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def files_in(server, folder):
    return sorted(os.listdir(os.path.join(server.data_dir, folder)))


class Killer(threading.Thread):
    """Kills one of the workers now and then."""

    def __init__(self, server, dice):
        super().__init__(daemon=True)
        self.server, self.dice = server, dice
        self.kills = 0
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(self.dice.uniform(*KILL_EVERY_SECONDS)):
            try:
                self.server.kill(f"cpu-{self.dice.randrange(2)}")
                self.kills += 1
            except (RuntimeError, ProcessLookupError):
                pass  # it is just being started again

    def stop(self):
        self.over.set()
        self.join()


def crashes(job):
    return sum(attempt.cause == "CRASH" for attempt in job.attempts)


def one_round(stubs, client, dice, number, picture):
    """Submits a handful of jobs of every kind and waits until all have ended; returns those whose videos must be there."""
    video = stubs.video
    requests = [
        client.demo_request(seed=number),
        client.demo_request(seed=number, num_inference_steps=5, output=video.OutputOptions(lossless=True)),
        client.demo_request(seed=number, num_inference_steps=5, conditions=[
            video.Condition(kind=video.Condition.IMAGE, asset_id=client.upload(picture).id)]),
        client.long_request(seed=number),
    ]
    dice.shuffle(requests)
    jobs = [client.submit(request) for request in requests]
    cancelled = dice.choice(jobs)
    watches = [kino_client.Follower(client, job.id) for job in jobs]
    if dice.random() < 0.5:
        client.watch(cancelled.id, until=lambda event: event.HasField("progress"))
    client.cancel(cancelled.id)
    kept = []
    for job, watch in zip(jobs, watches):
        end = watch.finish(timeout=300)
        # Killed under twice it is laid aside until an operator says otherwise.
        while end.state == video.QUARANTINED:
            assert crashes(end) >= 2, end
            client.requeue(end.id)
            watch = kino_client.Follower(client, job.id)
            end = watch.finish(timeout=300)
        if end.state == video.SUCCEEDED:
            assert watch.recording.sha256() == end.artifact.sha256
            kept.append((end.id, end.attempts[-1].number))
        else:
            # A cancel may come too late, but nothing else than a cancel keeps a job from succeeding.
            assert end.state == video.CANCELLED and job.id == cancelled.id, end
    with pytest.raises(kino_client.grpc.RpcError) as refused:
        client.submit(client.demo_request(height=7))
    assert refused.value.code() == kino_client.grpc.StatusCode.INVALID_ARGUMENT
    return kept


@pytest.mark.skipif(SECONDS <= 0, reason="KINO_SOAK_SECONDS is not set")
def test_soak_loses_no_job_and_nothing_grows(stubs, start_kinod):
    dice = random.Random(SEED)
    server = start_kinod({**QUICK, "workers": workers(2)})
    frontend, kinod = server.pid_of("kino-frontend"), server.process.pid
    with open(os.path.join(os.environ["KINO_SOURCE_DIR"], "models", "demo", "contact_sheet_t2v.png"), "rb") as file:
        picture = file.read()
    resident, open_files, running_threads, live = [], [], [], []
    begin = time.monotonic()
    with server.client() as client:
        killer = Killer(server, random.Random(SEED))
        killer.start()
        for number in itertools.count():
            if time.monotonic() >= begin + SECONDS:
                break
            live += one_round(stubs, client, dice, number, picture)
            while len(live) > 20:
                client.delete(live.pop(dice.randrange(len(live)))[0])
            resident.append(resident_bytes(frontend) + resident_bytes(kinod))
            open_files.append(descriptors(frontend) + descriptors(kinod))
            running_threads.append(threads(frontend) + threads(kinod))
        killer.stop()
        kills = killer.kills
        kino_client.eventually("both workers are back", lambda: client.workers() == 2)
        print(f"seed: KINO_TEST_SEED={SEED}; {len(resident)} rounds, {kills} kills; resident MiB "
              f"{[size >> 20 for size in resident]}, descriptors {open_files}, threads {running_threads}")
        assert kills > 0 and len(resident) >= 8, "too short a soak to tell; a minute is about the least"
        quarter = len(resident) // 4
        middle, end = resident[quarter:2 * quarter], resident[-quarter:]
        assert statistics.median(end) < statistics.median(middle) * (1 + GROWTH_SHARE) + GROWTH_BYTES
        # Connections come and go between two looks; what leaks grows with every round.
        for counts in (open_files, running_threads):
            assert min(counts[-quarter:]) <= max(counts[quarter:2 * quarter]) + GROWTH_COUNT
        names = sorted(f"{job_id}.{attempt}.mp4" for job_id, attempt in live)
        kino_client.eventually("the videos are those of the live jobs", lambda: files_in(server, "videos") == names)
        kino_client.eventually("no upload is under way", lambda: not files_in(server, "uploads"))
    assert server.pid_of("kino-frontend") == frontend
    assert server.stop() == 0
