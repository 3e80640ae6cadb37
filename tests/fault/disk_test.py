"""Data folders that are full or not writable."""
import os
import pathlib
import shutil
import subprocess
import tempfile

import grpc
import pytest

import kino_client
from fault_settings import QUICK
from kino_client import Follower, eventually

BIN = os.environ["KINO_BIN_DIR"]
DISK_MIB = 12
# The whole disk is smaller than what the default keeps free.
NO_RESERVE = {"limits": {"min_free_disk": "0"}}


def mounted_disk(tmp_path, mebibytes, ballast_bytes=None):
    """A file system of so many MiB; full(True) fills it (or takes so many bytes of it), full(False) frees it again."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)],
                             capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk needs root: {mounted.stderr.strip()}")
    ballast = folder / "ballast"

    def full(is_full):
        if not is_full:
            ballast.unlink()
            return
        with open(ballast, "wb", buffering=0) as file:
            if ballast_bytes is not None:
                os.posix_fallocate(file.fileno(), 0, ballast_bytes)
                return
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass

    yield folder, full
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path):
    """Of a few MiB, which full(True) fills to the last byte."""
    yield from mounted_disk(tmp_path, DISK_MIB)


@pytest.fixture
def large_disk(tmp_path):
    """With more room than a server keeps free; full(True) leaves less than that, and still some."""
    yield from mounted_disk(tmp_path, 400, ballast_bytes=200 << 20)


def test_full_disk_refuses_new_work_and_recovers(stubs, start_kinod, small_disk):
    folder, full = small_disk
    server = start_kinod({**QUICK, **NO_RESERVE, "data_dir": str(folder / "data")})
    with server.client() as client:
        before = client.generate(client.demo_request()).job
        full(True)

        def refused():
            try:
                client.submit(client.demo_request(num_inference_steps=2, prompt="x" * 4000))
            except grpc.RpcError as error:
                return error
            return None

        # The store has some room of its own: it takes jobs until that is used up.
        error = eventually("the full disk is noticed", refused)
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "disk" in error.details() or "full" in error.details()
        details = kino_client.error_details(error)
        assert details["ErrorInfo"].domain == "kino.v1" and "RetryInfo" in details
        with pytest.raises(grpc.RpcError) as caught:
            client.upload(os.urandom(1 << 20))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        # What is there can still be read.
        assert client.get(before.id).state == stubs.video.SUCCEEDED
        assert kino_client.sha256(client.download(before.id)) == before.artifact.sha256
        full(False)
        done = client.generate(client.demo_request(num_inference_steps=2))
        assert done.job.state == stubs.video.SUCCEEDED
        # And whatever was acknowledged ends.
        for job in list(client.jobs()):
            assert client.wait(job.id).state == stubs.video.SUCCEEDED


def test_disk_that_fills_up_under_a_running_job_fails_no_job_when_space_returns(stubs, start_kinod, small_disk, client):
    folder, full = small_disk
    server = start_kinod({**NO_RESERVE, "data_dir": str(folder / "data")})
    request = client.demo_request(num_inference_steps=100, output=stubs.video.OutputOptions(quality=100))
    with server.client() as own:
        watch = Follower(own, own.submit(request).id)
        watch.denoised(5)
        full(True)
        frontend = server.pid_of("kino-frontend")
        eventually("the result cannot be kept", lambda: "DISK_FULL" in server.log_text(None))
        full(False)
        job = watch.finish()
        assert job.state == stubs.video.SUCCEEDED, job.error
        assert {attempt.cause for attempt in job.attempts} <= {"DISK_FULL", ""}
        assert own.download(job.id) == bytes(watch.recording.data) == bytes(client.generate(request).data)
        assert server.pid_of("kino-frontend") == frontend


def test_default_settings_keep_room_before_the_disk_is_full(stubs, start_kinod, large_disk):
    """Nothing is submitted or started below the reserve; what waits goes on when there is room, and no attempt was lost."""
    folder, full = large_disk
    server = start_kinod({"data_dir": str(folder / "data")})
    with server.client() as client:
        long = Follower(client, client.submit(client.long_request()).id)
        long.denoised(1)
        waiting = client.submit(client.demo_request(num_inference_steps=2))
        full(True)
        eventually("jobs are held back", lambda: "no job is started" in server.log_text(None))
        with pytest.raises(grpc.RpcError) as caught:
            client.submit(client.demo_request())
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert kino_client.error_details(caught.value)["ErrorInfo"].reason == "DISK_FULL"
        assert long.finish().state == stubs.video.SUCCEEDED  # what runs has room for its end
        held = eventually("it says why it waits", lambda: client.get(waiting.id).waiting_reason)
        assert held == "DISK_FULL"
        full(False)
        assert len(client.wait(waiting.id).attempts) == 1


def start_refused(config, *command):
    """The error of a kinod that ends at its start."""
    done = subprocess.run([*command, "--config", str(config)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr


def write_config(path, data_dir):
    path.write_text(f'{{"data_dir": "{data_dir}", "listen": {{"address": "127.0.0.1:0"}}, '
                    '"metrics": {"address": "127.0.0.1:0"}}', encoding="utf-8")
    return path


@pytest.mark.parametrize("data_dir, told", [
    ("/proc/kino", "/proc/kino"), ("/dev/null/kino", "'/dev/null': Not a directory"), ("/dev/null", "/dev/null")])
def test_data_folder_that_cannot_be_made_is_told_at_the_start(tmp_path, data_dir, told):
    assert told in start_refused(write_config(tmp_path / "kino.yaml", data_dir), os.path.join(BIN, "kinod"))


def test_unwritable_data_folder_is_told_at_the_start():
    """As an ordinary user, whom permissions stop."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = os.path.join(name, "data")
        os.mkdir(folder, 0o555)
        config = write_config(pathlib.Path(name) / "kino.yaml", folder)
        command = [os.path.join(BIN, "kinod")]
        if os.geteuid() == 0:
            if shutil.which("setpriv") is None:
                pytest.skip("setpriv is not installed")
            # The build folder may be closed to others.
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                       shutil.copy(command[0], os.path.join(name, "kinod"))]
        said = start_refused(config, *command)
        assert folder in said
        assert os.listdir(folder) == []


def test_frontend_that_finds_the_disk_full_asks_to_be_started_again(tmp_path, small_disk):
    """kinod ends at the exit code of a frontend that no restart can help."""
    folder, full = small_disk
    (folder / "data").mkdir(mode=0o700)
    (folder / "data" / "run").mkdir(mode=0o700)
    config = write_config(tmp_path / "kino.yaml", folder / "data")
    full(True)
    done = subprocess.run([os.path.join(BIN, "kino-frontend"), "--config", str(config)], capture_output=True, text=True,
                          timeout=30, check=False)
    assert "No space left" in done.stderr and done.returncode == 1, done
