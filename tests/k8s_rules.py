"""What a manifest in k8s/ must obey beyond its schema: each rule yields a line for what breaks it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

Json = Any
"""A manifest or a part of it, as read from YAML."""

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = {"RayCluster": 53, "RayJob": 47}
CLUSTER_WIDE = ("Namespace", "ResourceFlavor", "ClusterQueue")
SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
ALPHA = ("networkPolicy", "tlsOptions", "historyServerOptions")
"""Fields behind feature gates that KubeRay 1.7.0 has off."""
OBJECT_STORE_SHARE = 0.3
"""Of a node's memory, what Ray gives to its object store by itself."""


def complaints(document: Json) -> list[str]:
    """Every rule that the object breaks."""
    kind, found = document["kind"], list(_metadata(document))
    if kind == "RayCluster":
        found += [*_cluster(document["spec"]), *_our_cluster(document["spec"])]
    elif kind == "RayJob":
        spec = document["spec"]
        found += [*_job(spec), *_our_job(spec), *_kueue(document)]
        if "rayClusterSpec" in spec:
            found += [*_cluster(spec["rayClusterSpec"]), *_our_cluster(spec["rayClusterSpec"])]
    elif kind == "Pod":
        found += _pod(document["spec"], "the pod")
    return found


def ray_pods(cluster: Json) -> list[tuple[str, Json]]:
    """Name and pod template's spec of the head and of each worker group."""
    groups = [("headGroupSpec", cluster["headGroupSpec"])]
    groups += [(group["groupName"], group) for group in cluster.get("workerGroupSpecs", [])]
    return [(name, group["template"]["spec"]) for name, group in groups]


def quantity(text: str | int) -> float:
    """A Kubernetes quantity in units: CPUs, bytes, GPUs."""
    number, suffix = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    scale = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
    return float(number) * scale[suffix]


def _metadata(document: Json) -> Iterator[str]:
    kind, name = document["kind"], document["metadata"]["name"]
    if not DNS_1035.fullmatch(name):
        yield f"name {name!r} is no DNS-1035 label"
    if len(name) > LONGEST_NAME.get(kind, 63):
        yield f"a {kind}'s name has at most {LONGEST_NAME.get(kind, 63)} characters"
    if kind not in CLUSTER_WIDE and document["metadata"].get("namespace") != "raynas":
        yield "the namespace is not raynas"


# --- what KubeRay's operator refuses when it runs (ray-operator/controllers/ray/utils/validation.go, 1.7.0) ---


def _cluster(spec: Json) -> Iterator[str]:
    autoscaling = spec.get("enableInTreeAutoscaling", False)
    options = spec.get("autoscalerOptions", {})
    second = autoscaling and options.get("version") == "v2"
    head = spec["headGroupSpec"]
    for name, group in [("the head", head)] + [(g["groupName"], g) for g in spec.get("workerGroupSpecs", [])]:
        yield from _group(name, group)
    for group in spec.get("workerGroupSpecs", []):
        yield from _scaling(group, autoscaling, second)
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield "autoscalerOptions.idleTimeoutSeconds is negative"
    environment = _environment(head["template"]["spec"])
    if "RAY_enable_autoscaler_v2" in environment:
        yield "RAY_enable_autoscaler_v2 stands in the environment; autoscalerOptions.version says it"
    yield from _fault_tolerance(spec, environment)
    yield from _authentication(spec)
    for field in ALPHA:
        if field in spec:
            yield f"{field} is behind a feature gate that is off"


def _group(name: str, group: Json) -> Iterator[str]:
    parameters = group.get("rayStartParams", {})
    if not group["template"]["spec"].get("containers"):
        yield f"{name} has no container"
    if "labels" in parameters:
        yield f"rayStartParams of {name} may not hold labels"
    if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & parameters.keys():
        yield f"resources of {name} are given twice, in resources and in rayStartParams"


def _scaling(group: Json, autoscaling: bool, second: bool) -> Iterator[str]:
    name, least, most = group["groupName"], group.get("minReplicas"), group.get("maxReplicas")
    if not autoscaling and (least is None or most is None):
        yield f"{name} needs minReplicas and maxReplicas without an autoscaler"
    if (least or 0) < 0 or (most or 0) < 0:
        yield f"{name} has negative replicas"
    if least is not None and most is not None and least > most:
        yield f"{name} has more minReplicas than maxReplicas"
    if not (least or 0) <= group.get("replicas", least or 0) <= (most if most is not None else float("inf")):
        yield f"{name} starts with replicas outside minReplicas..maxReplicas"
    if autoscaling and group.get("suspend"):
        yield f"{name} cannot be suspended under an autoscaler"
    if "idleTimeoutSeconds" in group and not (second and group["idleTimeoutSeconds"] >= 0):
        yield f"idleTimeoutSeconds of {name} needs autoscaler v2 and no negative value"


