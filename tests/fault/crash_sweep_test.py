"""Every named fault point (scheduler/fault_point.h), one at a time: the process that reaches it is killed, aborted or stopped for
longer than a lease, while clients of two tenants submit, watch and cancel, and pry into each other's jobs. Then kills at random
moments. A fake engine makes it quick; an observer outside of the server checks what was promised (history.py).

KINO_SWEEP_KILLS: how many random kills (scripts/check sweep: a thousand; else a hundred). KINO_TEST_SEED: where they fall.
"""
import os
import pathlib
import random
import re
import signal
import threading
import time

import pytest

from fake_server import fake_kinod
from fault_settings import at_fixed_port
from history import History, again
from kino_client import Follower, eventually, sha256

SOURCE = pathlib.Path(os.environ["KINO_SOURCE_DIR"])
KILLS = int(os.environ.get("KINO_SWEEP_KILLS") or 100)
SEED = int(os.environ.get("KINO_TEST_SEED") or 20261130)
ACTIONS = ["kill", "abort", "stop"]
TENANTS = ["a", "b"]
# What may cost a job an attempt is as by default.
SHORT_LEASES = {"link": {"heartbeat_interval": "200ms", "lease": "1s", "reattach_grace": "10s"},
                "retry": {"min_backoff": "0s", "max_backoff": "0s"},
                "supervisor": {"restart_min": "50ms", "restart_max": "100ms"}}
# Attempts that ended so are not counted against their job, or, with leases of a second, are a busy machine's.
FREE = {"", "INTERRUPTED", "CANCELLED", "LEASE_LOST"}


def points():
    found = set()
    for folder in ("scheduler", "server"):
        for path in (SOURCE / folder).rglob("*.cc"):
            found.update(re.findall(r'KINO_FAULT_POINT\("([^"]+)"\)', path.read_text()))
    return sorted(found)


class Sweep:
    """A kinod with the fake worker, and the folder in which its fault points are armed."""

    def __init__(self, stubs, folder, settings):
        self.armed = folder / "points"
        self.armed.mkdir(parents=True)
        tokens = {tenant: f"token of {tenant}" for tenant in TENANTS}
        # Operators: what a tenant may not do to another's job is not told apart from what it may not do at all.
        auth = {"tokens": [{"tenant": tenant, "role": "operate", "sha256": sha256(token.encode())} for tenant, token in tokens.items()]}
        self.server = fake_kinod(stubs, folder, {**settings, "auth": auth}, token=tokens[TENANTS[0]],
                                 environment={"KINO_FAULT_POINTS": str(self.armed)})
        self.server.start()
        self.processes = len(self.server.children())
        self.history = History(stubs.video)
        self.clients = {tenant: self.server.client(patient=True, token=token) for tenant, token in tokens.items()}
        self.number = 0

    def stop(self):
        for client in self.clients.values():
            client.close()
        return self.server.stop()

    def client_of(self, job):
        return self.clients[job.request.tenant]

    def submit(self, prompt, **fields):
        """Until it is acknowledged, as a client does that wants its job once. The tenants take turns, and have the same
        request_ids."""
        turn, tenant = divmod(self.number, len(TENANTS))
        tenant, request_id = TENANTS[tenant], f"job-{turn}"
        self.number += 1
        client = self.clients[tenant]
        request = client.demo_request(prompt=prompt, request_id=request_id, seed=self.number, **fields)
        job = again(lambda: client.submit(request))
        self.history.on_submit(tenant, request_id, job)
        return job

    def cancel(self, job):
        self.history.on_cancel(again(lambda: self.client_of(job).cancel(job.id)))

    def follow(self, job):
        follower = Follower(self.client_of(job), job.id)
        self.history.on_watch(job.id, follower.recording)
        return follower

    def pry(self, job):
        """Into the job, by the other tenants."""
        for tenant in TENANTS:
            if tenant != job.request.tenant:
                self.history.pry(self.clients[tenant], tenant, job.id)

    def check(self):
        self.history.check(self.server, self.clients)

    def stopped_child(self):
        for pid in list(self.server.children()):
            try:
                with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                    if file.read().rsplit(")", 1)[1].split()[0] == "T":
                        return pid
            except FileNotFoundError:
                pass
        return None

    def kill_worker(self):
        try:
            return self.server.kill("kino-worker")
        except (RuntimeError, ProcessLookupError):
            return None  # it is just being started again

    def run_cell(self, point, action):
        eventually("all of it runs", lambda: len(self.server.children()) == self.processes)
        before = set(self.server.children())
        (self.armed / f".{point}").write_text(action)
        (self.armed / f".{point}").rename(self.armed / point)
        if ".hello." in point:
            eventually("a worker is killed", self.kill_worker)
        is_cancel = ".cancel" in point
        waits = self.armed / "go"
        prompt = f"steps=3 chunks=3 chunk_bytes=3000 at=1 do=wait until={waits}" if is_cancel else \
            "steps=3 chunks=3 chunk_bytes=3000"
        if action == "stop":
            # It stands still for longer than its lease, and comes back.
            def let_go():
                pid = eventually(f"{point} stops a process", self.stopped_child)
                time.sleep(2)
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass  # it was taken for dead and killed

            helper = threading.Thread(target=let_go)
            helper.start()
        if ".hello." in point:
            # Before there is a job, which could be given to the worker that is just dying.
            eventually(f"{point} is reached", lambda: not (self.armed / point).exists(), timeout=20)
        job = self.submit(prompt)
        follower = self.follow(job)
        self.pry(job)
        if is_cancel:
            follower.wait_for("it runs", lambda seen: len(seen.states) >= 2)
            self.cancel(job)
        ended = follower.finish()
        state = self.server.stubs.video.JobState.Name(ended.state)
        eventually(f"{point} is reached", lambda: not (self.armed / point).exists(), timeout=20)
        if action == "stop":
            helper.join()
        else:
            # A process takes the file away, and ends a moment later: not in the middle of the next cell.
            eventually(f"{point} ends a process", lambda: not before <= set(self.server.children()))
        assert state == ("CANCELLED" if is_cancel else "SUCCEEDED"), f"{point}: {state}"
        counted = [attempt.cause for attempt in ended.attempts if attempt.cause not in FREE]
        # A worker that dies may take its attempt along. A frontend never does.
        assert len(counted) <= (1 if point.startswith("worker.") or ".hello." in point else 0), f"{point}: {counted}"


