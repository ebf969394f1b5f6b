"""Everything that all models of a table share, as one frozen, validated object.

The presets are the TOML files in ``bench/protocols``; ``--set FIELD=VALUE`` changes one field. Whatever stands
here is part of a job's key, so a changed field is another experiment.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench.errors import BenchError, unknown
from bench.metrics.conventions import convention

PRESETS = Path(__file__).parent / "protocols"

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0, lt=2**63)]
Size = tuple[Positive, Positive, Positive]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SplitFields(_Section):
    """How the cases are divided."""

    train: Fraction = Field(description="share of cases that train")
    validation: Fraction = Field(description="share of cases kept for choices during development")
    test: Fraction = Field(description="share of cases that are scored")
    seed: int = Field(ge=0, lt=2**63, description="seed of the draw; the same for every model and every training seed")

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitFields:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares train, validation and test sum to {total:g}; expected 1")
        return self


class DataFields(_Section):
    """What a network is shown."""

    patch_size: Size = Field(description="patch (d, h, w) in voxels, for training and for the sliding window")
    normalise: Literal["brain", "box"] = Field(
        description="z-score of each channel over the non-zero voxels (brain) or the whole cropped box (box)"
    )
    foreground_fraction: Fraction = Field(description="share of training patches centred on a labelled voxel")
    mirror: bool = Field(description="flip training patches along each axis with probability one half")


class TrainFields(_Section):
    """How a network is trained. Exactly one of ``epochs`` and ``steps`` is the budget."""

    epochs: Positive | None = Field(default=None, description="budget in epochs of steps_per_epoch steps")
    steps: Positive | None = Field(default=None, description="budget in optimiser steps")
    steps_per_epoch: Positive = Field(description="optimiser steps in an epoch: the interval of history rows")
    batch_size: Positive = Field(description="patches in an optimiser step")
    loss: Literal["cross_entropy"] = Field(description="training loss over the mutually exclusive classes")
    learning_rate: Annotated[float, Field(gt=0)] = Field(description="initial rate of SGD")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(description="of SGD, in Nesterov's form where above 0")
    weight_decay: Annotated[float, Field(ge=0)] = Field(description="L2 penalty on every parameter")
    poly_power: Annotated[float, Field(ge=0)] = Field(
        description="rate at step t of T is learning_rate * (1 - t/T) ** poly_power"
    )
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="largest norm of the whole gradient; absent for no clipping"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> TrainFields:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("exactly one of train.epochs and train.steps must be set")
        return self

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.steps or (self.epochs or 0) * self.steps_per_epoch


class InferFields(_Section):
    """How a trained network segments a whole volume."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(description="share by which neighbouring windows overlap")
    blend: Literal["gaussian", "constant"] = Field(description="weights of a window's voxels in the average")
    mirror_axes: tuple[Literal[0, 1, 2], ...] = Field(
        description="average the logits over all flips of these axes (0 = D, 1 = H, 2 = W); none for no flips"
    )

    @field_validator("mirror_axes")
    @classmethod
    def _each_once(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(axes)) < len(axes):
            raise ValueError("each axis may be named once")
        return tuple(sorted(axes))


class EvaluateFields(_Section):
    """How predictions are scored."""

    convention: str = Field(description="what an empty mask scores: a name from bench.metrics.CONVENTIONS")
    untrained: bool = Field(description="also score the network before training, as the floor of the comparison")

    @field_validator("convention")
    @classmethod
    def _known(cls, name: str) -> str:
        return convention(name).name


class Protocol(_Section):
    """A training and evaluation protocol that several models share.

    Attributes:
        name: of the preset it began as.
        changes: the fields that differ from the preset, as ``field=value``, sorted; options of single models are
            not among them, since they do not concern the others.
        model_options: options with which a model is built under this protocol, by model name.
    """

    name: str
    description: str
    changes: tuple[str, ...] = ()
    split: SplitFields
    data: DataFields
    train: TrainFields
    infer: InferFields
    evaluate: EvaluateFields
    model_options: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="options with which a model is built under this protocol"
    )

    @property
    def title(self) -> str:
        """Name and changes, as tables print it: ``demo (train.steps=5)``."""
        return f"{self.name} ({', '.join(self.changes)})" if self.changes else self.name


