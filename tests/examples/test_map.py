"""The map in `archisync/README.md` shows the house as it is: its wings, its rule, the modules and functions that it names."""

import importlib
import pkgutil
import re
import tomllib
from functools import reduce
from pathlib import Path

import pytest

import archisync

REPOSITORY = Path(__file__).parents[2]
MAP = (REPOSITORY / "archisync" / "README.md").read_text("utf-8")
WINGS = re.findall(r"^\| `([a-z]+)` \|", MAP.split("## The wings")[1].split("\n## ")[0], re.M)
NAMED = sorted({name for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", MAP) if name.split(".")[0] in WINGS})
FILES = sorted(set(re.findall(r"`((?:store|examples)/[^`]+)`", MAP)))


def contracts() -> list[dict[str, object]]:
    return list(tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"])


def test_the_wings_are_the_packages() -> None:
    packages = {module.name for module in pkgutil.iter_modules(archisync.__path__) if module.ispkg}
    assert set(WINGS) == packages
    flat = {path.name for path in (REPOSITORY / "archisync").glob("*.py")}
    assert flat == {"__init__.py", "__main__.py"}


def test_the_order_of_the_wings_is_the_one_that_the_linter_holds() -> None:
    layers = next(contract for contract in contracts() if contract["type"] == "layers")["layers"]
    assert isinstance(layers, list)
    assert ["__main__", *reversed(WINGS)] == layers


def test_the_rule_has_no_exception() -> None:
    found = contracts()
    assert {contract["type"] for contract in found} == {"layers", "independence", "acyclic_siblings"}
    assert [contract for contract in found if "ignore_imports" in contract] == []


@pytest.mark.parametrize("name", NAMED)
def test_each_name_is_in_the_code(name: str) -> None:
    parts = name.split(".")
    module = importlib.import_module(f"archisync.{parts[0]}")
    for index in range(1, len(parts)):
        try:
            module = importlib.import_module("archisync." + ".".join(parts[: index + 1]))
        except ModuleNotFoundError:
            reduce(getattr, parts[index:], module)
            break


@pytest.mark.parametrize("path", FILES)
def test_each_file_that_it_names_exists(path: str) -> None:
    assert (REPOSITORY / path).exists() or (REPOSITORY / "archisync" / path).exists()


def test_it_names_the_steps_of_a_run_and_enough_of_the_code() -> None:
    assert len(NAMED) > 30
    assert {"schedule.tick.tick", "work.runner.Runner.do", "sync.run.Sync.run"} <= set(NAMED)