def sweep(stubs, folder, cells):
    """The cells on several servers at once; their errors."""
    errors, lock = [], threading.Lock()
    cells = list(cells)

    def work(number):
        server = Sweep(stubs, folder / f"server-{number}", at_fixed_port(**SHORT_LEASES))
        cell = None
        try:
            while True:
                with lock:
                    if not cells:
                        cell = None
                        break
                    cell = cells.pop()
                server.run_cell(*cell)
            server.check()
            assert server.stop() == 0
        except BaseException as error:  # pylint: disable=broad-except  (told by the caller)
            with lock:
                errors.append(f"{cell}: {error!r}\n{server.server.log_text(6000)}")
            server.stop()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_every_fault_point_loses_nothing(stubs, tmp_path):
    names = points()
    assert len(names) >= 25
    cells = [(name, action) for name in names for action in ACTIONS]
    random.Random(SEED).shuffle(cells)
    print(f"seed {SEED}, {len(cells)} cells")
    errors = sweep(stubs, tmp_path, cells)
    assert not errors, "\n".join(errors)


def test_kills_at_random_moments_lose_nothing(stubs, tmp_path):
    dice = random.Random(SEED)
    print(f"seed {SEED}, {KILLS} kills")
    # A job may be hit more than once.
    settings = {**SHORT_LEASES, "retry": {**SHORT_LEASES["retry"], "max_attempts": 100, "max_crashes": 100}}
    server = Sweep(stubs, tmp_path / "server", at_fixed_port(**settings, workers=[
        {"name": "cpu", "device": "cpu", "threads": 1, "count": 2}]))
    try:
        followers, cancels, worker_kills = [], [], 0
        for number in range(KILLS):
            job = server.submit(f"steps={dice.randint(1, 5)} step_ms={dice.choice([0, 20])} chunks=3 chunk_bytes=2000")
            followers.append(server.follow(job))
            server.pry(job)
            if dice.random() < 0.2:
                server.cancel(job)
                cancels.append(job.id)
            time.sleep(dice.uniform(0, 0.15))  # not to wait for anything: a random moment
            victim = dice.choice(["kino-frontend", "cpu-0", "cpu-1"])
            worker_kills += victim != "kino-frontend"
            try:
                server.server.kill(victim)
            except (RuntimeError, ProcessLookupError):
                pass  # it is just being started again
        counted = []
        for follower in followers:
            ended = follower.finish(120)
            state = stubs.video.JobState.Name(ended.state)
            assert state == "SUCCEEDED" or follower.job_id in cancels, (follower.job_id, state)
            counted += [attempt.cause for attempt in ended.attempts if attempt.cause not in FREE]
        assert len(counted) <= worker_kills, f"{worker_kills} workers were killed: {counted}"
        server.check()
        assert server.stop() == 0
    finally:
        print(server.server.log_text())
        server.stop()


@pytest.mark.parametrize("child", ["kino-frontend", "kino-worker", "kinod"])
def test_process_that_stands_still_under_default_settings(stubs, tmp_path, child):
    """Thirteen seconds, where a lease has ten. A worker may cost an attempt, but the job succeeds; the others cost none."""
    server = Sweep(stubs, tmp_path / "server", at_fixed_port())
    try:
        job = server.submit("steps=100 step_ms=200 chunks=3 chunk_bytes=3000")
        follower = server.follow(job)
        follower.denoised(3)
        pid = server.server.process.pid if child == "kinod" else server.server.kill(child, signal.SIGSTOP)
        if child == "kinod":
            os.kill(pid, signal.SIGSTOP)
        time.sleep(13)  # not to wait for anything: this is what the test is about
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            assert child == "kino-worker"
        ended = follower.finish(120)
        assert stubs.video.JobState.Name(ended.state) == "SUCCEEDED"
        if child != "kino-worker":
            assert len(ended.attempts) == 1
        if child == "kino-frontend":
            assert server.server.pid_of("kino-frontend") == pid
        server.check()
    finally:
        print(server.server.log_text())
        server.stop()