def preset_names() -> list[str]:
    """Names of the protocols that come with the harness."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_protocol(name: str, changes: Sequence[str] = ()) -> Protocol:
    """Load a preset and change fields of it.

    Args:
        name: a preset's name.
        changes: ``FIELD=VALUE`` with a dotted field (``train.steps=100``, ``data.patch_size=64,64,64``,
            ``model_options.segmamba.feat_size=16,32,64,128``). Values are read as TOML, bare words as text, a
            comma-separated list as an array; a single number for a patch size means a cube; ``none`` clears an
            optional field.

    Raises:
        BenchError: an unknown preset or field (the nearest is suggested), a value of the wrong kind or range.
    """
    path = PRESETS / f"{name}.toml"
    if name not in preset_names():
        raise BenchError(unknown("protocol", name, preset_names()))
    tree = tomllib.loads(path.read_text())
    applied = {}
    for change in changes:
        field, separator, text = change.partition("=")
        field, text = field.strip(), text.strip()
        if not separator or not field or not text:
            raise BenchError(f"--set {change!r}: expected FIELD=VALUE, for example --set train.steps=100")
        if field.startswith("model_options."):
            _set_model_option(tree, field, _parse(text))
        else:
            _set_field(tree, field, text)
        applied[field] = text
    # The two budgets exclude each other; whoever sets one means it to replace the preset's.
    for budget, other in (("epochs", "steps"), ("steps", "epochs")):
        if f"train.{budget}" in applied and f"train.{other}" not in applied:
            tree["train"].pop(other, None)
    try:
        preset = Protocol.model_validate(tomllib.loads(path.read_text()))
        changed = Protocol.model_validate(tree)
    except ValidationError as error:
        raise BenchError(_explain(error, name, applied)) from None
    return changed.model_copy(update={"changes": _differences(preset, changed)})


def fields() -> dict[str, str]:
    """Every settable field, dotted, with its description."""
    return {
        f"{section}.{name}": str(info.description)
        for section, model in _sections().items()
        for name, info in model.model_fields.items()
    }


def _differences(preset: Protocol, changed: Protocol) -> tuple[str, ...]:
    differences = []
    for field in fields():
        section, _, name = field.partition(".")
        value = getattr(getattr(changed, section), name)
        if value == getattr(getattr(preset, section), name):
            continue
        if value is None and name in ("epochs", "steps"):  # the other budget, which took its place, says it
            continue
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        differences.append(f"{field}={'none' if shown in ('', None) else shown}")
    return tuple(sorted(differences))


def _sections() -> dict[str, type[_Section]]:
    return {
        name: info.annotation
        for name, info in Protocol.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, _Section)
    }


def _set_field(tree: dict[str, Any], field: str, text: str) -> None:
    if field not in fields():
        raise BenchError(unknown("protocol field", field, list(fields())))
    section, _, name = field.partition(".")
    annotation = _sections()[section].model_fields[name].annotation
    value = _parse(text)
    if annotation == Size and isinstance(value, int):
        value = [value] * 3
    elif _is_tuple(annotation) and not isinstance(value, list):
        value = [] if value is None else [value]
    tree[section][name] = value


def _is_tuple(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is tuple and get_args(annotation)[-1] is Ellipsis


def _set_model_option(tree: dict[str, Any], field: str, value: Any) -> None:
    parts = field.split(".")
    if len(parts) != 3:
        raise BenchError(f"--set {field}: expected model_options.MODEL.OPTION, e.g. model_options.segmamba.feat_size")
    tree.setdefault("model_options", {}).setdefault(parts[1], {})[parts[2]] = value


def _parse(text: str) -> Any:
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
        field = ".".join(str(part) for part in fault["loc"] if not isinstance(part, int))
        described = fields().get(field)
        found = f"{field}={applied[field]}" if field in applied else (field or "the protocol")
        reason = fault["msg"].removeprefix("Value error, ")
        lines.append(f"protocol {name!r}, {found}: {reason}" + (f" ({field}: {described})" if described else ""))
    return "\n".join(lines)
