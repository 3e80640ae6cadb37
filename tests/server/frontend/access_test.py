"""Who may call what: every RPC with every kind of credentials, TLS and clients' certificates, and secrets that change while
the server runs."""

import hashlib
import os
import pathlib
import socket
import ssl
import subprocess
import threading

import grpc
import pytest

from frontend_fixture import BIN, DEADLINE, FakeWorker, collect, details, eventually, models, models_grpc, reason, request, video, video_grpc
from request_helpers import png, refusal, upload_messages

NOT_LET_IN = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


def bearer(token):
    return [("authorization", f"Bearer {token}")] if token else []


def entry(token, tenant, role):
    return f"{{tenant: {tenant}, role: {role}, sha256: {hashlib.sha256(token.encode()).hexdigest()}}}"


def tokens(*entries):
    return "tokens: [" + ", ".join(entries) + "]\n"


TOKENS = tokens(entry("user", "a", "use"), entry("owner", "a", "operate"), entry("other", "b", "operate"))


# Each RPC with a request about one of tenant a's jobs. What a stream answers is read to its first message.
def unary(name, make):
    return lambda stubs, job, metadata: getattr(stubs, name)(make(job), metadata=metadata, timeout=DEADLINE)


def streaming(name, make):
    def call(stubs, job, metadata):
        events = getattr(stubs, name)(make(job), metadata=metadata, timeout=DEADLINE)
        try:
            return next(iter(events))
        finally:
            events.cancel()
    return call


def send_asset(stubs, _, metadata):
    return stubs.UploadAsset(upload_messages(png()), metadata=metadata, timeout=DEADLINE)


RPCS = {
    "Generate": streaming("Generate", lambda job: request()),
    "SubmitJob": unary("SubmitJob", lambda job: video.SubmitJobRequest(request=request())),
    "GetJob": unary("GetJob", lambda job: video.GetJobRequest(id=job)),
    "ListJobs": unary("ListJobs", lambda job: video.ListJobsRequest()),
    "CancelJob": unary("CancelJob", lambda job: video.CancelJobRequest(id=job)),
    "CancelJobs": unary("CancelJobs", lambda job: video.CancelJobsRequest(model="absent")),
    "RequeueJob": unary("RequeueJob", lambda job: video.RequeueJobRequest(id=job)),
    "DeleteJob": unary("DeleteJob", lambda job: video.DeleteJobRequest(id=job)),
    "WatchJob": streaming("WatchJob", lambda job: video.WatchJobRequest(id=job)),
    "DownloadVideo": streaming("DownloadVideo", lambda job: video.DownloadVideoRequest(id=job)),
    "UploadAsset": send_asset,
    "ListModels": unary("ListModels", lambda job: models.ListModelsRequest()),
    "GetModel": unary("GetModel", lambda job: models.GetModelRequest(name="demo")),
    "LoadModel": unary("LoadModel", lambda job: models.LoadModelRequest(name="absent")),
    "UnloadModel": unary("UnloadModel", lambda job: models.UnloadModelRequest(name="absent")),
    "GetPlans": unary("GetPlans", lambda job: models.GetPlansRequest(request=request())),
}
ABOUT_A_JOB = {"GetJob", "CancelJob", "RequeueJob", "DeleteJob", "WatchJob", "DownloadVideo"}
OPERATORS = {"RequeueJob", "LoadModel", "UnloadModel"}


