"""The manifests of k8s/: their schemas, the operator's rules, our own, and that what they name exists."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from raynas import config
from raynas.errors import UserError
from tests.k8s_rules import Json, complaints, quantity, ray_pods

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "k8s").glob("*.yaml"))
SCHEMAS = ROOT.parent / "shared" / "k8s-crds"
WORKDIR = "/opt/raynas/"
DOCKERFILE = (ROOT / "k8s" / "Dockerfile").read_text()
README = (ROOT / "k8s" / "README.md").read_text()


def load(file: Path) -> list[Json]:
    # by way of JSON, so that no two parts of a document are one object, as YAML's anchors make them
    return [json.loads(json.dumps(document)) for document in yaml.safe_load_all(file.read_text())]


DOCUMENTS = {f"{file.stem}: {d['kind']} {d['metadata']['name']}": d for file in FILES for d in load(file)}


def document(file: str) -> Json:
    return load(ROOT / "k8s" / f"{file}.yaml")[0]


def clusters() -> dict[str, Json]:
    """The spec of every Ray cluster, whether of a RayCluster or of a RayJob."""
    ray = {name: d["spec"] for name, d in DOCUMENTS.items() if d["apiVersion"] == "ray.io/v1"}
    return {name: spec.get("rayClusterSpec", spec) for name, spec in ray.items()}


def images(value: Json) -> set[str]:
    """Every image that is named anywhere in a document."""
    if isinstance(value, dict):
        own = {value["image"]} if isinstance(value.get("image"), str) else set()
        return own.union(*map(images, value.values()))
    return set().union(*map(images, value)) if isinstance(value, list) else set()


# --- schemas ---


@pytest.fixture(scope="session")
def faults() -> Callable[[Json], list[str]]:
    """What the API server would say against an object, without an API server."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"the CRDs of KubeRay and Kueue are not in {SCHEMAS}")
    spec = importlib.util.spec_from_file_location("check_manifests", SCHEMAS / "check_manifests.py")
    assert spec is not None and spec.loader is not None
    checker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checker)
    logging.getLogger("celpy").setLevel(logging.ERROR)
    crds = checker.load(sorted(map(str, SCHEMAS.glob("*/*.yaml"))))

    def of(given: Json) -> list[str]:
        if (given["apiVersion"], given["kind"]) in crds:
            return list(checker.check(given, crds))
        try:
            kubernetes_validate.validate(given, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as fault:
            return [fault.message]
        return []

    return of


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_object_fits_its_schema(name: str, faults: Callable[[Json], list[str]]) -> None:
    assert faults(DOCUMENTS[name]) == []


def put(value: Json, path: str, new: Json) -> Json:
    """The object with another value at a dotted path; None takes the key away."""
    *parents, last = path.split(".")
    place = value
    for parent in parents:
        place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
    if new is None:
        del place[int(last) if isinstance(place, list) else last]
    else:
        place[int(last) if isinstance(place, list) else last] = new
    return value


@pytest.mark.parametrize(
    ("file", "path", "new"),
    [
        ("rayjob-digits", "spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("rayjob-digits", "spec.backofLimit", 3),
        ("rayjob-digits", "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.imagePullPolice", "Always"),
        ("rayjob-cifar10", "spec.rayClusterSpec.autoscalerOptions.version", "v3"),
        ("rayjob-cifar10", "spec.deletionStrategy.deletionRules.0.condition.jobDeploymentStatus", "Failed"),
        ("raycluster", "spec.authOptions.mode", "password"),
        ("kueue-queues", "spec.nodeLabels", "gpu"),
        ("namespace", "metadata.label", {}),
        ("storage", "spec.accessModes", "ReadWriteMany"),
        ("network-policy", "spec.policyType", ["Ingress"]),
        ("reader", "spec.containers.0.resources.limits", ["memory"]),
        ("service-account", "automountServiceAccountTokens", False),
    ],
)
def test_an_object_that_is_broken_does_not_fit_its_schema(
    file: str, path: str, new: Json, faults: Callable[[Json], list[str]]
) -> None:
    assert faults(put(document(file), path, new)) != []


# --- rules ---


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_object_obeys_the_rules(name: str) -> None:
    assert complaints(DOCUMENTS[name]) == []


CLUSTER = "spec.rayClusterSpec"
HEAD = f"{CLUSTER}.headGroupSpec"
HEAD_POD = f"{HEAD}.template.spec"
WORKERS = f"{CLUSTER}.workerGroupSpecs"
SUBMITTER = "spec.submitterPodTemplate.spec"
RULE = "spec.deletionStrategy.deletionRules"
BY_THE_CLUSTER = {"policy": "DeleteCluster", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 9}}


@pytest.mark.parametrize(
    ("file", "path", "new", "complaint"),
    [
        # names
        ("rayjob-digits", "metadata.name", "Digits", "DNS-1035"),
        ("rayjob-digits", "metadata.name", "d" * 48, "at most 47"),
        ("raycluster", "metadata.name", "r" * 54, "at most 53"),
        ("storage", "metadata.namespace", None, "not raynas"),
        # the operator's, of a cluster
        ("rayjob-digits", f"{HEAD_POD}.containers", [], "the head has no container"),
        ("rayjob-digits", f"{HEAD}.rayStartParams.labels", "a=b", "may not hold labels"),
        ("rayjob-digits", f"{HEAD}.resources", {"CPU": "1"}, "given twice"),
        ("rayjob-digits", f"{WORKERS}.0.maxReplicas", None, "needs minReplicas and maxReplicas"),
        ("rayjob-digits", f"{WORKERS}.0.minReplicas", -1, "negative replicas"),
        ("rayjob-digits", f"{WORKERS}.0.minReplicas", 2, "more minReplicas than maxReplicas"),
        ("rayjob-digits", f"{WORKERS}.0.replicas", 2, "outside minReplicas..maxReplicas"),
        ("rayjob-digits", f"{WORKERS}.0.idleTimeoutSeconds", 60, "needs autoscaler v2"),
        ("rayjob-cifar10", f"{WORKERS}.0.idleTimeoutSeconds", -1, "no negative value"),
        ("rayjob-cifar10", f"{CLUSTER}.autoscalerOptions.idleTimeoutSeconds", -1, "is negative"),
        ("rayjob-cifar10", f"{WORKERS}.1.suspend", True, "cannot be suspended"),
        ("rayjob-cifar10", f"{HEAD_POD}.restartPolicy", "Always", "of headGroupSpec must be Never"),
        ("rayjob-cifar10", f"{WORKERS}.1.template.spec.restartPolicy", "Always", "of gpu must be Never"),
        ("rayjob-digits", f"{HEAD_POD}.containers.0.env", [{"name": "RAY_enable_autoscaler_v2"}], "autoscalerOptions"),
        ("rayjob-digits", f"{HEAD_POD}.containers.0.env", [{"name": "RAY_REDIS_ADDRESS"}], "gcsFaultTolerance"),
        ("rayjob-digits", f"{HEAD}.rayStartParams.redis-password", "x", "gcsFaultTolerance"),
        ("rayjob-digits", f"{CLUSTER}.gcsFaultToleranceOptions", {"backend": "rocksdb"}, "rocksdb backend"),
        ("rayjob-digits", f"{CLUSTER}.networkPolicy", {"mode": "DenyAll"}, "feature gate"),
        ("rayjob-digits", f"{CLUSTER}.rayVersion", "2.51.1", "2.52 or newer"),
        ("rayjob-digits", f"{CLUSTER}.rayVersion", None, "2.52 or newer"),
        # the operator's, of a job
        ("rayjob-digits", "spec.submissionMode", "Foo", "unknown submissionMode"),
        ("rayjob-digits", CLUSTER, None, "neither rayClusterSpec nor clusterSelector"),
        ("rayjob-kueue", "spec.shutdownAfterJobFinishes", False, "suspend needs"),
        ("rayjob-digits", "spec.shutdownAfterJobFinishes", False, "lacks shutdownAfterJobFinishes"),
        ("rayjob-digits", "spec.ttlSecondsAfterFinished", -1, "is negative"),
        ("rayjob-digits", "spec.backoffLimit", -1, "backoffLimit is negative"),
        ("rayjob-digits", "spec.clusterSelector", {"ray.io/cluster": "raynas"}, "with clusterSelector"),
        ("rayjob-digits", "spec.submissionMode", "InteractiveMode", "or InteractiveMode"),
        ("rayjob-digits", "spec.submissionMode", "SidecarMode", "SidecarMode takes no"),
        ("rayjob-digits", "spec.activeDeadlineSeconds", 0, "must be positive"),
        ("rayjob-digits", "spec.preRunningDeadlineSeconds", 0, "must be positive"),
        ("rayjob-digits", f"{CLUSTER}.authOptions.enableK8sTokenAuth", True, "not supported for a RayJob"),
        ("rayjob-digits", "spec.runtimeEnvYAML", "- no mapping", "no YAML mapping"),
        ("rayjob-cifar10", "spec.shutdownAfterJobFinishes", True, "exclude shutdownAfterJobFinishes"),
        ("rayjob-cifar10", "spec.deletionStrategy.onSuccess", {"policy": "DeleteSelf"}, "no onSuccess"),
        ("rayjob-cifar10", f"{RULE}.0.policy", "DeleteWorkers", "does not go with an autoscaler"),
        ("rayjob-cifar10", "spec.clusterSelector", {"ray.io/cluster": "raynas"}, "DeleteCluster does not go"),
        ("rayjob-cifar10", f"{RULE}.2", BY_THE_CLUSTER, "two rules for DeleteCluster"),
        ("rayjob-cifar10", f"{RULE}.2.condition.ttlSeconds", 1, "the cluster before the job"),
        # Kueue's
        ("rayjob-kueue", "spec.suspend", False, "starts suspended"),
        ("rayjob-kueue", f"{CLUSTER}.enableInTreeAutoscaling", True, "cluster of one size"),
        (
            "rayjob-kueue",
            WORKERS,
            7 * document("rayjob-kueue")["spec"]["rayClusterSpec"]["workerGroupSpecs"],
            "at most 6",
        ),
        # ours, of a cluster and of a job
        ("raycluster", "spec.authOptions", None, "must be token"),
        ("rayjob-digits", f"{CLUSTER}.authOptions.mode", "disabled", "must be token"),
        ("rayjob-digits", f"{HEAD}.rayStartParams.num-cpus", "4", "only drivers run on it"),
        ("rayjob-cifar10", f"{CLUSTER}.autoscalerOptions.version", "v1", "must be v2"),
        ("rayjob-digits", "spec.backoffLimit", None, "needs backoffLimit"),
        ("rayjob-digits", "spec.activeDeadlineSeconds", None, "activeDeadlineSeconds"),
        ("rayjob-digits", "spec.submitterConfig.backoffLimit", 2, "5 attempts"),
        ("rayjob-cifar10", f"{RULE}.1.condition", {"jobStatus": "FAILED"}, "every kind of failure"),
        ("rayjob-digits", "spec.entrypoint", "python jobs/search.py --storage /runs --address auto", "needs --name"),
        ("rayjob-digits", "spec.submitterPodTemplate", None, "give a submitterPodTemplate"),
        ("rayjob-digits", "spec.submitterPodTemplate.metadata", None, "raynas/role"),
        ("rayjob-digits", f"{SUBMITTER}.restartPolicy", "Always", "Never or OnFailure"),
        # ours, of a pod
        ("rayjob-digits", f"{HEAD_POD}.securityContext.runAsNonRoot", None, "may run as root"),
        ("rayjob-digits", f"{SUBMITTER}.securityContext.runAsUser", 0, "may run as root"),
        ("reader", "spec.securityContext.seccompProfile", {"type": "Unconfined"}, "seccomp"),
        ("rayjob-digits", f"{WORKERS}.0.template.spec.hostNetwork", True, "with its node"),
        ("rayjob-digits", f"{WORKERS}.0.template.spec.serviceAccountName", "default", "account raynas"),
        ("rayjob-digits", f"{WORKERS}.0.template.spec.automountServiceAccountToken", None, "without its token"),
        ("rayjob-cifar10", f"{HEAD_POD}.serviceAccountName", "raynas", "leave the account out"),
        ("rayjob-digits", f"{HEAD_POD}.volumes.0", {"name": "tmp", "hostPath": {"path": "/tmp"}}, "outside of the pod"),
        ("rayjob-digits", f"{HEAD_POD}.volumes.0.emptyDir", {}, "no sizeLimit"),
        ("rayjob-digits", f"{HEAD_POD}.volumes.2", None, "no volume of it"),
        ("reader", "spec.containers.0.securityContext.allowPrivilegeEscalation", True, "may gain privileges"),
        ("reader", "spec.containers.0.securityContext.privileged", True, "may gain privileges"),
        ("reader", "spec.containers.0.securityContext.capabilities", None, "keeps capabilities"),
        ("reader", "spec.containers.0.securityContext.capabilities.add", ["SYS_ADMIN"], "keeps capabilities"),
        ("reader", "spec.containers.0.securityContext.readOnlyRootFilesystem", None, "root file system"),
        ("reader", "spec.containers.0.securityContext.runAsUser", 0, "runs as root"),
        ("rayjob-cifar10", f"{CLUSTER}.autoscalerOptions.securityContext", None, "the autoscaler may gain"),
        ("rayjob-digits", f"{SUBMITTER}.containers.0.securityContext", None, "may gain privileges"),
        ("rayjob-digits", f"{HEAD_POD}.containers.0.resources.requests.memory", "1Gi", "as much memory as"),
        ("rayjob-digits", f"{HEAD_POD}.containers.0.resources.limits", None, "as much cpu as"),
        ("rayjob-digits", f"{HEAD_POD}.volumes.0", {"name": "tmp", "secret": {}}, "emptyDir at /tmp"),
        ("rayjob-digits", f"{HEAD_POD}.volumes.1.emptyDir.medium", None, "in memory"),
        ("rayjob-digits", f"{HEAD_POD}.volumes.1.emptyDir.sizeLimit", "1Gi", "hold the object store"),
        ("rayjob-digits", f"{HEAD_POD}.volumes.1.emptyDir.sizeLimit", "4Gi", "smaller than the memory"),
        ("rayjob-cifar10", f"{WORKERS}.1.template.spec.tolerations", None, "taint of GPU nodes"),
        ("rayjob-cifar10", f"{WORKERS}.1.template.spec.containers.0.env", None, "see them all"),
    ],
)
def test_each_rule_bites(file: str, path: str, new: Json, complaint: str) -> None:
    found = complaints(put(document(file), path, new))
    assert any(complaint in line for line in found), found


# --- the files agree with each other ---


def test_one_image_and_one_ray_throughout() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert images(list(DOCUMENTS.values())) == {f"raynas:{version}"}
    ray = re.search(r"^ARG RAY_VERSION=(\S+)$", DOCKERFILE, re.M)
    assert ray is not None
    assert {spec["rayVersion"] for spec in clusters().values()} == {ray[1]}
    assert f"raynas:{version}" in README


def test_the_namespace_enforces_what_the_pods_obey() -> None:
    assert document("namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_accounts_and_volumes_that_pods_name_exist() -> None:
    known = {(d["kind"], d["metadata"]["name"]) for d in DOCUMENTS.values()}
    text = json.dumps(list(DOCUMENTS.values()))
    for kind, key in (("PersistentVolumeClaim", "claimName"), ("ServiceAccount", "serviceAccountName")):
        named = set(re.findall(rf'"{key}": "([^"]+)"', text))
        assert named and {(kind, name) for name in named} <= known
    secrets = set(re.findall(r'"secretRef": {"name": "([^"]+)"', text))
    assert secrets and all(f"create secret generic {name}" in README for name in secrets)


def test_everything_is_denied_but_what_ray_needs() -> None:
    policies = {d["metadata"]["name"]: d["spec"] for d in load(ROOT / "k8s" / "network-policy.yaml")}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    open_to_all = [
        name
        for name, spec in policies.items()
        if any("from" not in rule for rule in spec.get("ingress", []))
        or any("to" not in rule for rule in spec.get("egress", []))
    ]
    assert open_to_all == ["api-server"]  # whose address no manifest can know
    dashboard = policies["dashboard"]["ingress"]
    assert [port["port"] for rule in dashboard for port in rule["ports"]] == [8265]
    assert {"raynas/role": "submitter"} in [peer["podSelector"]["matchLabels"] for peer in dashboard[0]["from"]]
    operator = dashboard[0]["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert f"--namespace {operator} --create-namespace" in README
    for name, cluster in clusters().items():
        ports = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
        assert {"name": "dashboard", "containerPort": 8265} in ports, name


def test_the_quota_has_room_for_the_job_in_its_queue() -> None:
    queue = next(d for d in load(ROOT / "k8s" / "kueue-queues.yaml") if d["kind"] == "ClusterQueue")
    local = next(d for d in load(ROOT / "k8s" / "kueue-queues.yaml") if d["kind"] == "LocalQueue")
    job = document("rayjob-kueue")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]
    counts = [1, *(group["replicas"] for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]), 1]
    pods = [pod for _, pod in ray_pods(job["spec"]["rayClusterSpec"])] + [job["spec"]["submitterPodTemplate"]["spec"]]
    quotas = queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"]
    for quota in quotas:
        asked = sum(
            count * quantity(container["resources"]["requests"].get(quota["name"], 0))
            for count, pod in zip(counts, pods, strict=True)
            for container in pod["containers"]
        )
        assert 0 < asked <= quantity(quota["nominalQuota"])


def test_the_gpu_configuration_fits_the_largest_cluster_of_its_job() -> None:
    job = document("rayjob-cifar10")
    settings = config.load(str(ROOT / "jobs" / "configs" / "cifar10_nas_bench_201.toml"))
    gpu = next(g for g in job["spec"]["rayClusterSpec"]["workerGroupSpecs"] if g["groupName"] == "gpu")
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    pods, gpus, cpus = gpu["maxReplicas"], quantity(limits["nvidia.com/gpu"]), quantity(limits["cpu"])
    training, evaluation = settings.training, settings.evaluation
    assert training.replicas * training.gpus_per_replica <= pods * gpus
    assert training.cpus_per_replica <= cpus
    workers_of_a_pod = gpus // evaluation.gpus_per_worker
    assert evaluation.workers is not None and evaluation.workers <= pods * workers_of_a_pod
    assert workers_of_a_pod * evaluation.cpus_per_worker <= cpus


# --- what is named exists ---


def faults_of_command(words: list[str]) -> list[str]:
    """What is wrong with `python jobs/X.py ARGUMENTS`: its file, its flags, its configuration, its settings."""
    python, script, *arguments = words
    script = script.removeprefix(WORKDIR)
    if python != "python" or not (ROOT / script).is_file():
        return [f"no {script} to run with {python}"]
    import typer

    from raynas.cli import app

    command = typer.main.get_command(app).commands[Path(script).stem]  # type: ignore[attr-defined]
    try:
        command.make_context(command.name, list(arguments))
    except Exception as fault:  # the command line's own, whose type is typer's secret
        return [str(fault)]
    files = [word.removeprefix(WORKDIR) for word in arguments if word.endswith(".toml")]
    missing = [f"no {file}" for file in files if not (ROOT / file).is_file()]
    changes = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--set"]
    try:
        config.load(str(ROOT / files[0]) if files and not missing else None, changes)
    except UserError as fault:
        return [*missing, str(fault)]
    return missing


ENTRYPOINTS = {name: d["spec"]["entrypoint"] for name, d in DOCUMENTS.items() if d["kind"] == "RayJob"}
COMMANDS = re.findall(r"^ +(?:\S+=\S+ )*ray job submit .*?-- (python jobs/.*)$", README, re.M)


@pytest.mark.parametrize("command", [*ENTRYPOINTS.values(), *COMMANDS])
def test_commands_name_files_flags_and_settings_that_exist(command: str) -> None:
    assert faults_of_command(shlex.split(command)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("jobs/search.py", "jobs/serach.py", "no jobs/serach.py"),
        ("digits.toml", "digit.toml", "no jobs/configs/digit.toml"),
        ("--storage", "--store", "--store"),
        ("--set cluster.wait_s=600", "--set cluster.wait=600", "did you mean 'wait_s'?"),
        ("--set cluster.wait_s=600", "--set", "requires an argument"),
    ],
)
def test_a_command_that_is_misspelt_is_noticed(old: str, new: str, fault: str) -> None:
    command = ENTRYPOINTS["rayjob-digits: RayJob digits"]
    assert old in command
    assert fault in " ".join(faults_of_command(shlex.split(command.replace(old, new))))


