"""Operations that networks share and that have more than one implementation."""

from models.ops.scan import backends, resolve_backend, selective_scan, set_default_backend

__all__ = ["backends", "resolve_backend", "selective_scan", "set_default_backend"]
