"""What `cmake --install` installs, and deploy/systemd as systemd's own tools read it."""

import os
import pathlib
import re
import subprocess

import pytest

BIN = pathlib.Path(os.environ["KINO_BIN_DIR"])
SOURCE = pathlib.Path(os.environ["KINO_SOURCE_DIR"])
UNIT = (SOURCE / "deploy/systemd/kino.service").read_text()
PROGRAMS = {"kino", "kinod", "kino-frontend", "kino-worker", "kino-media", "kino-render"}


def install(root, prefix):
    subprocess.run(["cmake", "--install", BIN.parent, "--prefix", prefix], check=True, capture_output=True,
                   env={**os.environ, "DESTDIR": str(root)})
    return root / prefix.lstrip("/")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    (folder / "etc/kino").mkdir(parents=True)
    (folder / "etc/kino/kino.yaml").write_text("models: []\n")
    install(folder, "/usr/local")
    return folder


def test_every_program_is_installed_and_finds_its_libraries(root):
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    built = {name for name in PROGRAMS if (BIN / name).exists()}
    assert {path.name for path in (root / "usr/local/bin").iterdir()} == built >= {"kino", "kinod", "kino-frontend"}
    for name in built:
        result = subprocess.run([root / "usr/local/bin" / name, "--version"], capture_output=True, text=True,
                                env=environment)
        assert result.returncode == 0 and name in result.stdout, result


def test_installed_protos_find_each_other(root):
    folder = root / "usr/local/share/kino/proto"
    texts = [path.read_text() for path in folder.rglob("*.proto")]
    imports = {name for text in texts for name in re.findall(r'^import "(kino/.*)";', text, re.M)}
    assert imports and (folder / "kino/v1/video.proto").exists()
    assert not [name for name in imports if not (folder / name).exists()]


def test_installed_configuration_passes_kinods_check(root):
    config = root / "usr/local/share/doc/kino/kino.yaml"
    result = subprocess.run([root / "usr/local/bin/kinod", "--check-config", config], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_an_administrators_files_are_left_alone(root):
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_relative_to(root / "usr/local")]
    assert files == [root / "etc/kino/kino.yaml"] and files[0].read_text() == "models: []\n"


def test_another_prefix_is_the_units_too(tmp_path):
    unit = (install(tmp_path, "/opt/kino") / "lib/systemd/system/kino.service").read_text()
    assert unit == UNIT.replace("/usr/local/", "/opt/kino/") != UNIT
    assert (tmp_path / "opt/kino/bin/kinod").exists()


def test_user_of_the_unit_is_made_by_sysusers(root):
    done = subprocess.run(["systemd-sysusers", f"--root={root}", root / "usr/local/lib/sysusers.d/kino.conf"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for file, key in (("passwd", "User"), ("group", "Group")):
        made = (root / "etc" / file).read_text()
        (root / "etc" / file).unlink()
        assert f"{value(UNIT, key)}:" in made
    for path in (root / "etc").glob("*shadow*"):
        path.unlink()
    (root / "etc/.pwd.lock").unlink(missing_ok=True)


def value(unit, key):
    found = re.findall(rf"^{key}=(.*)$", unit, re.M)
    assert len(found) == 1, (key, found)
    return found[0]


def analyze(folder, unit, *arguments):
    path = folder / "kino.service"
    path.write_text(unit)
    return subprocess.run(["systemd-analyze", *arguments, path], capture_output=True, text=True)


def verify(folder, root, unit):
    """systemd-analyze's word on this unit alone: the machine's other units are not ours. `root` has what it starts."""
    return analyze(folder, unit.replace("ExecStart=/", f"ExecStart={root}/"), "verify", "--man=no",
                   "--recursive-errors=no")


def exposure(folder, unit):
    return analyze(folder, unit, "security", "--offline=true", "--threshold=20", "--no-pager")


def changed(old, new):
    assert UNIT.count(old) == 1, old
    return UNIT.replace(old, new)


def test_systemd_verifies_the_installed_unit(root, tmp_path):
    unit = (root / "usr/local/lib/systemd/system/kino.service").read_text()
    result = verify(tmp_path, root, unit)
    assert result.returncode == 0 and not result.stderr, result


@pytest.mark.parametrize("old, new, told", [
    ("WatchdogSec=", "WatchdogSecs=", "Unknown key"), ("[Service]", "[Servce]", "Unknown section"),
    ("ExecStart=", "#", "no ExecStart"), ("bin/kinod --config", "bin/kino-d --config", "not executable"),
    ("KillMode=mixed", "KillMode=mixd", "kill mode"), ("WatchdogSec=30s", "WatchdogSec=30q", "Failed to parse"),
    ("@system-service", "@system-servce", "Unknown system call group")])
def test_a_fault_in_the_unit_is_found(root, tmp_path, old, new, told):
    result = verify(tmp_path, root, changed(old, new))
    assert result.returncode != 0 and told in result.stderr, result


def test_exposure_is_at_most_two(tmp_path):
    result = exposure(tmp_path, UNIT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("old, new", [
    ("CapabilityBoundingSet=\n", ""), ("SystemCallFilter=@system-service\nSystemCallFilter=~@privileged\n", ""),
    ("ProtectSystem=strict\nProtectHome=yes\n", ""), ("User=kino\nGroup=kino\n", ""),
    ("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n", "")])
def test_a_unit_that_is_hardened_less_is_found(tmp_path, old, new):
    result = exposure(tmp_path, changed(old, new))
    assert result.returncode != 0 and "Overall exposure level" in result.stdout, result


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|min|m|h)", text).groups()
    return int(number) * {"s": 1, "min": 60, "m": 60, "h": 3600}[unit]


def stops_in_time(unit, config):
    """systemd's patience is longer than kinod's with its children, and the five seconds in which those it kills go."""
    return seconds(value(unit, "TimeoutStopSec")) >= seconds(re.search(r"^  stop_deadline: (\S+)", config, re.M)[1]) + 5


def test_systemd_waits_for_a_drain():
    config = (SOURCE / "config/kino.yaml").read_text()
    assert stops_in_time(UNIT, config)
    assert not stops_in_time(UNIT, config.replace("stop_deadline: 30s", "stop_deadline: 2m"))
    assert not stops_in_time(changed("TimeoutStopSec=45s", "TimeoutStopSec=30s"), config)
    # The drain is kinod's: SIGTERM to its children beside it would end them at once.
    assert value(UNIT, "KillMode") == "mixed"


def denied_namespaces(unit):
    """Of those that kino-media's sandbox asks for."""
    asked = set(re.findall(r"CLONE_NEW([A-Z]+)", (SOURCE / "server/media/sandbox.cc").read_text()))
    assert asked
    return {name.lower() for name in asked} - set(value(unit, "RestrictNamespaces").split())


def test_sandbox_of_kino_media_may_have_its_namespaces():
    assert not denied_namespaces(UNIT)
    assert denied_namespaces(changed("RestrictNamespaces=user net", "RestrictNamespaces=yes")) == {"user", "net"}


def test_generated_code_may_run():
    """oneDNN, FBGEMM and CUDA write code and execute it."""
    assert "MemoryDenyWriteExecute" not in UNIT
