"""Reading the project file, `edgeprune.yaml`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgeprune import registry
from edgeprune.errors import ConfigError, UsageError, did_you_mean
from edgeprune.records.budget_field import BudgetLimits
from edgeprune.records.fields import Choice, Count, Field, ListOf, Number, Registered, Schema, Table, Text
from edgeprune.records.profile_reader import is_path, profile_names
from edgeprune.records.project import (
    JUDGES,
    QUANTIZE,
    DeviceSettings,
    ExecutorSettings,
    ExportSettings,
    Project,
    SearchSettings,
)
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.yaml_reader import Entry, read_document

__all__ = ["PROJECT", "load_project"]

_ADDRESS = "ssh://user@host:22"
_TASK = re.compile(r"(?P<module>[^:]+):(?P<object>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)")


def load_project(path: str | Path) -> Project:
    """The project of a file, or of the `edgeprune.yaml` in a folder; raises ConfigError."""
    file = Path(path).absolute()
    if file.suffix.partition(":")[0] == ".py":
        hint = f"name the folder or edgeprune.yaml, like: edgeprune run {shlex.quote(str(Path(path).parent))}"
        raise ConfigError("this is a task, not a project", path=path, hint=hint)
    if file.is_dir() or not (file.exists() or is_path(file.name)):
        folder, file = file, file / "edgeprune.yaml"
        if not file.exists():
            hint = f"name a project's folder, or begin one there: edgeprune init {shlex.quote(str(path))}"
            raise ConfigError(f"no such file: there is no project in {folder}", path=file, hint=hint)
    values = PROJECT.read(read_document(file))
    values.setdefault("runs", file.parent / "runs")
    project: Project = Project(path=file, **values)
    return project


@dataclass(frozen=True, slots=True)
class _PathText:
    """A path, relative to the file that it is written in; `~` is the home folder."""

    def read(self, entry: Entry) -> Path:
        """The absolute path."""
        return entry.path.parent / Path(Text("runs").read(entry)).expanduser()

    def schema(self) -> Schema:
        """A string."""
        return Text().schema()


@dataclass(frozen=True, slots=True)
class _Checked:
    """Text that a function looks at, with the entry at hand for its place; it gives back what to keep."""

    check: Callable[[str, Entry], str]
    example: str

    def read(self, entry: Entry) -> str:
        """What the function gives back."""
        return self.check(Text(self.example).read(entry), entry)

    def schema(self) -> Schema:
        """A string."""
        return Text().schema()


@dataclass(frozen=True, slots=True)
class _WithParameters:
    """A name of an extension point, alone or with parameters: l1, "l1:reduce=sum" or {name: l1, reduce: sum}.

    Read as text, the second form; nothing is imported, so what the parameters mean is seen where it is made.
    """

    point: str

    def read(self, entry: Entry) -> str:
        """The text."""
        if isinstance(entry.content, dict):
            if "name" not in entry.content:
                raise entry.error("the key 'name' is missing", hint="write it like {name: l1, reduce: sum}")
            value = Text("reduce: sum", r"[^\s,=:]+")
            parts = [f"{key}={value.read(child)}" for key, child in entry.content.items() if key != "name"]
            name = Registered(self.point).read(entry.content["name"])
            return f"{name}:{','.join(parts)}" if parts else name
        if not isinstance(entry.content, str):
            return Registered(self.point).read(entry)
        try:
            name, _ = registry.split(entry.content)
        except UsageError as error:
            raise entry.error(str(error), hint=error.hint) from error
        Registered(self.point).read(replace(entry, content=name, written=name))
        return entry.content

    def schema(self) -> Schema:
        """A string or an object, with the names that are installed now."""
        names = registry.names(self.point)
        parameters = {"type": "string", "pattern": r"^[^\s,=:]+$"}
        return {
            "anyOf": [
                {"type": "string", "pattern": f"^({'|'.join(names)})(:.+)?$"},
                {
                    "type": "object",
                    "properties": {"name": {"enum": list(names)}},
                    "required": ["name"],
                    "additionalProperties": parameters,
                },
            ]
        }


def _task(text: str, entry: Entry) -> str:
    match = _TASK.fullmatch(text)
    if match is None:
        raise entry.error(f"{text!r} does not name an object", hint="write it like task.py:Digits")
    if match["module"].endswith(".py") and not (entry.path.parent / match["module"]).is_file():
        where = entry.path.parent / match["module"]
        near = sorted(file.name for file in where.parent.glob("*.py"))
        hint = did_you_mean(where.name, near) if near else "the path is relative to the folder of this file"
        raise entry.error(f"no such file: {where}", hint=hint)
    return text


def _profile(text: str, entry: Entry) -> str:
    if is_path(text):
        path = entry.path.parent / Path(text).expanduser()
        if not path.is_file():
            raise entry.error(f"no such file: {path}", hint="a path is relative to this file")
        return str(path)
    if text not in profile_names():
        hint = f"{did_you_mean(text, profile_names())}; or a path relative to this file"
        raise entry.error(f"no device profile is called {text!r}", hint=hint)
    return text


def _target(text: str, entry: Entry) -> str:
    scheme, colon, _ = text.partition("://")
    if scheme not in registry.names("targets") or (not colon and scheme != "local"):
        schemes = [name if name == "local" else f"{name}://" for name in registry.names("targets")]
        hint = did_you_mean(text.partition(":")[0], schemes)
        if "@" in text and not colon:
            hint = f"did you mean ssh://{text}? {hint}"
        raise entry.error(f"{text!r} is no target", hint=hint)
    try:
        parts = urlsplit(text)
        nowhere = bool(colon) and scheme != "local" and (parts.hostname is None or parts.port == 0)
    except ValueError as error:  # of the port
        raise entry.error(f"{text!r}: {error}", hint=f"write it like {_ADDRESS}") from error
    if nowhere:
        raise entry.error(f"{text!r} is not the address of a host", hint=f"write it like {_ADDRESS}")
    if colon and parts.password is not None:
        message = "a password has no place in a file"
        raise entry.error(message, hint="use a key: identity_file, or an agent")
    return text


def _judge(text: str, entry: Entry) -> str:
    if text not in JUDGES:
        raise entry.error(f"{text!r} is no way to judge several devices", hint=did_you_mean(text, JUDGES))
    return text


def _table(build: Callable[..., Any], fields: dict[str, Field]) -> Field:
    return Field(Table(build, fields))


PROJECT = Table(
    dict,
    {
        "task": Field(_Checked(_task, "task.py:Digits"), required=True, description="write it like task.py:Digits"),
        "device": _table(
            DeviceSettings,
            {
                "profile": Field(_Checked(_profile, "raspberry-pi-4b")),
                "target": Field(_Checked(_target, _ADDRESS)),
                "targets": Field(ListOf(_Checked(_target, _ADDRESS))),
                "judge": Field(_Checked(_judge, "worst")),
                "identity_file": Field(_PathText()),
                "known_hosts": Field(_PathText()),
            },
        ),
        "budget": Field(BudgetLimits()),
        "search": _table(
            SearchSettings,
            {
                "strategy": Field(Registered("strategies")),
                "importance": Field(_WithParameters("importances")),
                "seed": Field(Count(0)),
                "round_to": Field(Count()),
                "min_width": Field(Count()),
                "ignored": Field(ListOf(Text("head.*"))),
                "max_trials": Field(Count()),
            },
        ),
        "recovery": _table(
            FineTuneSettings,
            {
                "epochs": Field(Count(0)),
                "learning_rate": Field(Number(above=True)),
                "momentum": Field(Number(high=1.0)),
                "weight_decay": Field(Number()),
                "temperature": Field(Number(above=True)),
                "distillation": Field(Number(high=1.0)),
                "max_batches_per_epoch": Field(Count()),
            },
        ),
        "export": _table(
            ExportSettings,
            {
                "format": Field(_WithParameters("exporters")),
                "quantize": Field(Choice(QUANTIZE)),
                "scheme": Field(Text("per-channel", "[a-z0-9-]+")),
                "calibration": Field(_PathText()),
            },
        ),
        "executor": _table(
            ExecutorSettings,
            {
                "kind": Field(Registered("executors")),
                "workers": Field(Count()),
                "cpus": Field(Count()),
                "gpus": Field(Number()),
                "address": Field(Text("10.0.0.1:6379")),
                "device": Field(Text("camera", r"[A-Za-z0-9][A-Za-z0-9_.-]*")),
            },
        ),
        "runs": Field(_PathText()),
    },
)
