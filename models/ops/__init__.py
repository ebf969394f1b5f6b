"""Operations that networks share and that have more than one implementation."""

from models.ops.scan import backends, resolve_backend, selective_scan

__all__ = ["backends", "resolve_backend", "selective_scan"]
