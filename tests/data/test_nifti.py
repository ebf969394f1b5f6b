"""NIfTI in and out, judged by nibabel: axis order, geometry, round trips, and what damaged files are told."""

from __future__ import annotations

import gzip
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from data.errors import DataError
from data.nifti import FileFault, read_image, read_label, write_image, write_label
from data.volume import Geometry


def oblique_affine() -> NDArray[np.float64]:
    """Voxels of 0.5 × 1.25 × 3 mm along x, y, z, turned about two axes, left-handed, off centre."""
    a, b = np.deg2rad(20), np.deg2rad(-35)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag([-0.5, 1.25, 3.0])
    affine[:3, 3] = (12.5, -100.25, 7)
    return affine.astype(np.float32).astype(np.float64)


def geometry_of(shape: tuple[int, int, int], label_dtype: str = "uint8") -> Geometry:
    return Geometry(oblique_affine(), shape, (3.0, 1.25, 0.5), label_dtype)


def fault_of(reader: Callable[[Path], object], path: Path) -> FileFault:
    with pytest.raises(FileFault) as caught:
        reader(path)
    assert str(path) in str(caught.value)
    for part in (caught.value.found, caught.value.expected, caught.value.mend):
        assert part
        assert part in str(caught.value)
    return caught.value


class TestReading:
    def test_axes_are_reversed_and_spacing_follows_them(self, tmp_path, write_nifti):
        array = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
        image, geometry = read_image(write_nifti(tmp_path / "a.nii.gz", array, oblique_affine()))
        assert image.shape == geometry.shape == (7, 6, 5)
        assert image.dtype == np.float32
        assert image.flags.c_contiguous
        for x, y, z in [(0, 0, 0), (4, 0, 0), (0, 5, 0), (0, 0, 6), (1, 2, 3)]:
            assert image[z, y, x] == array[x, y, z]
        assert geometry.spacing_mm == pytest.approx((3.0, 1.25, 0.5), rel=1e-6)
        np.testing.assert_array_equal(geometry.affine, oblique_affine())

    def test_intensity_scaling_of_the_header_is_applied(self, tmp_path):
        array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
        stored = nibabel.Nifti1Image(array, np.eye(4))
        stored.header.set_slope_inter(0.5, 10)
        raw = bytearray(stored.to_bytes())
        raw[112:120] = np.array([0.5, 10], dtype="<f4").tobytes()  # scl_slope, scl_inter
        path = tmp_path / "a.nii"
        path.write_bytes(raw)
        np.testing.assert_array_equal(read_image(path)[0].T, array * 0.5 + 10)

    def test_big_endian_and_nifti_2_files_are_read(self, tmp_path):
        array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        header = nibabel.Nifti1Header(endianness=">")
        header.set_data_dtype(">f4")
        nibabel.Nifti1Image(array, np.eye(4), header).to_filename(tmp_path / "big.nii.gz")
        nibabel.Nifti2Image(array, np.eye(4)).to_filename(tmp_path / "two.nii.gz")
        for name in ("big.nii.gz", "two.nii.gz"):
            image, _ = read_image(tmp_path / name)
            np.testing.assert_array_equal(image.T, array)
            assert image.dtype == np.dtype(np.float32)

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "int64"])
    def test_label_is_uint8_in_memory_and_remembers_its_type_on_disk(self, tmp_path, write_nifti, dtype):
        array = (np.arange(24).reshape(2, 3, 4) % 4).astype(dtype)
        label, geometry = read_label(write_nifti(tmp_path / "seg.nii.gz", array))
        np.testing.assert_array_equal(label.T, array)
        assert label.dtype == np.uint8
        assert label.flags.c_contiguous
        assert geometry.label_dtype == dtype

    def test_label_with_fractions_is_refused_with_count_value_and_voxel(self, tmp_path, write_nifti):
        array = np.zeros((4, 5, 6), dtype=np.float32)
        array[1, 2, 3], array[3, 4, 5] = 1.5, 0.25
        fault = fault_of(read_label, write_nifti(tmp_path / "seg.nii.gz", array))
        assert "2 voxels" in fault.found
        assert "1.5 at voxel (x, y, z) = (1, 2, 3)" in fault.found
        assert "integer" in fault.expected
        assert "nearest-neighbour" in fault.mend

    def test_label_with_nan_is_refused(self, tmp_path, write_nifti):
        array = np.zeros((4, 5, 6), dtype=np.float32)
        array[0, 0, 1] = np.nan
        assert (
            "nan at voxel (x, y, z) = (0, 0, 1)"
            in fault_of(read_label, write_nifti(tmp_path / "seg.nii.gz", array)).found
        )

    @pytest.mark.parametrize(("value", "text"), [(-1, "from -1 to 0"), (256, "from 0 to 256")])
    def test_label_outside_a_byte_is_refused(self, tmp_path, write_nifti, value, text):
        array = np.zeros((4, 5, 6), dtype=np.int16)
        array[1, 2, 3] = value
        fault = fault_of(read_label, write_nifti(tmp_path / "seg.nii.gz", array))
        assert text in fault.found
        assert "0..255" in fault.expected