def outcome(call):
    """OK, or the error's code and reason; a connection that does not come about gives none."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), reason(error) if details(error) else ""
    return grpc.StatusCode.OK, ""


def test_every_rpc_lets_in_whom_it_should(start):
    frontend = start(f"auth: {{{TOKENS.strip()}}}\n")
    for service in (video.DESCRIPTOR.services_by_name["VideoService"], models.DESCRIPTOR.services_by_name["ModelService"]):
        assert set(service.methods_by_name) <= set(RPCS), "an RPC that this table does not have"

    def stubs_of(name):
        return frontend.video if hasattr(frontend.video, name) else frontend.models

    for name, call in RPCS.items():
        # One of its own for each: some RPCs end it.
        job = frontend.video.SubmitJob(video.SubmitJobRequest(request=request()), metadata=bearer("user"), timeout=DEADLINE).id

        def by(token, about):
            return outcome(lambda: call(stubs_of(name), about, bearer(token)))  # noqa: B023

        for stranger in (None, "wrong", "user "):
            assert by(stranger, job)[0] == grpc.StatusCode.UNAUTHENTICATED, (name, stranger)
        if name in ABOUT_A_JOB:
            # What is another's is as if it were not there.
            assert by("other", job) == by("other", "0" * len(job)), name
            assert by("other", job)[0] == grpc.StatusCode.NOT_FOUND, name
        else:
            assert by("other", job)[0] not in NOT_LET_IN, name
        if name in OPERATORS:
            assert by("user", job) == (grpc.StatusCode.PERMISSION_DENIED, "OPERATORS_ONLY"), name
        else:
            assert by("user", job)[0] not in NOT_LET_IN, name
            job = frontend.video.SubmitJob(video.SubmitJobRequest(request=request()), metadata=bearer("user"), timeout=DEADLINE).id
        got, why = by("owner", job)
        assert got not in NOT_LET_IN and (name not in ABOUT_A_JOB or got != grpc.StatusCode.NOT_FOUND or why != "JOB_NOT_FOUND"), name
    theirs = frontend.video.ListJobs(video.ListJobsRequest(page_size=1000), metadata=bearer("other"), timeout=DEADLINE).jobs
    assert {job.request.tenant for job in theirs} == {"b"}  # its own, made above by SubmitJob and Generate


def test_another_tenants_asset_is_as_if_it_were_not_there(start):
    frontend = start(f"auth: {{{TOKENS.strip()}}}\n")
    asset = send_asset(frontend.video, None, bearer("user")).id

    def submit(token, asset_id):
        condition = video.Condition(kind=video.Condition.IMAGE, asset_id=asset_id)
        return outcome(lambda: frontend.video.SubmitJob(video.SubmitJobRequest(request=request(conditions=[condition])),
                                                        metadata=bearer(token), timeout=DEADLINE))

    assert submit("user", asset) == (grpc.StatusCode.OK, "")
    assert submit("other", asset) == submit("other", "0" * len(asset)) != (grpc.StatusCode.OK, "")


class Load:
    """Twenty watchers of a job that runs, and somebody who asks for it again and again."""

    def __init__(self, frontend, stub, token=None):
        self.attempt_of = FakeWorker(frontend)
        job = stub.SubmitJob(video.SubmitJobRequest(request=request()), metadata=bearer(token), timeout=DEADLINE)
        self.job_id = job.id
        self.attempt = self.attempt_of.attempt()
        self.attempt.started()
        self.attempt.chunk(b"before" * 10_000)
        self.streams = [stub.WatchJob(video.WatchJobRequest(id=job.id), metadata=bearer(token), timeout=2 * DEADLINE)
                        for _ in range(20)]
        for stream in self.streams:
            next(iter(stream))
        self.token, self.errors, self.calls, self.is_over = token, [], 0, threading.Event()
        self.caller = threading.Thread(target=self._call, args=(stub,), daemon=True)
        self.caller.start()

    def _call(self, stub):
        while not self.is_over.is_set():
            try:
                stub.GetJob(video.GetJobRequest(id=self.job_id), metadata=bearer(self.token), timeout=DEADLINE)
                self.calls += 1
            except grpc.RpcError as error:
                self.errors.append(error)
                return

    def end(self):
        """The job succeeds; every stream has seen all of it, and no call has failed."""
        self.is_over.set()
        self.caller.join()
        assert self.calls > 0 and not self.errors, self.errors[:3]
        self.attempt.chunk(b"after" * 10_000)
        self.attempt.done()
        for stream in self.streams:
            _, data, finished = collect(stream)
            assert data == self.attempt.data and finished.state == video.SUCCEEDED


def test_tokens_are_exchanged_while_the_server_runs_and_no_stream_is_lost(start, tmp_path):
    path = tmp_path / "tokens.yaml"
    path.write_text(tokens(entry("old", "a", "use")))
    frontend = start(f"auth: {{tokens_file: {path}}}\n")
    load = Load(frontend, frontend.video, "old")

    def code(token):
        return outcome(lambda: frontend.video.GetJob(video.GetJobRequest(id=load.job_id), metadata=bearer(token), timeout=DEADLINE))[0]

    path.write_text(tokens(entry("old", "a", "use"), entry("new", "a", "use")))
    eventually(lambda: code("new") == grpc.StatusCode.OK, "the new token is known")
    assert code("old") == grpc.StatusCode.OK
    path.write_text("tokens: [\n")
    eventually(lambda: "the tokens stay as they were" in frontend.log_path.read_text(), "the broken file is told of")
    assert code("new") == code("old") == grpc.StatusCode.OK
    load.token = "new"
    path.write_text(tokens(entry("new", "a", "use")))
    eventually(lambda: code("old") == grpc.StatusCode.UNAUTHENTICATED, "the old token is forgotten")
    load.end()  # the streams that the old token began go on


def test_a_tenants_calls_a_second_and_queued_jobs_have_limits(start):
    frontend = start("limits: {max_queued_jobs_per_tenant: 2}\n" + f"auth: {{{TOKENS.strip()}}}\n")

    def submit(token):
        return frontend.video.SubmitJob(video.SubmitJobRequest(request=request()), metadata=bearer(token), timeout=DEADLINE)

    first = submit("user")
    submit("owner")
    error = refusal(lambda: submit("user"))
    assert (error.code(), reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TENANT_QUEUE_FULL")
    submit("other")
    frontend.video.CancelJob(video.CancelJobRequest(id=first.id), metadata=bearer("user"), timeout=DEADLINE)
    submit("user")


def test_a_tenant_runs_no_more_jobs_at_a_time_than_it_may(start):
    kinod = "0123456789abcdef"  # the same all the while: running attempts are taken over
    callers = tokens(entry("user", "a", "use"), entry("owner", "a", "operate"), entry("other", "b", "use"), entry("third", "c", "use"))
    frontend = start("limits: {max_running_jobs_per_tenant: 1}\n" + f"auth: {{{callers.strip()}}}\n", supervisor=kinod)

    def submit(token):
        return frontend.video.SubmitJob(video.SubmitJobRequest(request=request()), metadata=bearer(token), timeout=DEADLINE).id

    def job(token, job_id):
        return frontend.video.GetJob(video.GetJobRequest(id=job_id), metadata=bearer(token), timeout=DEADLINE)

    first, second, theirs = submit("user"), submit("owner"), submit("other")
    worker = FakeWorker(frontend, max_attempts=3)
    attempts = {attempt.ref.job_id: attempt for attempt in (worker.attempt(), worker.attempt())}
    assert set(attempts) == {first, theirs}
    eventually(lambda: job("user", second).waiting_reason == "TENANT_BUSY", "the tenant's second job waits for its first")
    frontend.kill()
    frontend.start(kinod)
    worker = FakeWorker(frontend, max_attempts=3, held=[attempt.ref for attempt in attempts.values()])
    for attempt in attempts.values():
        attempt.fake = worker
    # A restart forgets nobody who runs: the worker's last place is for a job that came later, of another tenant.
    later = submit("third")
    assert worker.attempt().ref.job_id == later
    attempts[first].succeed()
    assert worker.attempt().ref.job_id == second


def test_a_tenant_that_calls_too_often_is_told_so_and_others_are_served(start):
    frontend = start("limits: {max_requests_per_second_per_tenant: 2}\n" + f"auth: {{{TOKENS.strip()}}}\n")

    def models_by(token):
        return outcome(lambda: frontend.models.GetModel(models.GetModelRequest(name="demo"), metadata=bearer(token), timeout=DEADLINE))

    refused = grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_RATE"
    eventually(lambda: models_by("user") == refused, "too many calls")
    assert models_by("other") == (grpc.StatusCode.OK, "")
    eventually(lambda: models_by("user") == (grpc.StatusCode.OK, ""), "a call is let in again")


class Authority:
    """Signs certificates, in a folder of its own."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.ca = self.folder / "ca.pem"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
                      "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def sign(self, name, *alternative_names, days=2):
        """(certificate, key) for a common name and names such as "DNS:localhost"."""
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(alternative_names)}\n" if alternative_names else "")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
                      "-out", f"{name}.csr", "-subj", f"/CN={name}")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days",
                      str(days), "-extfile", f"{name}.ext", "-out", f"{name}.pem")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"


