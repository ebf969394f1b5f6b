"""The registry: what it lists, what it refuses and in which words, and how others add to it."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import models
from models import registry
from models.card import VolumeRule
from models.errors import ModelError

ROOT = Path(models.__file__).parents[1]


def run_python(code: str, *search_path: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter that finds this repository and `search_path`."""
    setup = f"import sys; sys.path[:0] = {[str(path) for path in (ROOT, *search_path)]!r}\n"
    command = [sys.executable, "-c", setup + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def install(folder: Path, distribution: str, module: str, source: str) -> None:
    """Lay out an installed distribution with one module and one entry point that names `<module>:build`."""
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINT_GROUP}]\n{module} = {module}:build\n")


DECORATED = """
    from dataclasses import replace
    from types import SimpleNamespace
    import models

    assert "segresnet" in models.names()  # a module may ask while it is being loaded itself

    @models.register(replace(models.card("segresnet"), name="{name}", size_multiple=4, minimum_size=4))
    def build(in_channels, out_channels, image_size, *, width: int = 8):
        return SimpleNamespace(asked=(in_channels, out_channels, image_size, width))
"""


def test_listing_loads_nothing_heavy() -> None:
    """Names, cards, options and refusals need neither torch nor a framework."""
    run_python(
        """
        import models
        for name in models.names():
            models.card(name), models.options(name)
            try:
                models.create(name, in_channels=4, out_channels=4, image_size=1)
            except models.errors.ModelError:
                pass
        heavy = {"torch", "monai", "numpy", "scipy", "pandas"} & set(sys.modules)
        assert not heavy, heavy
        """
    )


def test_names_are_sorted_and_include_the_networks_of_this_package() -> None:
    assert models.names() == sorted(models.names())
    assert set(models.SEGMAMBA_TABLE_1) <= set(models.names())
    assert len(models.SEGMAMBA_TABLE_1) == len(set(models.SEGMAMBA_TABLE_1)) == 8


@pytest.mark.parametrize("ask", [models.card, models.options])
def test_unknown_name_is_answered_with_the_nearest_and_the_list(ask: Callable[[str], object]) -> None:
    with pytest.raises(ModelError, match=r"'segmanba' is unknown. Did you mean 'segmamba'\? There are: .*unetr"):
        ask("segmanba")


def create_segmamba(**changes: object) -> object:
    request = {"in_channels": 4, "out_channels": 4, "image_size": 64, **changes}
    return models.create("segmamba", **request)


def test_options_are_the_builders_defaults() -> None:
    assert models.options("segmamba")["feat_size"] == (48, 96, 192, 384)
    models.options("segmamba").clear()  # a caller's copy
    assert models.options("segmamba")