class TestDamage:
    """Each kind of unusable file is told apart, and its fault says what to do."""

    @pytest.fixture
    def whole(self, tmp_path, write_nifti) -> Path:
        array = np.random.default_rng(0).integers(0, 1000, (8, 9, 10), dtype=np.int16)
        return write_nifti(tmp_path / "whole.nii.gz", array)

    @pytest.mark.parametrize("reader", [read_image, read_label])
    def test_missing(self, tmp_path, reader):
        fault = fault_of(reader, tmp_path / "absent.nii.gz")
        assert fault.found == "no such file"
        assert "gzipped NIfTI" in fault.expected
        assert "download or copy" in fault.mend

    def test_folder_of_that_name(self, tmp_path):
        (tmp_path / "a.nii.gz").mkdir()
        fault = fault_of(read_image, tmp_path / "a.nii.gz")
        assert "irectory" in fault.found
        assert "check" in fault.mend

    def test_empty(self, whole):
        whole.write_bytes(b"")
        fault = fault_of(read_image, whole)
        assert "empty file (0 bytes)" in fault.found
        assert "download or copy" in fault.mend

    @pytest.mark.parametrize("kept", [5, 12, 300, -9, -1])
    def test_truncated_gzip(self, whole, kept):
        whole.write_bytes(whole.read_bytes()[:kept])
        fault = fault_of(read_image, whole)
        assert f"ends early, after {whole.stat().st_size:,} bytes" in fault.found
        assert "whole gzip stream" in fault.expected
        assert "download or copy" in fault.mend

    @pytest.mark.parametrize("position", [40, -6])
    def test_damaged_gzip(self, whole, position):
        content = bytearray(whole.read_bytes())
        content[position] ^= 0xFF
        whole.write_bytes(content)
        fault = fault_of(read_image, whole)
        assert "damaged gzip stream" in fault.found
        assert "download or copy" in fault.mend

    def test_plain_nifti_named_gz(self, whole):
        whole.write_bytes(gzip.decompress(whole.read_bytes()))
        fault = fault_of(read_image, whole)
        assert "plain NIfTI, not gzipped" in fault.found
        assert "rename it to whole.nii and compress it with gzip" in fault.mend

    def test_something_else_named_gz(self, whole):
        whole.write_bytes(b"<html>404</html>")
        assert "neither gzip nor NIfTI" in fault_of(read_image, whole).found

    def test_something_else_inside_gzip(self, whole):
        whole.write_bytes(gzip.compress(b"<html>404</html>" * 100))
        assert "no NIfTI header" in fault_of(read_image, whole).found

    def test_voxels_cut_off_inside_a_whole_gzip(self, whole):
        content = gzip.decompress(whole.read_bytes())
        whole.write_bytes(gzip.compress(content[:-100]))
        fault = fault_of(read_image, whole)
        assert f"{len(content) - 100:,} bytes" in fault.found
        assert f"{len(content):,} bytes for shape (8, 9, 10) of int16" in fault.expected

    def test_damaged_header(self, whole):
        content = bytearray(gzip.decompress(whole.read_bytes()))
        content[70:72] = (9999).to_bytes(2, "little")  # datatype
        whole.write_bytes(gzip.compress(content))
        assert "damaged NIfTI header" in fault_of(read_image, whole).found

    def test_negative_size(self, whole):
        content = bytearray(gzip.decompress(whole.read_bytes()))
        content[42:44] = (-8).to_bytes(2, "little", signed=True)  # dim[1]
        whole.write_bytes(gzip.compress(content))
        assert "(-8, 9, 10)" in fault_of(read_image, whole).found

    @pytest.mark.parametrize("shape", [(4, 5, 6, 2), (4, 5, 6, 1), (4, 5)])
    def test_not_three_axes(self, tmp_path, write_nifti, shape):
        fault = fault_of(read_image, write_nifti(tmp_path / "a.nii.gz", np.ones(shape, dtype=np.float32)))
        assert f"{len(shape)}-D array of shape {shape}" in fault.found
        assert "one 3-D volume" in fault.expected

    def test_colours(self, tmp_path, write_nifti):
        rgb = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        fault = fault_of(read_image, write_nifti(tmp_path / "a.nii.gz", rgb))
        assert "voxels of type" in fault.found
        assert "real numbers" in fault.expected

    @pytest.mark.parametrize("axis", [[0, 0, 0], [np.nan, 0, 1]])
    def test_affine_without_volume(self, whole, axis):
        content = bytearray(gzip.decompress(whole.read_bytes()))
        content[296:312] = np.array([*axis, 0], dtype="<f4").tobytes()  # srow_y
        whole.write_bytes(gzip.compress(content))
        fault = fault_of(read_image, whole)
        assert "affine that spans no volume" in fault.found
        assert "copy the affine of another file" in fault.mend

    def test_fault_survives_the_way_between_processes(self, tmp_path):
        fault = fault_of(read_image, tmp_path / "absent.nii.gz")
        assert str(pickle.loads(pickle.dumps(fault))) == str(fault)


