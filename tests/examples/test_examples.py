"""The files in examples/ are valid, and the commands in them work."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
import yaml

from archisync.base.errors import ExitCode
from archisync.cli.root import root_command
from archisync.rules.config import Config, variable_names
from archisync.sources import check_all
from archisync.work.worker import WORKER_TTL_S
from tests.conftest import REPOSITORY, Cli

EXAMPLES = REPOSITORY / "examples"
KUSTOMIZATION = EXAMPLES / "kubernetes" / "kustomization.yaml"
MANIFESTS = sorted(set((EXAMPLES / "kubernetes").glob("*.yaml")) - {KUSTOMIZATION})
UNITS = sorted((EXAMPLES / "systemd").iterdir())
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def named(kind: str, name: str = "archisync") -> dict[str, Any]:
    """The document of that kind whose name begins with `name`."""
    return next(
        d for path in MANIFESTS for d in documents(path)
        if d["kind"] == kind and d["metadata"]["name"].startswith(name)
    )  # fmt: skip


def workers() -> dict[str, Any]:
    return named("Deployment", "archisync-worker")


def pods() -> list[tuple[str, dict[str, Any]]]:
    job = named("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    metrics = named("Deployment", "archisync-metrics")["spec"]["template"]["spec"]
    migrate = named("Job", "archisync-migrate")["spec"]["template"]["spec"]
    web = named("Deployment", "archisync-web")["spec"]["template"]["spec"]
    worker = workers()["spec"]["template"]["spec"]
    return [("tick", job), ("migrate", migrate), ("worker", worker), ("metrics", metrics), ("web", web)]


PODS = pytest.mark.parametrize("pod", [pod for _, pod in pods()], ids=[kind for kind, _ in pods()])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_each_manifest_parses_and_names_itself(path: Path) -> None:
    for document in documents(path):
        assert {"apiVersion", "kind", "metadata"} <= set(document)
        assert document["metadata"]["name"].startswith("archisync")


@PODS
def test_no_pod_has_more_rights_than_it_needs(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod.get("initContainers", []) + pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"]["cpu"]
        assert {"secretRef": {"name": named("Secret")["metadata"]["name"]}} in container["envFrom"]


CHOICES = ("scale.yaml", "hpa.yaml", "web.yaml")


def test_the_kustomization_has_every_manifest_but_those_to_choose() -> None:
    made = yaml.safe_load(KUSTOMIZATION.read_text("utf-8"))
    assert sorted([*made["resources"], *CHOICES]) == [path.name for path in MANIFESTS]
    assert all(f"  # - {name}" in KUSTOMIZATION.read_text("utf-8") for name in CHOICES)
    image = made["images"][0]["name"]
    for _, pod in pods():
        for container in pod.get("initContainers", []) + pod["containers"]:
            assert container["image"] == f"{image}:CHANGE-ME"


def test_each_secret_that_a_manifest_names_is_made_by_one() -> None:
    made = {(d["kind"], d["metadata"]["name"]): d for path in MANIFESTS for d in documents(path)}
    for _, pod in pods():
        for container in pod.get("initContainers", []) + pod["containers"]:
            for source in container["envFrom"]:
                ((kind, reference),) = source.items()
                assert ({"secretRef": "Secret", "configMapRef": "ConfigMap"}[kind], reference["name"]) in made
    for target in named("TriggerAuthentication")["spec"]["secretTargetRef"]:
        assert target["key"] in made["Secret", target["name"]]["stringData"]
    assert "CHANGE-ME@redis" in made["Secret", "archisync"]["stringData"]["ARCHISYNC_REDIS_URL"]
    assert made["Secret", "archisync-redis"]["stringData"]["password"] == "CHANGE-ME"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_it() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUSTOMIZATION.parent)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    built = list(yaml.safe_load_all(done.stdout))
    assert sorted(d["kind"] for d in built) == [
        "ConfigMap", "CronJob", "Deployment", "Job", "Namespace", "NetworkPolicy", "PodDisruptionBudget", "Secret", "Secret",
    ]  # fmt: skip
    assert {d["metadata"].get("namespace", "archisync") for d in built} == {"archisync"}


def test_the_network_policy_lets_pods_reach_what_the_settings_name() -> None:
    policy = named("NetworkPolicy")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    into = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    assert into == {p["containerPort"] for _, pod in pods() for c in pod["containers"] for p in c.get("ports", [])}
    given = named("Secret")["stringData"]
    for name in ("ARCHISYNC_DATABASE_URL", "ARCHISYNC_REDIS_URL", "ARCHISYNC_SOURCE"):
        assert (urlsplit(given[name]).port or 443) in ports
    templates = [d["spec"].get("jobTemplate", d)["spec"]["template"] for path in MANIFESTS for d in documents(path)
                 if d["kind"] in ("CronJob", "Job", "Deployment")]  # fmt: skip
    assert len(templates) == len(pods())
    for template in templates:
        assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_a_tick_pod_ends_before_the_next_is_due() -> None:
    spec = named("CronJob")["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("* * * * *", "Forbid")
    assert spec["startingDeadlineSeconds"] < 60
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 60
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_a_worker_pod_may_finish_its_run() -> None:
    pod = workers()["spec"]["template"]["spec"]
    limit = int(named("ConfigMap")["data"]["ARCHISYNC_RUN_TIMEOUT_S"])
    assert pod["terminationGracePeriodSeconds"] >= limit
    assert workers()["spec"]["selector"]["matchLabels"] == workers()["spec"]["template"]["metadata"]["labels"]  # fmt: skip


def test_archisync_knows_and_accepts_the_settings() -> None:
    given = named("ConfigMap")["data"] | named("Secret")["stringData"]
    assert set(given) <= set(variable_names())
    config = Config.from_environment(given)
    config.require_all()
    check_all(config)
    assert config.zone.key == "Europe/Rome"


def test_workers_are_scaled_by_the_list_that_rq_keeps() -> None:
    scaled = named("ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == workers()["metadata"]["name"]
    trigger = scaled["triggers"][0]
    assert trigger["metadata"]["listName"] == "rq:queue:archisync"
    assert trigger["authenticationRef"]["name"] == named("TriggerAuthentication")["metadata"]["name"]


def test_without_keda_workers_are_scaled_by_a_metric_that_archisync_offers(cli: Cli) -> None:
    scaled = named("HorizontalPodAutoscaler")["spec"]
    assert scaled["scaleTargetRef"] == {
        "apiVersion": workers()["apiVersion"], "kind": "Deployment", "name": workers()["metadata"]["name"],
    }  # fmt: skip
    metric = scaled["metrics"][0]["external"]["metric"]
    labels = ",".join(f'{name}="{value}"' for name, value in metric["selector"]["matchLabels"].items())
    assert f"\n{metric['name']}{{{labels}}} 0.0\n" in cli("metrics").stdout
    pod = named("Deployment", "archisync-metrics")["spec"]["template"]
    port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    assert pod["spec"]["containers"][0]["command"] == ["archisync", "metrics", "--serve", f"0.0.0.0:{port}"]


def test_every_pod_has_the_same_settings() -> None:
    for name, pod in pods():
        for container in pod.get("initContainers", []) + pod["containers"]:
            given = [next(iter(source.values()))["name"] for source in container["envFrom"]]
            assert given == [named("ConfigMap")["metadata"]["name"], named("Secret")["metadata"]["name"]], name


def test_the_liveness_probe_fails_unless_only_redis_is_away(cli: Cli) -> None:
    probe = workers()["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]
    command = probe["exec"]["command"]
    assert command[:2] == ["sh", "-c"]
    assert f"[ $? -eq {ExitCode.UNREACHABLE.value} ]" in command[2]
    # A worker that waits for Redis may take WORKER_TTL_S to report that it lives.
    assert probe["periodSeconds"] * probe["failureThreshold"] > WORKER_TTL_S
    words = re.search(r"archisync ([^>|]+)", command[2])
    assert words is not None
    typed = words[1].split()
    assert cli(*typed).returncode == ExitCode.SYNC_FAILED
    away = {"ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9/0"}
    assert cli(*typed, env=away).returncode == ExitCode.UNREACHABLE


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.name)
@pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_each_unit(path: Path, tmp_path: Path) -> None:
    assert SYSTEMD_ANALYZE is not None
    for unit in UNITS:  # systemd wants the program to exist: true(1) takes its place
        text = re.sub(r"/opt/archisync/bin/archisync", "/bin/true", unit.read_text("utf-8"))
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        [SYSTEMD_ANALYZE, "verify", "--man=no", "--recursive-errors=no", tmp_path / path.name],
        capture_output=True, text=True, check=False, env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", [u for u in UNITS if u.suffix == ".service"], ids=lambda p: p.name)
def test_each_service_runs_as_the_account_that_postgresql_knows(path: Path) -> None:
    """The guide's URL has no user and no password, so PostgreSQL asks who the process is."""
    guide = (EXAMPLES / "guides/server.md").read_text("utf-8")
    unit = path.read_text("utf-8")
    [account] = re.findall(r"^\$ useradd .* (\S+)$", guide, re.M)
    assert f"$ runuser -u postgres -- createuser {account}\n" in guide
    assert "ARCHISYNC_DATABASE_URL='postgresql:///" in guide
    assert re.findall(r"^(User|Group|DynamicUser)=(.+)$", unit, re.M) == [("User", account), ("Group", account)]


