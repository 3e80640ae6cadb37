"""`kino doctor` as it is called: on a node that is well, and on one that is not."""

import json
import os
import pathlib
import socket
import subprocess

BIN = pathlib.Path(os.environ["KINO_BIN_DIR"])
SOURCE = pathlib.Path(os.environ["KINO_SOURCE_DIR"])


def doctor(*arguments):
    return subprocess.run([BIN / "kino", "doctor", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def findings(*arguments):
    done = doctor(*arguments, "--json")
    return done.returncode, {each["name"]: each for each in json.loads(done.stdout)["findings"]}


def configure(tmp_path, **more):
    config = tmp_path / "kino.yaml"
    config.write_text(json.dumps({
        "data_dir": str(tmp_path / "data"), "listen": {"address": "127.0.0.1:0"}, "metrics": {"address": "127.0.0.1:0"},
        "workers": [{"device": "cpu"}], "models": [{"name": "demo", "folder": str(SOURCE / "models/demo")}], **more}))
    return config


def test_without_a_configuration_the_machine_is_looked_at():
    code, found = findings()
    assert code == 0 and {"driver", "machine", "open files"} <= set(found)


def test_a_node_that_is_well_has_no_failure(tmp_path):
    (tmp_path / "data").mkdir(mode=0o700)
    code, found = findings("--config", configure(tmp_path))
    assert code == 0, found
    assert found["model demo"]["found"].startswith("ltx") and found["fsync"]["found"].endswith(" ms")
    assert "failure" not in {each["status"] for each in found.values()}
    assert list((tmp_path / "data").iterdir()) == []  # the trial leaves nothing behind


def test_each_failure_of_a_real_node_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        broken = tmp_path / "model"
        broken.mkdir()
        config = configure(
            tmp_path, metrics={"address": "127.0.0.1:%d" % taken.getsockname()[1]}, models=[{"name": "broken", "folder": str(broken)}],
            workers=[{"device": "cuda:0"}], limits={"min_free_disk": "999TiB"},
            listen={"address": "127.0.0.1:0", "tls": {"certificate": str(tmp_path / "no.crt"), "key": str(tmp_path / "no.key")}})
        code, found = findings("--config", config)
        assert code == 1
        failed = {name for name, each in found.items() if each["status"] == "failure"}
        assert {"metrics.address", "model broken", "disk", "certificate"} <= failed
        assert all(found[name]["advice"] for name in failed)
        text = doctor("--config", config)
        assert text.returncode == 1 and "failure  model broken" in text.stdout and "do: " in text.stdout


def test_a_configuration_that_is_wrong_is_a_failure_and_the_machine_is_told_all_the_same(tmp_path):
    config = tmp_path / "kino.yaml"
    config.write_text("listn: {}\n")
    code, found = findings("--config", config)
    assert code == 1 and "listn" in found["configuration"]["found"] and "machine" in found
    assert doctor("--confg", config).returncode == 2
