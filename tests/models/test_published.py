"""Loading weights under their authors' names: what is understood, what is refused and in which words."""

import copy
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
from models import registry
from models.errors import ModelError, PublishedWarning
from models.registry import published

SMALL: dict[str, dict[str, Any]] = {
    "segmamba_release": {"feat_size": (8, 8, 8, 8), "depths": (1, 1, 1, 1)},
    "segmamba_2024_03": {"feat_size": (8, 8, 8, 8), "depths": (1, 1, 1, 1)},
    "segmamba_2024_01": {"feat_size": (8, 8, 8, 8), "depths": (1, 1, 1, 1)},
    "uxnet": {"feat_size": (8, 8, 8, 8), "depths": (1, 1, 1, 1)},
    "nnunet": {"feat_size": (4, 4, 4, 4, 4, 4)},
    "nnformer": {"embedding_dim": 24},
    "mednext_s": {"n_channels": 4},
    "swinunetr": {"feature_size": 12},
    "transbts": {"base_channels": 8, "mlp_dim": 32, "num_layers": 1},
    "unetr": {"feature_size": 8, "hidden_size": 48, "mlp_dim": 96, "num_heads": 4},
}


def build(name: str = "uxnet", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.create(name, in_channels=4, out_channels=4, image_size=64, **SMALL[name])


def saved_by_its_authors(network: nn.Module, name: str = "uxnet") -> dict[str, Tensor]:
    names = published(name)
    return {names.name(key): value.clone() for key, value in network.state_dict().items()}


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SMALL)
def test_weights_under_the_authors_names_are_loaded(name: str) -> None:
    source, target = build(name), build(name, seed=1)
    assert not same(source, target)
    models.load_published(target, saved_by_its_authors(source, name))
    assert same(source, target)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {"module": state}},
        lambda state: {"network_weights": state, "init_args": {}},
        lambda state: {"module." + key: value for key, value in state.items()},
        lambda state: {"state_dict": {"module._orig_mod." + key: value for key, value in state.items()}},
        lambda state: {"step": torch.tensor(4), "state_dict": state},
        lambda state: {"model." + key: value for key, value in state.items()},
        lambda state: {key: value.double() for key, value in state.items()},
    ],
)
def test_wrappers_and_prefixes_are_taken_off(wrap: Callable[[dict[str, Tensor]], dict[str, Any]]) -> None:
    source, target = build(), build(seed=1)
    models.load_published(target, wrap(saved_by_its_authors(source)))
    assert same(source, target)


def test_own_names_are_understood_too() -> None:
    source, target = build(), build(seed=1)
    models.load_published(target, source.state_dict())
    assert same(source, target)


def test_parallel_and_compiled_networks_can_be_filled() -> None:
    source, target = build(), build(seed=1)
    models.load_published(torch.compile(nn.DataParallel(target)), saved_by_its_authors(source))
    assert same(source, target)


def test_half_precision_files_fill_fp32_networks() -> None:
    source, target = build(), build(seed=1)
    models.load_published(target, {key: value.half() for key, value in saved_by_its_authors(source).items()})
    key = "encoder.downs.0.0.weight"
    assert target.state_dict()[key].dtype == torch.float32
    assert torch.equal(target.state_dict()[key], source.state_dict()[key].half().float())


def test_what_does_not_fit_is_listed_by_name_and_nothing_is_changed() -> None:
    target = build()
    before = copy.deepcopy(target)
    state = saved_by_its_authors(build(seed=1))
    del state["uxnet_3d.stages.1.0.gamma"]
    state["uxnet_3d.stages.9.gamma"] = torch.ones(8)
    state["out.conv.conv.bias"] = torch.zeros(3)
    state["uxnet_3d.norm0.bias"] = torch.zeros(8, dtype=torch.int64)
    with pytest.raises(ModelError) as refused:
        models.load_published(target, state)
    words = str(refused.value)
    assert "Missing (1 of 92): uxnet_3d.stages.1.0.gamma." in words
    assert "Surplus (1 of 92): uxnet_3d.stages.9.gamma." in words
    assert "out.conv.conv.bias (3,) where (4,) is expected" in words
    assert "uxnet_3d.norm0.bias (no plain tensor of floating-point numbers, but torch.int64" in words
    assert same(target, before)


