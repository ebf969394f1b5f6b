"""Networks give the same logits as their authors' code under the same weights.

parity/README.md says what the fingerprints are and how they are made.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe import fill, image
from torch import Tensor

import models

FINGERPRINTS = Path(__file__).parent / "parity"

# fingerprint: network, options, parameters that the authors' code has and the card says are left out
CASES: dict[str, tuple[str, dict[str, object], int]] = {
    "mednext_B_k3": ("mednext_b", {}, 0),
    "mednext_S_k3": ("mednext_s", {}, 0),
    "nnformer_tumor_64": ("nnformer", {}, 0),
    "nnunet_plain": ("nnunet", {}, 0),
    "nnunet_resenc": ("nnunet_resenc", {}, 0),
    "segmamba_head_32": ("segmamba_release", {}, 0),
    "segresnet_f16": ("segresnet", {}, 0),
    "segresnet_f32": ("segresnet", {"init_filters": 32}, 0),
    "swinunetr_v1_monai161": ("swinunetr", {}, 0),
    "swinunetr_v2_monai161": ("swinunetr_v2", {}, 0),
    "swinunetr_legacy": ("swinunetr", {"patch_merging": "legacy"}, 0),
    "swinunetr_v2_legacy": ("swinunetr_v2", {"patch_merging": "legacy"}, 0),
    "umamba_bot": ("umamba_bot", {}, 0),
    "unetr_conv_64": ("unetr", {}, 18_432),
    "unetr_perceptron_64": ("unetr", {"proj_type": "perceptron"}, 18_432),
    "uxnet3d_32": ("uxnet", {}, 0),
}


def read(fingerprint: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FINGERPRINTS / f"{fingerprint}.json").read_text())
    return content


def make_state_dict(original: dict[str, Any]) -> dict[str, Tensor]:
    """What the authors' code would have saved: all names, filled by the recipe."""
    state = {
        name: torch.zeros(shape, dtype=getattr(torch, dtype), requires_grad=False)
        for name, shape, dtype in original["state_dict"]
    }
    fill(state)
    return state


def test_every_fingerprint_is_tried() -> None:
    assert {path.stem for path in FINGERPRINTS.glob("*.json")} == CASES.keys()


@pytest.mark.filterwarnings("ignore::UserWarning")  # what a file cannot tell is said on purpose
@pytest.mark.parametrize("fingerprint", CASES)
def test_logits_equal_those_of_the_authors_network(fingerprint: str) -> None:
    """Every tensor of theirs finds its place, and the logits agree at 64 voxels and in sum."""
    name, options, left_out = CASES[fingerprint]
    original = read(fingerprint)
    network = models.create(
        name,
        in_channels=original["in_channels"],
        out_channels=original["out_channels"],
        image_size=original["input_size"],
        **options,
    ).eval()
    assert sum(p.numel() for p in network.parameters()) == original["n_params"] - left_out
    models.load_published(network, make_state_dict(original))

    with torch.no_grad():
        logits = network(image(original["in_channels"], original["input_size"]))
    (expected,) = original["outputs_fp32"]
    assert list(logits.shape) == expected["shape"]
    flat = logits.double().flatten()
    values = flat[torch.tensor(expected["indices"])]
    difference = (values - torch.tensor(expected["values"], dtype=torch.float64)).abs().max().item()
    print(f"largest deviation / std: {difference / expected['std']:.1e}")
    assert difference <= 1e-4 * expected["std"]
    assert flat.mean().item() == pytest.approx(expected["mean"], rel=1e-5)
    assert flat.std(correction=0).item() == pytest.approx(expected["std"], rel=1e-5)
    assert flat.norm().item() == pytest.approx(expected["l2"], rel=1e-5)


@pytest.mark.parametrize(
    ("fingerprint", "options"),
    [("swinunetr_v1_monai161", {"patch_merging": "legacy"}), ("segmamba_head_32", {"scan": "tri"})],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_neighbouring_network_with_the_same_names_is_told_apart(fingerprint: str, options: dict[str, object]) -> None:
    """The same file loads into it, and what it gives is far from the fingerprint: the comparison has teeth."""
    name = {"swinunetr_v1_monai161": "swinunetr", "segmamba_head_32": "segmamba_2024_03"}[fingerprint]
    original = read(fingerprint)
    network = models.create(name, in_channels=4, out_channels=4, image_size=original["input_size"], **options).eval()
    models.load_published(network, make_state_dict(original))
    with torch.no_grad():
        flat = network(image(4, original["input_size"])).double().flatten()
    (expected,) = original["outputs_fp32"]
    difference = (flat[expected["indices"]] - torch.tensor(expected["values"], dtype=torch.float64)).abs().max()
    assert difference > 0.1 * expected["std"]