SERVER_NAMES = ("DNS:localhost", "IP:127.0.0.1")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


def server_tls(authority, **more):
    certificate, key = authority.sign("server", *SERVER_NAMES)
    return {"certificate": str(certificate), "key": str(key), **more}


def channel(frontend, authority, client=None):
    certificate, key = client or (None, None)
    credentials = grpc.ssl_channel_credentials(
        authority.ca.read_bytes(), key.read_bytes() if key else None, certificate.read_bytes() if certificate else None)
    return grpc.secure_channel(frontend.address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])


def list_jobs(channel, token=None):
    return outcome(lambda: video_grpc.VideoServiceStub(channel).ListJobs(
        video.ListJobsRequest(), metadata=bearer(token), timeout=DEADLINE))[0]


OK, UNAUTHENTICATED, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE


def test_tls_serves_those_who_know_its_authority_and_nobody_in_plain_text(start, authority, tmp_path):
    frontend = start(f"auth: {{{TOKENS.strip()}}}\n", tls=server_tls(authority))
    assert list_jobs(channel(frontend, authority), "user") == OK
    assert list_jobs(channel(frontend, authority)) == UNAUTHENTICATED
    assert list_jobs(channel(frontend, Authority(tmp_path / "another")), "user") == UNAVAILABLE
    assert list_jobs(frontend.channel, "user") == UNAVAILABLE


