"""Where data are looked for, in which order, and what is said when they are not there."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import platformdirs
import pytest

from data.errors import DataError
from data.locate import cache_root, config_path, configured, environment_variable, locate
from data.phantom_cache import cached_phantom


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch) -> Path:
    """A machine on which nothing is configured, with an empty working directory and user configuration."""
    for variable in ("BENCH_BRATS2023_DIR", "BENCH_PHANTOM_DIR", "BENCH_CONFIG", "BENCH_CACHE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "work").mkdir()
    (tmp_path / "user").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(platformdirs, "user_config_path", lambda *_, **__: tmp_path / "user")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: tmp_path / "user-cache")
    return tmp_path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


class TestOrder:
    def test_option_then_environment_then_configuration(self, bare, monkeypatch):
        option, variable, entry = (folder(bare / name) for name in ("option", "variable", "entry"))
        Path("bench.toml").write_text(f'[data]\nbrats2023 = "{entry}"\n')
        assert locate("brats2023") == entry
        monkeypatch.setenv("BENCH_BRATS2023_DIR", str(variable))
        assert locate("brats2023") == variable
        assert locate("brats2023", option) == option

    def test_empty_variable_is_no_variable(self, monkeypatch):
        monkeypatch.setenv("BENCH_BRATS2023_DIR", "")
        assert configured("brats2023") is None

    def test_configuration_file_named_then_local_then_the_users(self, bare, monkeypatch):
        assert config_path() == bare / "user" / "config.toml"
        Path("bench.toml").write_text("")
        assert config_path() == bare / "work" / "bench.toml"
        named = bare / "named.toml"
        named.write_text("")
        monkeypatch.setenv("BENCH_CONFIG", str(named))
        assert config_path() == named

    def test_users_configuration_is_read(self, bare):
        entry = folder(bare / "entry")
        (bare / "user" / "config.toml").write_text(f'[data]\nbrats2023 = "{entry}"\n')
        assert locate("brats2023") == entry

    def test_relative_entry_is_relative_to_its_file(self, bare):
        entry = folder(bare / "user" / "brats")
        (bare / "user" / "config.toml").write_text('[data]\nbrats2023 = "brats"\n')
        assert locate("brats2023") == entry

    def test_tilde_is_the_home_folder(self, bare, monkeypatch):
        monkeypatch.setenv("HOME", str(bare))
        entry = folder(bare / "entry")
        Path("bench.toml").write_text('[data]\nbrats2023 = "~/entry"\n')
        assert locate("brats2023") == entry
        monkeypatch.setenv("BENCH_BRATS2023_DIR", "~/work")
        assert locate("brats2023") == bare / "work"

    def test_variable_name_of_a_name_with_other_characters(self):
        assert environment_variable("my-set.2") == "BENCH_MY_SET_2_DIR"


class TestMessages:
    def test_nothing_configured_says_all_three_ways_and_how_to_obtain_the_data(self, bare):
        with pytest.raises(DataError) as caught:
            locate("brats2023", how_to_obtain="write to syn51156910.")
        message = str(caught.value)
        for part in (
            "'brats2023'",
            "--data-dir",
            "BENCH_BRATS2023_DIR",
            'brats2023 = "FOLDER"',
            "[data]",
            str(bare / "user" / "config.toml"),
            "syn51156910",
            "--dataset phantom",
        ):
            assert part in message

    @pytest.mark.parametrize("way", ["option", "variable", "entry"])
    def test_folder_that_is_not_there_names_who_named_it(self, bare, monkeypatch, way):
        absent = bare / "absent"
        if way == "variable":
            monkeypatch.setenv("BENCH_BRATS2023_DIR", str(absent))
        elif way == "entry":
            Path("bench.toml").write_text(f'[data]\nbrats2023 = "{absent}"\n')
        source = {
            "option": "the option --data-dir",
            "variable": "the environment variable BENCH_BRATS2023_DIR",
            "entry": f"the entry brats2023 under [data] in {bare / 'work' / 'bench.toml'}",
        }[way]
        with pytest.raises(DataError) as caught:
            locate("brats2023", absent if way == "option" else None)
        assert str(caught.value).startswith(source)
        assert f"lies in {absent}, but there is nothing there. Expected a folder" in str(caught.value)

    def test_file_in_place_of_a_folder(self, bare):
        (bare / "file").write_text("")
        with pytest.raises(DataError, match=r"but there is a file\. Expected a folder"):
            locate("brats2023", bare / "file")

    def test_bad_toml_says_file_and_line(self):
        Path("bench.toml").write_text('[data]\nbrats2023 = "unclosed\n')
        with pytest.raises(DataError, match=r"bench\.toml cannot be read as TOML.*line 2.*Correct it"):
            locate("brats2023")

    def test_toml_that_is_not_utf_8(self):
        Path("bench.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(DataError, match=r"bench\.toml cannot be read as TOML"):
            locate("brats2023")

    @pytest.mark.parametrize("text", ["[data]\nbrats2023 = 3\n", "[data.brats2023]\nroot = 'x'\n", "data = 'x'\n"])
    def test_entry_of_another_kind_shows_how_to_write_it(self, text):
        Path("bench.toml").write_text(text)
        with pytest.raises(DataError, match=r'(?s)expected a folder.*found.*\[data\]\n  brats2023 = "FOLDER"'):
            locate("brats2023")

    def test_named_configuration_file_must_exist(self, bare, monkeypatch):
        monkeypatch.setenv("BENCH_CONFIG", str(bare / "absent.toml"))
        with pytest.raises(DataError, match=r"BENCH_CONFIG names .*absent\.toml, which is no file.*correct"):
            locate("brats2023")


class TestCache:
    def test_cache_is_where_the_variable_says_else_the_users(self, bare, monkeypatch):
        assert cache_root() == bare / "user-cache"
        monkeypatch.setenv("BENCH_CACHE_DIR", str(bare / "mine"))
        assert cache_root() == bare / "mine"


class TestCachedPhantom:
    """The cache of phantoms, with a stand-in for the generator."""

    @pytest.fixture(autouse=True)
    def generator(self, bare, monkeypatch):
        monkeypatch.setenv("BENCH_CACHE_DIR", str(bare / "cache"))
        module = types.ModuleType("data.phantom")
        calls = []

        def write_dataset(root, *, cases, size, seed, kind, on_case, workers):
            calls.append((cases, size, seed, kind))
            assert workers >= 1
            (root / "BraTS-PHA-00001-000").mkdir(parents=True)
            if on_case:
                on_case("BraTS-PHA-00001-000")

        module.PHANTOM_VERSION, module.write_dataset, module.calls = 7, write_dataset, calls
        monkeypatch.setitem(sys.modules, "data.phantom", module)
        return module

    def test_made_once_under_a_name_that_says_what_it_is(self, bare, generator):
        seen: list[str] = []
        first = cached_phantom("phantom", seen.append)
        assert first == bare / "cache" / "phantom" / "v7-n24-s64-k0"
        assert (first / "BraTS-PHA-00001-000").is_dir()
        assert cached_phantom("phantom") == first
        assert generator.calls == [(24, 64, 0, "plain")]
        assert cached_phantom("phantom_stress") == bare / "cache" / "phantom_stress" / "v7-n200-s96-k0"
        assert generator.calls[1:] == [(200, 96, 0, "stress")]
        assert seen == ["BraTS-PHA-00001-000"]

    def test_interrupted_generation_leaves_nothing_and_the_next_call_makes_it(self, bare):
        def interrupt(_: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cached_phantom("phantom", interrupt)
        assert not list((bare / "cache" / "phantom").iterdir())
        assert cached_phantom("phantom").is_dir()

    def test_another_process_that_was_faster_wins(self, bare):
        target = bare / "cache" / "phantom" / "v7-n24-s64-k0"

        def other_process(_: str) -> None:
            (target / "BraTS-PHA-00009-000").mkdir(parents=True)

        assert cached_phantom("phantom", other_process) == target
        assert [path.name for path in target.iterdir()] == ["BraTS-PHA-00009-000"]
        assert [path.name for path in target.parent.iterdir()] == [target.name]

    def test_what_the_generator_says_is_passed_on(self, generator, monkeypatch):
        def fail(*_, **__):
            raise DataError("the disk is full")

        monkeypatch.setattr(generator, "write_dataset", fail)
        with pytest.raises(DataError, match=r"the disk is full.*set BENCH_CACHE_DIR"):
            cached_phantom("phantom")

    def test_others_may_read_what_is_made(self):
        assert cached_phantom("phantom").stat().st_mode == folder(Path("ordinary")).stat().st_mode

    def test_cache_that_cannot_be_written(self, bare):
        (bare / "cache").write_text("a file in the way")
        with pytest.raises(DataError, match=r"cannot make the phantom in .*cache.*set BENCH_CACHE_DIR"):
            cached_phantom("phantom")
