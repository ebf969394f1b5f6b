"""The registry, and the contract that every dataset in it keeps."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import data
from data.brats import BRATS2023, BratsDataset, BratsSource
from data.dataset import Dataset
from data.errors import DataError


class TestContract:
    """What the rest of the house relies on, for every registered dataset."""

    @pytest.fixture(params=data.names())
    def card(self, request) -> data.DatasetCard:
        return data.card(request.param)

    @pytest.fixture
    def dataset(self, card, tmp_path, make_case) -> Dataset:
        if card.name not in ("brats2023", "phantom", "phantom_stress"):
            pytest.skip("the files of a plug-in's dataset are its own tests' matter")
        for case in ("BraTS-GLI-00002-000", "BraTS-GLI-00001-000"):
            make_case(tmp_path, case)
        return data.open_dataset(card.name, tmp_path)

    def test_every_field_that_people_read_is_filled(self, card):
        for field in ("name", "title", "layout", "licence", "how_to_obtain", "citation"):
            assert getattr(card, field).strip(), field

    def test_labels_count_up_from_the_background(self, card):
        assert list(card.labels) == list(range(card.classes))
        assert len(set(card.labels.values())) == card.classes > 1

    def test_regions_are_unions_of_foreground_labels(self, card):
        assert card.regions
        for labels in card.regions.values():
            assert labels
            assert len(set(labels)) == len(labels)
            assert set(labels) <= set(card.labels) - {0}

    def test_channels_and_spacing_are_sound(self, card):
        assert card.channels
        assert len(set(card.channels)) == len(card.channels)
        assert card.spacing_mm is None or (len(card.spacing_mm) == 3 and min(card.spacing_mm) > 0)

    def test_an_empty_folder_is_a_data_error(self, card, tmp_path):
        with pytest.raises(DataError, match=str(tmp_path)):
            data.open_dataset(card.name, tmp_path).cases()

    def test_cases_are_sorted_unique_and_have_a_file_per_channel(self, dataset):
        cases = dataset.cases()
        ids = [case.id for case in cases]
        assert ids == sorted(set(ids))
        assert len(ids) == 2
        for case in cases:
            assert len(case.images) == len(dataset.card.channels)
            assert all(path.is_file() for path in (*case.images, case.label))

    def test_volume_has_the_shapes_types_and_labels_of_its_card(self, dataset):
        volume = dataset.read(dataset.cases()[0])
        assert volume.image.shape == (len(dataset.card.channels), *volume.geometry.shape)
        assert (volume.image.dtype, volume.label.dtype) == (np.float32, np.uint8)
        assert volume.label.shape == volume.geometry.shape
        assert volume.image.flags.c_contiguous
        assert volume.label.flags.c_contiguous
        assert set(np.unique(volume.label)) <= set(dataset.card.labels)

    def test_survey_of_a_clean_folder_finds_its_cases_and_nothing_else(self, dataset):
        survey = dataset.survey()
        assert survey.findings == []
        assert survey.cases == dataset.cases()


class TestLookUp:
    def test_built_in_names_come_first(self):
        assert data.names()[:3] == ["brats2023", "phantom", "phantom_stress"]

    def test_unknown_name_gets_the_nearest_and_the_list(self):
        with pytest.raises(DataError, match=r"no dataset 'brats2022'; did you mean 'brats2023'\?.*brats2023, phantom"):
            data.card("brats2022")
        with pytest.raises(DataError, match=r"no dataset 'zzz'\. There are: brats2023, phantom"):
            data.open_dataset("zzz", Path())

    def test_card_is_a_function_beside_the_module_of_that_name(self):
        from data.card import DatasetCard

        assert isinstance(data.card("phantom"), DatasetCard)

    def test_phantom_needs_no_place_but_takes_one(self, tmp_path, monkeypatch):
        calls = []
        monkeypatch.setenv("BENCH_CONFIG", str(tmp_path / "none.toml"))
        (tmp_path / "none.toml").write_text("")
        monkeypatch.delenv("BENCH_PHANTOM_DIR", raising=False)
        monkeypatch.setattr(
            "data.registry.cached_phantom", lambda name, on_case: calls.append(on_case) or tmp_path / name
        )
        assert data.open_dataset("phantom", on_case=print).root == tmp_path / "phantom"
        assert data.open_dataset("phantom_stress", on_case=print).root == tmp_path / "phantom_stress"
        assert calls == [print, print]
        assert data.open_dataset("phantom", tmp_path).root == tmp_path
        monkeypatch.setenv("BENCH_PHANTOM_DIR", str(tmp_path))
        assert data.open_dataset("phantom").root == tmp_path
        assert len(calls) == 2


class TestPlugIns:
    def install(self, monkeypatch, **objects):
        """Make entry points of that name load that object; an exception is raised instead."""

        def load(value):
            if isinstance(value, Exception):
                raise value
            return value

        points = [
            SimpleNamespace(
                name=name, dist=SimpleNamespace(name=f"{name}-package"), load=lambda value=value: load(value)
            )
            for name, value in objects.items()
        ]
        monkeypatch.setattr(
            "importlib.metadata.entry_points",
            lambda *, group: points if group == "segmamba_bench.datasets" else [],
        )

    def test_a_plug_in_is_listed_and_opened(self, monkeypatch, tmp_path):
        self.install(monkeypatch, mine=BratsSource(replace(BRATS2023, name="mine")))
        assert data.names() == ["brats2023", "phantom", "phantom_stress", "mine"]
        assert data.card("mine").name == "mine"
        assert data.open_dataset("mine", tmp_path) == BratsDataset(data.card("mine"), tmp_path)

    @pytest.mark.parametrize("broken", [ImportError("no module named torch3"), object()])
    def test_a_broken_plug_in_is_a_warning_and_the_others_stay(self, monkeypatch, broken):
        self.install(monkeypatch, broken=broken, mine=BratsSource(replace(BRATS2023, name="mine")))
        with pytest.warns(UserWarning, match="'broken' of the distribution 'broken-package' cannot be loaded"):
            assert data.names() == ["brats2023", "phantom", "phantom_stress", "mine"]

    def test_a_name_that_is_taken_is_a_warning_and_the_first_stays(self, monkeypatch):
        self.install(monkeypatch, again=BratsSource(replace(BRATS2023, title="an impostor")))
        with pytest.warns(UserWarning, match="'again-package' is left out: there already is a dataset 'brats2023'"):
            assert data.names() == ["brats2023", "phantom", "phantom_stress"]
        assert data.card("brats2023").title == BRATS2023.title

    def test_built_in_datasets_do_not_load_plug_ins(self, monkeypatch):
        self.install(monkeypatch, broken=ImportError())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert data.card("phantom").synthetic

    def test_real_entry_points_are_understood(self, monkeypatch):
        point = EntryPoint("brats", "data.brats:SOURCES", "segmamba_bench.datasets")  # loads, but is no source
        monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [point])
        with pytest.warns(UserWarning, match="'brats' of the distribution 'unknown' cannot be loaded"):
            data.names()


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import data", {"numpy", "nibabel", "torch", "scipy", "monai", "platformdirs"}),
        ("import data; data.names(); data.card('brats2023')", {"nibabel", "torch", "scipy", "monai"}),
    ],
)
def test_listing_datasets_imports_nothing_heavy(code, heavy):
    listing = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    loaded = set(listing.stdout.split())
    assert "data.registry" in loaded
    assert not loaded & heavy
