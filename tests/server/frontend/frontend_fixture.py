"""A real kino-frontend process, its stubs made from the protos, and a worker whose every step a test writes down."""

import hashlib
import importlib
import json
import os
import pathlib
import queue
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import grpc
import grpc_tools
from grpc_tools import protoc

BIN = pathlib.Path(os.environ["KINO_BIN_DIR"])
SOURCE = pathlib.Path(os.environ["KINO_SOURCE_DIR"])
DEADLINE = 60  # seconds; only ever reached by a failure


def _make_stubs():
    out = tempfile.mkdtemp(prefix="kino-stubs-")
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    result = protoc.main(
        ["protoc", f"-I{SOURCE / 'proto'}", f"-I{os.environ['KINO_GOOGLEAPIS_DIR']}", f"-I{well_known}",
         f"--python_out={out}", f"--grpc_python_out={out}", "kino/v1/video.proto", "kino/v1/models.proto",
         "kino/v1/worker.proto"])
    assert result == 0
    sys.path.insert(0, out)


_make_stubs()
video = importlib.import_module("kino.v1.video_pb2")
models = importlib.import_module("kino.v1.models_pb2")
worker = importlib.import_module("kino.v1.worker_pb2")
video_grpc = importlib.import_module("kino.v1.video_pb2_grpc")
models_grpc = importlib.import_module("kino.v1.models_pb2_grpc")
worker_grpc = importlib.import_module("kino.v1.worker_pb2_grpc")
from google.rpc import error_details_pb2, status_pb2  # noqa: E402


