"""Random changes of training patches: drawn on the CPU as a few numbers, carried out on the device.

The definitions are those of batchgenerators, which nnU-Net (Isensee et al., 2021) and SegMamba's released code use;
`pipeline.augment` applies them in their order.
"""

from data.augment.settings import Augmentation

__all__ = ["Augmentation"]