def _fault_tolerance(spec: Json, environment: dict[str, Json]) -> Iterator[str]:
    redis = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"} & environment.keys()
    redis |= {"redis-password", "redis-username"} & spec["headGroupSpec"].get("rayStartParams", {}).keys()
    if redis:
        yield f"{', '.join(sorted(redis))}: Redis is configured by gcsFaultToleranceOptions alone"
    if spec.get("gcsFaultToleranceOptions", {}).get("backend") == "rocksdb":
        yield "the rocksdb backend is behind a feature gate that is off"


def _authentication(spec: Json) -> Iterator[str]:
    options = spec.get("authOptions", {})
    version = re.match(r"(\d+)\.(\d+)", spec.get("rayVersion", ""))
    if options.get("mode") == "token" and (version is None or tuple(map(int, version.groups())) < (2, 52)):
        yield f"token mode needs a rayVersion of 2.52 or newer, but got {spec.get('rayVersion')!r}"


def _job(spec: Json) -> Iterator[str]:
    mode, selected = spec.get("submissionMode", "K8sJobMode"), "clusterSelector" in spec
    retries, shutdown = spec.get("backoffLimit", 0), spec.get("shutdownAfterJobFinishes", False)
    if mode not in SUBMISSION_MODES:
        yield f"unknown submissionMode {mode}"
    if not selected and "rayClusterSpec" not in spec:
        yield "neither rayClusterSpec nor clusterSelector"
    if spec.get("suspend") and (selected or not shutdown):
        yield "suspend needs shutdownAfterJobFinishes and a cluster of the job's own"
    if retries < 0 or (retries and (selected or mode == "InteractiveMode")):
        yield "backoffLimit is negative, or does not go with clusterSelector or InteractiveMode"
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(field, 1) <= 0:
            yield f"{field} must be positive"
    if mode == "SidecarMode" and {"clusterSelector", "submitterPodTemplate", "submitterConfig"} & spec.keys():
        yield "SidecarMode takes no clusterSelector, submitterPodTemplate or submitterConfig"
    if spec.get("rayClusterSpec", {}).get("authOptions", {}).get("enableK8sTokenAuth"):
        yield "enableK8sTokenAuth is not supported for a RayJob"
    if not isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict):
        yield "runtimeEnvYAML is no YAML mapping"
    yield from _deletion(spec, shutdown)


def _deletion(spec: Json, shutdown: bool) -> Iterator[str]:
    ttl = spec.get("ttlSecondsAfterFinished", 0)
    if ttl < 0 or (ttl and not shutdown):
        yield "ttlSecondsAfterFinished is negative, or lacks shutdownAfterJobFinishes"
    strategy = spec.get("deletionStrategy")
    if strategy is None:
        return
    rules = strategy.get("deletionRules", [])
    if rules and shutdown:
        yield "deletionRules exclude shutdownAfterJobFinishes"
    if not rules or {"onSuccess", "onFailure"} & strategy.keys():
        yield "deletionStrategy needs deletionRules, and no onSuccess or onFailure"
    autoscaling = spec.get("rayClusterSpec", {}).get("enableInTreeAutoscaling", False)
    seconds: dict[tuple[Json, Json], dict[str, int]] = {}
    for rule in rules:
        policy, condition = rule["policy"], rule["condition"]
        if policy == "DeleteWorkers" and (autoscaling or "clusterSelector" in spec):
            yield "DeleteWorkers does not go with an autoscaler or a clusterSelector"
        if policy == "DeleteCluster" and "clusterSelector" in spec:
            yield "DeleteCluster does not go with a clusterSelector"
        when = seconds.setdefault((condition.get("jobStatus"), condition.get("jobDeploymentStatus")), {})
        if policy in when:
            yield f"two rules for {policy} on one condition"
        when[policy] = condition.get("ttlSeconds", 0)
    for when in seconds.values():
        order = [when[policy] for policy in ("DeleteWorkers", "DeleteCluster", "DeleteSelf") if policy in when]
        if order != sorted(order):
            yield "workers must go before the cluster, and the cluster before the job"


def _kueue(document: Json) -> Iterator[str]:
    """What Kueue's webhook asks of a RayJob in a queue."""
    if "kueue.x-k8s.io/queue-name" not in document["metadata"].get("labels", {}):
        return
    spec = document["spec"]
    if not spec.get("suspend") or not spec.get("shutdownAfterJobFinishes"):
        yield "a job in a queue starts suspended, and takes its cluster away"
    if spec["rayClusterSpec"].get("enableInTreeAutoscaling"):
        yield "a job in a queue has a cluster of one size"
    if len(spec["rayClusterSpec"].get("workerGroupSpecs", [])) > 6:  # 8 pod sets, with the head and the submitter
        yield "a job in a queue has at most 6 worker groups"


# --- ours ---


