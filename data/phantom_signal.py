"""The phantom's contrast: from tissues to four magnetic resonance images.

Each image is a table of mean signals per tissue, varied from case to case, blurred by partial volume, modulated by
receive-coil inhomogeneity and covered with Rician noise (Gudbjartsson and Patz, Magn. Reson. Med. 34, 1995), in
units that differ from case to case, as those of real scanners do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from data.phantom_anatomy import Anatomy
from data.phantom_fields import SmoothNoise, smoothstep
from data.phantom_signs import Signs
from data.phantom_tumour import ENHANCING, NECROSIS, Tumour


@dataclass(frozen=True)
class Contrast:
    """Mean signals of one modality relative to white matter, which is 1.

    Attributes:
        vessel: added where blood enhances in the subarachnoid space.
        cap: added around the ventricles, where healthy old brains are bright in FLAIR images as well.
        blood: of a marker, see `data.phantom_signs`.
        units: range of what white matter is in the units of the file.
    """

    fluid: float
    grey: float
    necrosis: float
    oedema: float
    enhancing: float
    vessel: float
    cap: float
    blood: float
    units: tuple[float, float]

    def vary(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Fluid, grey matter, necrosis, oedema and enhancing rim of one case."""
        means = np.array([self.fluid, self.grey, self.necrosis, self.oedema, self.enhancing])
        spread = 1 + _TISSUE_SPREAD * np.clip(rng.standard_normal(len(means)), -2, 2)
        return (means * spread).astype(np.float32)


CONTRASTS: Mapping[str, Contrast] = {
    "t1n": Contrast(0.34, 0.78, 0.50, 0.82, 0.82, 0.0, 0.0, 1.7, (450, 800)),
    "t1c": Contrast(0.36, 0.82, 0.52, 0.82, 1.45, 1.2, 0.0, 1.7, (400, 700)),
    "t2w": Contrast(2.00, 1.30, 1.95, 1.70, 1.40, 0.0, 0.3, 0.7, (250, 450)),
    "t2f": Contrast(0.40, 1.22, 1.35, 1.70, 1.42, 0.0, 0.8, 1.0, (220, 420)),
}

_CALCIUM = 0.25  # in every modality
_TISSUE_SPREAD = 0.03
_TEXTURE = 0.10
_INHOMOGENEITY = 0.10
_BLUR_VOXELS = 0.55


def acquire(
    rng: np.random.Generator, anatomy: Anatomy, tumour: Tumour, signs: Signs, noise: float
) -> dict[str, NDArray[np.int16]]:
    """One image per modality of `CONTRASTS`, (S, S, S) int16: 0 outside the brain and at least 1 within.

    Args:
        noise: standard deviation of each part of the complex noise, relative to white matter.
    """
    size = len(anatomy.hull)
    mask = anatomy.hull < 0
    texture = SmoothNoise.draw(rng, 0.045).on_grid(size)
    vessels = smoothstep(SmoothNoise.draw(rng, 0.04).on_grid(size), 0.4, 1.2)
    vessels = vessels * (anatomy.fluid - anatomy.ventricle)
    caps = gaussian_filter(anatomy.ventricle, 0.02 * size, truncate=2) * (1 - anatomy.fluid)
    marker = None if signs.marker is None else signs.marker.field(size)
    lesion = tumour.infiltration * tumour.contrast
    spots = signs.spotted(anatomy)
    images = {}
    for name, contrast in CONTRASTS.items():
        fluid, grey, necrosis, oedema, enhancing = contrast.vary(rng)
        units = rng.uniform(*contrast.units)
        coil = 1 + _INHOMOGENEITY * SmoothNoise.draw(rng, 0.6).on_grid(size)

        signal = 1 + (grey - 1) * anatomy.grey + (fluid - 1) * anatomy.fluid
        signal += contrast.vessel * vessels + contrast.cap * caps
        signal += (oedema - signal) * spots
        signal += (oedema - signal) * lesion
        around = signal * (1 - tumour.contrast)
        for where, value in (
            (tumour.label == NECROSIS, necrosis),
            (tumour.label == ENHANCING, enhancing),
            (tumour.undecided, (necrosis + enhancing) / 2),
        ):
            signal = np.where(where, value * tumour.contrast + around, signal)
        signal = np.where(tumour.label > 0, signal * (1 + _TEXTURE * texture), signal)
        if marker is not None:
            signal += ((contrast.blood if signs.blood else _CALCIUM) - signal) * marker
        real, imaginary = noise * rng.standard_normal((2, *mask.shape), dtype=np.float32)
        signal = np.sqrt((signal * coil + real) ** 2 + imaginary**2)
        signal = gaussian_filter(signal, _BLUR_VOXELS, truncate=3)
        images[name] = np.where(mask, np.maximum(np.rint(units * signal), 1), 0).astype(np.int16)
    return images