def test_a_clients_certificate_says_whose_call_it_is(start, authority, tmp_path):
    frontend = start(f"auth: {{{TOKENS.strip()}, certificates: [{{name: studio.example, tenant: studio}}, "
                     "{name: plain, tenant: plain, role: operate}]}\n",
                     tls=server_tls(authority, client_ca=str(authority.ca)))
    studio = channel(frontend, authority, authority.sign("anything", "DNS:studio.example"))
    plain = channel(frontend, authority, authority.sign("plain"))

    def tenant(channel, token=None):
        stub = video_grpc.VideoServiceStub(channel)
        return stub.SubmitJob(video.SubmitJobRequest(request=request()), metadata=bearer(token), timeout=DEADLINE).request.tenant

    assert tenant(studio) == "studio" and tenant(plain) == "plain"
    assert tenant(studio, "user") == "a"
    # A common name counts where there are no other names, and a name is the whole of it.
    for certificate in (authority.sign("studio.example", "DNS:else.example"), authority.sign("sub", "DNS:sub.studio.example")):
        assert list_jobs(channel(frontend, authority, certificate)) == UNAUTHENTICATED
    # Who shows none may bring a token; one that another authority signed is no certificate.
    assert list_jobs(channel(frontend, authority), "user") == OK
    forged = Authority(tmp_path / "another").sign("forged", "DNS:studio.example")
    assert list_jobs(channel(frontend, authority, forged)) == UNAVAILABLE

    def load(channel):
        return outcome(lambda: models_grpc.ModelServiceStub(channel).LoadModel(
            models.LoadModelRequest(name="absent"), timeout=DEADLINE))[0]

    assert load(studio) == grpc.StatusCode.PERMISSION_DENIED and load(plain) == grpc.StatusCode.NOT_FOUND


def test_a_certificate_may_be_required_of_every_client(start, authority):
    frontend = start(f"auth: {{{TOKENS.strip()}}}\n",
                     tls=server_tls(authority, client_ca=str(authority.ca), require_client_certificate=True))
    assert list_jobs(channel(frontend, authority), "user") == UNAVAILABLE
    assert list_jobs(channel(frontend, authority, authority.sign("client", "DNS:client.example")), "user") == OK


def shown_certificate(frontend):
    host, port = frontend.address.rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as plain, context.wrap_socket(plain) as wrapped:
        return wrapped.getpeercert(binary_form=True)