def test_the_units_give_a_run_as_long_as_it_may_take() -> None:
    worker = (EXAMPLES / "systemd/archisync-worker.service").read_text("utf-8")
    stop = re.search(r"^TimeoutStopSec=(\d+)$", worker, re.M)
    assert stop is not None
    assert int(stop[1]) >= Config.from_environment({}).run_timeout_s
    assert re.search(r"^RestartPreventExitStatus=2 3$", worker, re.M)
    assert re.search(r"^KillMode=mixed$", worker, re.M)


def test_the_workflow_waits_and_fails_with_the_outcome() -> None:
    workflow = yaml.safe_load((EXAMPLES / "github/resync.yml").read_text("utf-8"))
    job = workflow["jobs"]["resync"]
    script = job["steps"][0]["run"]
    assert "--wait --timeout 1800" in script
    assert "${{" not in "".join(step["run"] for step in job["steps"])  # an input in a script would be an injection
    assert "continue-on-error" not in job["steps"][0]
    assert job["timeout-minutes"] * 60 > 1800
    assert workflow["permissions"] == {}


def test_the_script_of_the_workflow_ends_with_the_exit_code(cli: Cli, tmp_path: Path) -> None:
    workflow = yaml.safe_load((EXAMPLES / "github/resync.yml").read_text("utf-8"))
    script = workflow["jobs"]["resync"]["steps"][0]["run"]
    (tmp_path / "archisync").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$OUT"\nexit 6\n')
    (tmp_path / "archisync").chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SYNC_TYPE": "orders",
        "GITHUB_RUN_ID": "7",
        "OUT": str(tmp_path / "args"),
    }
    for agent, words in (("", []), ("a b; rm x", ["--agent", "a b; rm x"])):
        done = subprocess.run(["bash", "-e", "-c", script], env=env | {"SYNC_AGENT": agent}, check=False)
        assert done.returncode == ExitCode.HELD
        typed = (tmp_path / "args").read_text().splitlines()
        assert typed == ["run", "orders", *words, "--wait", "--timeout", "1800", "--reason", "GitHub run 7"]


def test_every_command_in_the_examples_exists() -> None:
    known = set(typer.main.get_command(root_command()).commands)  # type: ignore[attr-defined]
    files = [
        KUSTOMIZATION,
        *MANIFESTS,
        *UNITS,
        EXAMPLES / "github/resync.yml",
        EXAMPLES / "Containerfile",
        EXAMPLES / "crontab",
    ]
    for path in files:
        code = "\n".join(line.split("#", 1)[0] for line in path.read_text("utf-8").splitlines())
        typed = re.findall(r"archisync(?:\", \"| )([a-z]+)\b", code)
        assert set(typed) <= known, path


def test_the_container_is_not_root_and_takes_signals_itself() -> None:
    lines = (EXAMPLES / "Containerfile").read_text("utf-8").splitlines()
    pod = workers()["spec"]["template"]["spec"]["securityContext"]
    assert f"USER {pod['runAsUser']}:{pod['runAsGroup']}" in lines
    assert 'ENTRYPOINT ["archisync"]' in lines
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", "\n".join(lines), re.M)
    assert all((REPOSITORY / name).exists() for names in copied for name in names.split())