def test_a_run_has_the_same_name_only_in_one_manifest() -> None:
    runs = [re.search(r"--storage (\S+) --name (\S+)", text) for text in ENTRYPOINTS.values()]
    names = [match.groups() for match in runs if match is not None]
    assert len(set(names)) == len(names) == len(ENTRYPOINTS)


def test_the_readme_names_every_file_and_no_other() -> None:
    named = set(re.findall(r"[\w-]+\.yaml", README))
    assert named == {file.name for file in FILES}
    for fetched in re.findall(r"k8s/([\w.-]+)", README):
        assert fetched in {path.name for path in (ROOT / "k8s").iterdir()} or "*" in fetched, fetched


# --- the image and the upload ---


def test_the_image_gets_what_it_copies() -> None:
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.M) for word in line.split()}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied - {"README.md"})
    assert f"WORKDIR {WORKDIR.rstrip('/')}\n" in DOCKERFILE


def test_the_image_runs_as_the_user_of_the_manifests() -> None:
    users = {context["runAsUser"] for context in _contexts(list(DOCUMENTS.values()))}
    assert users == {1000}
    assert DOCKERFILE.rstrip().endswith("USER 1000:1000")


def _contexts(value: Json) -> list[Json]:
    if isinstance(value, dict):
        own = [value] if "runAsUser" in value else []
        return own + [found for part in value.values() for found in _contexts(part)]
    return [found for part in value for found in _contexts(part)] if isinstance(value, list) else []


