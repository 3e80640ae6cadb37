"""docs/operations.md: every command that it shows, run as it stands."""
import hashlib
import os
import pathlib
import re
import subprocess

import pytest

import kino_client

ROOT = pathlib.Path(os.environ["KINO_SOURCE_DIR"])
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
COMMANDS = dict(re.findall(r"^```sh (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
RAN = set()
OPERATOR = "operator's token"


def run(name, status=0, then="", **variables):
    """The page's commands of that name, and one behind them; returns what they print."""
    RAN.add(name)
    path = os.pathsep.join([os.environ["KINO_BIN_DIR"], os.environ["PATH"]])
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", COMMANDS[name] + then], capture_output=True, text=True,
                          timeout=120, check=False, env={**os.environ, "PATH": path, **{key: str(value) for key, value in variables.items()}})
    assert done.returncode == status, f"{COMMANDS[name]}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def node(start_kinod, tmp_path, stubs):
    """A server as the page has it: who may call stands in a file."""
    secrets = tmp_path / "auth"
    secrets.mkdir()
    digest = hashlib.sha256(OPERATOR.encode()).hexdigest()
    (secrets / "tokens.yaml").write_text(f"tokens: [{{tenant: studio, role: operate, sha256: {digest}}}]\n")
    server = kino_client.Kinod(stubs, tmp_path, {"auth": {"tokens_file": str(secrets / "tokens.yaml")}}, token=OPERATOR)
    server.secrets = secrets
    yield server.start()
    print(server.log_text())
    server.stop()


def variables(server, **more):
    return {"KINO_SERVER": server.address, "KINO_TOKEN": OPERATOR, "DATA": server.data_dir, "SECRETS": server.secrets,
            "METRICS": server.metrics_address(), **more}


def test_plans_are_printed_for_a_model_that_is_not_served():
    assert "lossless" in run("plan", MODEL=ROOT / "models" / "demo")


def test_a_configuration_is_checked(tmp_path):
    config = tmp_path / "kino.yaml"
    addresses = "listen: {address: '127.0.0.1:0'}\nmetrics: {address: '127.0.0.1:0'}\nworkers: [{device: cpu}]\n"
    config.write_text(f"data_dir: data\n{addresses}")
    assert "0 failures" in run("check", CONFIG=config)
    config.write_text(f"data_dir: data\nlistn: {{}}\n{addresses}")
    run("check", CONFIG=config, status=1)


def test_a_token_that_is_made_as_told_is_let_in(node):
    token = run("token", **variables(node), then='printf %s "$TOKEN"')
    assert len(token) == 64 and token not in (node.secrets / "tokens.yaml").read_text()

    def is_let_in():
        with node.client(token=token) as client:
            try:
                list(client.jobs())
                return True
            except kino_client.grpc.RpcError as error:
                assert error.code() == kino_client.grpc.StatusCode.UNAUTHENTICATED
                return False

    kino_client.eventually("the new token is let in", is_let_in)
    with node.client() as client, pytest.raises(kino_client.grpc.RpcError):
        list(client.jobs())  # the old one is gone


def test_a_certificate_is_put_in_the_place_of_the_old_one(tmp_path):
    tls = tmp_path / "tls"
    tls.mkdir()
    for name in ("tls.key", "tls.crt"):
        (tls / name).write_text("old")
        (tmp_path / name).write_text(f"new {name}")
    run("certificate", TLS=tls, NEW_KEY=tmp_path / "tls.key", NEW_CERTIFICATE=tmp_path / "tls.crt")
    assert {path.name: path.read_text() for path in tls.iterdir()} == {"tls.key": "new tls.key", "tls.crt": "new tls.crt"}


def test_a_backup_that_is_put_back_has_the_videos_and_runs_what_was_queued(node, tmp_path):
    backup = tmp_path / "backup"
    backup.mkdir()
    with node.client() as client:
        made = client.generate(client.demo_request())
        running = client.submit(client.long_request())
        kino_client.Follower(client, running.id).denoised(1)
        queued = client.submit(client.demo_request())
        told = run("look", **variables(node))
        assert queued.id in told and "kino_jobs{" in told
        run("backup", **variables(node, BACKUP=backup))
        for job in (running, queued):
            client.cancel(job.id)
            client.wait(job.id)
            run("delete", **variables(node, JOB=job.id))
        run("delete", **variables(node, JOB=made.job.id))
        assert list(client.jobs()) == []
    node.stop()
    run("restore", DATA=node.data_dir, BACKUP=backup)
    node.start()
    with node.client() as client:
        assert {job.id for job in client.jobs()} == {made.job.id, running.id, queued.id}
        assert client.download(made.job.id) == bytes(made.data)
        client.cancel(running.id)  # it runs again, and is long
        assert client.wait(queued.id).state == node.stubs.video.SUCCEEDED


def test_every_command_of_the_page_is_run():
    assert RAN == set(COMMANDS) and len(re.findall(r"^```", PAGE, re.MULTILINE)) == 2 * len(COMMANDS)
