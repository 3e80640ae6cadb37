"""A Python client made from the protos alone, and a kinod to talk to. For the integration and fault tests.

Needs KINO_SOURCE_DIR, KINO_BIN_DIR and KINO_GOOGLEAPIS_DIR (the folder that holds google/rpc), which kino_python_test sets.
Everything here belongs to one thread, except that a call may be cancelled from another.
"""
import hashlib
import importlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import grpc

UPLOAD_CHUNK_BYTES = 1 << 20
DEMO_PROMPT = "a red star moving to the right over a dark blue background"


def compile_protos(out):
    """Compiles Kino's protos and the health service into `out`; returns the modules.

    video, models: messages; video_grpc, models_grpc: stubs; health, health_grpc likewise.
    """
    from grpc_tools import protoc
    import grpc_tools
    source = os.environ["KINO_SOURCE_DIR"]
    files = ["kino/v1/video.proto", "kino/v1/models.proto", "kino/v1/health.proto"]
    status = protoc.main([
        "protoc", f"-I{os.path.join(source, 'proto')}", f"-I{os.environ['KINO_GOOGLEAPIS_DIR']}",
        f"-I{os.path.join(os.path.dirname(grpc_tools.__file__), '_proto')}",
        f"--python_out={out}", f"--grpc_python_out={out}", *files])
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")
    sys.path.insert(0, out)
    importlib.invalidate_caches()
    return types.SimpleNamespace(
        video=importlib.import_module("kino.v1.video_pb2"),
        video_grpc=importlib.import_module("kino.v1.video_pb2_grpc"),
        models=importlib.import_module("kino.v1.models_pb2"),
        models_grpc=importlib.import_module("kino.v1.models_pb2_grpc"),
        health=importlib.import_module("kino.v1.health_pb2"),
        health_grpc=importlib.import_module("kino.v1.health_pb2_grpc"))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def free_port():
    """A loopback port for a server that must come back at the same one.

    Below the ephemeral ports, so that no client takes it while the server is down.
    """
    for port in random.SystemRandom().sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 20000 and 32000")


def mp4_boxes(data):
    """Names of the complete top-level boxes at the start of an MP4."""
    names, at = [], 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at:at + 4], "big")
        if size < 8 or at + size > len(data):
            break
        names.append(bytes(data[at + 4:at + 8]).decode("ascii"))
        at += size
    return names