def test_a_long_list_is_cut_and_counted() -> None:
    given = {f"a{number}": torch.zeros(1) for number in range(101)}
    with pytest.raises(ModelError, match=r"Missing \(92 of 92\).*Surplus \(101 of 101\): a0, .* and 1 more\."):
        models.load_published(build(), given)


@pytest.mark.parametrize("prefix", ["module.", "model."])
def test_what_stands_beside_wrapped_weights_is_all_that_is_refused(prefix: str) -> None:
    state = {prefix + key: value for key, value in saved_by_its_authors(build()).items()}
    with pytest.raises(ModelError) as refused:
        models.load_published(build(), {**state, "n_averaged": torch.tensor(3)})
    assert "Surplus (1 of 93): n_averaged." in str(refused.value)
    assert "Missing" not in str(refused.value)


def test_a_gap_in_own_names_is_told_by_own_names() -> None:
    state = build().state_dict()
    del state["decoder.head.bias"]
    with pytest.raises(ModelError, match=r"Missing \(1 of 92\): decoder\.head\.bias\.$"):
        models.load_published(build(), state)


def test_a_network_whose_own_names_begin_like_a_wrapper_takes_its_own_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    @models.register(replace(models.card("segresnet"), name="wrapped"))
    def wrapped(in_channels: int, out_channels: int, _size: object) -> nn.Module:
        return nn.ModuleDict({"model": nn.Conv3d(in_channels, out_channels, 1)})

    source, target = (models.create("wrapped", in_channels=2, out_channels=2, image_size=8) for _ in range(2))
    for state in (source.state_dict(), {f"module.{key}": value for key, value in source.state_dict().items()}):
        models.load_published(target, state)
        assert same(source, target)


@pytest.mark.parametrize("odd", [lambda t: t.to_sparse(), lambda t: t.to("meta"), lambda t: t.to(torch.complex64)])
def test_tensors_without_plain_numbers_are_refused_and_nothing_is_changed(odd: Callable[[Tensor], Tensor]) -> None:
    target = build()
    before = copy.deepcopy(target)
    state = saved_by_its_authors(build(seed=1))
    state["out.conv.conv.weight"] = odd(state["out.conv.conv.weight"])
    with pytest.raises(ModelError, match=r"out\.conv\.conv\.weight \(no plain tensor of floating-point numbers"):
        models.load_published(target, state)
    assert same(target, before)


def test_a_checkpoint_that_holds_itself_is_refused() -> None:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    with pytest.raises(ModelError, match="no state dict found"):
        models.load_published(build(), content)


@pytest.mark.parametrize("name", ["nnunet", "nnunet_resenc"])
def test_blocks_beyond_the_tenth_are_named_too(name: str) -> None:
    option = {"nnunet": {"n_conv_per_stage": 12}, "nnunet_resenc": {"n_blocks_per_stage": (1, 1, 12, 1, 1, 1)}}[name]
    network = models.create(name, in_channels=1, out_channels=2, image_size=64, feat_size=(4,) * 6, **option)
    theirs = saved_by_its_authors(network, name)
    deep = "encoder.stages.2.0.convs.11." if name == "nnunet" else "encoder.stages.2.blocks.11."
    assert any(key.startswith(deep) for key in theirs)
    assert all(".convs." in key or ".blocks." in key for key in theirs if re.match(r"encoder\.stages", key))


@pytest.mark.parametrize("channels", [1, 4])
def test_what_transbts_does_not_use_has_the_shape_of_its_authors(channels: int) -> None:
    network = models.create("transbts", in_channels=channels, out_channels=4, image_size=16, base_channels=8)
    assert network.state_dict()["unused_encoding.weight"].shape == (256, 64 * channels)


