"""Clients of running jobs that lose their connection at random bytes and events, again and again, each going on from what it has
kept; meanwhile every job loses its first attempt. What a client has joined in the end is the artifact, byte for byte.

KINO_SWEEP_DISCONNECTS: how many while the jobs run (scripts/check sweep: 20,000; else 1,000). KINO_TEST_SEED: where they fall.
"""
import os
import random
import threading

import kino_client
from fake_server import fake_kinod
from fault_settings import QUICK, workers
from history import History

DISCONNECTS = int(os.environ.get("KINO_SWEEP_DISCONNECTS") or 1000)
SEED = int(os.environ.get("KINO_TEST_SEED") or 20261130)
JOBS, CLIENTS_OF_A_JOB = 4, 5
CHUNKS = 40
CHUNK_BYTES = (4_001, 60_001)  # many of which one event takes, and few
PATIENCE_SECONDS = 120


class FlakyClient:
    """Watches one job through connections that break."""

    def __init__(self, server, job, half_bytes, seed):
        self.recording = kino_client.Recording()
        self.disconnects = 0
        self._server, self._job, self._half_bytes = server, job, half_bytes
        self._dice = random.Random(seed)
        self._client = server.client(patient=True)
        self._call = None

    def lose_connections(self, count):
        """So many times. Takes less than half of the video, so there is always more for it to read."""
        for _ in range(count):
            self._read(self._dice.randint(0, self._half_bytes // (count + 1)))
            self._disconnect()
        if self._dice.random() < 0.5:
            self._connect()  # what follows finds it at its place

    def finish(self):
        """Until the last event."""
        while not self.recording.finished:
            self._read(self._dice.randint(1, self._half_bytes))
            self._disconnect()

    def close(self):
        self._client.close()

    def _connect(self):
        if self._call is None:
            request = self._server.stubs.video.WatchJobRequest(id=self._job.id, **self.recording.resume_point())
            self._call = self._client.call("WatchJob", request)

    def _read(self, more_bytes):
        """Keeps so many bytes more, the last event's in part; or leaves before, at an event that is none of bytes."""
        self._connect()
        for event in self._call:
            if event.HasField("video_chunk") and len(event.video_chunk.data) >= more_bytes:
                event.video_chunk.data = event.video_chunk.data[:more_bytes]
                if more_bytes:
                    self.recording.add(event)
                return
            self.recording.add(event)
            if self.recording.finished:
                return
            if event.HasField("video_chunk"):
                more_bytes -= len(event.video_chunk.data)
            elif self._dice.random() < 0.3:
                return

    def _disconnect(self):
        self.disconnects += 1
        if self._dice.random() < 0.2:
            self._client.close()
            self._client = self._server.client(patient=True)
        else:
            self._call.cancel()
        self._call = None


def in_threads(clients, work):
    """work(client) for all at once; raises what one of them raised."""
    errors = []

    def run(client):
        try:
            work(client)
        except BaseException as error:  # pylint: disable=broad-except  (raised again below)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads), [client.recording.resume_point() for client in clients]
    if errors:
        raise errors[0]


def wait_for_attempt(client, number):
    running = {(client.stubs.video.RUNNING, number)}
    kino_client.eventually(f"attempt {number} of each job runs",
                           lambda: {(job.state, len(job.attempts)) for job in client.jobs()} == running)


def test_joined_bytes_are_the_artifact_however_often_the_connection_breaks(stubs, tmp_path):
    print(f"seed {SEED}, {DISCONNECTS} disconnects")
    each = -(-DISCONNECTS // (2 * JOBS * CLIENTS_OF_A_JOB))
    go_on = tmp_path / "go-on"
    server = fake_kinod(stubs, tmp_path / "server", {**QUICK, "workers": workers(JOBS)})
    try:
        server.start()
        history = History(stubs.video)
        owner = server.client()
        clients = []
        for number in range(JOBS):
            # Half of the chunks, then it waits: while the connections break each job is RUNNING.
            size = CHUNK_BYTES[number % len(CHUNK_BYTES)]
            request = owner.demo_request(request_id=f"job-{number}", seed=number, prompt=(
                f"steps=2 chunks={CHUNKS} chunk_bytes={size} at={2 + CHUNKS // 2} do=wait until={go_on}"))
            job = owner.submit(request)
            history.on_submit("default", request.request_id, job)
            for _ in range(CLIENTS_OF_A_JOB):
                clients.append(FlakyClient(server, job, size * CHUNKS // 2, SEED + len(clients)))
                history.on_watch(job.id, clients[-1].recording)
        in_threads(clients, lambda client: client.lose_connections(each))
        wait_for_attempt(owner, 1)
        for number in range(JOBS):
            server.kill(f"cpu-{number}")
        in_threads(clients, lambda client: client.lose_connections(each))
        assert sum(client.disconnects for client in clients) >= DISCONNECTS
        wait_for_attempt(owner, 2)
        go_on.touch()
        in_threads(clients, FlakyClient.finish)
        for client in clients:
            client.close()
            assert client.recording.job.state == stubs.video.SUCCEEDED
            assert [change.state for change in client.recording.states] == [
                stubs.video.JobState.Value(state) for state in ("QUEUED", "RUNNING", "QUEUED", "RUNNING", "SUCCEEDED")]
        # Bytes of the lost attempt had been read, so that places in it were gone on from.
        assert sum(client.recording.dropped_bytes > 0 for client in clients) > len(clients) // 2
        history.check(server, {"default": owner})
        owner.close()
        assert server.stop() == 0
    finally:
        print(server.log_text())
        server.stop()