def test_a_certificate_is_exchanged_while_the_server_runs_and_no_stream_is_lost(start, authority):
    tls = server_tls(authority)
    frontend = start(tls=tls)
    load = Load(frontend, video_grpc.VideoServiceStub(channel(frontend, authority)))
    before = shown_certificate(frontend)
    ends = "kino_certificate_expiry_timestamp_seconds"
    eventually(lambda: frontend.metric(ends), "metrics tell when the certificate ends")
    two_days = frontend.metric(ends)
    for new, old in zip(authority.sign("next", *SERVER_NAMES, days=9), (tls["certificate"], tls["key"])):
        os.replace(new, old)

    def is_shown():
        try:
            return shown_certificate(frontend) != before
        except OSError:  # between the two files
            return False

    eventually(is_shown, "new connections see the new certificate")
    assert list_jobs(channel(frontend, authority)) == OK
    eventually(lambda: frontend.metric(ends) > two_days + 6 * 24 * 3600, "metrics tell when the new one ends")
    load.end()  # the connection that was there goes on


def run(*arguments, **environment):
    return subprocess.run([str(argument) for argument in arguments], env={**os.environ, **environment}, capture_output=True,
                          text=True, timeout=DEADLINE, check=False)


def test_the_command_line_speaks_tls(start, authority, tmp_path):
    certificates = "auth: {certificates: [{name: studio.example, tenant: studio}]}\n"
    frontend = start(certificates, tls=server_tls(authority, client_ca=str(authority.ca)))
    certificate, key = authority.sign("client", "DNS:studio.example")
    port = frontend.address.rsplit(":", 1)[1]
    kino, to = BIN / "kino", ["--server", f"localhost:{port}"]
    own = ["--tls-ca", authority.ca, "--tls-cert", certificate, "--tls-key", key]
    assert run(kino, "jobs", *to, *own).returncode == 0
    environment = {"KINO_TLS_CA": str(authority.ca), "KINO_TLS_CERT": str(certificate), "KINO_TLS_KEY": str(key)}
    assert run(kino, "jobs", *to, **environment).returncode == 0
    assert run(kino, "jobs", *to, "--tls-ca", authority.ca).returncode == 4  # UNAUTHENTICATED
    assert run(kino, "jobs", *to, *own, "--tls-server-name", "else.example").returncode == 3
    assert run(kino, "jobs", "--server", f"127.0.0.2:{port}", *own[:2]).returncode == 3  # no such name; or nobody there
    assert run(kino, "jobs", *to, "--tls").returncode == 3  # the system does not trust this authority
    healthy = run(kino, "health", *to, *own[:2])
    assert (healthy.returncode, healthy.stdout) == (0, "SERVING\n")
    assert run(kino, "health", "model/demo", *to, *own[:2]).returncode == 1  # no worker is there
    assert run(kino, "health", "model/absent", *to, *own[:2]).returncode == 4
    for wrong in (["--tls-ca", tmp_path / "absent"], own[:4], ["--tls-key", key]):
        done = run(kino, "jobs", *to, *wrong)
        assert done.returncode == 2 and "--tls-" in done.stderr, done


@pytest.mark.parametrize("broken, says", [
    (lambda tls, other: tls.update(certificate=tls["key"]), "holds no certificate"),
    (lambda tls, other: tls.update(key=tls["certificate"]), "holds no private key"),
    (lambda tls, other: tls.update(key=other[1]), "belongs to another certificate"),
    (lambda tls, other: tls.update(key=tls["key"] + ".absent"), "cannot read"),
])
def test_a_broken_certificate_is_told_at_the_start(broken, says, authority, tmp_path):
    tls = server_tls(authority)
    broken(tls, [str(path) for path in authority.sign("other", *SERVER_NAMES)])
    config = tmp_path / "kino.yaml"
    config.write_text(f"data_dir: data\nlisten: {{address: '127.0.0.1:0', tls: {{certificate: {tls['certificate']}, key: {tls['key']}}}}}\n"
                      "metrics: {address: '127.0.0.1:0'}\n")
    done = run(BIN / "kino-frontend", "--config", config)
    assert done.returncode not in (0, -11) and "listen.tls" in done.stderr and says in done.stderr, done
