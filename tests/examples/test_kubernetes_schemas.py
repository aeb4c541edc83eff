"""The manifests in examples/ follow the schemas of the Kubernetes API, and these schemas notice mistakes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.check

MANIFESTS = sorted(
    path for path in (REPOSITORY / "examples/kubernetes").glob("*.yaml") if path.name != "kustomization.yaml"
)
OLDEST = "1.27"
"""The oldest release that the manifests are for; seccompProfile, autoscaling/v2 and batch/v1 are older."""
OF_KEDA = "keda.sh/v1alpha1"
DOCUMENTS = {
    f"{d['kind']} {d['metadata']['name']}": d for path in MANIFESTS for d in yaml.safe_load_all(path.read_text("utf-8"))
}
OURS = {name: d for name, d in DOCUMENTS.items() if d["apiVersion"] != OF_KEDA}

Step = str | int


def refusal(document: dict[str, Any], version: str | None = None) -> kubernetes_validate.ValidationError | None:
    """The API server's complaint; None when it accepts the document. Unknown fields count, as with `kubectl --validate=strict`."""
    try:
        kubernetes_validate.validate(document, version or kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as exc:
        return exc
    return None


def test_only_the_documents_of_keda_have_no_schema_in_the_api() -> None:
    assert {name.split()[0] for name in OURS} == {
        "ConfigMap", "CronJob", "Deployment", "HorizontalPodAutoscaler", "Job", "Namespace", "NetworkPolicy", "PodDisruptionBudget",
        "Secret", "Service",
    }  # fmt: skip
    assert {name.split()[0] for name in DOCUMENTS.keys() - OURS.keys()} == {"ScaledObject", "TriggerAuthentication"}


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", OURS)
def test_each_manifest_follows_the_schema_of_the_kubernetes_api(name: str, version: str) -> None:
    assert refusal(OURS[name], version) is None


def _places(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """Each object in the document whose fields have fixed names; maps of labels, selectors, settings and limits take any name."""
    free = {"labels", "annotations", "matchLabels", "data", "stringData", "requests", "limits"}
    if isinstance(value, dict):
        is_a_service_s = bool(path) and path[-1] == "selector" and "matchLabels" not in value
        if is_a_service_s or (path and path[-1] in free):
            return
        yield path
        for key, inner in value.items():
            yield from _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*path, index))


def _at(document: Any, path: tuple[Step, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def _broken(document: dict[str, Any], path: tuple[Step, ...], harm: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    harm(_at(changed, path))
    return changed


@pytest.mark.parametrize("name", OURS)
def test_an_unknown_field_is_refused_wherever_it_stands(name: str) -> None:
    document = OURS[name]
    for path in _places(document):
        found = refusal(_broken(document, path, lambda inner: inner.update(graceSeconds=1)))
        assert found is not None, f"{name}: an unknown field in {path} passes"
        assert "'graceSeconds' was unexpected" in found.message


@pytest.mark.parametrize(
    ("name", "path", "field", "value", "message"),
    [
        ("CronJob archisync-tick", ("spec",), "schedule", 1, "1 is not of type 'string'"),
        ("CronJob archisync-tick", ("spec",), "startingDeadlineSeconds", "50", "'50' is not of type 'integer'"),
        ("CronJob archisync-tick", ("spec",), "jobTemplate", [], "[] is not of type 'object'"),
        ("Deployment archisync-worker", ("spec",), "replicas", "2", "'2' is not of type 'integer'"),
        (
            "Deployment archisync-worker", ("spec", "template", "spec", "containers", 0, "livenessProbe", "exec"),
            "command", "archisync", "'archisync' is not of type 'array'",
        ),
        (
            "Deployment archisync-worker", ("spec", "template", "spec", "securityContext"),
            "runAsNonRoot", "yes", "'yes' is not of type 'boolean'",
        ),
        ("ConfigMap archisync", ("data",), "ARCHISYNC_RUN_TIMEOUT_S", 1800, "1800 is not of type 'string'"),
        ("HorizontalPodAutoscaler archisync-worker", ("spec",), "maxReplicas", "10", "'10' is not of type 'integer'"),
    ],
)  # fmt: skip
def test_a_value_of_a_wrong_type_is_refused(
    name: str, path: tuple[Step, ...], field: str, value: object, message: str
) -> None:
    found = refusal(_broken(OURS[name], path, lambda inner: inner.update({field: value})))
    assert found is not None
    assert found.message.removesuffix(", 'null'") == message  # the schemas let most fields be null


@pytest.mark.parametrize(
    ("name", "path", "field"),
    [
        ("CronJob archisync-tick", ("spec",), "schedule"),
        ("Deployment archisync-worker", ("spec",), "selector"),
        ("Deployment archisync-worker", ("spec", "template", "spec", "containers", 0), "name"),
        ("HorizontalPodAutoscaler archisync-worker", ("spec",), "scaleTargetRef"),
    ],
)
def test_a_missing_field_that_the_api_requires_is_refused(name: str, path: tuple[Step, ...], field: str) -> None:
    found = refusal(_broken(OURS[name], path, lambda inner: inner.pop(field)))
    assert found is not None
    assert found.message == f"'{field}' is a required property"
