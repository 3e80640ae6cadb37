"""Many readers at once, some of which do not read: the others get all there is, with few threads and little memory in the server."""
import os
import re
import threading
import urllib.request

import grpc

import kino_client
from fake_server import fake_kinod

CONNECTIONS, WATCHERS, STALLED = 10, 300, 50
# A thread for each watcher would be 250 more. gRPC's own pools grow under load, by up to two threads a core each.
MORE_THREADS = max(50, 4 * os.cpu_count())


BYTES_OF_A_WATCHER = 64 * 1024


def status_of(pid, name):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(next(line for line in status if line.startswith(f"{name}:")).split()[1])


def threads_of(pid):
    return status_of(pid, "Threads")


def watchers_of(server):
    with urllib.request.urlopen(f"http://{server.metrics_address()}/metrics", timeout=10) as answer:
        return int(re.search(r"^kino_watchers (\d+)", answer.read().decode(), re.MULTILINE).group(1))


def test_300_watchers_of_a_running_job_50_of_them_stalled(stubs, start_kinod):
    server = start_kinod({"link": {"heartbeat_interval": "2s", "lease": "120s"}})
    frontend = server.pid_of("kino-frontend")
    clients = [server.client() for _ in range(CONNECTIONS)]
    before = threads_of(frontend)
    # A megabyte, more than a stream's flow control lets through unread: two steps from sigma 0.1 leave noise, kept
    # without loss.
    job = clients[0].submit(clients[0].demo_request(
        height=128, width=128, num_frames=129, num_inference_steps=2, guidance_scale=1,
        ltx=stubs.video.LtxOptions(sigmas=[0.1, 0.05]), output=stubs.video.OutputOptions(lossless=True)))
    kino_client.Follower(clients[0], job.id).wait_for(
        "the job runs", lambda seen: any(p.stage == stubs.video.DENOISE for p in seen.progress))
    server.kill("kino-worker", how=kino_client.signal.SIGSTOP)  # it goes on when all are there

    recordings = [kino_client.Recording() for _ in range(WATCHERS)]
    calls = []
    for i, recording in enumerate(recordings):
        client = clients[i % CONNECTIONS]
        call = client.call("WatchJob", stubs.video.WatchJobRequest(id=job.id))
        while not recording.states or recording.states[-1].state != stubs.video.RUNNING:
            recording.add(next(call))
        calls.append(call)
    most = [threads_of(frontend)]
    assert clients[0].get(job.id).state == stubs.video.RUNNING

    errors = []

    def read(i):
        try:
            for event in calls[i]:
                recordings[i].add(event)
        except (grpc.RpcError, AssertionError) as error:
            errors.append((i, error))

    def start(indices):
        readers = [threading.Thread(target=read, args=(i,), daemon=True) for i in indices]
        for reader in readers:
            reader.start()
        return readers

    def finish(readers):
        for reader in readers:
            while reader.is_alive():
                reader.join(0.2)
                most.append(threads_of(frontend))

    readers = start(range(STALLED, WATCHERS))
    server.kill("kino-worker", how=kino_client.signal.SIGCONT)
    finish(readers)
    assert not errors, errors[:3]
    done = clients[0].get(job.id)
    assert done.state == stubs.video.SUCCEEDED and len(done.attempts) == 1
    assert done.artifact.size_bytes > 1_000_000
    assert {recording.sha256() for recording in recordings[STALLED:]} == {done.artifact.sha256}
    assert all(recording.finished for recording in recordings[STALLED:])
    # Those that were stalled missed nothing either: the server has kept no queue for them, it has a file.
    assert not any(recording.finished for recording in recordings[:STALLED])
    finish(start(range(STALLED)))
    assert not errors, errors[:3]
    assert {recording.sha256() for recording in recordings[:STALLED]} == {done.artifact.sha256}
    assert max(most) < before + MORE_THREADS, (before, most)
    for client in clients:
        client.close()


def place_of(recording):
    """In the queue, as it was told last."""
    return recording.progress[-1].queue_position if recording.progress else None


def test_1000_watchers_of_queued_jobs_200_of_them_stalled(stubs, tmp_path):
    jobs_count, each, stalled_each = 100, 10, 2
    server = fake_kinod(stubs, tmp_path / "server", {})
    try:
        server.start()
        clients = [server.client() for _ in range(CONNECTIONS)]
        owner = clients[0]
        owner.submit(owner.demo_request(prompt="steps=1000000 step_ms=100"))  # the worker is busy
        first = owner.submit(owner.demo_request())
        jobs = [owner.submit(owner.demo_request()) for _ in range(jobs_count)]
        frontend = server.pid_of("kino-frontend")
        threads, memory = threads_of(frontend), status_of(frontend, "VmRSS")
        watches = []  # (the job's index, call, recording)
        for i in range(jobs_count * each):
            index = i // each
            call = clients[i % CONNECTIONS].call("WatchJob", stubs.video.WatchJobRequest(id=jobs[index].id))
            watches.append((index, call, kino_client.Recording()))
        stalled = [watch for i, watch in enumerate(watches) if i % each < stalled_each]
        live = [watch for i, watch in enumerate(watches) if i % each >= stalled_each]

        def read_until(some, claim):
            for index, call, recording in some:
                while not claim(index, recording):
                    recording.add(next(call))

        read_until(live, lambda index, seen: place_of(seen) == index + 1)
        kino_client.eventually("all watch", lambda: watchers_of(server) == len(watches))
        assert (status_of(frontend, "VmRSS") - memory) * 1024 <= BYTES_OF_A_WATCHER * len(watches)
        assert threads_of(frontend) < threads + MORE_THREADS
        owner.cancel(first.id)
        read_until(live, lambda index, seen: place_of(seen) == index)
        cancelled = owner.call("CancelJobs", stubs.video.CancelJobsRequest(states=[stubs.video.QUEUED, stubs.video.RUNNING]))
        assert cancelled.count == jobs_count + 1
        # Those that did not read until now get the same states; of the places, which are the latest only, what there was.
        for some in (live, stalled):
            read_until(some, lambda _, seen: seen.finished)
            for index, call, recording in some:
                assert next(call, None) is None
                assert recording.job_ids == {jobs[index].id}
                assert [change.state for change in recording.states] == [stubs.video.QUEUED, stubs.video.CANCELLED]
                assert recording.job.state == stubs.video.CANCELLED
        kino_client.eventually("all have gone", lambda: watchers_of(server) == 0)
        assert (status_of(frontend, "VmRSS") - memory) * 1024 <= BYTES_OF_A_WATCHER * len(watches)
        assert threads_of(frontend) < threads + MORE_THREADS
        for client in clients:
            client.close()
    finally:
        print(server.log_text())
        server.stop()
