"""What a search varies, and in which order: a seeded sequence of settings, the same for every network."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.fields import BUDGETS
from bench.protocol import show

KINDS = "around:FACTOR, loguniform:LOW:HIGH, uniform:LOW:HIGH, choice:A,B,C or none"
DEFAULT_SPACE: Mapping[str, str] = {
    "train.learning_rate": "around:10",
    "train.weight_decay": "loguniform:1e-6:1e-2",
}
# Four digits decide as well as sixteen, and can be read and typed.
_DIGITS = 4
_FIXED = {
    "split": "it says which cases train, validate and test",
    "validation": "the search itself sees to it that every network is validated at the same steps",
    "infer": "networks of one table are tested alike",
    "evaluate": "networks of one table are scored alike",
    **dict.fromkeys(
        [f"train.{budget}" for budget in (*BUDGETS, "steps_per_epoch")], "every setting is trained for the same steps"
    ),
}


@dataclass(frozen=True)
class Dimension:
    """A field and the values it may take.

    Attributes:
        field: dotted, as behind ``--set``.
        text: the values as typed, e.g. ``loguniform:1e-4:1e-1``.
        kind: ``around``, ``loguniform``, ``uniform`` or ``choice``.
        low, high: the range; of ``around`` both factors on the protocol's own value.
        values: of a ``choice``.
    """

    field: str
    text: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.field}={self.text}"

    def concerns(self, model: str) -> bool:
        """Whether the field means something to a network: all do but the options of others."""
        section, _, rest = self.field.partition(".")
        return section != "model_options" or rest.partition(".")[0] == model

    def at(self, share: float, own: Any) -> str:
        """The value at a share of the way through all of them, as it is typed.

        Args:
            share: 0..1, 1 excluded.
            own: the protocol's own value; where that is a whole number, so is this.

        Raises:
            BenchError: values around an own value that is no positive number.
        """
        if self.kind == "choice":
            return self.values[int(share * len(self.values))]
        low, high = self._range(own)
        if self.kind == "uniform":
            value = low + share * (high - low)
        else:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        if _whole(own):
            return str(min(max(round(value), math.ceil(low)), math.floor(high)))
        return f"{min(max(float(f'{value:.{_DIGITS}g}'), low), high):g}"

    def bounds(self, own: Any) -> tuple[str, ...]:
        """Values which, if a protocol takes them, it takes all of them: the ends of a range, or each choice."""
        if self.kind == "choice":
            return self.values
        low, high = self._range(own)
        if _whole(own) and math.ceil(low) > math.floor(high):
            raise BenchError(f"--search {self}: no whole number lies between {low:g} and {high:g}; expected one")
        return self.at(0, own), self.at(1, own)

    def _range(self, own: Any) -> tuple[float, float]:
        if self.kind != "around":
            return self.low, self.high
        if isinstance(own, bool) or not isinstance(own, (int, float)) or own <= 0:
            raise BenchError(
                f"--search {self}: the protocol's own value is {show(own)}, and only around a positive number is there "
                "a range; expected loguniform:LOW:HIGH, uniform:LOW:HIGH or choice:A,B,C"
            )
        return own * self.low, own * self.high


def search_space(asked: Sequence[str]) -> tuple[Dimension, ...]:
    """The default space, with what was asked for in addition or instead.

    Args:
        asked: ``FIELD=VALUES`` each, with values as `KINDS` lists them; ``none`` leaves a default out. A choice of
            values that hold commas themselves separates them by ``|``.

    Raises:
        BenchError: what was asked for cannot be understood, is no range, or concerns a field that must be the same for
            every setting.
    """
    texts = dict(DEFAULT_SPACE)
    for one in asked:
        field, separator, text = (part.strip() for part in one.partition("="))
        if not separator or not field or not text:
            raise BenchError(f"--search {one!r}: expected FIELD=VALUES, with values {KINDS}")
        texts[field] = text
    found = tuple(_dimension(field, text) for field, text in texts.items() if text.lower() != "none")
    if not found:
        raise BenchError(f"--search {asked[-1]}: nothing is left to search; expected at least one field with {KINDS}")
    return found


def draws(space: Sequence[Dimension], own: Mapping[str, Any], seed: int) -> Iterator[dict[str, str]]:
    """Settings without end: the protocol's own first, then independent draws; some may come twice.

    Each field has a stream of random numbers of its own, of the seed and its name alone. Networks thus try the same
    values (of ``around`` the same multiples), whatever else is searched for one of them.

    Args:
        own: the protocol's own value of each field.
    """
    yield {dimension.field: show(own[dimension.field]) for dimension in space}
    streams = [np.random.default_rng([seed, _number(dimension.field)]) for dimension in space]
    while True:
        yield {
            dimension.field: dimension.at(float(stream.random()), own[dimension.field])
            for dimension, stream in zip(space, streams, strict=True)
        }


def setting_text(setting: Mapping[str, str]) -> str:
    """For people: ``train.learning_rate=0.01, train.weight_decay=3e-05``."""
    return ", ".join(f"{field}={value}" for field, value in setting.items())


def _dimension(field: str, text: str) -> Dimension:
    for fixed, reason in _FIXED.items():
        if field == fixed or field.startswith(f"{fixed}."):
            raise BenchError(f"--search {field}={text}: {field} cannot be searched, since {reason}")
    kind, _, rest = text.partition(":")
    if kind == "choice":
        values = tuple(value.strip() for value in rest.split("|" if "|" in rest else ","))
        if not all(values) or len(set(values)) < len(values):
            raise BenchError(f"--search {field}={text}: expected choice:A,B,C with values that differ")
        return Dimension(field, text, kind, values=values)
    numbers = [_float(part) for part in rest.split(":")]
    wanted = {"around": 1, "loguniform": 2, "uniform": 2}.get(kind)
    if wanted is None or len(numbers) != wanted or not all(map(math.isfinite, numbers)):
        raise BenchError(f"--search {field}={text}: expected {KINDS}")
    if kind == "around":
        numbers = [1 / numbers[0] if numbers[0] else 0.0, numbers[0]]
    low, high = numbers
    if low >= high or (kind != "uniform" and low <= 0):
        positive = "" if kind == "uniform" else " above 0"
        expected = "a factor above 1" if kind == "around" else f"two numbers{positive}, the lower one first"
        raise BenchError(f"--search {field}={text}: expected {expected}")
    return Dimension(field, text, kind, low, high)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
