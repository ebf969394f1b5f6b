"""Operations that networks share and that have more than one implementation."""

from models.ops.mixer import MixerWeights, mix_orders
from models.ops.order import BACKWARD, FORWARD, Order
from models.ops.scan import backends, resolve_backend, scan_orders, selective_scan, set_default_backend

__all__ = [
    "BACKWARD",
    "FORWARD",
    "MixerWeights",
    "Order",
    "backends",
    "mix_orders",
    "resolve_backend",
    "scan_orders",
    "selective_scan",
    "set_default_backend",
]
