"""The phantom: brain-like volumes with a glioma, drawn at random, in exactly the layout of BraTS 2023.

It stands in where no patient data are at hand: to try the harness, to test it, and to find out what a change to it
does. It has the anatomy, contrasts, noise and label nesting of the real task but none of its difficulty, so that no
result on it is a clinical one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from data.errors import DataError
from data.parallel import in_turn
from data.phantom_anatomy import Anatomy, draw_anatomy
from data.phantom_kind import PLAIN, PhantomKind, kind_named
from data.phantom_signal import CONTRASTS, acquire
from data.phantom_signs import Signs, draw_signs
from data.phantom_tumour import Plan, Tumour, draw_plan, grow, mass_effect

PHANTOM_VERSION = 2
"""Raised whenever the generated voxels change."""

_MANIFEST = "phantom.json"
_LABEL = "seg"
_PARTIAL = ".partial-"
_SMALLEST, _STEP = 32, 8
# Streams of random numbers, so that what changes in one part leaves the others as they were.
_TUMOUR, _ANATOMY, _SIGNAL, _SIGNS = range(4)


@dataclass(frozen=True)
class PhantomCase:
    """One generated case; arrays are (X, Y, Z), the order of NIfTI, 1 mm apart.

    Attributes:
        id: ``BraTS-PHA-NNNNN-000``, counted from 1.
        images: int16 per modality, by the names ``t1n``, ``t1c``, ``t2w``, ``t2f``; 0 exactly outside the brain.
        label: uint8; 0 background, 1 necrotic and non-enhancing core, 2 oedema, 3 enhancing tumour.
        affine: (4, 4) voxel indices to millimetres, oriented as BraTS is.
    """

    id: str
    images: Mapping[str, NDArray[np.int16]]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


def generate_case(index: int, *, size: int, seed: int, kind: str = PLAIN.name) -> PhantomCase:
    """Draw one case.

    Args:
        index: number of the case from 0; a case does not depend on which others are drawn.
        size: edge length of the cubic volume in voxels, a multiple of 8 from 32 on. A case shows the same brain and
            tumour at every size.
        seed: another seed, another population.
        kind: a name in `data.phantom_kind.KINDS`.

    Raises:
        DataError: `size`, `index` or `seed` is out of range, or there is no such kind.
    """
    _check_size(size)
    _check_not_negative(index=index, seed=seed)
    drawn = kind_named(kind)
    anatomy, tumour, signs = _draw(index, size, seed, drawn)
    images = acquire(_generator(index, seed, _SIGNAL), anatomy, tumour, signs, drawn.noise)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = size - 1
    return PhantomCase(_case_id(index), images, tumour.label, affine)


def marked_rims(root: Path, case: str) -> tuple[NDArray[np.bool_], bool]:
    """Where a phantom's case has rims whose kind its marker alone tells, and what the marker says.

    Args:
        root: folder of the phantom, with its ``phantom.json``.
        case: id of one of its cases.

    Returns:
        Mask (D, H, W), empty where there are no such rims; and whether they are enhancing tumour.

    Raises:
        DataError: `root` holds no phantom, one of another version, or it has no such case.
    """
    if not (root / _MANIFEST).is_file():
        raise DataError(f"{root} holds no {_MANIFEST}; expected a phantom, as `bench data phantom` writes them.")
    made = _read_manifest(root / _MANIFEST)
    if made.version != PHANTOM_VERSION:  # drawn again, its rims would be those of another image
        raise DataError(
            f"{root} holds phantoms of version {made.version}; expected version {PHANTOM_VERSION}, whose rims alone "
            "can be told. Make the phantoms again in another folder, and run the networks on them."
        )
    if case not in made.ids():
        raise DataError(f"{root}: found no case {case}; there are {made}, from {_case_id(0)} on.")
    index, kind = made.ids().index(case), kind_named(made.kind)
    plan, signs, _ = _plan_and_signs(index, made.seed, kind)
    if not any(focus.undecided for focus in plan.foci):
        return np.zeros((made.size,) * 3, bool), signs.blood
    _, tumour, _ = _draw(index, made.size, made.seed, kind)
    return np.ascontiguousarray(tumour.undecided.T), signs.blood


def _draw(index: int, size: int, seed: int, kind: PhantomKind) -> tuple[Anatomy, Tumour, Signs]:
    plan, signs, tumour_rng = _plan_and_signs(index, seed, kind)
    anatomy = draw_anatomy(_generator(index, seed, _ANATOMY), size, mass_effect(plan, size))
    return anatomy, grow(tumour_rng, plan, anatomy), signs


def _plan_and_signs(index: int, seed: int, kind: PhantomKind) -> tuple[Plan, Signs, np.random.Generator]:
    """What a case is to show, and the generator from which its tumour goes on to be drawn."""
    tumour_rng = _generator(index, seed, _TUMOUR)
    plan, signs = draw_signs(_generator(index, seed, _SIGNS), kind, draw_plan(tumour_rng, kind))
    return plan, signs, tumour_rng


def _generator(index: int, seed: int, part: int) -> np.random.Generator:
    return np.random.default_rng([seed, index, part])


def write_dataset(
    root: Path,
    *,
    cases: int,
    size: int,
    seed: int,
    kind: str = PLAIN.name,
    on_case: Callable[[str], None] | None = None,
    workers: int = 1,
) -> None:
    """Write cases as ``CASE/CASE-t1n.nii.gz`` and so on, and ``phantom.json`` with their parameters and digest.

    ``phantom.json`` comes first, without the digest, and each case bears another name until it is whole. So an
    interrupted call is continued by an equal one, which keeps the cases that it finds; and once the digest stands, a
    further call tells whether the voxels still are what they were. One process at a time may write to a folder.

    Args:
        root: a folder that is absent, empty, or holds a phantom of the same parameters.
        cases: how many, from 1 on.
        size: as in `generate_case`.
        seed: as in `generate_case`.
        kind: as in `generate_case`.
        on_case: hears each case's id once the case is in place.
        workers: cases at a time, in threads.

    Raises:
        DataError: an argument is out of range, `root` cannot be written, or it holds something else, in which case
            it is left untouched.
    """
    if cases < 1:
        raise DataError(f"a phantom of {cases} cases: expected 1 or more.")
    _check_size(size)
    _check_not_negative(seed=seed)
    plan = _Manifest(PHANTOM_VERSION, cases, size, seed, kind_named(kind).name)
    try:
        known = _inspect(root, plan)
        if known is None:
            root.mkdir(parents=True, exist_ok=True)
            _write_manifest(root, plan)
        _remove_leftovers(root)
        done = replace(plan, sha256=_complete(root, plan, on_case, workers))
        if known is None or known.sha256 is None:
            _write_manifest(root, done)
        elif known != done:
            raise DataError(
                f"{root}: the voxels are not those that {_MANIFEST} vouches for; some file was changed since. "
                "Delete the folder and generate it again."
            )
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write the phantom to {root}: {reason}. Mend that, or name another folder.") from error


@dataclass(frozen=True)
class _Manifest:
    """What ``phantom.json`` holds. The digest is over labels and images, and None until all cases are written."""

    version: int
    cases: int
    size: int
    seed: int
    kind: str = PLAIN.name  # which it is where none is named, as in folders made before there were others
    sha256: str | None = None

    def ids(self) -> list[str]:
        return [_case_id(index) for index in range(self.cases)]

    def __str__(self) -> str:
        return f"version {self.version}, {self.cases} {self.kind} cases of size {self.size}, seed {self.seed}"


def _inspect(root: Path, plan: _Manifest) -> _Manifest | None:
    """Refuse a `root` that holds anything but a phantom of this plan; return its manifest if it has one."""
    if root.exists() and not root.is_dir():
        raise DataError(f"{root} is a file; expected a folder for the phantom. Name another path.")
    names = {path.name for path in root.iterdir()} if root.exists() else set()
    ours = {name for name in names if name.startswith(_PARTIAL)}
    known = None
    if _MANIFEST in names:
        known = _read_manifest(root / _MANIFEST)
        if replace(known, sha256=None) != plan:
            raise DataError(
                f"{root} holds another phantom: {known}; expected {plan}. Name another folder, or delete this one."
            )
        ours |= {_MANIFEST, *plan.ids()}
    if foreign := sorted(names - ours):
        shown = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise DataError(
            f"{root} holds what is no part of this phantom: {shown}; expected an empty folder or an unfinished phantom "
            "of the same parameters. Name another folder, or move these away."
        )
    return known


def _read_manifest(path: Path) -> _Manifest:
    try:
        return _Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}); expected the parameters of a phantom. Delete its folder, or name another."
        ) from error


def _write_manifest(root: Path, manifest: _Manifest) -> None:
    partial = root / f"{_PARTIAL}{_MANIFEST}"
    partial.write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
    partial.replace(root / _MANIFEST)


def _remove_leftovers(root: Path) -> None:
    for path in root.glob(f"{_PARTIAL}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _complete(root: Path, plan: _Manifest, on_case: Callable[[str], None] | None, workers: int) -> str:
    """Write the cases that are missing; return the digest of all."""
    digest = hashlib.sha256()

    def volumes_of(index: int) -> list[NDArray]:
        folder = root / _case_id(index)
        if folder.exists():
            return _read_volumes(folder)
        case = generate_case(index, size=plan.size, seed=plan.seed, kind=plan.kind)
        _write_case(root, case)
        return [case.images[name] for name in CONTRASTS] + [case.label]

    # Closed here and not when it is collected: no thread writes on once the caller knows of an interruption.
    with closing(in_turn(volumes_of, range(plan.cases), workers)) as made:
        for case_id, volumes in zip(plan.ids(), made, strict=True):
            for volume in volumes:
                digest.update(volume.tobytes())
            if on_case is not None:
                on_case(case_id)
    return digest.hexdigest()


def _write_case(root: Path, case: PhantomCase) -> None:
    partial = root / f"{_PARTIAL}{case.id}"
    partial.mkdir()
    for name, volume in (*case.images.items(), (_LABEL, case.label)):
        image = nib.Nifti1Image(volume, case.affine)
        image.set_qform(case.affine, code=1)
        image.set_sform(case.affine, code=1)
        image.header.set_xyzt_units("mm")
        # Without a time stamp, and at zlib's fastest: equal voxels give equal files, and noise hardly compresses.
        (partial / f"{case.id}-{name}.nii.gz").write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
    partial.replace(root / case.id)


def _read_volumes(folder: Path) -> list[NDArray]:
    try:
        paths = [folder / f"{folder.name}-{name}.nii.gz" for name in (*CONTRASTS, _LABEL)]
        return [np.asarray(nib.load(path).dataobj) for path in paths]
    except (OSError, EOFError, zlib.error, ImageFileError) as error:
        raise DataError(f"{folder} is damaged ({error}); delete it, and generate the phantom again.") from error


def _case_id(index: int) -> str:
    return f"BraTS-PHA-{index + 1:05d}-000"


def _check_size(size: int) -> None:
    if size < _SMALLEST or size % _STEP:
        nearest = max(_SMALLEST, _STEP * round(size / _STEP))
        raise DataError(
            f"a phantom of size {size}: expected a multiple of {_STEP} from {_SMALLEST} on; the nearest is {nearest}."
        )


def _check_not_negative(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 0:
            raise DataError(f"a phantom with {name} {number}: expected 0 or more.")
