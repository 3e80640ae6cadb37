"""docker/ and compose.yaml: what linters and kinod say of them, and whether they agree with each other and with deploy/."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from deployed import SOURCE, run

BIN = pathlib.Path(os.environ["KINO_BIN_DIR"])
DOCKERFILE = (SOURCE / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((SOURCE / "compose.yaml").read_text())
CONFIG = (SOURCE / "docker" / "kino.yaml").read_text()


def lint(text, tmp_path):
    """What hadolint finds in a Dockerfile; empty: nothing."""
    path = tmp_path / "Dockerfile"
    path.write_text(text)
    return run(pathlib.Path(sys.executable).parent / "hadolint", path).stdout


def test_hadolint_finds_nothing(tmp_path):
    assert lint(DOCKERFILE, tmp_path) == ""


@pytest.mark.parametrize("old, new", [
    ("FROM debian:12-slim", "FROM debian"), ("WORKDIR /src", "WORKDIR src"), ("&& rm -rf /var/lib/apt/lists/*", ""),
    ('CMD ["--config"', "CMD [--config"), ("COPY docker/kino.yaml", "COPYS docker/kino.yaml"),
])
def test_a_planted_fault_is_caught(tmp_path, old, new):
    assert old in DOCKERFILE and lint(DOCKERFILE.replace(old, new), tmp_path) != ""


def facts(text):
    """What a container of the image is, by its last stage."""
    last = text[text.rindex("\nFROM "):]
    return {"numeric user": re.search(r"^USER \d+:\d+$", last, re.M) is not None,
            "no compiler": "build-essential" not in last and "scripts/setup" not in last,
            "one volume": re.findall(r"^VOLUME (.*)$", last, re.M) == ["/var/lib/kino"],
            "asks for its health": 'CMD ["kino", "health"]' in last,
            "drains on stop": "STOPSIGNAL SIGTERM" in last and 'ENTRYPOINT ["kinod"]' in last,
            "owns its folder": "-o 65532 -g 65532 -m 0700 /var/lib/kino" in last and "USER 65532:65532" in last}


def test_the_image_is_as_clusters_want_it():
    assert all(facts(DOCKERFILE).values()), facts(DOCKERFILE)


@pytest.mark.parametrize("old, new", [("USER 65532:65532", "USER kino"), ("VOLUME /var/lib/kino", "VOLUME /data"),
                                      ('CMD ["kino", "health"]', 'CMD ["true"]'), ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL")])
def test_an_image_that_is_not_is_seen(old, new):
    assert old in DOCKERFILE and not all(facts(DOCKERFILE.replace(old, new)).values())


def test_what_the_dockerfile_copies_is_there():
    sources = [source for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for source in line.split()[:-1]]
    assert sources and all((SOURCE / source).exists() for source in sources)
    assert os.access(SOURCE / "docker" / "collect_runtime", os.X_OK)


def check_config(text, tmp_path):
    """kinod's word on the image's configuration, its paths below a folder of the test's."""
    for name in ("tls", "auth", "models"):
        (tmp_path / name).mkdir(exist_ok=True)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                    "-subj", "/CN=localhost", "-keyout", "tls.key", "-out", "tls.crt"], cwd=tmp_path / "tls", check=True, capture_output=True)
    (tmp_path / "auth" / "tokens.yaml").write_text(f"tokens: [{{tenant: a, sha256: {'0' * 64}}}]\n")
    text = text.replace("/etc/kino/", f"{tmp_path}/").replace("/usr/local/share/kino", str(SOURCE)).replace("/var/lib/kino", f"{tmp_path}/data")
    (tmp_path / "kino.yaml").write_text(text.replace("/models/*", f"{tmp_path}/models/*"))
    return run(BIN / "kinod", "--check-config", tmp_path / "kino.yaml")


def test_the_images_configuration_is_one_that_kinod_takes(tmp_path):
    done = check_config(CONFIG, tmp_path)
    assert done.returncode == 0, done.stderr
    for old, new in (("key: /etc", "keys: /etc"), ("allow_plaintext: true", "allow_plaintext: false")):
        assert check_config(CONFIG.replace(old, new), tmp_path).returncode != 0, new


def compose_faults(compose):
    faults = []
    kino, config = compose["services"]["kino"], yaml.safe_load(CONFIG)
    mounted = {}
    for service in compose["services"].values():
        for mount in service["volumes"]:
            source, target = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", mount).split(":")[:2]
            if service is kino:
                mounted[target] = source
            if source.startswith("./") and not source.startswith("./secrets") and not (SOURCE / source).exists():
                faults.append(f"{source} is not there")
            if not source.startswith("./") and source not in compose["volumes"]:
                faults.append(f"no volume {source}")
    wanted = [config["data_dir"], *(os.path.dirname(path) for path in
                                    (config["listen"]["tls"]["key"], config["auth"]["tokens_file"], config["include"][-1]))]
    faults += [f"{path} is not mounted" for path in wanted if path not in mounted]
    port = config["listen"]["address"].rsplit(":")[-1]
    faults += [] if kino["ports"] == [f"{port}:{port}"] else ["another port is published than is listened on"]
    if not (kino["read_only"] and kino["cap_drop"] == ["ALL"] and "no-new-privileges:true" in kino["security_opt"]):
        faults.append("it may do more than it needs")
    if int(kino["stop_grace_period"].rstrip("s")) <= 30:
        faults.append("it is killed while jobs are given back")
    return faults


def test_compose_agrees_with_the_image_and_with_what_it_mounts():
    assert compose_faults(COMPOSE) == []
    prometheus = yaml.safe_load((SOURCE / "deploy/prometheus/prometheus.yml").read_text())
    named = [target for group in (prometheus["scrape_configs"][0], prometheus["alerting"]["alertmanagers"][0])
             for static in group["static_configs"] for target in static["targets"]]
    ports = {"kino": yaml.safe_load(CONFIG)["metrics"]["address"].rsplit(":")[-1], "alertmanager": "9093"}
    assert {host: port for host, port in (target.split(":") for target in named)} == ports
    assert set(ports) <= set(COMPOSE["services"])


@pytest.mark.parametrize("fault", [
    lambda kino: kino["volumes"].__setitem__(0, "data:/var/lib/kino"), lambda kino: kino["volumes"].pop(2),
    lambda kino: kino.update(ports=["50051:9464"]), lambda kino: kino.update(read_only=False),
    lambda kino: kino.update(stop_grace_period="10s"),
])
def test_a_fault_in_compose_is_seen(fault):
    compose = yaml.safe_load((SOURCE / "compose.yaml").read_text())
    fault(compose["services"]["kino"])
    assert compose_faults(compose) != []


def test_grafana_finds_its_source_and_its_board():
    provisioning = SOURCE / "deploy/grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"][0]
    assert source["type"] == "prometheus" and source["url"] == "http://prometheus:9090" and "prometheus" in COMPOSE["services"]
    boards = yaml.safe_load((provisioning / "dashboards/kino.yaml").read_text())["providers"][0]["options"]["path"]
    assert any(mount.split(":")[1].startswith(boards) for mount in COMPOSE["services"]["grafana"]["volumes"])
