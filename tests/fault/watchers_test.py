"""300 readers of one running job, 50 of which stop reading: the others get every byte, with few threads in the server."""
import os
import threading

import grpc

import kino_client

CONNECTIONS, WATCHERS, STALLED = 10, 300, 50
# A thread for each watcher would be 250 more. gRPC's own pools grow under load, by up to two threads a core each.
MORE_THREADS = max(50, 4 * os.cpu_count())


def threads_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(next(line for line in status if line.startswith("Threads:")).split()[1])


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