def _our_cluster(spec: Json) -> Iterator[str]:
    if spec.get("authOptions", {}).get("mode") != "token":
        yield "the job API runs any command: authOptions.mode must be token"
    if spec["headGroupSpec"].get("rayStartParams", {}).get("num-cpus") != "0":
        yield 'the head must have num-cpus "0", so that only drivers run on it'
    autoscaling = spec.get("enableInTreeAutoscaling", False)
    if autoscaling:
        options = spec.get("autoscalerOptions", {})
        if options.get("version") != "v2":
            yield "the autoscaler must be v2"
        yield from _container({"name": "autoscaler", **options}, "the autoscaler")
    for name, pod in ray_pods(spec):
        identity = not (autoscaling and name == "headGroupSpec")
        yield from _pod(pod, name, identity=identity)
        yield from _ray_node(pod, name)


def _our_job(spec: Json) -> Iterator[str]:
    if not spec.get("backoffLimit") or "activeDeadlineSeconds" not in spec:
        yield "a run that lasts needs backoffLimit and activeDeadlineSeconds"
    if spec.get("submitterConfig", {}).get("backoffLimit", 2) < 5:
        yield "a submitter may have to wait for a head: give it 5 attempts at least"
    rules = spec.get("deletionStrategy", {}).get("deletionRules", [])
    ends = [rule["condition"] for rule in rules if rule["policy"] == "DeleteCluster"]
    success = any(end.get("jobStatus") == "SUCCEEDED" for end in ends)
    failure = any(end.get("jobDeploymentStatus") == "Failed" for end in ends)
    if not spec.get("shutdownAfterJobFinishes") and not (success and failure):
        yield "the cluster must go after success and after every kind of failure"
    for flag in ("--storage", "--name", "--address"):
        if flag not in spec["entrypoint"].split():
            yield f"the entrypoint needs {flag}, so that a retry continues the run on the job's own cluster"
    template = spec.get("submitterPodTemplate")
    if template is None:
        yield "the operator's own submitter is refused by Pod Security: give a submitterPodTemplate"
        return
    if template.get("metadata", {}).get("labels", {}).get("raynas/role") != "submitter":
        yield "network-policy.yaml knows submitters by the label raynas/role"
    if template["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
        yield "the submitter is a Job's pod: restartPolicy must be Never or OnFailure"
    yield from _pod(template["spec"], "the submitter")


def _pod(pod: Json, name: str, *, identity: bool = True) -> Iterator[str]:
    """Pod Security "restricted", and a little more; identity: whether the pod has no business with the API server."""
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield f"{name} may run as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{name} lacks the seccomp profile RuntimeDefault"
    if any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
        yield f"{name} shares a namespace with its node"
    account = (pod.get("serviceAccountName"), pod.get("automountServiceAccountToken"))
    if identity and account != ("raynas", False):
        yield f"{name} must be the account raynas, without its token"
    if not identity and account != (None, None):
        yield f"{name} has an autoscaler, whose account the operator makes: leave the account out"
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    for volume in volumes.values():
        if not {"emptyDir", "persistentVolumeClaim", "secret", "configMap"} & volume.keys():
            yield f"volume {volume['name']} of {name} reaches outside of the pod"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} of {name} has no sizeLimit"
    for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
        yield from _container(container, f"{container['name']} of {name}")
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{name} mounts {mount['name']}, which is no volume of it"


def _container(container: Json, name: str) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield f"{name} may gain privileges"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name} keeps capabilities"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{name} may write to its root file system"
    if context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False:
        yield f"{name} runs as root"
    resources = container.get("resources", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for resource in {"cpu", "memory"} | requests.keys() | limits.keys():
        if resource not in limits or requests.get(resource) != limits[resource]:
            yield f"{name} must request as much {resource} as its limit"


def _ray_node(pod: Json, name: str) -> Iterator[str]:
    if pod.get("restartPolicy") != "Never":  # the operator asks for it too, with autoscaler v2 and in SidecarMode
        yield f"restartPolicy of {name} must be Never: a broken Ray node is replaced, not revived"
    container = _ray_container(pod)
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    mounts = {mount["mountPath"]: volumes.get(mount["name"], {}) for mount in container.get("volumeMounts", [])}
    if "emptyDir" not in mounts.get("/tmp", {}):
        yield f"{name} has nowhere to write: mount an emptyDir at /tmp"
    shared = mounts.get("/dev/shm", {}).get("emptyDir", {})
    memory = quantity(container.get("resources", {}).get("limits", {}).get("memory", 0))
    if shared.get("medium") != "Memory":
        yield f"{name} needs a /dev/shm in memory for the object store"
    elif not OBJECT_STORE_SHARE * memory <= quantity(shared.get("sizeLimit", 0)) < memory:
        yield f"/dev/shm of {name} must hold the object store, 30 % of the memory, and be smaller than the memory"
    if "nvidia.com/gpu" in container.get("resources", {}).get("limits", {}):
        if {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} not in pod.get("tolerations", []):
            yield f"{name} does not tolerate the taint of GPU nodes"
        if _environment(pod).get("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO") != "1":
            yield f"actors of {name} that asked for no GPU would see them all"


def _ray_container(pod: Json) -> Json:
    return next(iter(pod.get("containers", [])), {})


def _environment(pod: Json) -> dict[str, Json]:
    return {entry["name"]: entry.get("value") for entry in _ray_container(pod).get("env", [])}
