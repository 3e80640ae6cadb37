"""deploy/kubernetes: what kubectl makes of it, what the API's schema says of that, and what neither looks at."""

import copy
import os
import pathlib
import re
import sys

import pytest
import yaml

from deployed import DEPLOY, SOURCE, run
from docker_test import check_config

TOOLS = pathlib.Path(sys.executable).parent
FOLDER = DEPLOY / "kubernetes"
KINDS = {"Namespace", "ConfigMap", "Service", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy"}


def rendered(overlay):
    done = run(TOOLS / "kubectl", "kustomize", FOLDER / "overlays" / overlay)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


OVERLAYS = {overlay: rendered(overlay) for overlay in ("cpu", "gpu")}


def faults(objects, tmp_path):
    """All that is wrong with rendered objects."""
    path = tmp_path / "objects.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    done = run(TOOLS / "kubernetes-validate", "--strict", "-k", "1.34", path)
    found = [line for line in (done.stdout + done.stderr).splitlines() if "passed for resource" not in line]
    return found + [f"unknown kind {one['kind']}" for one in objects if one["kind"] not in KINDS] + disagreements(objects)


def disagreements(objects):
    """What the schema lets pass: names and labels that lead nowhere, and what a Pod of Kino's has to be."""
    by_kind = {}
    for one in objects:
        by_kind.setdefault(one["kind"], []).append(one)
    stateful_set, = by_kind["StatefulSet"]
    pod = stateful_set["spec"]["template"]
    container, = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    found = []

    def expect(holds, what):
        if not holds:
            found.append(what)

    selectors = {"StatefulSet": stateful_set["spec"]["selector"]["matchLabels"]}
    selectors |= {f"Service {one['metadata']['name']}": one["spec"]["selector"] for one in by_kind["Service"]}
    selectors["PodDisruptionBudget"] = by_kind["PodDisruptionBudget"][0]["spec"]["selector"]["matchLabels"]
    selectors["NetworkPolicy"] = by_kind["NetworkPolicy"][0]["spec"]["podSelector"].get("matchLabels", {})
    for name, selector in selectors.items():
        expect(selector and selector.items() <= labels.items(), f"{name} does not select the Pod")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for service in by_kind["Service"]:
        for port in service["spec"]["ports"]:
            expect(ports.get(port["targetPort"]) == port["port"], f"Service port {port} leads nowhere")
    for rule in by_kind["NetworkPolicy"][0]["spec"]["ingress"]:
        expect(all(port["port"] in ports for port in rule["ports"]), "the NetworkPolicy names no port of the Pod's")
    expect(stateful_set["spec"]["serviceName"] in {one["metadata"]["name"] for one in by_kind["Service"]
                                                   if one["spec"].get("clusterIP") == "None"}, "no headless Service")
    expect(stateful_set["spec"]["updateStrategy"]["type"] in ("RollingUpdate", "OnDelete"), "an unknown strategy")
    expect(stateful_set["spec"]["replicas"] == 1, "a job belongs to one kinod")
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in stateful_set["spec"]["volumeClaimTemplates"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    expect(set(mounts) == volumes, f"volumes {volumes}, mounted {set(mounts)}")
    config_maps = {one["metadata"]["name"]: one["data"] for one in by_kind["ConfigMap"]}
    named = {volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume}
    expect(named == set(config_maps), f"ConfigMap {named}")
    config = yaml.safe_load(next(iter(config_maps.values()))["kino.yaml"])
    expect(mounts.get("data") == config["data_dir"], "the data are not on the volume")
    for mount, path in (("tls", config["listen"]["tls"]["key"]), ("auth", config["auth"]["tokens_file"]), ("models", config["include"][0])):
        expect(mounts.get(mount) == os.path.dirname(path), f"{path} is not mounted")
    for name, address in (("grpc", config["listen"]["address"]), ("metrics", config["metrics"]["address"])):
        expect(address.endswith(f":{ports.get(name)}"), f"{name} is not where it listens")
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    expect(pod["spec"]["terminationGracePeriodSeconds"] >= pause + int(config["supervisor"]["stop_deadline"].rstrip("s")) + 5,
           "it is killed while jobs are given back")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        expect(container[probe]["exec"]["command"] == ["kino", "health"], f"{probe} asks nobody")
    # The restricted Pod security standard, which the namespace enforces.
    secure, own = pod["spec"]["securityContext"], container["securityContext"]
    expect(secure["runAsNonRoot"] and secure["runAsUser"] == 65532 and secure["seccompProfile"]["type"] == "RuntimeDefault", "Pod security")
    expect(own == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, "container security")
    expect(not any("hostPath" in volume for volume in pod["spec"]["volumes"]), "a folder of the node's")
    expect(pod["spec"]["automountServiceAccountToken"] is False, "a token of the cluster's")
    expect("memory" in container["resources"]["limits"] and "cpu" in container["resources"]["requests"], "no limits")
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_overlay_has_no_fault(overlay, tmp_path):
    assert faults(OVERLAYS[overlay], tmp_path) == []
    assert {one["kind"] for one in OVERLAYS[overlay]} == KINDS
    assert {one["metadata"].get("namespace", "kino") for one in OVERLAYS[overlay]} == {"kino"}


def test_the_gpu_overlay_asks_for_a_gpu_and_the_other_does_not():
    def limits(overlay):
        return next(one for one in OVERLAYS[overlay] if one["kind"] == "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]

    assert limits("gpu")["nvidia.com/gpu"] == 1 and "nvidia.com/gpu" not in limits("cpu")


def of(kind, change):
    """A fault in the object of that kind."""
    return lambda objects: change(next(one for one in objects if one["kind"] == kind))


def in_pod(change):
    return of("StatefulSet", lambda one: change(one["spec"]["template"]["spec"]))


def in_container(change):
    return in_pod(lambda pod: change(pod["containers"][0]))


FAULTS = {
    "unknown field": in_container(lambda c: c.update(livenesProbe={})),
    "wrong type": of("StatefulSet", lambda one: one["spec"].update(replicas="one")),
    "unknown kind": lambda objects: objects.append({"apiVersion": "apps/v1", "kind": "StatefullSet", "metadata": {"name": "x"}}),
    "wrong apiVersion": of("PodDisruptionBudget", lambda one: one.update(apiVersion="policy/v1beta9")),
    "selector": of("Service", lambda one: one["spec"]["selector"].update({"app.kubernetes.io/name": "kina"})),
    "port name": of("Service", lambda one: one["spec"]["ports"][0].update(targetPort="gprc")),
    "policy's port": of("NetworkPolicy", lambda one: one["spec"]["ingress"][0]["ports"][0].update(port="http")),
    "strategy": of("StatefulSet", lambda one: one["spec"]["updateStrategy"].update(type="Recreat")),
    "service name": of("StatefulSet", lambda one: one["spec"].update(serviceName="kino")),
    "missing volume": in_pod(lambda pod: pod["volumes"].pop()),
    "another mount": in_container(lambda c: c["volumeMounts"][0].update(mountPath="/data")),
    "another ConfigMap": in_pod(lambda pod: pod["volumes"][0]["configMap"].update(name="kinos")),
    "short grace": in_pod(lambda pod: pod.update(terminationGracePeriodSeconds=60)),
    "root": in_pod(lambda pod: pod["securityContext"].update(runAsUser=0)),
    "capabilities": in_container(lambda c: c["securityContext"].update(capabilities={"add": ["SYS_ADMIN"]})),
    "folder of the node": in_pod(lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    "probe": in_container(lambda c: c["readinessProbe"].update(exec={"command": ["true"]})),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault, tmp_path):
    objects = copy.deepcopy(OVERLAYS["gpu"])
    FAULTS[fault](objects)
    assert faults(objects, tmp_path) != []


def test_the_configuration_is_one_that_kinod_takes(tmp_path):
    done = check_config((FOLDER / "base" / "kino.yaml").read_text(), tmp_path)
    assert done.returncode == 0, done.stderr


def test_yamllint_finds_nothing_and_would_find_a_key_that_comes_twice(tmp_path):
    rules = "{extends: default, rules: {line-length: disable, document-start: disable, braces: disable, brackets: disable, " \
            "comments: disable, comments-indentation: disable, indentation: {indent-sequences: whatever}}}"
    done = run(TOOLS / "yamllint", "-s", "-d", rules, FOLDER, SOURCE / "compose.yaml", SOURCE / "docker/kino.yaml")
    assert done.returncode == 0, done.stdout
    (tmp_path / "twice.yaml").write_text("kind: Service\nkind: Service\n")
    assert run(TOOLS / "yamllint", "-s", "-d", rules, tmp_path / "twice.yaml").returncode != 0


def test_what_has_to_be_there_before_is_told():
    text = (FOLDER / "base" / "kustomization.yaml").read_text()
    stateful_set = next(one for one in OVERLAYS["cpu"] if one["kind"] == "StatefulSet")
    for volume in stateful_set["spec"]["template"]["spec"]["volumes"]:
        name = volume.get("secret", {}).get("secretName") or volume.get("persistentVolumeClaim", {}).get("claimName")
        assert name is None or re.search(rf"\b{name}\b", text), f"{name} is not told of"
