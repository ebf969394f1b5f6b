"""Instance normalisation in Triton, with what follows it in a block: a residual and a leaky ReLU.

Forwards one pass over memory for the statistics of a tensor and one that normalises; backwards one for the sums of the
gradient and one for the gradients. Between them a small kernel merges what programs found, in an order that is always
the same. Sums take tiles of rows in turn, so that at any time all programs read one stretch of memory; the pass after
begins where they ended, with what the cache still holds. Offsets within a tile take 32 bits, tiles begin at 64.

Shapes, with channels side by side in memory and S the rows, all spatial axes in one: x, residual, y and their gradients
(B, S, C); statistics (tensors, 2, B, C), mean and 1 / standard deviation of x and of the residual where that is
normalised; weight, bias (C,).
"""

from models.ops.triton_norm.function import instance_norm

__all__ = ["instance_norm"]