def test_the_image_installs_the_dependencies_of_the_project() -> None:
    script = re.search(r'RUN python -c "(.*?)" > /tmp/requirements.txt', DOCKERFILE)
    assert script is not None
    printed = subprocess.run(
        [sys.executable, "-c", script[1]], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert printed == project["dependencies"] + project["optional-dependencies"]["report"]


def test_what_a_job_uploads_is_small_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in (".rayignore", ".gitignore", "pyproject.toml", "raynas", "search_spaces", "jobs", "tests", "k8s"):
        (checkout / name).symlink_to(ROOT / name)
    for name in (".git", ".venv", "runs", ".mypy_cache"):
        (checkout / name).mkdir()
        (checkout / name / "large").write_bytes(os.urandom(3 << 20))
    target = tmp_path / "package.zip"
    packaging.create_package(str(checkout), target, include_gitignore=True)
    assert target.stat().st_size < 2 << 20
    uploaded = set(zipfile.ZipFile(target).namelist())
    modules = {str(p.relative_to(ROOT)) for p in ROOT.glob("raynas/**/*.py")}
    modules |= {str(p.relative_to(ROOT)) for p in [*ROOT.glob("jobs/**/*.toml"), *ROOT.glob("search_spaces/*.py")]}
    assert modules <= uploaded
    assert not [name for name in uploaded if name.split("/")[0] in (".git", ".venv", "runs", "tests", "k8s")]
    assert not [name for name in uploaded if "large" in name or "__pycache__" in name]
