"""Many watchers of one job, some of which never read, and some of which go."""

import threading

import grpc

from frontend_fixture import DEADLINE, FakeWorker, collect, eventually, video, video_grpc

VIDEO = bytes(range(251)) * 16_000  # 4 MB: more than the flow control of a stream lets through unread


def threads(frontend):
    with open(f"/proc/{frontend.process.pid}/status") as status:
        return int(next(line for line in status if line.startswith("Threads:")).split()[1])


def test_300_watchers_50_of_them_stalled(start):
    frontend = start()
    job = frontend.submit()
    attempt = FakeWorker(frontend).attempt()
    attempt.started()
    idle = threads(frontend)
    channels = [grpc.insecure_channel(frontend.address, options=[("grpc.use_local_subchannel_pool", 1)])
                for _ in range(10)]
    stubs = [video_grpc.VideoServiceStub(channel) for channel in channels]

    def open_watch(i):
        call = stubs[i % 10].WatchJob(video.WatchJobRequest(id=job.id), timeout=5 * DEADLINE)
        first = next(call)
        assert first.state_change.state == video.QUEUED
        return call

    calls = [open_watch(i) for i in range(300)]
    stalled, live = calls[:50], calls[50:]
    results = [None] * len(live)

    def read(i):
        results[i] = collect(live[i])

    readers = [threading.Thread(target=read, args=(i,)) for i in range(len(live))]
    for reader in readers:
        reader.start()
    most = 0
    for i in range(0, len(VIDEO), 250_000):
        attempt.chunk(VIDEO[i:i + 250_000])
        attempt.progress(i / len(VIDEO))
        most = max(most, threads(frontend))
    attempt.done()
    for reader in readers:
        reader.join(5 * DEADLINE)
    most = max(most, threads(frontend))
    assert all(result is not None and result[1] == VIDEO for result in results)
    # gRPC starts some when they are needed; none belongs to a watcher.
    assert most < idle + 16, f"{most} threads, {idle} before the watchers"
    for call in stalled:
        call.cancel()
    for channel in channels:
        channel.close()


def test_watchers_that_go_while_nothing_happens_are_let_go_of(start):
    frontend = start()

    jobs = [frontend.submit().id for _ in range(3)]
    calls = [frontend.watch(job) for job in jobs for _ in range(5)]
    for call in calls:
        assert next(call).HasField("state_change") and next(call).HasField("progress")  # now it rests
    frontend.metric_becomes("kino_watchers", 15)
    for call in calls:
        call.cancel()
    frontend.metric_becomes("kino_watchers", 0)