def test_unknown_option_is_answered_with_the_nearest_and_all_defaults() -> None:
    with pytest.raises(
        ModelError, match=r"segmamba: option 'feat_sise' is unknown. Did you mean 'feat_size'\?.*d_state=16"
    ):
        create_segmamba(feat_sise=(16, 32, 64, 128))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("d_state", "16", "option d_state takes an integer, such as its default 16; got '16' \\(str\\)"),
        ("d_state", 16.0, r"takes an integer.*got 16\.0 \(float\)"),
        ("d_state", True, r"takes an integer.*got True \(bool\)"),
        ("feat_size", 16, r"option feat_size takes a list, each entry an integer.*\(48, 96, 192, 384\); got 16"),
        ("feat_size", [16, "a", 3, 4], "each entry an integer"),
        ("feat_size", [], "each entry an integer"),
        ("d_state", 0, "d_state must be at least 1; got 0"),
        ("depths", [2, 2, 0, 2], r"depths must be at least 1; got \(2, 2, 0, 2\)"),
        ("depths", [2, 2, 2], "depths needs one entry for each of 4 scales"),
        ("feat_size", [18, 32, 64, 128], "multiple of 4, such as 16 or 20; got 18"),
        ("feat_size", [3, 32, 64, 128], "multiple of 4, such as 4; got 3"),
    ],
)
def test_wrong_option_is_refused(option: str, value: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_segmamba(**{option: value})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("segresnet", {"init_filters": 12}, "init_filters must be a multiple of 8, such as 16; got 12"),
        ("segresnet", {"dropout_prob": 1}, "dropout_prob must be at least 0 and below 1; got 1.0"),
        ("unetr", {"num_heads": 11}, "num_heads=11 does not divide hidden_size=768; take 12 heads"),
        ("unetr", {"proj_type": "convs"}, "proj_type 'convs' is unknown. Did you mean 'conv'.*conv, perceptron"),
        ("unetr", {"dropout_rate": -0.5}, "dropout_rate must be at least 0"),
        ("unetr", {"mlp_dim": 0}, "mlp_dim must be at least 1"),
        ("uxnet", {"feat_size": (8, 16)}, "feat_size needs one entry for each of 4 scales"),
        ("uxnet", {"drop_path_rate": 1.0}, "drop_path_rate must be at least 0 and below 1"),
        ("mednext_b", {"kernel_size": 7}, "kernel_size must be 3 or 5; got 7"),
        ("mednext_b", {"n_channels": 0}, "n_channels must be at least 1"),
        ("nnformer", {"embedding_dim": 25}, "embedding_dim must be even"),
        ("nnformer", {"num_heads": (3, 6, 12, 25)}, "25 heads do not divide the 384 channels of scale 2"),
        ("nnformer", {"windows": (4, 4, 8, 4)}, "Did you mean 'window_size'"),
        ("swinunetr", {"feature_size": 20}, "feature_size must be a multiple of 12, such as 24; got 20"),
        ("swinunetr_v2", {"patch_merging": "legasy"}, "Did you mean 'legacy'.*corrected, legacy"),
        ("nnunet", {"feat_size": (32, 64)}, "feat_size needs one entry for each of 6 scales"),
        ("nnunet", {"n_conv_per_stage": 0}, "n_conv_per_stage must be at least 1"),
        ("nnunet_resenc", {"n_blocks_per_stage": (1, 1, 1, 1, 1, 0)}, "n_blocks_per_stage must be at least 1"),
        ("umamba_bot", {"feat_size": (32,)}, "feat_size needs one entry for each of 6 scales"),
        ("transbts", {"base_channels": 12}, "base_channels must be a multiple of 8, such as 16; got 12"),
        ("unetr", {"mlp_dim": 10**30}, "mlp_dim=10+ is too large"),
        ("uxnet", {"depths": (2, 2, 2, 2**31)}, r"depths=\(2, 2, 2, 2147483648\) is too large"),
        ("uxnet", {"drop_path_rate": float("nan")}, "drop_path_rate must be at least 0 and below 1"),
        ("uxnet", {"drop_path_rate": float("inf")}, "is too large"),
        ("transbts", {"num_heads": 7}, "num_heads=7 does not divide the tokens' 512 channels"),
    ],
)
def test_option_a_network_cannot_take_is_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        models.create(name, in_channels=4, out_channels=4, image_size=64, **options)


@pytest.mark.parametrize("channels", [0, -1, 1.0, True, "4"])
@pytest.mark.parametrize("which", ["in_channels", "out_channels"])
def test_wrong_number_of_channels_is_refused(which: str, channels: object) -> None:
    with pytest.raises(ModelError, match=f"{which} must be an integer of at least 1; got"):
        create_segmamba(**{which: channels})


