"""The file in which a search leaves what it has found: a protocol in which each network has a setting of its own.

It is TOML, for people to read and for ``bench run --protocol FILE``::

    kind = "author"                     # of the presets' kind of that name: each network under fields of its own
    name = "demo-tuned-3fa9c1"          # which tables print; networks under one name were tuned alike
    protocol = "demo"                   # the preset that holds whatever was not searched
    set = ["train.steps=200"]           # changes of it
    [search]                            # on what, by how many trials; space: what was searched
    [models.segresnet]                  # the fields of that network
    [found.segresnet]                   # where they come from
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.atomic import write_text
from bench.errors import BenchError
from bench.job import Job
from bench.protocol import Protocol, load_protocol, overridden, parse_value, preset_names, show

KIND = "author"
_SECTIONS: Mapping[str, type] = {
    **{"kind": str, "name": str, "protocol": str, "set": list, "search": dict, "models": dict, "found": dict}
}
_SEARCH: Mapping[str, type] = {
    **{"dataset": str, "data_fingerprint": str, "split_sha256": str, "trials": int, "steps": int, "space": dict}
}
_DIGITS = 6


@dataclass(frozen=True)
class Tuned:
    """What the file holds.

    Attributes:
        path: where it lies.
        name: of the protocol.
        base: the preset.
        changes: of the preset, ``FIELD=VALUE``; a network's own fields go before them.
        search: dataset, data_fingerprint, split_sha256, trials, steps and space of the search, and what else is told.
        models: the fields of each network, dotted, with their values.
        found: how each network's were found, for people.
    """

    path: Path
    name: str
    base: str
    changes: tuple[str, ...]
    search: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]
    found: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """What tables say of the protocol."""
        told, last = [*self.search["space"]], ""
        if len(told) > 1:
            last = f" and {told.pop()}"
        return (
            f"{self.base} with each network's own {', '.join(told)}{last}, the best of {self.search['trials']} "
            f"settings of at most {self.search['steps']:,} steps on validation cases of {self.search['dataset']}"
        )

    def protocol(self, model: str, changes: Sequence[str] = (), recipe: Mapping[str, Any] | None = None) -> Protocol:
        """The protocol of one network.

        Args:
            model: the network.
            changes: further ones, as in `bench.protocol.load_protocol`.
            recipe: its authors', where the preset is ``author``.

        Raises:
            BenchError: the file has no setting of it, or the preset does not take what it has.
        """
        if model not in self.models:
            raise BenchError(
                f"{self.path} has no setting of {model}; it has those of {', '.join(self.models)}. Leave {model} out, "
                f"or search for it as for the others, with bench tune --model {model}"
            )
        own = self.models[model]
        kept = [change for change in self.changes if change.partition("=")[0].strip() not in own]
        try:
            loaded = load_protocol(
                self.base, overridden(kept, changes), author_of=model, recipe={**(recipe or {}), **_plain(own)}
            )
        except BenchError as error:
            raise self._blamed(error, model, recipe or {}) from None
        changed = {change.partition("=")[0] for change in loaded.changes}
        kept_fields = tuple(name for name in own if name not in changed)
        cited = dict.fromkeys(kept_fields, f"tuned, see {self.path}")
        return loaded.model_copy(
            update={
                "name": self.name,
                "description": self.description,
                "sources": {**loaded.sources, **cited},
                "tuned": kept_fields,
            }
        )

    def check_cases(self, jobs: Sequence[Job]) -> None:
        """See that no job tests a case by which its setting may have been chosen.

        Raises:
            BenchError: a job is on the same dataset, but on other files or another split.
        """
        for job in jobs:
            if job.protocol.name != self.name or job.dataset != self.search["dataset"]:
                continue
            for what, found, expected in (
                ("files", job.data_fingerprint, self.search["data_fingerprint"]),
                ("split", job.split.sha256, self.search["split_sha256"]),
            ):
                if found != expected:
                    raise BenchError(
                        f"{job.title}: its {what} {found[:12]} are not those that {self.path} was made with, "
                        f"{expected[:12]}, so that it would test cases by which its setting was chosen. Run it on that "
                        "split and those files, or make another file with bench tune"
                    )

    def _blamed(self, error: BenchError, model: str, recipe: Mapping[str, Any]) -> BenchError:
        """The error with the line of the field that it is about; as it is, where it is about what somebody typed."""
        for name, value in self.models[model].items():
            try:
                load_protocol(self.base, (), author_of=model, recipe={**recipe, name: _plain({name: value})[name]})
            except BenchError as found:
                return BenchError(f"{self._place('models', model, name)}: {found}")
        try:
            load_protocol(self.base, self.changes)
        except BenchError as found:
            return BenchError(f"{self._place('set')}: {found}")
        return error

    def _place(self, *keys: str) -> str:
        return f"{self.path}, line {_line_of(self.path.read_text(encoding='utf-8'), keys)}"


def tuned_name(base: str, key: str) -> str:
    """What the protocol is called that a search makes of a preset.

    Args:
        key: equal for searches whose results may stand in one table.
    """
    return f"{base}-tuned-{key[:_DIGITS]}"


def names_file(protocol: str) -> bool:
    """Whether a protocol is named by its file."""
    return protocol.endswith(".toml") or "/" in protocol


def read_tuned(path: Path) -> Tuned:
    """Read a file that `write_tuned` has written; somebody may have edited it since.

    Raises:
        BenchError: there is none, or it is something else, with the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BenchError(
            f"cannot read {path}: {reason}; expected a file as bench tune writes it, or one of the protocols "
            f"{', '.join(preset_names())}"
        ) from None
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BenchError(
            f"{path} is damaged: {error}; expected TOML as bench tune writes it. Run bench tune again"
        ) from None
    for part in ("models", "search"):  # a dotted key is a table in a table
        if isinstance(tree.get(part), dict):
            tree[part] = {name: _flat(value) for name, value in tree[part].items()}
    for keys, fault in _faults(tree):
        raise BenchError(f"{path}, line {_line_of(text, keys)}: {fault}; expected a protocol as bench tune writes it")
    return Tuned(
        path=path,
        name=tree["name"],
        base=tree["protocol"],
        changes=tuple(tree["set"]),
        search=tree["search"],
        models=tree["models"],
        found=tree["found"],
    )