class TestWriting:
    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64"])
    def test_round_trip_keeps_array_affine_and_type(self, tmp_path, write_nifti, dtype):
        array = (np.arange(5 * 6 * 7).reshape(5, 6, 7) % 4).astype(dtype)
        source = write_nifti(tmp_path / "in.nii.gz", array, oblique_affine())
        label, geometry = read_label(source)
        write_label(tmp_path / "out.nii.gz", label, geometry)
        before, after = nibabel.load(source), nibabel.load(tmp_path / "out.nii.gz")
        np.testing.assert_array_equal(np.asarray(after.dataobj), array)
        np.testing.assert_array_equal(after.affine, before.affine)
        assert after.shape == before.shape
        assert after.get_data_dtype() == before.get_data_dtype() == np.dtype(dtype)

    def test_affine_stands_in_both_forms_in_millimetres(self, tmp_path):
        path = tmp_path / "out.nii.gz"
        write_label(path, np.zeros((7, 6, 5), np.uint8), geometry_of((7, 6, 5)))
        header = nibabel.load(path).header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        assert header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(header.get_sform(), oblique_affine())
        np.testing.assert_allclose(header.get_qform(), oblique_affine(), atol=1e-4)

    @pytest.mark.parametrize("label_dtype", ["float32", "int8", "complex64"])
    def test_type_that_cannot_hold_the_label_becomes_uint8(self, tmp_path, label_dtype):
        label = np.full((2, 3, 4), 200, np.uint8)
        write_label(tmp_path / "out.nii.gz", label, geometry_of((2, 3, 4), label_dtype))
        written = nibabel.load(tmp_path / "out.nii.gz")
        assert written.get_data_dtype() == np.uint8
        assert (np.asarray(written.dataobj) == 200).all()

    def test_image_is_written_as_float32(self, tmp_path):
        image = np.random.default_rng(0).random((4, 3, 2))
        write_image(tmp_path / "p.nii.gz", image, geometry_of((4, 3, 2)))
        written = nibabel.load(tmp_path / "p.nii.gz")
        assert written.get_data_dtype() == np.float32
        np.testing.assert_array_equal(np.asarray(written.dataobj), image.T.astype(np.float32))

    def test_name_without_gz_is_not_compressed(self, tmp_path):
        write_label(tmp_path / "out.nii", np.ones((2, 3, 4), np.uint8), geometry_of((2, 3, 4)))
        np.testing.assert_array_equal(read_label(tmp_path / "out.nii")[0], 1)

    def test_same_label_gives_same_bytes_at_another_time(self, tmp_path, monkeypatch):
        label = np.ones((2, 3, 4), np.uint8)
        write_label(tmp_path / "one.nii.gz", label, geometry_of((2, 3, 4)))
        monkeypatch.setattr(time, "time", lambda: 2e9)
        write_label(tmp_path / "two.nii.gz", label, geometry_of((2, 3, 4)))
        assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()

    @pytest.mark.parametrize(
        ("error", "raised", "message"),
        [
            (OSError(28, "No space left"), DataError, r"cannot write .*out\.nii\.gz.*No space left"),
            (KeyboardInterrupt(), KeyboardInterrupt, None),
        ],
    )
    def test_failure_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch, error, raised, message):
        path = tmp_path / "out.nii.gz"
        write_label(path, np.ones((2, 3, 4), np.uint8), geometry_of((2, 3, 4)))

        def fail(_: int) -> None:
            raise error

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(raised, match=message):
            write_label(path, np.zeros((2, 3, 4), np.uint8), geometry_of((2, 3, 4)))
        assert [file.name for file in tmp_path.iterdir()] == ["out.nii.gz"]
        assert (read_label(path)[0] == 1).all()

    def test_missing_folder_is_said(self, tmp_path):
        with pytest.raises(DataError, match=r"cannot write .*absent.*Expected a folder that exists"):
            write_label(tmp_path / "absent" / "a.nii.gz", np.ones((2, 3, 4), np.uint8), geometry_of((2, 3, 4)))

    def test_array_must_fit_the_geometry(self, tmp_path):
        with pytest.raises(ValueError, match=r"\(4, 3, 2\) does not fit a geometry of shape \(2, 3, 4\)"):
            write_label(tmp_path / "a.nii.gz", np.ones((4, 3, 2), np.uint8), geometry_of((2, 3, 4)))
        assert not list(tmp_path.iterdir())
