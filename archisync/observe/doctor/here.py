"""Checks of this machine: settings, sources, hook, plug-ins, and the disk of the embedded servers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from archisync import sources
from archisync.base.errors import ArchisyncError, ExitCode
from archisync.observe.doctor.findings import Finding, failed, from_error, ok, warning
from archisync.rules.config import SETTINGS, Config, variable_names
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope, sync_type

PREFIX = "ARCHISYNC_"
ALIKE = 0.8
"""An unknown variable whose name is so similar to a known one (difflib's ratio) is taken for a typing mistake."""
DISK_FAILURE_BYTES = 200 * 1024**2
DISK_WARNING_BYTES = 1024**3
_KUBERNETES_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)")
"""The variables that Kubernetes sets for a service called archisync-…"""
_OTHER_CHECKS = ("ARCHISYNC_DATABASE_URL", "ARCHISYNC_REDIS_URL", "ARCHISYNC_SOURCE", "ARCHISYNC_HOOK")
"""The settings that a check of their own looks at."""


def check_settings(config: Config, _: Path | None) -> Iterator[Finding]:
    """Settings that can't be read, and variables that nothing reads."""
    found: dict[str, Finding] = {}
    for setting in SETTINGS:
        if setting.name not in _OTHER_CHECKS:
            found |= {exc.message: from_error("settings", exc) for exc in setting.problems(config.environment)}
    yield from found.values()
    typos = list(misspelt(config.environment))
    for name, meant in typos:
        yield warning("settings", f"nothing reads the variable {name}", f"did you mean {meant}?")
    if not found and not typos:
        yield ok("settings", "the environment's settings can be read")


def misspelt(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(variable that nothing reads, the one that is probably meant).

    A name that is like none of ours is left out: it may belong to a plug-in, or to a Kubernetes service (`ARCHISYNC_METRICS_PORT`).
    """
    from difflib import get_close_matches

    known = [name.removeprefix(PREFIX) for name in variable_names()]
    for name in sorted(names):
        own = name.removeprefix(PREFIX)
        if own == name or own in known or _KUBERNETES_SERVICE.search(own):
            continue
        if close := get_close_matches(own, known, n=1, cutoff=ALIKE):
            yield name, PREFIX + close[0]


def check_sources(config: Config, _: Path | None) -> Iterator[Finding]:
    """The template of each type, with the settings that its source needs."""
    found: dict[str, Finding] = {}
    templates: dict[str, str] = {}
    for name, type_ in SYNC_TYPES.items():
        try:
            template = config.source(type_)
        except ArchisyncError as exc:
            found.setdefault(exc.message, from_error("sources", exc))
            continue
        try:
            sources.check_template(template, config, name)
            templates[name] = template
        except ArchisyncError as exc:
            found[name] = failed("sources", f"{name}: {exc.message}", exc.hint, exc.exit_code)
    problems = [*found.values(), *judge_templates(templates)]
    yield from problems or [ok("sources", "the source of each type can be used")]


def judge_templates(templates: Mapping[str, str]) -> Iterator[Finding]:
    """Type → template. Each pair needs a file or an address of its own; programs and plug-ins get agent and type as arguments."""
    addresses = {name: t for name, t in templates.items() if sources.is_address(t)}
    by_export: dict[str, list[str]] = {}
    for name, template in addresses.items():
        agent = SHARED_AGENT if sync_type(name).scope is Scope.SHARED else "{agent}"
        by_export.setdefault(template.replace("{type}", name).replace("{agent}", agent), []).append(name)
    for names in by_export.values():
        if len(names) > 1:
            message = f"the source of {', '.join(names)} has no {{type}}: these types would read the same export"
            hint = "put {type} into it, or give each type a template: ARCHISYNC_SOURCE_ORDERS=…"
            yield warning("sources", message, hint)
    alike = [n for n, t in addresses.items() if sync_type(n).scope is Scope.AGENT and "{agent}" not in t]
    if alike:
        message = f"the source of {', '.join(alike)} has no {{agent}}: all agents would get the same rows"
        yield warning("sources", message, "put {agent} into it, for example /srv/exports/{agent}/{type}.csv")


def check_hook(config: Config, _: Path | None) -> Iterator[Finding]:
    """Whether the hook can be called; nothing is sent."""
    from archisync.schedule import hook

    try:
        if config.hook is None:
            return
        hook.check_hook(config.hook)
    except ArchisyncError as exc:
        yield from_error("hook", exc)
    else:
        yield ok("hook", "ARCHISYNC_HOOK can be called")


def check_plugins(_config: Config, _folder: Path | None) -> Iterator[Finding]:
    found = sources.plugins()
    for plugin in found:
        if plugin.error:
            hint = f"repair, update or uninstall {plugin.package} ({plugin.target})"
            yield failed("plug-ins", plugin.error, hint, ExitCode.CONFIGURATION)
        else:
            yield ok("plug-ins", f"{plugin.scheme}: from {plugin.package}")
    if not found:
        yield ok("plug-ins", "none are installed")


def check_disk(_: Config, folder: Path | None) -> Iterator[Finding]:
    if folder is None:
        return
    try:
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        yield failed("disk", f"{folder}: {exc.strerror}", "name the folder that `archisync up --folder` was given")
        return
    yield judge_disk(folder, free)


def judge_disk(folder: Path, free_bytes: int) -> Finding:
    message = f"{free_bytes / 1024**2:.0f} MiB are free in {folder}"
    hint = "make room: the embedded PostgreSQL stops when its disk is full"
    if free_bytes < DISK_FAILURE_BYTES:
        return failed("disk", message, hint)
    return warning("disk", message, hint) if free_bytes < DISK_WARNING_BYTES else ok("disk", message)


CHECKS: Mapping[str, Callable[[Config, Path | None], Iterator[Finding]]] = {
    "settings": check_settings,
    "sources": check_sources,
    "hook": check_hook,
    "plug-ins": check_plugins,
    "disk": check_disk,
}


def examine(config: Config, folder: Path | None, wanted: frozenset[str]) -> Iterator[Finding]:
    for name, check in CHECKS.items():
        if name in wanted:
            yield from check(config, folder)