def rgb_frames(mp4):
    """The decoded pixels, RGB24, of the bytes of a video."""
    return subprocess.run(
        ["ffmpeg", "-v", "error", "-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        input=mp4, stdout=subprocess.PIPE, check=True, timeout=60).stdout


def eventually(what, claim, timeout=60):
    """Asks again until claim() is true; returns its value. For what no stream tells of (processes, files, metrics)."""
    deadline = time.monotonic() + timeout
    while True:
        value = claim()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(0.02)


class Recording:
    """What one or several watches of a job have told, joined as a client must: bytes of another attempt than the last
    chunk's replace all before them."""

    def __init__(self):
        self.job_ids = set()  # that the events named
        self.states = []  # StateChange, by number from 1 without gaps
        self.progress = []
        self.attempt = 0
        self.data = bytearray()
        self.job = None  # of `finished`
        self.dropped_bytes = 0

    def add(self, event):
        if self.finished:
            raise AssertionError(f"an event after the last one: {event}")
        self.job_ids.add(event.job_id)
        kind = event.WhichOneof("event")
        if kind == "state_change":
            self._add_state(event.state_change)
        elif kind == "progress":
            self.progress.append(event.progress)
        elif kind == "video_chunk":
            self._add_chunk(event.video_chunk)
        elif kind == "finished":
            self.job = event.finished

    def _add_state(self, change):
        expected = self.states[-1].number + 1 if self.states else 1
        if change.number != expected:
            raise AssertionError(f"state change {change.number}, expected {expected}")
        self.states.append(change)

    def _add_chunk(self, chunk):
        if chunk.attempt != self.attempt:
            if chunk.attempt < self.attempt:
                raise AssertionError(f"a chunk of attempt {chunk.attempt} after {self.attempt}")
            self.dropped_bytes += len(self.data)
            self.attempt, self.data = chunk.attempt, bytearray()
        if chunk.offset != len(self.data):
            raise AssertionError(f"a chunk at {chunk.offset}, expected {len(self.data)}")
        self.data += chunk.data

    @property
    def finished(self):
        return self.job is not None

    def resume_point(self):
        """WatchJobRequest's fields for going on from here."""
        return dict(after_state_number=self.states[-1].number if self.states else 0,
                    attempt=self.attempt, offset=len(self.data))

    def sha256(self):
        return sha256(bytes(self.data))


class Follower:
    """Watches a job from a thread of its own and goes on where it left off when the connection breaks."""

    def __init__(self, client, job_id):
        self.recording = Recording()
        self.reattached = 0
        self.error = None
        self._client, self.job_id = client, job_id
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"watch {job_id}", daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self.recording.finished:
                try:
                    self._client.watch(self.job_id, self.recording, until=self._on_event)
                except grpc.RpcError as error:
                    # CANCELLED, which nobody asked for here: the call arrived while the server stopped.
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                        raise
                    self.reattached += 1
        except BaseException as error:  # pylint: disable=broad-except  (raised again by wait_for)
            self.error = error
        with self._changed:
            self._changed.notify_all()

    def _on_event(self, _):
        with self._changed:
            self._changed.notify_all()
        return False

    def wait_for(self, what, claim, timeout=60):
        """Until claim(recording) is true; returns its value."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.error or self.recording.finished or claim(self.recording), timeout)
        if self.error is not None:
            raise self.error
        value = claim(self.recording)
        if not value:
            how = "the job ended before" if self.recording.finished else f"not within {timeout} s"
            raise AssertionError(f"{how}: {what}; states {self.recording.states}")
        return value

    def denoised(self, step, attempt=1):
        """Until the attempt has done so many denoise steps; returns that progress."""
        stage = self._client.stubs.video.DENOISE
        return self.wait_for(f"denoise step {step} of attempt {attempt}", lambda seen: next(
            (p for p in reversed(seen.progress)
             if p.stage == stage and p.attempt == attempt and p.step >= step), None))

    def finish(self, timeout=60):
        """The finished Job."""
        return self.wait_for("the job has finished", lambda seen: seen.job, timeout)


class Client:
    """VideoService and ModelService at `address`. Every call has a deadline of `timeout` seconds; a patient client's
    calls wait for a server that is not there yet."""

    def __init__(self, stubs, address, token=None, timeout=120, patient=False):
        self.stubs = stubs
        self.channel = grpc.insecure_channel(address, options=[
            ("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)])
        self.address, self._patient = address, patient
        self.timeout = timeout
        self._metadata = [("authorization", f"Bearer {token}")] if token else None
        self._video = stubs.video_grpc.VideoServiceStub(self.channel)
        self._models = stubs.models_grpc.ModelServiceStub(self.channel)
        self._health = stubs.health_grpc.HealthStub(self.channel)

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, method, request, timeout=None):
        """Any RPC by name, e.g. call("GetJob", GetJobRequest(id=...)); a stream for the streaming ones."""
        stub = self._video if hasattr(self._video, method) else self._models
        return getattr(stub, method)(request, timeout=timeout or self.timeout,
                                     metadata=self._metadata, wait_for_ready=self._patient)

    def demo_request(self, **fields):
        """A GenerateRequest for the demo model, of the size it was trained for; `fields` replace or add."""
        video = self.stubs.video
        request = video.GenerateRequest(
            model="demo", prompt=DEMO_PROMPT, seed=7, height=64, width=64, num_frames=17, fps=8,
            num_inference_steps=25, guidance_scale=4, ltx=video.LtxOptions(frame_rate=8))
        request.MergeFrom(video.GenerateRequest(**fields))
        return request

    def long_request(self, **fields):
        """A demo request whose many short steps give a test the time to interfere."""
        return self.demo_request(**{"num_inference_steps": 200, **fields})

    def submit(self, request):
        return self.call("SubmitJob", self.stubs.video.SubmitJobRequest(request=request))

    def get(self, job_id):
        return self.call("GetJob", self.stubs.video.GetJobRequest(id=job_id))

    def cancel(self, job_id):
        return self.call("CancelJob", self.stubs.video.CancelJobRequest(id=job_id))

    def requeue(self, job_id):
        return self.call("RequeueJob", self.stubs.video.RequeueJobRequest(id=job_id))

    def delete(self, job_id):
        return self.call("DeleteJob", self.stubs.video.DeleteJobRequest(id=job_id))

    def jobs(self, **filters):
        """All jobs that match, page by page."""
        token = ""
        while True:
            page = self.call("ListJobs", self.stubs.video.ListJobsRequest(page_token=token, **filters))
            yield from page.jobs
            token = page.next_page_token
            if not token:
                return

    def watch(self, job_id, recording=None, until=None, **resume):
        """Adds events to a Recording until the job's last one, or until `until(event)` is true; then drops the call.

        With a recording that has seen something, goes on where it left off.
        """
        recording = recording or Recording()
        request = self.stubs.video.WatchJobRequest(
            id=job_id, **{**recording.resume_point(), **resume})
        return self.follow(self.call("WatchJob", request), recording, until)

    def workers(self):
        """How many are connected."""
        models = self.call("ListModels", self.stubs.models.ListModelsRequest()).models
        return max((len(model.workers) for model in models), default=0)

    def wait(self, job_id):
        """The job once it has ended."""
        return self.watch(job_id, no_video=True).job

    def generate(self, request, until=None):
        """Submits and watches in one call."""
        return self.follow(self.call("Generate", request), Recording(), until)

    @staticmethod
    def follow(call, recording, until=None):
        try:
            for event in call:
                recording.add(event)
                if until is not None and until(event):
                    break
        finally:
            call.cancel()
        return recording

    def download(self, job_id, offset=0, limit=0):
        request = self.stubs.video.DownloadVideoRequest(id=job_id, offset=offset, limit=limit)
        data = bytearray()
        for part in self.call("DownloadVideo", request):
            if part.offset != offset + len(data):
                raise AssertionError(f"bytes at {part.offset}, expected {offset + len(data)}")
            data += part.data
        return bytes(data)

    def upload(self, data, name="upload", size=None, digest=None):
        """Uploads bytes; `size` and `digest` lie about them where a test wants that."""
        part = self.stubs.video.UploadAssetRequest

        def parts():
            yield part(header=part.Header(size_bytes=len(data) if size is None else size,
                                          sha256=digest or sha256(data), display_name=name))
            for start in range(0, len(data), UPLOAD_CHUNK_BYTES):
                yield part(data=data[start:start + UPLOAD_CHUNK_BYTES])

        return self.call("UploadAsset", parts())

    def wait_serving(self, deadline):
        """Until grpc.health.v1 says SERVING; `deadline` on time.monotonic's clock."""
        grpc.channel_ready_future(self.channel).result(max(0.1, deadline - time.monotonic()))
        serving = self.stubs.health.HealthCheckResponse.SERVING
        watch = self._health.Watch(self.stubs.health.HealthCheckRequest(),
                                   timeout=max(0.1, deadline - time.monotonic()))
        try:
            for response in watch:
                if response.status == serving:
                    return
        finally:
            watch.cancel()
        raise TimeoutError("the health watch ended without SERVING")


def error_details(error):
    """The google.rpc details of a grpc.RpcError: {"BadRequest": message, "ErrorInfo": message, ...}."""
    from google.rpc import error_details_pb2, status_pb2
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            break
    else:
        return {}
    result = {}
    for detail in status.details:
        name = detail.type_url.rsplit(".", 1)[-1]
        message = getattr(error_details_pb2, name)()
        detail.Unpack(message)
        result[name] = message
    return result


class Kinod:
    """One kinod with a configuration of its own on free loopback ports, in `folder`.

    `settings` are the configuration's keys (config/kino.yaml), merged over those that a test needs: the demo model, one
    CPU worker of one thread, and data in `folder`/data. bin_dir: where kinod lies, if not among the built ones; environment:
    added to this process's; token: of its clients that bring none.
    """

    START_SECONDS = 60

    def __init__(self, stubs, folder, settings=None, bin_dir=None, environment=None, token=None):
        self._kinod = os.path.join(bin_dir or os.environ["KINO_BIN_DIR"], "kinod")
        self._environment = {**os.environ, **(environment or {})}
        self._token = token
        self.stubs, self.folder = stubs, str(folder)
        self.log = os.path.join(self.folder, "kinod.log")
        self.process = None
        self.address = None
        self._config = os.path.join(self.folder, "kino.yaml")
        merged = {
            "data_dir": os.path.join(self.folder, "data"), "listen": {"address": "127.0.0.1:0"},
            "metrics": {"address": "127.0.0.1:0"},
            "workers": [{"name": "cpu", "device": "cpu", "threads": 1}], **(settings or {})}
        self._workers = sum(worker.get("count", 1) for worker in merged["workers"])
        if "models" not in merged:
            merged["include"] = [os.path.join(os.environ["KINO_SOURCE_DIR"], "config", "models", "demo.yaml")]
        self.data_dir = merged["data_dir"]
        with open(self._config, "w", encoding="utf-8") as file:
            json.dump(merged, file, indent=1)  # JSON is YAML

    def start(self):
        """Returns once the server serves and all its workers are there."""
        for name in ("frontend.addr", "metrics.addr"):
            if os.path.exists(os.path.join(self.data_dir, name)):
                os.remove(os.path.join(self.data_dir, name))
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self._kinod, "--config", self._config], env=self._environment,
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + self.START_SECONDS
        self.address = self._read_address("frontend.addr", deadline)
        with self.client() as client:
            client.wait_serving(deadline)
            eventually("the workers are connected", lambda: client.workers() == self._workers,
                       timeout=self.START_SECONDS)
        return self

    def client(self, **options):
        return Client(self.stubs, self.address, **{"token": self._token, **options})

    def metrics_address(self):
        return self._read_address("metrics.addr", time.monotonic() + self.START_SECONDS)

    def _read_address(self, name, deadline):
        path = os.path.join(self.data_dir, name)
        while not os.path.exists(path):  # written whole or not at all
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} did not appear\n{self.log_text()}")
            try:
                status = self.process.wait(timeout=0.02)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"kinod ended with status {status}\n{self.log_text()}")
        with open(path, encoding="utf-8") as file:
            return file.read().strip()

    def children(self):
        """{pid: name of the program} of what kinod runs now."""
        pid = self.process.pid
        with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
            pids = [int(p) for p in file.read().split()]
        result = {}
        for child in pids:
            try:
                with open(f"/proc/{child}/cmdline", "rb") as file:
                    program = file.read().split(b"\0")[0].decode()
            except FileNotFoundError:  # it ended meanwhile
                continue
            result[child] = os.path.basename(program)
        return result

    def pid_of(self, child):
        """Of "kino-frontend", "kino-worker", or of a worker by its name."""
        for pid, name in self.children().items():
            if child in (name, self._worker_name(pid)):
                return pid
        raise RuntimeError(f"kinod runs no {child}: {self.children()}")

    @staticmethod
    def _worker_name(pid):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except FileNotFoundError:
            return None
        return words[words.index(b"--name") + 1].decode() if b"--name" in words else None

    def kill(self, child, how=signal.SIGKILL):
        """Signals a child, named as for pid_of; returns its pid."""
        pid = self.pid_of(child)
        os.kill(pid, how)
        return pid

    def kill_kinod(self):
        """kinod itself; returns the pids of what it ran."""
        children = list(self.children())
        self.process.kill()
        self.process.wait()
        self.process = None
        return children

    def stop(self, timeout=60):
        """An ordered stop; returns the exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"kinod did not stop within {timeout} s\n{self.log_text()}") from None
        finally:
            self.process = None
        # kinod starts a process again that a sanitizer has ended, so the tests may not notice.
        reports = re.findall(r".*(?:(?:WARNING|ERROR|FATAL): \w+Sanitizer|: runtime error: ).*", self.log_text(last=None))
        assert not reports, f"a sanitizer reports {reports[0]!r}, expected no report\n{self.log_text(last=None)}"
        return status

    def log_text(self, last=20000):
        """The end of the log of kinod and its children; all of it when `last` is None."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            text = file.read()
        return text if last is None else text[-last:]
