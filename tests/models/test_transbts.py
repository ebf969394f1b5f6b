"""TransBTS against its layers written out one after the other."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models
from models.transbts import TransBts, TransformerLayer


def conv(layer: nn.Module, x: Tensor) -> Tensor:
    return F.conv3d(x, layer.weight, layer.bias, layer.stride, layer.padding)


def batch_norm(layer: nn.BatchNorm3d, x: Tensor) -> Tensor:
    shape = (1, -1, 1, 1, 1)
    scale = layer.weight / (layer.running_var + 1e-5).sqrt()
    return x * scale.view(shape) + (layer.bias - layer.running_mean * scale).view(shape)


def attention(layer: TransformerLayer, x: Tensor, heads: int) -> Tensor:
    q, k, v = (F.layer_norm(x, x.shape[-1:], layer.norm1.weight, layer.norm1.bias) @ layer.project_in.weight.T).chunk(
        3, -1
    )
    parts = []
    for head in range(heads):
        part = slice(head * q.shape[-1] // heads, (head + 1) * q.shape[-1] // heads)
        scores = q[..., part] @ k[..., part].mT / (q.shape[-1] / heads) ** 0.5
        parts.append(scores.softmax(-1) @ v[..., part])
    return torch.cat(parts, -1) @ layer.project_out.weight.T + layer.project_out.bias


def by_definition(network: TransBts, image: Tensor, heads: int) -> Tensor:
    x = conv(network.stem[0], image)
    skips = []
    for level, stage in enumerate(network.stages):
        if level:
            skips.append(x)
            x = conv(network.downs[level - 1], x)
        for block in stage:
            y = conv(block.conv1, F.relu(F.group_norm(x, 8, block.norm1.weight, block.norm1.bias)))
            x = x + conv(block.conv2, F.relu(F.group_norm(y, 8, block.norm2.weight, block.norm2.bias)))
    x = conv(network.tokens[2], F.relu(batch_norm(network.tokens[0], x)))
    size = x.shape[2:]
    x = x.flatten(2).mT + network.positions
    for layer in network.transformer:
        x = x + attention(layer, x, heads)
        wide, narrow = layer.mlp[0], layer.mlp[3]
        hidden = F.layer_norm(x, x.shape[-1:], layer.norm2.weight, layer.norm2.bias) @ wide.weight.T + wide.bias
        x = x + F.gelu(hidden) @ narrow.weight.T + narrow.bias
    x = x.mT.reshape(len(x), -1, *size)  # as it leaves the last layer, without a further norm

    def pair(block: nn.Module, x: Tensor) -> Tensor:
        y = F.relu(batch_norm(block.norm1, conv(block.conv1, x)))
        return F.relu(batch_norm(block.norm2, conv(block.conv2, y)))

    x = pair(network.narrow, x)
    x = x + pair(network.refine, x)
    for up, block in zip(network.ups, network.decoder, strict=True):
        y = F.conv_transpose3d(conv(up.narrow, x), up.enlarge.weight, up.enlarge.bias, stride=2)
        x = conv(up.merge, torch.cat([skips.pop(), y], dim=1))
        x = x + pair(block, x)
    return conv(network.head, x)


def test_logits_are_those_of_the_layers_written_out() -> None:
    torch.manual_seed(0)
    network = models.create(
        "transbts", in_channels=2, out_channels=3, image_size=(16, 24, 16), base_channels=8, mlp_dim=16, num_heads=4
    )
    assert isinstance(network, TransBts)
    for name, value in network.state_dict().items():  # what starts at one or zero hides mistakes
        if value.is_floating_point():
            nn.init.uniform_(value, *((0.5, 1.5) if name.endswith("running_var") else (-0.3, 0.3)))
    network = network.double().eval()
    image = torch.randn(2, 2, 16, 24, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), by_definition(network, image, heads=4))
