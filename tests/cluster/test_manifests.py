"""The files in studies/cluster are what `ray up` and KubeRay take, as far as that can be told without a cluster."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.commands import ROOT, check_ours, check_ray

FOLDER = ROOT / "studies" / "cluster"
AWS: dict[str, Any] = yaml.safe_load((FOLDER / "aws.yaml").read_text(encoding="utf-8"))
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text(encoding="utf-8")))
CLAIM, CLUSTER, JOB = MANIFESTS
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
IMAGE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")

OPEN: Any = ...
"""Any value, whatever is in it."""

CONTAINER = {
    "name": str,
    "image": str,
    "env": [{"name": str, "value": str, "valueFrom": {"secretKeyRef": {"name": str, "key": str}}}],
    "ports": [{"name": str, "containerPort": int}],
    "resources": {"requests": OPEN, "limits": OPEN},
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}
POD = {
    "spec": {
        "securityContext": {"fsGroup": int},
        "containers": [CONTAINER],
        "volumes": [
            {
                "name": str,
                "persistentVolumeClaim": {"claimName": str},
                "secret": {"secretName": str, "items": [{"key": str, "path": str}]},
            }
        ],
    }
}
METADATA = {"name": str, "labels": OPEN}
FIELDS: dict[str, dict[str, Any]] = {  # what ray.io/v1 (KubeRay 1.5.1 to 1.7.0) and Kubernetes call the fields we use
    "PersistentVolumeClaim": {
        "accessModes": [str],
        "storageClassName": str,
        "resources": {"requests": OPEN},
    },
    "RayCluster": {
        "rayVersion": str,
        "authOptions": {"mode": str},
        "enableInTreeAutoscaling": bool,
        "headGroupSpec": {"rayStartParams": OPEN, "template": POD},
        "workerGroupSpecs": [
            {
                "groupName": str,
                "replicas": int,
                "minReplicas": int,
                "maxReplicas": int,
                "rayStartParams": OPEN,
                "template": POD,
            }
        ],
    },
    "RayJob": {"clusterSelector": OPEN, "entrypoint": str, "submitterConfig": {"backoffLimit": int}},
}


def strangers(value: Any, known: Any, path: str = "") -> Iterator[str]:
    """Fields that are not known, and values of another type."""
    if known is OPEN:
        return
    if isinstance(known, dict):
        for key, inner in value.items():
            yield from strangers(inner, known[key], f"{path}.{key}") if key in known else [f"{path}.{key}"]
    elif isinstance(known, list):
        for number, inner in enumerate(value):
            yield from strangers(inner, known[0], f"{path}[{number}]")
    elif type(value) is not known:
        yield f"{path} = {value!r}"


def pods() -> list[dict[str, Any]]:
    groups = [CLUSTER["spec"]["headGroupSpec"], *CLUSTER["spec"]["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def secrets_in(value: Any) -> list[str]:
    text = yaml.safe_dump(value)
    return re.findall(r"\w+://[^\s:/]+:[^@\s]+@", text) + re.findall(r"(?i)\bpassword=\S+", text)


# ---- ray up -----------------------------------------------------------------------------------------------


def test_ray_up_takes_it() -> None:
    config = prepare_config(AWS)
    validate_config(config)
    assert config["available_node_types"]["worker"]["max_workers"] == config["max_workers"] == 8


def test_ray_up_would_refuse_a_key_that_is_none() -> None:
    with pytest.raises(Exception, match="max_wokrers"):
        validate_config(prepare_config({**AWS, "max_wokrers": 3}))


def test_no_trials_run_on_the_head_node() -> None:
    assert AWS["available_node_types"][AWS["head_node_type"]]["resources"] == {"CPU": 0}
    assert CLUSTER["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_understands_how_it_is_started(key: str) -> None:
    stop, start = (line.replace("$RAY_HEAD_IP", "10.0.0.1") for line in AWS[key])
    words = shlex.split(start)
    check_ray(shlex.split(stop)[1:])
    parameters = check_ray(words[words.index("ray") + 1 :])
    assert parameters["head"] == key.startswith("head")


def test_every_node_has_the_token_and_asks_for_it() -> None:
    assert "--env RAY_AUTH_MODE=token" in AWS["docker"]["run_options"]
    assert AWS["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token"}


def test_only_the_head_node_knows_the_store() -> None:
    assert "RANK_SEARCH_STORE=" in AWS["head_start_ray_commands"][-1]
    assert "RANK_SEARCH_STORE" not in str([AWS["worker_start_ray_commands"], AWS["setup_commands"], AWS["docker"]])
    head, *workers = ({each["name"] for each in pod["containers"][0].get("env", [])} for pod in pods())
    assert "RANK_SEARCH_STORE" in head
    assert not any("RANK_SEARCH_STORE" in names for names in workers)


@pytest.mark.parametrize("manifest", [AWS, *MANIFESTS])
def test_no_secret_is_written_into_a_manifest(manifest: Mapping[str, Any]) -> None:
    assert not secrets_in(manifest)


# ---- KubeRay ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manifest", MANIFESTS, ids=[each["kind"] for each in MANIFESTS])
def test_every_field_is_one_that_kubernetes_knows(manifest: Mapping[str, Any]) -> None:
    kind = manifest["kind"]
    assert manifest["apiVersion"] == ("ray.io/v1" if kind.startswith("Ray") else "v1")
    known = {"apiVersion": str, "kind": str, "metadata": METADATA, "spec": FIELDS[kind]}
    assert list(strangers(manifest, known)) == []
    assert list(strangers({**manifest, "sepc": {}}, known)) == [".sepc"]


@pytest.mark.parametrize("name", [each["metadata"]["name"] for each in MANIFESTS])
def test_names_are_labels_of_dns(name: str) -> None:
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", name)  # KubeRay: a job's name has at most 47 characters


def test_the_job_goes_to_the_cluster() -> None:
    assert JOB["spec"]["clusterSelector"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    assert "backoffLimit" not in JOB["spec"]  # KubeRay refuses it together with a cluster that is there


def test_the_job_runs_a_verb_of_ours_on_ray() -> None:
    words = shlex.split(JOB["spec"]["entrypoint"])
    parameters = check_ours(words[1:])
    assert words[:2] == ["rank-search", "run"]
    assert (str(parameters["on"]), parameters["address"]) == ("ray", "auto")
    assert not set("&|;<>$`\"'") & set(JOB["spec"]["entrypoint"])  # it passes through two shells


def test_the_study_and_the_files_are_on_a_volume_that_all_pods_have() -> None:
    study = shlex.split(JOB["spec"]["entrypoint"])[2]
    for pod in pods():
        (volume,) = (each for each in pod["volumes"] if "persistentVolumeClaim" in each)
        mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
        assert volume["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
        assert study.startswith(mounts[volume["name"]] + "/")
        assert set(mounts) == {each["name"] for each in pod["volumes"]}
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_store_comes_from_a_secret_that_is_described() -> None:
    (head, *_) = pods()
    (store,) = (each for each in head["containers"][0]["env"] if each["name"] == "RANK_SEARCH_STORE")
    reference = store["valueFrom"]["secretKeyRef"]
    text = (FOLDER / "kuberay.yaml").read_text(encoding="utf-8")
    assert f"create secret generic {reference['name']}" in text
    assert f"--from-literal={reference['key']}=" in text
    (secret,) = (each["secret"] for each in head["volumes"] if "secret" in each)
    assert secret["secretName"] == reference["name"]
    assert f"--from-file={secret['items'][0]['key']}" in text


def test_containers_ask_for_what_they_may_take() -> None:
    for pod in pods():
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert set(container["resources"]["limits"]) >= {"cpu", "memory"}


# ---- versions ---------------------------------------------------------------------------------------------


def test_one_version_of_ray_everywhere() -> None:
    (ours,) = re.findall(r'"(ray\[default,tune\][^"]+)"', PYPROJECT)
    version = CLUSTER["spec"]["rayVersion"]
    assert Requirement(ours).specifier.contains(version)
    pinned = re.findall(r"ray\[default,tune\]==([\d.]+)", str(AWS["setup_commands"]) + IMAGE)
    images = re.findall(r"rayproject/ray:([\d.]+)-py311", AWS["docker"]["image"] + IMAGE)
    assert {*pinned, *images} == {version}
    assert len(pinned) == len(images) == 2


def test_one_image_and_extras_that_there_are() -> None:
    assert len({pod["containers"][0]["image"] for pod in pods()}) == 1
    found = re.findall(r"'\.\[([\w,]+)\]'", str(AWS["setup_commands"]).replace("\\", "") + IMAGE)
    assert len(found) == 2
    for extras in found:
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", PYPROJECT, flags=re.MULTILINE)
