"""kinod itself, with scripts in the place of kino-frontend and kino-worker."""

import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

BIN = pathlib.Path(os.environ["KINO_BIN_DIR"])
SOURCE = pathlib.Path(os.environ["KINO_SOURCE_DIR"])
DEADLINE = 60  # seconds; only ever reached by a failure

PRELUDE = """#!{python}
import os, signal, socket, sys, time
def note(text):
    fd = os.open("{notes}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (text + "\\n").encode())
def name():
    return sys.argv[sys.argv.index("--name") + 1]
"""
SLEEP = """
signal.signal(signal.SIGTERM, lambda *_: (note("stopped " + sys.argv[0].split("/")[-1]), sys.exit(0)))
note("up " + sys.argv[0].split("/")[-1] + " " + str(os.getpid()))
while True: signal.pause()
"""
LISTEN = """
control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
note("up kino-frontend " + str(os.getpid()))
while True:
    message = control.recv(512).decode()
    note("told " + message)
    if message.startswith("stopping"): sys.exit(0)
    if message.startswith("started b "): control.send(("kill b " + message.split()[2]).encode())
"""
# Serves at SIGUSR1, which shows as the renames that the real one makes.
SERVE = """
folder = os.path.dirname(sys.argv[sys.argv.index("--config") + 1]) + "/data/"
def rename(name):
    open(folder + "tmp", "w").close()
    os.rename(folder + "tmp", folder + name)
signal.signal(signal.SIGUSR1, lambda *_: rename("frontend.addr"))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
rename("metrics.addr")
note("up kino-frontend " + str(os.getpid()))
while True: signal.pause()
"""


class Machine:
    def __init__(self, folder, frontend=SLEEP, worker=SLEEP, workers="[{name: a}, {name: b}]", stop_deadline="1s",
                 healthy_after="60s", environment=None):
        self.bin = folder / "bin"
        self.bin.mkdir()
        shutil.copy(BIN / "kinod", self.bin / "kinod")
        self.notes = folder / "notes"
        for program, body in (("kino-frontend", frontend), ("kino-worker", worker)):
            path = self.bin / program
            path.write_text(PRELUDE.format(python=sys.executable, notes=self.notes) + body)
            path.chmod(stat.S_IRWXU)
        self.config = folder / "kino.yaml"
        self.config.write_text(f"data_dir: data\nworkers: {workers}\n"
                               "supervisor: {restart_min: 20ms, restart_max: 200ms, "
                               f"stop_deadline: {stop_deadline}, healthy_after: {healthy_after}}}\n")
        self.log_path = folder / "log"
        self.process = subprocess.Popen([self.bin / "kinod", "--config", self.config], stderr=open(self.log_path, "w"),
                                        env={**os.environ, **(environment or {})})

    def lines(self, start=""):
        text = self.notes.read_text() if self.notes.exists() else ""
        return [line for line in text.splitlines() if line.startswith(start)]

    def wait_for(self, count, start):
        end = time.monotonic() + DEADLINE
        while len(self.lines(start)) < count:
            assert time.monotonic() < end, f"{count} x '{start}' did not happen: {self.lines()} {self.log()}"
            time.sleep(0.01)
        return self.lines(start)

    def log(self):
        return self.log_path.read_text()

    def stop(self):
        self.process.terminate()
        return self.process.wait(DEADLINE)