def eventually(condition, what):
    """Polls; for what another process does with no event to wait for."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"did not happen: {what}")


class HeldMedia:
    """A folder of programs whose kino-media waits before it decodes, until the test lets it go."""

    def __init__(self, folder):
        self.bin = pathlib.Path(folder) / "bin"
        self.bin.mkdir()
        shutil.copy(BIN / "kino-frontend", self.bin)
        self.gate = self.bin / "gate"
        os.mkfifo(self.gate)
        script = self.bin / "kino-media"
        # Reading from the gate ends when somebody opens it for writing and closes it again.
        script.write_text(f"#!/bin/sh\n: > {self.bin}/waits.$$\n"
                          f"[ -e {self.bin}/open ] || read line < {self.gate}\n"
                          f"exec {BIN}/kino-media \"$@\"\n")
        script.chmod(0o755)

    def wait_for(self, count):
        eventually(lambda: len(list(self.bin.glob("waits.*"))) >= count, f"{count} decoders wait")

    def let_go(self):
        """Of all that wait and all that come."""
        (self.bin / "open").touch()
        # One that has looked for the file may open the gate a moment later.
        self.keeper = os.open(self.gate, os.O_RDWR)
        os.write(self.keeper, b"\n" * 100)


class Frontend:
    def __init__(self, folder, extra="", with_control=False, max_file_bytes=None, model_folder=None, bin_folder=BIN,
                 supervisor=None, tls=None):
        self.bin = bin_folder
        self.folder = pathlib.Path(folder)
        self.data = self.folder / "data"
        self.config = self.folder / "kino.yaml"
        self.with_control = with_control
        self.max_file_bytes = max_file_bytes
        self.log_path = self.folder / "frontend.log"
        self.config.write_text(
            f"data_dir: data\nlisten: {json.dumps({'address': '127.0.0.1:0', 'tls': tls or {}})}\n"
            f"metrics: {{address: '127.0.0.1:0'}}\n"
            f"log: {{level: debug, format: json}}\n"
            f"models:\n  - {{name: demo, folder: '{model_folder or SOURCE / 'models' / 'demo'}', defaults: "
            f"{{height: 64, width: 64, num_frames: 17, num_inference_steps: 25}}}}\n" + extra)
        self.control = None
        self.start(supervisor)

    def configure(self, old, new):
        """Changes the configuration of the next start."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def restart(self):
        self.kill()
        self.start()

    def _arguments(self, supervisor):
        arguments = [str(self.bin / "kino-frontend"), "--config", str(self.config)]
        return arguments + (["--supervisor", supervisor] if supervisor else [])

    def start_and_die_at(self, fault_point, supervisor=None):
        points = self.folder / "points"
        points.mkdir()
        (points / fault_point).write_text("kill")
        with open(self.log_path, "ab") as log:
            code = subprocess.run(self._arguments(supervisor), stderr=log, timeout=DEADLINE,
                                  env={**os.environ, "KINO_FAULT_POINTS": str(points)}, check=False).returncode
        assert code == -signal.SIGKILL, self.log_path.read_text()
        points.rmdir()

    def start(self, supervisor=None):
        """supervisor: the id of the kinod that starts it."""
        arguments = self._arguments(supervisor)
        theirs = None
        if self.with_control:
            self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.control.settimeout(DEADLINE)
            arguments += ["--control-fd", str(theirs.fileno())]
        self.log = open(self.log_path, "ab")
        self.process = subprocess.Popen(arguments, stderr=self.log,
                                        pass_fds=[theirs.fileno()] if theirs else [])
        # No preexec_fn: gRPC's own threads do not survive a plain fork of this process.
        if self.max_file_bytes is not None:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (self.max_file_bytes, resource.RLIM_INFINITY))
        if theirs:
            theirs.close()

        def is_up():
            assert self.process.poll() is None, self.log_path.read_text()
            path = self.data / "frontend.addr"
            # The file of a frontend that was killed may still lie there: it must answer, too.
            if not path.exists():
                return None
            address = path.read_text().strip()
            if address == getattr(self, "address", None):
                return None
            return address

        self.address = eventually(is_up, "the frontend is up")
        self.metrics_address = (self.data / "metrics.addr").read_text().strip()
        self.channel = grpc.insecure_channel(self.address)
        self.video = video_grpc.VideoServiceStub(self.channel)
        self.models = models_grpc.ModelServiceStub(self.channel)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.channel.close()

    def stop(self):
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE)
        self.log.close()
        return code

    def submit(self, **fields):
        return self.video.SubmitJob(video.SubmitJobRequest(request=request(**fields)), timeout=DEADLINE)

    def job(self, job_id):
        return self.video.GetJob(video.GetJobRequest(id=job_id), timeout=DEADLINE)

    def wait_for(self, job_id, state):
        return eventually(lambda: (lambda job: job if job.state == state else None)(self.job(job_id)),
                          f"job becomes {video.JobState.Name(state)}")

    def cancel(self, job_id):
        return self.video.CancelJob(video.CancelJobRequest(id=job_id), timeout=DEADLINE)

    def list(self, **fields):
        return self.video.ListJobs(video.ListJobsRequest(**fields), timeout=DEADLINE)

    def metrics(self):
        return urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=DEADLINE).read().decode()

    def metric(self, series):
        """Of one series, by its name and labels as the text has them; None: it is not there."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else None

    def metric_becomes(self, series, wanted):
        eventually(lambda: self.metric(series) == wanted, f"{series} is {wanted}")

    def watch(self, job_id, **fields):
        return self.video.WatchJob(video.WatchJobRequest(id=job_id, **fields), timeout=DEADLINE)


def request(**fields):
    base = dict(model="demo", prompt="a red star moving to the right over a dark blue background")
    base.update(fields)
    return video.GenerateRequest(**base)


class Attempt:
    """What a worker does with one StartAttempt."""

    def __init__(self, fake, start):
        self.fake = fake
        self.start = start
        self.ref = start.ref
        self.number = 0
        self.data = b""

    def send(self, **event):
        self.number += 1
        self.fake.send(event=worker.AttemptEvent(ref=self.ref, number=self.number, **event))

    def started(self):
        self.send(started=worker.AttemptStarted(plan=video.Plan(offload="none")))

    def progress(self, fraction, step=1, total=4, **more):
        self.fake.counter += 1
        self.fake.send(event=worker.AttemptEvent(
            ref=self.ref, progress=video.Progress(fraction=fraction, step=step, total_steps=total,
                                                  stage=video.DENOISE, **{"pass": 1}, total_passes=1, **more)))

    def chunk(self, data, offset=None):
        self.send(chunk=worker.Chunk(offset=len(self.data) if offset is None else offset, data=data))
        self.data += data

    def done(self, plan=None, weights_sha256="", **changes):
        artifact = dict(content_type="video/mp4", size_bytes=len(self.data), width=64, height=64, num_frames=17,
                        fps=8, sha256=hashlib.sha256(self.data).hexdigest())
        artifact.update(changes)
        self.send(done=worker.AttemptDone(
            artifact=video.Artifact(**artifact), step_seconds=[0.1, 0.2], first_chunk_seconds=0.5, plan=plan,
            weights_sha256=weights_sha256,
            stages=[video.StageStats(stage=video.DENOISE, seconds=1.5, peak_host_bytes=1000)]))

    def failed(self, cause, code=13, message="it broke"):
        self.send(failed=worker.AttemptFailed(cause=cause, error=status_pb2.Status(code=code, message=message)))

    def succeed(self, data=b"video" * 1000):
        self.started()
        self.chunk(data)
        self.done()


class FakeWorker:
    """Speaks worker.proto. Answers nothing by itself but heartbeats and, unless told otherwise, questions about
    profiles; `messages` holds the rest of what the frontend said."""

    def __init__(self, frontend, name="cpu", held=(), pid=4242, heartbeat=0.1, max_attempts=1, tell_profiles=True,
                 stage=video.DENOISE, **hello):
        self.frontend = frontend
        self.tell_profiles = tell_profiles
        self.models = hello.get("models", [worker.WorkerModel(name="demo")])
        self.name, self.pid = name, pid
        self.counter = 0  # of progress
        self.stage = stage  # that it is in
        self.beats = 0  # heartbeats that were answered
        self.moving = set()  # jobs that make progress with every heartbeat
        self.works = False  # something else gets done with every heartbeat
        self.running = list(held)
        self.outgoing = queue.Queue()
        self.messages = queue.Queue()
        self.channel = grpc.insecure_channel(f"unix:{frontend.data}/run/link.sock")
        fields = dict(protocol_version=1, worker=name, version="test", device="cpu", max_attempts=max_attempts,
                      pid=pid, models=self.models, held=held,
                      link_secret=(frontend.data / "run" / "link.secret").read_text())
        fields.update(hello)
        self.send(hello=worker.WorkerHello(**fields))
        self.call = worker_grpc.WorkerServiceStub(self.channel).Link(iter(self.outgoing.get, None))
        self.error = None
        self.beating = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._beat, args=(heartbeat,), daemon=True).start()

    def send(self, **message):
        self.outgoing.put(worker.WorkerMessage(**message))

    def _read(self):
        try:
            for message in self.call:
                kind = message.WhichOneof("message")
                if kind == "profile" and self.tell_profiles:
                    self.send(profile=worker.ProfileAnswer(query_id=message.profile.query_id,
                                                           profile=fake_profile.profile(message.profile)))
                elif kind == "heartbeat_ack":
                    self.beats += 1
                else:
                    self.messages.put(message)
        except grpc.RpcError as error:
            self.error = error
        self.messages.put(None)

    def _beat(self, interval):
        while not self.beating.wait(interval):
            pulses = [worker.AttemptPulse(ref=ref, stage=self.stage, counter=self.beats if ref.job_id in self.moving else self.counter)
                      for ref in list(self.running)]
            self.send(heartbeat=worker.WorkerHeartbeat(models=self.models, attempts=pulses,
                                                       progress_counter=self.beats if self.works else 0))

    def expect(self, kind, passing=("ack", "hello_reply")):
        """The next message of this kind; of the others only `passing` may come before it."""
        while True:
            message = self.messages.get(timeout=DEADLINE)
            assert message is not None, f"the stream ended before '{kind}': {self.error}"
            got = message.WhichOneof("message")
            if got == kind:
                return getattr(message, kind)
            assert got in passing, f"expected {kind}, got {message}"

    def attempt(self):
        # Messages that were under way when an attempt ended are answered with a drop each.
        attempt = Attempt(self, self.expect("start", passing=("ack", "hello_reply", "drop")))
        self.running.append(attempt.ref)
        return attempt

    def acked(self, number):
        while True:
            ack = self.expect("ack")
            if ack.number >= number:
                return ack

    def disconnect(self):
        self.beating.set()
        self.call.cancel()
        self.channel.close()

    def expect_end(self):
        while self.messages.get(timeout=DEADLINE) is not None:
            pass
        return self.error


def details(error):
    """The google.rpc details of an RPC's error, by type."""
    raw = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    out = {}
    if raw:
        for detail in status_pb2.Status.FromString(raw).details:
            for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo,
                         error_details_pb2.QuotaFailure):
                value = kind()
                if detail.Unpack(value):
                    out[kind.DESCRIPTOR.name] = value
    return out


def reason(error):
    return details(error)["ErrorInfo"].reason


def status_reason(status):
    """Of a google.rpc.Status that is a field of a message."""
    info = error_details_pb2.ErrorInfo()
    found = [detail.Unpack(info) for detail in status.details if detail.Is(info.DESCRIPTOR)]
    assert found == [True], status
    return info.reason


def collect(events):
    """Walks a watch to its end: (states, bytes as a client joins them, finished job)."""
    states, data, attempt, finished = [], b"", 0, None
    for event in events:
        kind = event.WhichOneof("event")
        assert finished is None, "finished is the last event"
        if kind == "state_change":
            states.append((event.state_change.state, event.state_change.attempt, event.state_change.reason))
        elif kind == "video_chunk":
            if event.video_chunk.attempt != attempt:
                attempt, data = event.video_chunk.attempt, b""
            assert event.video_chunk.offset == len(data)
            assert len(event.video_chunk.data) <= 256 * 1024
            data += event.video_chunk.data
        elif kind == "finished":
            finished = event.finished
    return states, data, finished


import fake_profile  # noqa: E402  pylint: disable=wrong-import-position  (it needs the stubs above)
