"""The layers of ours.cpp in torch."""

import pathlib
import sys

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError as error:
    sys.exit(f"torch is missing for {sys.executable} (Debian package python3-torch): {error}")

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peer


class First(nn.Module):
    """The outputs alone of a module that returns more."""

    def __init__(self, module, *, itself=False):
        super().__init__()
        self.module, self.itself = module, itself

    def forward(self, x):
        return self.module(*[x] * 3, need_weights=False)[0] if self.itself else self.module(x)[0]


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


def layer(make, *shape, rows=0):
    def set_up():
        module = make()
        x = torch.randint(rows, shape) if rows else torch.randn(shape, requires_grad=True)
        return lambda seconds: 1e3 * peer.median_time(seconds, lambda: module(x).sum().backward())

    return set_up


def loss(of, *, labels=False):
    def set_up():
        x = torch.randn(rows, requires_grad=True)
        target = torch.randint(rows[1], rows[:1]) if labels else torch.rand(rows)
        return lambda seconds: 1e3 * peer.median_time(seconds, lambda: of(x, target).backward())

    return set_up


def convolution():
    return nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64))


torch.set_num_threads(1)
images, rows = (16, 64, 28, 28), (512, 1024)
peer.serve(f"torch {torch.__version__}", {
    "linear": layer(lambda: nn.Linear(512, 512), 256, 512),
    "conv1d": layer(lambda: nn.Conv1d(32, 64, 5, padding=2), 32, 32, 256),
    "conv2d": layer(lambda: nn.Conv2d(64, 64, 3, padding=1), *images),
    "conv2d-stride": layer(lambda: nn.Conv2d(64, 128, 3, stride=2, padding=1), *images),
    "conv2d-depthwise": layer(lambda: nn.Conv2d(64, 64, 3, padding=1, groups=64), *images),
    "conv2d-dilated": layer(lambda: nn.Conv2d(64, 64, 3, padding=2, dilation=2), *images),
    "conv2d-1x1": layer(lambda: nn.Conv2d(64, 64, 1), *images),
    "conv3d": layer(lambda: nn.Conv3d(8, 16, 3, padding=1), 4, 8, 16, 16, 16),
    "conv_transpose2d": layer(lambda: nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), 16, 64, 14, 14),
    "residual": layer(lambda: Residual(nn.Sequential(convolution(), nn.ReLU(), convolution())), *images),
    "max_pool2d": layer(lambda: nn.MaxPool2d(2), *images),
    "max_pool2d-overlapping": layer(lambda: nn.MaxPool2d(3, stride=2, padding=1), *images),
    "avg_pool2d": layer(lambda: nn.AvgPool2d(2), *images),
    "batch_norm": layer(lambda: nn.BatchNorm2d(64), *images),
    "group_norm": layer(lambda: nn.GroupNorm(8, 64), *images),
    "layer_norm": layer(lambda: nn.LayerNorm(1024), *rows),
    "embedding": layer(lambda: nn.Embedding(10_000, 64), 64, 128, rows=10_000),
    "lstm": layer(lambda: First(nn.LSTM(64, 128, batch_first=True)), 32, 32, 64),
    "gru": layer(lambda: First(nn.GRU(64, 128, batch_first=True)), 32, 32, 64),
    "attention": layer(lambda: First(nn.MultiheadAttention(128, 4, batch_first=True), itself=True), 8, 128, 128),
    "transformer": layer(lambda: nn.TransformerEncoderLayer(128, 4, 512, dropout=0, batch_first=True), 8, 128, 128),
    "tanh": layer(nn.Tanh, *rows),
    "sigmoid": layer(nn.Sigmoid, *rows),
    "gelu": layer(lambda: nn.GELU(approximate="none"), *rows),
    "silu": layer(nn.SiLU, *rows),
    "softplus": layer(nn.Softplus, *rows),
    "elu": layer(nn.ELU, *rows),
    "leaky_relu": layer(nn.LeakyReLU, *rows),
    "relu": layer(nn.ReLU, *rows),
    "softmax": layer(lambda: nn.Softmax(-1), *rows),
    "dropout": layer(lambda: nn.Dropout(0.5), *rows),
    "mean_squared_error": loss(functional.mse_loss),
    "l1_loss": loss(functional.l1_loss),
    "huber_loss": loss(functional.huber_loss),
    "kl_divergence": loss(lambda x, target: functional.kl_div(x, target, reduction="batchmean")),
    "nll_loss": loss(functional.nll_loss, labels=True),
    "cross_entropy": loss(functional.cross_entropy, labels=True),
    "binary_cross_entropy": loss(functional.binary_cross_entropy_with_logits),
})