def write_tuned(tuned: Tuned) -> None:
    """Write the file, whole or not at all.

    Raises:
        BenchError: the disk refuses.
    """
    lines = [
        f"# Made by `bench tune`: of each network the best of {tuned.search['trials']} settings, by Dice on validation "
        "cases.",
        "# `bench run --protocol THIS_FILE` trains networks under it, `bench protocols THIS_FILE` shows it.",
        "",
    ]
    top = {"kind": KIND, "name": tuned.name, "protocol": tuned.base, "set": list(tuned.changes)}
    lines += _assignments(top)
    space = tuned.search["space"]
    lines += ["", "[search]", *_assignments({name: value for name, value in tuned.search.items() if name != "space"})]
    lines += ["", "[search.space]", *_assignments(space)]
    for model, own in tuned.models.items():
        lines += ["", f"[models.{_key(model)}]", *_assignments(own)]
        lines += ["", f"[found.{_key(model)}]", *_assignments(tuned.found.get(model, {}))]
    write_text(tuned.path, "\n".join(lines) + "\n")


def own_fields(setting: Mapping[str, str]) -> dict[str, Any]:
    """A network's fields from values as they are typed; TOML has no word for none, which therefore stays text."""
    values = {name: parse_value(text) for name, text in setting.items()}
    return {name: "none" if value is None else value for name, value in values.items()}


def _plain(own: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if value == "none" else value for name, value in own.items()}


def _faults(tree: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with the content, and under which keys."""
    if tree.get("kind") != KIND:
        found = f"its kind is {show(tree['kind'])}" if "kind" in tree else "it states no kind"
        yield ("kind",), f"{found} instead of {KIND}"
    for name in tree:
        if name not in _SECTIONS:
            yield (name,), f"{name!r} is nothing that it may hold"
    for name, kind in _SECTIONS.items():
        if not isinstance(tree.get(name), kind):
            yield (name,), f"{name!r} is missing or no {_WORDS[kind]}"
    for name, kind in _SEARCH.items():
        if not isinstance(tree["search"].get(name), kind):
            yield ("search", name), f"{name!r} in [search] is missing or no {_WORDS[kind]}"
    if not re.fullmatch(r"[\w.-]+", tree["name"]):
        yield ("name",), f"the name {tree['name']!r} is no word"
    if tree["protocol"] not in preset_names():
        yield ("protocol",), f"there is no protocol {tree['protocol']!r}"
    if not all(isinstance(change, str) and "=" in change for change in tree["set"]):
        yield ("set",), f"'set' holds something else than FIELD=VALUE: {show(tree['set'])}"
    if not tree["models"]:
        yield ("models",), "it has no setting of any network"
    for part in ("models", "found"):
        for model, own in tree[part].items():
            if not isinstance(own, dict):
                yield (part, model), f"{part}.{model} is no table"


_WORDS = {str: "text", list: "list", dict: "table", int: "whole number"}


def _line_of(text: str, keys: Sequence[str]) -> int:
    """The line of a key, or where that is missing, of what it should stand in."""
    wanted = [part for key in keys for part in key.split(".")]
    table: tuple[str, ...] = ()
    best, depth = 1, 0
    for number, line in enumerate(text.splitlines(), 1):
        try:
            here = _path(tomllib.loads(line))
        except tomllib.TOMLDecodeError:  # a part of something longer
            continue
        if line.lstrip().startswith("["):
            table = here
        else:
            here = table + here if here else ()
        if len(here) > depth and tuple(wanted[: len(here)]) == here:
            best, depth = number, len(here)
    return best


def _path(tree: Mapping[str, Any]) -> tuple[str, ...]:
    keys: list[str] = []
    level: Any = tree
    while isinstance(level, dict) and level:
        name, level = next(iter(level.items()))
        keys += name.split(".")
    return tuple(keys)


def _flat(value: Any) -> Any:
    """A table in which the keys of tables within it are dotted; anything else as it is."""
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for name, inner in value.items():
        flat = _flat(inner)
        found |= {f"{name}.{key}": one for key, one in flat.items()} if isinstance(flat, dict) else {name: flat}
    return found


def _assignments(values: Mapping[str, Any]) -> list[str]:
    return [f"{_key(name)} = {_toml(value)}" for name, value in values.items()]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", name) else json.dumps(name, ensure_ascii=False)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value), ensure_ascii=False)
