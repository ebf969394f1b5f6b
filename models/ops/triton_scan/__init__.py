"""The selective scan in Triton: parallel over the sequence, forwards and backwards, in any order of the tokens."""

from models.ops.triton_scan.autograd import scan_orders, scan_sequence
from models.ops.triton_scan.function import MOST_STATES

__all__ = ["MOST_STATES", "scan_orders", "scan_sequence"]
