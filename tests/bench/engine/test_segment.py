"""From logits to label maps and probabilities in the grid of the files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.engine.regions import channel_regions, labels_of_regions
from bench.engine.segment import Segmentation, Segmenter
from bench.errors import BenchError
from bench.fields import InferFields
from data.prepare import PreparedCase
from data.volume import Geometry

GRID = (9, 12, 10)
SPACING = (1.0, 1.0, 1.0)
BOX = ((1, 7), (2, 11), (0, 8))
BRATS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
INSIDE = tuple(slice(start, stop) for start, stop in BOX)


def _case(*extent: int) -> PreparedCase:
    """A case whose prepared grid has this extent; random voxels."""
    image = np.random.default_rng(0).normal(size=(2, *extent)).astype(np.float16)
    return PreparedCase("a", image, None, {}, BOX, Geometry(np.eye(4), GRID, SPACING), SPACING)


def _logits(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def _fields(**changes: object) -> InferFields:
    plain = {"overlap": 0.5, "blend": "gaussian", "mirror_axes": (), "output": "argmax", "precision": "fp32"}
    return InferFields.model_validate({**plain, **changes})


def _linear(values: np.ndarray, extent: int, axis: int) -> np.ndarray:
    """Linear interpolation along one axis, voxel centres at half indices, constant beyond the outermost."""
    size = values.shape[axis]
    places = (np.arange(extent) + 0.5) * size / extent - 0.5
    return np.apply_along_axis(lambda line: np.interp(places, np.arange(size), line), axis, values)


def test_the_label_is_the_class_of_the_largest_logit_inside_the_box() -> None:
    logits = _logits(4, 6, 9, 8)
    logits[2, 0, 0, 0] = logits[1, 0, 0, 0] = 50  # of equal ones the first
    label = Segmentation(logits, _case(6, 9, 8), None, BRATS).label()
    assert (label.dtype, label.shape) == (np.uint8, GRID)
    np.testing.assert_array_equal(label[INSIDE], logits.argmax(0).numpy())
    assert label[INSIDE][0, 0, 0] == 1
    label[INSIDE] = 0
    assert not label.any()


def test_probabilities_are_the_softmax_and_background_outside() -> None:
    logits = 100 * _logits(4, 6, 9, 8)  # exponentials of these overflow
    found = Segmentation(logits, _case(6, 9, 8), None, BRATS).probabilities()
    assert (found.dtype, found.shape) == (np.float32, (4, *GRID))
    np.testing.assert_allclose(found[(slice(None), *INSIDE)], torch.softmax(logits, 0).numpy(), atol=1e-6)
    found[(slice(None), *INSIDE)] = np.array([1, 0, 0, 0])[:, None, None, None]
    assert (found[0] == 1).all()
    assert not found[1:].any()


@pytest.mark.parametrize("extent", [(3, 9, 16), (12, 4, 8)])
def test_logits_of_a_resampled_case_return_by_linear_interpolation(extent: tuple[int, int, int]) -> None:
    logits = _logits(4, *extent)
    expected = logits.numpy()
    for axis, size in enumerate((6, 9, 8)):
        expected = _linear(expected, size, axis + 1)
    made = Segmentation(logits, _case(*extent), None, BRATS)
    np.testing.assert_array_equal(made.label()[INSIDE], expected.argmax(0))
    softmax = np.exp(expected) / np.exp(expected).sum(0)
    np.testing.assert_allclose(made.probabilities()[(slice(None), *INSIDE)], softmax, atol=1e-5)


def test_regions_are_where_their_classes_together_exceed_one_half() -> None:
    logits = _logits(4, 6, 9, 8)
    label = Segmentation(logits, _case(6, 9, 8), labels_of_regions(BRATS), BRATS).label()[INSIDE]
    p = torch.softmax(logits, 0).numpy()
    for region, labels in BRATS.items():
        np.testing.assert_array_equal(np.isin(label, labels), p[list(labels)].sum(0) > 0.5, err_msg=region)
    assert (label != logits.argmax(0).numpy()).any()


def test_a_network_of_regions_paints_each_where_its_own_logit_is_above_zero() -> None:
    logits = _logits(3, 6, 9, 8)
    made = Segmentation(logits, _case(6, 9, 8), labels_of_regions(BRATS), BRATS, of_regions=True)
    above = logits.numpy() > 0
    expected = np.select([above[2], above[1], above[0]], [3, 1, 2], 0)
    label = made.label()
    np.testing.assert_array_equal(label[INSIDE], expected)
    assert set(np.unique(expected)) == {0, 1, 2, 3}
    label[INSIDE] = 0
    assert not label.any()
    found = made.probabilities()
    np.testing.assert_allclose(found[(slice(None), *INSIDE)], 1 / (1 + np.exp(-logits.numpy())), rtol=1e-5)
    found[(slice(None), *INSIDE)] = 0
    assert not found.any()


def test_of_regions_without_a_common_label_the_likelier_one_is_painted_whatever_their_names() -> None:
    """Two lobes in a lung, a vessel beside it: a lobe competes with the other and with the vessel."""
    logits = _logits(4, 6, 9, 8)
    lung, left, right, vessel = logits.numpy()
    expected = np.zeros(lung.shape, int)
    for region, rivals, label in (
        (lung, [vessel], 1),
        (vessel, [lung, left, right], 4),
        (left, [right, vessel], 2),
        (right, [left, vessel], 3),
    ):
        expected[(region > 0) & np.all([region >= rival for rival in rivals], 0)] = label
    assert set(np.unique(expected)) == {0, 1, 2, 3, 4}
    labels = ((1, 2, 3), (2,), (3,), (4,))
    for names in (("lung", "left", "right", "vessel"), ("a", "b", "c", "d"), ("d", "c", "b", "a")):
        of_name = dict(zip(names, zip(labels, logits, strict=True), strict=True))
        regions = {name: of_name[name][0] for name in names}
        painted = labels_of_regions(regions)
        ordered = torch.stack([of_name[name][1] for name in painted])
        label = Segmentation(ordered, _case(6, 9, 8), painted, regions, of_regions=True).label()
        np.testing.assert_array_equal(label[INSIDE], expected)


class TestChannelRegions:
    def test_they_are_in_the_order_of_painting_whatever_that_of_the_card(self) -> None:
        for card in (BRATS, dict(reversed(BRATS.items()))):
            assert list(channel_regions("regions", card).items()) == list(BRATS.items())
        for card in ({"b": (2,), "a": (1,)}, {"a": (1,), "b": (2,)}):
            assert list(channel_regions("regions", card)) == ["a", "b"]

    def test_classes_are_none(self) -> None:
        assert channel_regions("classes", {"all": (1, 2), "a": (1,), "b": (2,)}) == {}

    def test_regions_that_no_label_map_can_show_are_not_trained(self) -> None:
        with pytest.raises(BenchError, match=r"train.target=regions: the regions a .* Use train.target=classes"):
            channel_regions("regions", {"a": (1, 2), "b": (2, 3)})


class TestLabelsOfRegions:
    def test_those_of_brats(self) -> None:
        assert list(labels_of_regions(BRATS).items()) == [("WT", 2), ("TC", 1), ("ET", 3)]

    def test_single_classes_stand_for_themselves(self) -> None:
        assert labels_of_regions({"liver": (1,), "tumour": (2,)}) == {"liver": 1, "tumour": 2}

    def test_order_of_the_card_does_not_matter(self) -> None:
        assert list(labels_of_regions(dict(reversed(BRATS.items())))) == ["WT", "TC", "ET"]

    @pytest.mark.parametrize(
        ("regions", "words"),
        [
            ({"all": (1, 2), "a": (1,), "b": (2,)}, r"region all \(1, 2\).*no label stands for it alone"),
            ({"a": (1, 2), "b": (2, 3)}, r"a \(1, 2\) and b \(2, 3\) overlap and neither holds the other"),
            ({"a": (1,), "same": (1,)}, r"region a \(1\)"),
            ({}, "no regions"),
        ],
    )
    def test_regions_that_no_label_map_can_show(self, regions: dict[str, tuple[int, ...]], words: str) -> None:
        with pytest.raises(BenchError, match=f"infer.output=regions.*{words}.*argmax"):
            labels_of_regions(regions)


class TestSegmenter:
    def test_a_case_goes_through_the_network_as_its_logits_say(self) -> None:
        torch.manual_seed(0)
        network = nn.Conv3d(2, 4, 3, padding=1)
        case = _case(6, 9, 8)
        made = Segmenter(network, (16, 16, 16), _fields(output="regions"), BRATS, torch.device("cpu")).segment(case)
        with torch.no_grad():
            image = torch.nn.functional.pad(torch.from_numpy(case.image).float(), (4, 4, 3, 4, 5, 5))
            logits = network(image[None])[0, :, 5:11, 3:12, 4:12]
        torch.testing.assert_close(made.logits, logits)
        expected = Segmentation(logits, case, labels_of_regions(BRATS), BRATS).label()
        np.testing.assert_array_equal(made.label(), expected)
        assert len(np.unique(expected)) > 2

    def test_a_network_of_regions_is_read_so_whatever_output_is_asked_for(self) -> None:
        torch.manual_seed(0)
        network, case = nn.Conv3d(2, 3, 1), _case(6, 9, 8)
        segmenter = Segmenter(network, (8, 8, 8), _fields(), BRATS, torch.device("cpu"), target="regions")
        made = segmenter.segment(case)
        assert segmenter.region_names == ("WT", "TC", "ET")
        expected = Segmentation(made.logits, case, labels_of_regions(BRATS), BRATS, of_regions=True).label()
        np.testing.assert_array_equal(made.label(), expected)
        assert len(np.unique(expected)) > 2
        narrow = Segmenter(nn.Conv3d(2, 4, 1), (8, 8, 8), _fields(), BRATS, torch.device("cpu"), target="regions")
        with pytest.raises(BenchError, match=r"Conv3d returned 4 channels.*out_channels, 3.*one for each region"):
            narrow.segment(case)

    def test_regions_are_judged_before_anything_runs_and_only_where_they_are_asked_for(self) -> None:
        bad = {"all": (1, 2), "a": (1,), "b": (2,)}
        network = nn.Conv3d(2, 3, 1)
        with pytest.raises(BenchError, match="region all"):
            Segmenter(network, (8, 8, 8), _fields(output="regions"), bad, torch.device("cpu"))
        Segmenter(network, (8, 8, 8), _fields(), bad, torch.device("cpu"))