@pytest.fixture
def machine(tmp_path):
    made = []

    def make(**options):
        made.append(Machine(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def is_alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def pid_of(line):
    return int(line.split()[-1])


def test_starts_all_and_stops_all(machine):
    one = machine()
    one.wait_for(3, "up")
    assert one.stop() == 0
    assert len(one.lines("stopped")) == 3


def test_killed_worker_comes_back_and_the_others_stay(machine):
    one = machine()
    ups = one.wait_for(3, "up")
    victim = pid_of(next(line for line in ups if "kino-worker" in line))
    others = [pid_of(line) for line in ups if pid_of(line) != victim]
    os.kill(victim, signal.SIGKILL)
    one.wait_for(4, "up")
    assert all(is_alive(pid) for pid in others)
    assert "signal 9" in one.log()


def test_killed_frontend_leaves_the_workers_alone(machine):
    one = machine()
    ups = one.wait_for(3, "up")
    frontend = next(line for line in ups if "kino-frontend" in line)
    os.kill(pid_of(frontend), signal.SIGABRT)
    one.wait_for(2, "up kino-frontend")
    assert all(is_alive(pid_of(line)) for line in ups if "kino-worker" in line)


def test_children_do_not_outlive_a_killed_supervisor(machine):
    one = machine()
    ups = one.wait_for(3, "up")
    one.process.kill()
    one.process.wait()
    end = time.monotonic() + DEADLINE
    while any(is_alive(pid_of(line)) for line in ups):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_frontend_hears_of_workers_and_has_a_stuck_one_killed(machine):
    one = machine(frontend=LISTEN)
    exits = one.wait_for(2, "told exited b")
    assert all(line.split()[-2:] == ["9", "0"] for line in exits)
    assert len(one.wait_for(1, "told started a")) == 1
    assert one.stop() == 0
    assert one.lines("told stopping")


def test_new_frontend_is_told_who_runs(machine):
    one = machine(frontend=LISTEN, workers="[{name: a}]")
    one.wait_for(1, "told started a")
    os.kill(pid_of(one.wait_for(1, "up kino-frontend")[0]), signal.SIGKILL)
    told = one.wait_for(2, "told started a")
    assert told[0] == told[1]


def test_child_that_ignores_sigterm_is_killed_at_the_deadline(machine):
    one = machine(worker="signal.signal(signal.SIGTERM, signal.SIG_IGN)\nnote('up kino-worker ' + str(os.getpid()))\n"
                         "while True: signal.pause()\n")
    ups = one.wait_for(3, "up")
    assert one.stop() == 0
    assert not any(is_alive(pid_of(line)) for line in ups)
    assert "deadline" in one.log()


def test_crash_loop_backs_off(machine):
    one = machine(worker="note('crash')\nsys.exit(3)\n", workers="[{name: a}]")
    one.wait_for(6, "crash")
    assert "exit code 3" in one.log()
    for pause in ("20ms", "40ms", "80ms", "160ms", "200ms"):
        assert f"next start in {pause}" in one.log()


def test_sighup_stops_nothing(machine):
    """Neither a terminal that closes nor a "reload" ends what runs; a stop still works, and is not hurried by it."""
    one = machine()
    ups = one.wait_for(3, "up")
    for pid in [one.process.pid, *map(pid_of, ups)]:
        os.kill(pid, signal.SIGHUP)
    end = time.monotonic() + DEADLINE
    while "SIGHUP" not in one.log():
        assert time.monotonic() < end and one.process.poll() is None, one.log()
        time.sleep(0.01)
    # A worker that is restarted after it shows that kinod goes on, and that the others have not ended.
    os.kill(pid_of(ups[-1]), signal.SIGKILL)
    one.wait_for(4, "up")
    assert all(is_alive(pid_of(line)) for line in ups[:-1])
    one.process.send_signal(signal.SIGHUP)
    assert one.stop() == 0
    assert len(one.lines("stopped")) == 3
    assert "second signal" not in one.log()


def test_sighup_does_not_hurry_a_stop(machine):
    one = machine(worker="signal.signal(signal.SIGTERM, lambda *_: note('asked'))\n"
                         "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))\n"
                         "note('up kino-worker ' + str(os.getpid()))\nwhile True: signal.pause()\n",
                  workers="[{name: a}]", stop_deadline="60s")
    worker = pid_of(one.wait_for(1, "up kino-worker")[0])
    one.wait_for(2, "up")
    one.process.terminate()
    one.wait_for(1, "asked")
    one.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + DEADLINE
    while "SIGHUP" not in one.log():
        assert time.monotonic() < end and one.process.poll() is None and "second signal" not in one.log(), one.log()
        time.sleep(0.01)
    os.kill(worker, signal.SIGUSR1)
    assert one.process.wait(DEADLINE) == 0
    assert "second signal" not in one.log() and "exit code 0" in one.log()


def test_frontend_that_cannot_run_ends_kinod(machine):
    one = machine(frontend="sys.exit(78)\n")
    assert one.process.wait(DEADLINE) == 78
    assert "cannot run with this configuration" in one.log()


def test_missing_program_is_named(machine, tmp_path):
    one = machine()
    one.wait_for(3, "up")
    (one.bin / "kino-worker").unlink()
    os.kill(pid_of(one.lines("up kino-worker")[0]), signal.SIGKILL)
    end = time.monotonic() + DEADLINE
    while "kino-worker'" not in one.log():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert one.process.poll() is None


def kinod(*arguments):
    return subprocess.run([BIN / "kinod", *arguments], capture_output=True, text=True, timeout=DEADLINE)


@pytest.mark.parametrize("file", ["config/kino.yaml", "config/demo.yaml"])
def test_shipped_configurations_pass_the_check(file):
    result = kinod("--check-config", SOURCE / file)
    assert result.returncode == 0, result.stderr
    assert "data folder" in result.stdout


@pytest.mark.parametrize("arguments", [["--check-config", SOURCE / "config/kino.yaml"], ["--version"], ["--help"]])
def test_standard_output_that_cannot_be_written_is_not_done(arguments):
    with open("/dev/full", "wb") as full:
        result = subprocess.run([BIN / "kinod", *arguments], stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE)
    assert result.returncode == 1 and b"standard output cannot be written" in result.stderr


def test_check_tells_each_workers_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def threads(workers):
        (tmp_path / "kino.yaml").write_text(f"workers: {workers}\n")
        told = kinod("--check-config", tmp_path / "kino.yaml").stdout
        return {name: int(count) for name, count in re.findall(r"^worker: +(\S+) on cpu, (\d+) threads?$", told, re.M)}

    cores = threads("[{name: alone}]")["alone"]
    assert 1 <= cores <= len(os.sched_getaffinity(0))
    share = max(1, cores // 2)
    assert threads("[{name: a, count: 2}]") == {"a-0": share, "a-1": share}
    assert threads("[{name: a, threads: 1000}, {name: b}]") == {"a": 1000, "b": 1}
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    assert threads("[{name: a, threads: 3}, {name: b}, {name: c}]") == {"a": 3, "b": 77, "c": 77}


def test_check_names_the_model_that_cannot_run(tmp_path):
    (tmp_path / "kino.yaml").write_text("models:\n  - name: gone\n    folder: nowhere\n")
    result = kinod("--check-config", tmp_path / "kino.yaml")
    assert result.returncode == 1
    assert f"{tmp_path}/kino.yaml:2:5" in result.stderr and "gone" in result.stderr


def test_check_reads_the_weights_that_a_load_would(tmp_path):
    """A component that is there as a variant only: diffusers needs to be told so, and takes the others' plain weights."""
    shutil.copytree(SOURCE / "models/demo", tmp_path / "m")
    (tmp_path / "m/text_encoder/model.safetensors").rename(tmp_path / "m/text_encoder/model.fp16.safetensors")

    def check(variant):
        (tmp_path / "kino.yaml").write_text(f"models: [{{name: half, folder: m, variant: {variant}}}]\n")
        return kinod("--check-config", tmp_path / "kino.yaml")

    assert check("fp16").returncode == 0
    for other in ("''", "bf16"):
        result = check(other)
        assert result.returncode == 1 and "weights of variant fp16" in result.stderr


@pytest.mark.parametrize("arguments, code, text", [
    ([], 2, "--config"), (["--workers-only"], 2, "TLS"), (["--nonsense"], 2, "nonsense"),
    (["--config", "/nonexistent.yaml"], 78, "nonexistent"),
    (["--check-config", "/nonexistent.yaml"], 1, "nonexistent")])
def test_wrong_arguments_are_refused(arguments, code, text):
    result = kinod(*arguments)
    assert result.returncode == code and text in result.stderr


def test_new_frontend_is_told_how_a_worker_that_does_not_run_has_ended(machine):
    one = machine(frontend=LISTEN, workers="[{name: a}]")
    worker = pid_of(one.wait_for(1, "up kino-worker")[0])
    (one.bin / "kino-worker").unlink()  # so that it is not started again
    os.kill(worker, signal.SIGKILL)
    one.wait_for(1, "told exited a")
    os.kill(pid_of(one.wait_for(1, "up kino-frontend")[0]), signal.SIGKILL)
    assert one.wait_for(2, "told exited a") == [f"told exited a {worker} 9 0"] * 2


def test_second_signal_kills_what_still_runs(machine):
    one = machine(worker="signal.signal(signal.SIGTERM, lambda *_: note('asked'))\n"
                         "note('up kino-worker ' + str(os.getpid()))\nwhile True: signal.pause()\n",
                  stop_deadline="1h")
    ups = one.wait_for(3, "up")
    one.process.terminate()
    one.wait_for(2, "asked")
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(DEADLINE) == 0
    assert not any(is_alive(pid_of(line)) for line in ups)
    assert "second signal" in one.log() and "deadline" not in one.log()


def test_worker_that_ran_long_enough_is_started_again_soon(machine):
    one = machine(worker="note('crash')\ntime.sleep(0.05)\nsys.exit(3)\n", workers="[{name: a}]", healthy_after="10ms")
    one.wait_for(6, "crash")
    assert "next start in 20ms" in one.log() and "next start in 40ms" not in one.log()


class Manager:
    """In the service manager's place: takes what kinod says."""

    def __init__(self, address):
        self.address = str(address)
        self.messages = []
        self.socket = None

    def listen(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(DEADLINE)
        self.socket.bind(self.address.replace("@", "\0"))
        return self

    def wait_for(self, *parts):
        """The next message that has all of them."""
        while True:
            self.messages.append(self.socket.recv(4096).decode())
            if all(part in self.messages[-1] for part in parts):
                return self.messages[-1]


@pytest.fixture
def manager():
    one = Manager(f"@kino-supervisor-test-{os.getpid()}").listen()
    yield one
    one.socket.close()


def test_ready_is_told_once_the_frontend_serves_and_not_before(machine, manager):
    one = machine(frontend=SERVE, environment={"NOTIFY_SOCKET": manager.address})
    ups = one.wait_for(3, "up")
    frontend = next(line for line in ups if "kino-frontend" in line)
    os.kill(next(pid_of(line) for line in ups if line != frontend), signal.SIGKILL)
    manager.wait_for("STATUS=kino-frontend starts; 1 of 2 workers run")  # behind the rename of another file
    assert not any("READY" in message for message in manager.messages)
    os.kill(pid_of(frontend), signal.SIGUSR1)
    manager.wait_for("READY=1\nSTATUS=serving; 2 of 2 workers run")


def test_watchdog_is_told_again_and_again_though_nothing_changes(machine, manager):
    one = machine(environment={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100000"})
    told = [manager.wait_for("2 of 2 workers run\nWATCHDOG=1") for _ in range(4)]
    assert len(set(told)) == 1
    assert one.stop() == 0


def test_manager_without_a_watchdog_hears_of_changes_only(machine, manager):
    one = machine(environment={"NOTIFY_SOCKET": manager.address})
    one.wait_for(3, "up")
    assert one.stop() == 0
    manager.wait_for("all have ended")
    assert not any("WATCHDOG" in message for message in manager.messages)
    states = [message.split("\nEXTEND")[0] for message in manager.messages]
    assert len(set(states)) == len(states)


def test_status_names_what_does_not_run(machine, manager):
    one = machine(frontend=SERVE, environment={"NOTIFY_SOCKET": manager.address})
    ups = one.wait_for(3, "up")
    frontend = pid_of(next(line for line in ups if "kino-frontend" in line))
    os.kill(frontend, signal.SIGUSR1)
    manager.wait_for("STATUS=serving; 2 of 2 workers run")
    os.kill(frontend, signal.SIGKILL)
    manager.wait_for("READY=1", "STATUS=kino-frontend starts again; 2 of 2")
    os.kill(pid_of(one.wait_for(2, "up kino-frontend")[1]), signal.SIGUSR1)
    manager.wait_for("STATUS=serving; 2 of 2")
    (one.bin / "kino-worker").unlink()
    os.kill(pid_of(one.lines("up kino-worker")[0]), signal.SIGKILL)
    assert re.search("STATUS=serving; 1 of 2 workers run, not [ab]$", manager.wait_for("1 of 2"))


def test_stop_is_told_with_the_time_that_it_may_take(machine, manager):
    one = machine(worker="signal.signal(signal.SIGTERM, lambda *_: note('asked'))\n"
                         "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))\n"
                         "note('up kino-worker ' + str(os.getpid()))\nwhile True: signal.pause()\n",
                  workers="[{name: a}]", stop_deadline="30s", environment={"NOTIFY_SOCKET": manager.address})
    worker = pid_of(one.wait_for(1, "up kino-worker")[0])
    one.wait_for(2, "up")
    one.process.terminate()
    told = manager.wait_for("STOPPING=1\nSTATUS=stopping (signal 15): waits for kino-frontend, a\n")
    # What is left of the deadline, and the five seconds that a kill may take.
    assert 5_000_000 < int(re.search(r"EXTEND_TIMEOUT_USEC=(\d+)$", told)[1]) <= 35_000_000
    manager.wait_for("STOPPING=1\nSTATUS=stopping (signal 15): waits for a\n")
    os.kill(worker, signal.SIGUSR1)
    manager.wait_for("STOPPING=1\nSTATUS=stopping (signal 15): all have ended\n")
    assert one.process.wait(DEADLINE) == 0


def test_reason_of_a_failed_start_is_the_last_status(machine, manager):
    one = machine(frontend="sys.exit(78)\n", environment={"NOTIFY_SOCKET": manager.address})
    assert one.process.wait(DEADLINE) == 78
    manager.wait_for("STATUS=stopping (the frontend cannot run): all have ended")
    assert not any("READY" in message for message in manager.messages)


def test_children_cannot_speak_to_the_manager(machine, manager):
    one = machine(environment={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000000", "KINO_TEST_MARK": "1"})
    for pid in map(pid_of, one.wait_for(3, "up")):
        names = {entry.split("=")[0] for entry in pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0")}
        assert "KINO_TEST_MARK" in names
        assert not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}


def test_manager_that_comes_late_is_told_all_of_it(machine, tmp_path):
    late = Manager(tmp_path / "notify")
    one = machine(frontend=SERVE, environment={"NOTIFY_SOCKET": late.address})
    os.kill(pid_of(one.wait_for(1, "up kino-frontend")[0]), signal.SIGUSR1)
    one.wait_for(3, "up")
    assert one.process.poll() is None
    late.listen()
    late.wait_for("READY=1\nSTATUS=serving; 2 of 2 workers run")
    assert one.log().count("the service manager is not told") == 1
