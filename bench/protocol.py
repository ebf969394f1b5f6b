"""Everything that all models of a table share, as one frozen, validated object.

The presets are the TOML files in ``bench/protocols``; ``--set FIELD=VALUE`` changes one field. Whatever stands
here is part of a job's key, so a changed field is another experiment. What each field means stands in `bench.fields`,
where each value comes from in the preset's ``[sources]``.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, ValidationError

from bench.errors import BenchError, unknown
from bench.fields import (
    BUDGETS,
    AugmentFields,
    DataFields,
    EvaluateFields,
    InferFields,
    Section,
    Size,
    SplitFields,
    TrainFields,
    ValidationFields,
)

PRESETS = Path(__file__).parent / "protocols"
AUTHOR = "author"


class Protocol(Section):
    """A training and evaluation protocol that several models share.

    Attributes:
        name: of the preset it began as; of one that a search has tuned, see `bench.tuned`, that search's.
        author_of: the model whose own it is, by its authors' recipe or by a search; empty where models share it.
        changes: the fields that differ from the preset, as ``field=value``, sorted; options of single models are
            not among them, since they do not concern the others.
        sources: field to where its value comes from; a changed field has none.
        tuned: the fields whose values a search has found for this model, options of the model among them.
        model_options: options with which a model is built under this protocol, by model name.
    """

    name: str
    description: str
    author_of: str = ""
    changes: tuple[str, ...] = ()
    sources: Mapping[str, str] = Field(default_factory=dict)
    tuned: tuple[str, ...] = ()
    split: SplitFields
    data: DataFields
    augment: AugmentFields
    train: TrainFields
    validation: ValidationFields
    infer: InferFields
    evaluate: EvaluateFields
    model_options: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="options with which a model is built under this protocol"
    )

    @property
    def by_authors(self) -> bool:
        """Whether its basis is a recipe of the model's authors, tuned or not."""
        return bool(self.author_of) and self.name.partition("-")[0] == AUTHOR

    @property
    def title(self) -> str:
        """Name and changes, as tables print it: ``demo (train.steps=5)``."""
        return f"{self.name} ({', '.join(self.changes)})" if self.changes else self.name

    def canonical(self) -> dict[str, Any]:
        """What may change the outcome, in plain values: the protocol's part of a job's key."""
        told = {"description", "changes", "sources", "tuned", "model_options"}
        values = self.model_dump(mode="json", exclude=told)
        # They came when there were records already, whose keys stay as they are.
        for part, field, usual in (
            ("split", "folds", None),
            ("train", "fused", False),
            ("train", "graph", False),
            ("train", "dice_squared", False),
            ("train", "target", "classes"),
        ):
            if values[part][field] == usual:
                del values[part][field]
        return values

    def values(self) -> dict[str, Any]:
        """Every field, dotted, with its value."""
        return {field: _value(self, field) for field in fields()}


def preset_names() -> list[str]:
    """Names of the protocols that come with the harness."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_protocol(
    name: str, changes: Sequence[str] = (), *, author_of: str = "", recipe: Mapping[str, Any] | None = None
) -> Protocol:
    """Load a preset and change fields of it.

    Args:
        name: a preset's name.
        changes: ``FIELD=VALUE`` with a dotted field (``train.steps=100``, ``data.patch_size=64,64,64``,
            ``model_options.segmamba.feat_size=16,32,64,128``). Values are read as TOML, bare words as text, a
            comma-separated list as an array; a single number for a patch size means a cube; ``none`` clears an
            optional field.
        author_of: with the preset ``author``, the model whose recipe it becomes.
        recipe: that model's fields (dotted, ``model_options`` by option), as its card states them.

    Raises:
        BenchError: an unknown preset or field (the nearest is suggested), a value of the wrong kind or range.
    """
    if name not in preset_names():
        raise BenchError(unknown("protocol", name, preset_names()))
    tree = _preset(name)
    for field, value in (recipe or {}).items():
        _set_value(tree, field, value)
    _replace_budget(tree, recipe or {})
    if author_of:
        tree["author_of"] = author_of
        cited = dict.fromkeys(recipe or {}, f"recipe of {author_of}'s authors, see its card")
        tree["sources"] = {**tree.get("sources", {}), **cited}
    preset = _validated(tree, name, {})
    applied = {}
    for change in changes:
        field, text = _parted(change)
        _set_value(tree, field, parse_value(text))
        applied[field] = text
    _replace_budget(tree, applied)
    changed = _validated(tree, name, applied)
    differences = _differences(preset, changed)
    differing = {difference.partition("=")[0] for difference in differences}
    sources = {field: source for field, source in changed.sources.items() if field not in differing}
    return changed.model_copy(update={"changes": differences, "sources": sources})


def overridden(changes: Sequence[str], more: Sequence[str]) -> list[str]:
    """Changes with further ones, which take the place of those of the same field, or of another budget."""
    later = {_field(change) for change in more}
    budgets = {f"train.{budget}" for budget in BUDGETS}
    if later & budgets:
        later |= budgets
    return [*(change for change in changes if _field(change) not in later), *more]


def wanted_values(changes: Sequence[str]) -> dict[str, Any]:
    """The fields that are named, each with its value as a record holds it: what `fits` looks for.

    Args:
        changes: ``FIELD=VALUE``, as for `load_protocol`, of fields that all models share.

    Raises:
        BenchError: no such form, an unknown field, an option of a network.
    """
    wanted = {}
    for change in changes:
        field, text = _parted(change)
        if field.startswith("model_options."):
            raise BenchError(
                f"--set {field}: an option of a network; expected a field of the protocol: train.steps=1000"
            )
        section, _, name = field.partition(".")
        tree: dict[str, dict[str, Any]] = {section: {}}
        _set_value(tree, field, parse_value(text))
        wanted[field] = tree[section][name]
    return wanted


def fits(protocol: Mapping[str, Any], name: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a protocol as `Protocol.canonical` wrote it bears a name, where one is given, and has these values."""
    return (not name or protocol["name"] == name) and all(
        value_of(protocol, field) == wanted[field] for field in wanted
    )


