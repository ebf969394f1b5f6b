"""Operations that networks share and that have more than one implementation."""

from models.ops.order import BACKWARD, FORWARD, Order
from models.ops.scan import backends, resolve_backend, scan_orders, selective_scan, set_default_backend

__all__ = [
    "BACKWARD",
    "FORWARD",
    "Order",
    "backends",
    "resolve_backend",
    "scan_orders",
    "selective_scan",
    "set_default_backend",
]
