"""Reading published weights: tensors by name, without running anything that is in the file."""

import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from dnnlib import UserError


class Weights:
    """A file of tensors by name. Raises UserError if the file is something else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as e:  # torch.load raises about every kind there is for a file that is something else
            raise UserError(f"{path} is not a file of tensors that torch can load ({type(e).__name__})") from e
        if not isinstance(state, dict):
            raise UserError(f"{path} holds a {type(state).__name__}, not a table of tensors by name")
        self._state = state

    def __contains__(self, name: str) -> bool:
        return name in self._state

    def take(self, name: str) -> torch.Tensor:
        """The tensor `name`; UserError if the file lacks it."""
        tensor = self._state.get(name)
        if not isinstance(tensor, torch.Tensor):
            raise UserError(f"{self._path} lacks the tensor {name!r}: it holds the weights of another network")
        return tensor.float()

    def folded(self, conv: str, bn: str, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the convolution `conv` with the batch norm `bn` (running statistics) folded into it."""
        mean, var, scale, shift = (
            self.take(f"{bn}.{leaf}") for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        weight, bias = fuse_conv_bn_weights(self.take(f"{conv}.weight"), None, mean, var, epsilon, scale, shift)
        return weight.data, bias.data

    def linear(self, name: str, bias: bool = True) -> nn.Linear:
        """The fully connected layer `name`."""
        weight = self.take(f"{name}.weight")
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias)
        layer.load_state_dict({"weight": weight} | ({"bias": self.take(f"{name}.bias")} if bias else {}))
        return layer


class ConvRelu(nn.Module):
    """Convolution with bias, then ReLU. [N, C, H, W] -> [N, C', H', W']."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.stride = stride
        self.padding = padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See class."""
        return F.relu(F.conv2d(x, self.weight, self.bias, self.stride, self.padding), inplace=True)


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive rather than a table of tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def load_torchscript(path: Path) -> torch.jit.ScriptModule:
    """The module of a TorchScript archive; UserError if it can't be read."""
    try:
        return torch.jit.load(str(path), map_location="cpu")
    except RuntimeError as e:
        raise UserError(f"{path} is not a TorchScript file that this torch can read") from e