def value_of(protocol: Mapping[str, Any], field: str) -> Any:
    """A field, dotted, of a protocol as `Protocol.canonical` wrote it, which leaves out some that are as usual."""
    section, _, member = field.partition(".")
    return protocol[section].get(member, _sections()[section].model_fields[member].default)


@cache
def fields() -> Mapping[str, str]:
    """Every settable field, dotted, with its description."""
    return {
        f"{section}.{name}": str(info.description)
        for section, model in _sections().items()
        for name, info in model.model_fields.items()
    }


def _parted(change: str) -> tuple[str, str]:
    field, _, text = (part.strip() for part in change.partition("="))
    if not field or not text:
        raise BenchError(f"--set {change!r}: expected FIELD=VALUE, for example --set train.steps=100")
    return field, text


def _field(change: str) -> str:
    return change.partition("=")[0].strip()


def _preset(name: str) -> dict[str, Any]:
    return tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))


def _validated(tree: dict[str, Any], name: str, applied: Mapping[str, str]) -> Protocol:
    try:
        return Protocol.model_validate(copy.deepcopy(tree))
    except ValidationError as error:
        raise BenchError(_explain(error, name, applied)) from None


def _replace_budget(tree: dict[str, Any], applied: Mapping[str, Any]) -> None:
    """The budgets exclude each other: whoever sets one means it to replace the preset's."""
    if any(f"train.{budget}" in applied for budget in BUDGETS):
        for other in BUDGETS:
            if f"train.{other}" not in applied:
                tree["train"].pop(other, None)


def _value(protocol: Protocol, field: str) -> Any:
    section, _, name = field.partition(".")
    return getattr(getattr(protocol, section), name)


def _differences(preset: Protocol, changed: Protocol) -> tuple[str, ...]:
    differences = []
    for field in fields():
        value = _value(changed, field)
        if value == _value(preset, field):
            continue
        if value is None and field.partition(".")[2] in BUDGETS:  # the other budget, which took its place, says it
            continue
        differences.append(f"{field}={show(value)}")
    return tuple(sorted(differences))


def show(value: Any) -> str:
    """A field's value as it is typed behind ``--set FIELD=``."""
    text = ",".join(map(show, value)) if isinstance(value, (tuple, list)) else str(value)
    return "none" if text in ("", "None") else text


@cache
def _sections() -> dict[str, type[Section]]:
    return {
        name: info.annotation
        for name, info in Protocol.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section)
    }


def _set_value(tree: dict[str, Any], field: str, value: Any) -> None:
    if field.startswith("model_options."):
        _set_model_option(tree, field, value)
        return
    if field not in fields():
        raise BenchError(unknown("protocol field", field, list(fields())) + _option_hint(field))
    section, _, name = field.partition(".")
    annotation = _sections()[section].model_fields[name].annotation
    if annotation == Size and isinstance(value, int):
        value = [value] * 3
    elif _is_tuple(annotation) and not isinstance(value, (list, tuple)):
        value = [] if value is None else [value]
    tree[section][name] = value


def _option_hint(field: str) -> str:
    return "" if "." in field else f". An option of a network is set as model_options.MODEL.{field}"


def _is_tuple(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is tuple and get_args(annotation)[-1] is Ellipsis


def _set_model_option(tree: dict[str, Any], field: str, value: Any) -> None:
    parts = field.split(".")
    if len(parts) != 3:
        raise BenchError(f"--set {field}: expected model_options.MODEL.OPTION, e.g. model_options.segmamba.feat_size")
    tree.setdefault("model_options", {}).setdefault(parts[1], {})[parts[2]] = value


def parse_value(text: str) -> Any:
    """Read a value as TOML where it is TOML, else as text; ``none`` is None, ``a,b`` an array."""
    if text.lower() == "none":
        return None
    spelt = {"true": "true", "false": "false"}.get(text.lower(), text)
    for candidate in (spelt, f"[{spelt}]"):
        try:
            return tomllib.loads(f"value = {candidate}")["value"]
        except tomllib.TOMLDecodeError:
            continue
    return text


def _explain(error: ValidationError, name: str, applied: Mapping[str, str]) -> str:
    lines = []
    for fault in error.errors():
        # What follows section and field says which of several types was tried.
        field = ".".join(str(part) for part in fault["loc"][:2] if not isinstance(part, int))
        described = fields().get(field)
        found = f"{field}={applied[field]}" if field in applied else (field or "the protocol")
        reason = fault["msg"].removeprefix("Value error, ")
        lines.append(f"protocol {name!r}, {found}: {reason}" + (f" ({field}: {described})" if described else ""))
    return "\n".join(lines)