@pytest.mark.parametrize(
    ("content", "found"),
    [({}, "got nothing"), ({"epoch": 3}, "'epoch'"), ([1], "got list"), ({"state_dict": 5}, "5|s")],
)
def test_what_holds_no_state_dict_is_refused(content: Any, found: str) -> None:
    with pytest.raises(ModelError, match=f"no state dict found.*(state_dict|module).*({found})"):
        models.load_published(build(), content)


def test_a_network_from_elsewhere_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Linear was not built by models\.create"):
        models.load_published(nn.Linear(2, 2), {"weight": torch.zeros(2, 2)})


@pytest.mark.parametrize("name", ["segmamba_2024_03", "segmamba_release"])
def test_the_twin_states_of_segmamba_are_both_named(name: str) -> None:
    with pytest.warns(PublishedWarning, match="segmamba_2024_03 and segmamba_release"):
        models.load_published(build(name), saved_by_its_authors(build("segmamba_release"), "segmamba_release"))


def test_the_first_state_of_segmamba_is_not_mistaken_for_the_others() -> None:
    state = saved_by_its_authors(build("segmamba_2024_01"), "segmamba_2024_01")
    with pytest.raises(ModelError, match=r"Missing .*vit\.downsample_layers"):
        models.load_published(build("segmamba_release"), state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models.load_published(build("segmamba_2024_01"), state)


def test_swinunetr_files_come_with_a_word_on_their_age() -> None:
    with pytest.warns(PublishedWarning, match='MONAI up to 1.4 need patch_merging="legacy"'):
        models.load_published(build("swinunetr"), build("swinunetr").state_dict())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["swinunetr", "nnformer", "transbts"])
def test_computed_buffers_may_be_in_the_file_or_not_and_are_never_taken(name: str) -> None:
    source, target = build(name), build(name, seed=1)
    computed = ("relative_position_index", "num_batches_tracked")
    state = {k: v for k, v in saved_by_its_authors(source, name).items() if not k.endswith(computed)}
    models.load_published(target, state)
    before = copy.deepcopy(target)
    block = "swinViT.layers1.0.blocks.0.attn." if name == "swinunetr" else "model_down.layers.0.blocks.0.attn."
    state |= {f"{block}relative_position_index": torch.zeros(9, 9, dtype=torch.int64)}
    state |= {"bn.num_batches_tracked": torch.tensor(99)}
    models.load_published(target, state)
    assert same(target, before)


def test_what_monais_releases_never_used_is_passed_over() -> None:
    state = saved_by_its_authors(build("unetr"), "unetr")
    state["vit.blocks.0.norm_cross_attn.weight"] = torch.ones(48)
    state["vit.patch_embedding.cls_token"] = torch.zeros(1, 1, 48)
    target = build("unetr", seed=1)
    models.load_published(target, state)
    assert torch.equal(target.state_dict()["vit.norm.weight"], state["vit.norm.weight"])


def with_aliases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """nnU-Net saves the encoder again inside the decoder, and each convolution and norm again in a list."""
    for key in list(state):
        if ".convs." in key:
            state[key.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1.")] = state[key]
    state |= {f"decoder.{key}": value for key, value in state.items() if key.startswith("encoder.")}
    return state


def test_repeated_tensors_are_understood() -> None:
    source, target = build("nnunet"), build("nnunet", seed=1)
    state = with_aliases(saved_by_its_authors(source, "nnunet"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models.load_published(target, state)
    assert same(source, target)


def test_repeated_tensors_that_differ_are_told_and_the_plain_name_wins() -> None:
    source, target = build("nnunet"), build("nnunet", seed=1)
    state = with_aliases(saved_by_its_authors(source, "nnunet"))
    odd = "decoder.encoder.stages.0.0.convs.0.conv.weight"
    state[odd] = state[odd] + 1
    with pytest.warns(PublishedWarning, match=f"1 tensors differ .*{odd}"):
        models.load_published(target, state)
    assert same(source, target)
