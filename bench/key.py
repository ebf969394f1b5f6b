"""How a record is named: by the hash of what was asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY_DIGITS = 16


def key_of(canonical: Mapping[str, Any]) -> str:
    """The key of a canonical form: 16 hexadecimal digits of the SHA-256 of its JSON with sorted names."""
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]