@pytest.mark.parametrize(
    ("image_size", "message"),
    [
        (100, "100×100×100 .*multiple of 16. Nearest: 96×96×96 below, 112×112×112 above"),
        ((128, 100, 96), "128×100×96 .*Nearest: 128×96×96 below, 128×112×96 above"),
        (16, "at least 32.*Nearest: 32×32×32 above"),
        ((100, 16, 64), "Nearest: 112×32×64 above"),
        ((64, 64), r"one positive integer or three \(D, H, W\), in voxels; got \(64, 64\)"),
        (0, "one positive integer"),
        (64.0, "one positive integer"),
        ("64", "one positive integer"),
        (True, "one positive integer"),
    ],
)
def test_wrong_image_size_is_refused_with_the_nearest_allowed(image_size: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_segmamba(image_size=image_size)


def test_size_rule_may_differ_between_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    card = replace(models.card("segresnet"), name="flat", size_multiple=(2, 8, 32), minimum_size=3)

    @models.register(card)
    def flat(_in_channels, _out_channels, image_size):
        return SimpleNamespace(size=image_size)

    assert models.create("flat", in_channels=1, out_channels=1, image_size=[4, 8, 32]).size == (4, 8, 32)
    with pytest.raises(ModelError, match=r"multiple of 2, 8, 32 \(D, H, W\)\. Nearest: 4×8×32 below, 4×16×64 above"):
        models.create("flat", in_channels=1, out_channels=1, image_size=(4, 9, 33))


def test_rule_for_volumes_needs_not_divide_by_that_for_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    rule = VolumeRule(7, (("width", 1),), "width=2 takes any")

    @models.register(replace(models.card("segresnet"), name="odd", size_multiple=16, minimum_size=16, volume_rule=rule))
    def odd(_in_channels, _out_channels, image_size, *, width: int = 1):
        return SimpleNamespace(size=image_size, width=width)

    request = {"in_channels": 1, "out_channels": 1}
    assert models.create("odd", image_size=(112, 16, 16), **request)
    assert models.create("odd", image_size=16, width=2, **request)
    with pytest.raises(
        ModelError, match=r"multiple of 7 \(width=2 takes any\)\. Nearest: 112×16×16 below, 128×16×112 above"
    ):
        models.create("odd", image_size=(120, 16, 16), **request)


@pytest.mark.parametrize("change", [{"size_multiple": 0}, {"size_multiple": (8, 8, -8)}, {"minimum_size": 0}])
def test_card_without_a_rule_for_sizes_is_refused(change: dict[str, object]) -> None:
    card = replace(models.card("unetr"), name="mine", **change)
    with pytest.raises(ModelError, match="mine: the card's size_multiple and minimum_size must be at least 1"):
        models.register(card)(lambda *_request: None)
    assert "mine" not in models.names()


def test_lack_of_memory_names_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    @models.register(replace(models.card("segresnet"), name="vast"))
    def vast(*_request, width: int = 8):
        raise RuntimeError(f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {width} bytes")

    with pytest.raises(ModelError, match="vast: there is not enough memory for a network with width=9"):
        models.create("vast", in_channels=1, out_channels=1, image_size=8, width=9)


def test_taken_name_is_refused() -> None:
    def other(*_request):
        return None

    with pytest.raises(ModelError, match=r"'unetr' is taken by models\.cards\.unetr\.unetr"):
        models.register(models.card("unetr"))(other)


def test_reloaded_module_may_register_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    for width in (1, 2):

        @models.register(replace(models.card("unetr"), name="mine"))
        def mine(*_request, width: int = width):
            return width

    assert models.options("mine") == {"width": 2}


@pytest.mark.parametrize("default", [None, (), (1, "a"), [1], object()])
def test_option_without_a_typed_default_is_refused(default: object) -> None:
    def build(*_request, width=default):
        return width

    with pytest.raises(ModelError, match=r"option width of .* needs a default"):
        models.register(replace(models.card("unetr"), name="mine"))(build)
    assert "mine" not in models.names()


def test_installed_distribution_adds_a_network(tmp_path: Path) -> None:
    install(tmp_path, "goodnets", "goodnet", DECORATED.format(name="goodnet"))
    done = run_python(
        """
        import models
        assert "goodnet" in models.names()
        print(models.create("goodnet", in_channels=1, out_channels=2, image_size=(4, 8, 4), width=3).asked)
        """,
        tmp_path,
    )
    assert done.stdout.strip() == "(1, 2, (4, 8, 4), 3)"
    assert not done.stderr


TINY = """
    import models
    from models.card import ModelCard

    @models.register(
        ModelCard(
            name="tinynet",
            title="one convolution",
            family="convolution",
            paper="Nobody, no paper",
            year=2026,
            repository="https://example.org/tinynet",
            commit="1.0",
            licence="CC0",
            deviations=(),
            size_multiple=4,
            minimum_size=4,
            fixed_size=False,
            recipe="none",
            parameters_4to4=4 * 4 * 27 + 4,
        )
    )
    def build(in_channels, out_channels, image_size, *, kernel_size: int = 3):
        from torch import nn

        return nn.Conv3d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
"""


def test_a_network_from_an_installed_package_is_listed_and_passes_the_contract(tmp_path: Path) -> None:
    install(tmp_path, "tinynets", "tinynet", TINY)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [Path(sys.executable).with_name("bench"), "models"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    assert "tinynet" in listed.stdout
    assert "not counted" in listed.stdout
    contract = [sys.executable, "-m", "pytest", "-q", "tests/models/test_contract.py", "-k", "tinynet"]
    tested = subprocess.run(contract, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert tested.returncode == 0, tested.stdout
    assert " passed" in tested.stdout


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def build(): pass", "not a builder decorated with models.register"),
        (DECORATED.format(name="unetr"), "ModelError: The name 'unetr' is taken by models.cards.unetr.unetr"),
        ("", "AttributeError"),
    ],
)
def test_broken_distribution_is_named_and_passed_over(tmp_path: Path, source: str, reason: str) -> None:
    install(tmp_path, "brokennets", "brokennet", source)
    install(tmp_path, "goodnets", "goodnet", DECORATED.format(name="goodnet"))
    done = run_python("import models; models.names(); print(*models.names())", tmp_path)
    assert done.stdout.split() == sorted([*models.names(), "goodnet"])
    assert done.stderr.count("of the distribution 'brokennets' is left out") == 1
    assert reason in done.stderr
