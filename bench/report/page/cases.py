"""The browser of cases as JSON within HTML."""

from __future__ import annotations

import json
import math
from base64 import b64encode

from bench.errors import BenchError
from bench.report.page.content import CaseBrowser

_PNG = b"\x89PNG\r\n\x1a\n"
# In a script element HTML ends at "</script" wherever it stands; the last two end lines in older JavaScript.
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def regions(browser: CaseBrowser) -> tuple[str, ...]:
    """The regions of all scores, in the order in which they first come."""
    return tuple(
        dict.fromkeys(region for entry in browser.cases for scores in entry.scores.values() for region in scores)
    )


def embedded(browser: CaseBrowser) -> str:
    """Everything that the browser's script needs, safe inside a ``<script>`` element.

    An object with models; regions, their number; digits, the decimals of each column; and cases: id, scores (model to
    the values of its columns, regions within metrics) and pictures (model to data URI).

    Raises:
        BenchError: a picture is neither PNG nor SVG, or two cases share an id.
    """
    ids = [entry.case for entry in browser.cases]
    if len(set(ids)) < len(ids):
        twice = sorted({case for case in ids if ids.count(case) > 1})
        raise BenchError(f"found {', '.join(twice)} more than once among the cases; expected one entry for each case.")
    columns = [(metric, region) for metric in browser.metrics for region in regions(browser)]
    content = {
        "models": browser.models,
        "regions": len(regions(browser)),
        "digits": [_digits(browser, metric) for metric, _ in columns],
        "cases": [
            {
                "id": entry.case,
                "scores": {
                    model: [_number(scores.get(region, {}).get(metric)) for metric, region in columns]
                    for model, scores in entry.scores.items()
                },
                "pictures": {model: _uri(picture, entry.case) for model, picture in entry.pictures.items()},
            }
            for entry in browser.cases
        ],
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def _number(value: float | None) -> float | str | None:
    """JSON has no infinity; JavaScript's ``Number`` reads it from this text."""
    if value is None or math.isnan(value):
        return None
    return float(value) if math.isfinite(value) else f"{'-' if value < 0 else ''}Infinity"


def _digits(browser: CaseBrowser, metric: str) -> int:
    """Three decimals for shares such as Dice in 0..1, two for anything larger."""
    values = [
        scores.get(metric) for entry in browser.cases for model in entry.scores.values() for scores in model.values()
    ]
    return 2 if any(value is not None and 1 < abs(value) < math.inf for value in values) else 3


def _uri(picture: bytes | str, case: str) -> str:
    if isinstance(picture, str):
        kind, content = "svg+xml", picture.encode()
    elif picture.startswith(_PNG):
        kind, content = "png", picture
    else:
        raise BenchError(
            f"a picture of {case} begins with {picture[:8]!r}; expected the bytes of a PNG file, or SVG as text."
        )
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
