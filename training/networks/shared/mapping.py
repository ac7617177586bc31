"""Mapping network z, c -> w (Karras et al. 2019, "A Style-Based Generator Architecture", section 2)."""

import torch
from torch import nn

from training.networks.shared.layers import FullyConnected, normalize_2nd_moment


class Mapping(nn.Module):
    """From latent and label to styles: what every generator's `mapping` offers."""

    w_avg: torch.Tensor | None  # running average of w, the centre of truncation: [w_dim], or [classes, w_dim]
    guidance: float | None = None  # how far styles move away from the mean over all classes, 1: not; None: not offered

    def forward(
        self,
        z: torch.Tensor | None,  # [N, z_dim]
        c: torch.Tensor | None = None,  # [N, c_dim]
        truncation_psi: float = 1.0,  # 1: none, 0: always the average
        truncation_cutoff: int | None = None,  # truncate only the first so many styles
    ) -> torch.Tensor:
        """Styles [N, num_ws, w_dim]. UserError for a truncation where there is no w_avg."""
        raise NotImplementedError

    def update_w_avg(self, w_mean: torch.Tensor) -> None:
        """Moves the running average a step towards `w_mean`, the mean over a whole batch, of w_avg's shape."""
        raise NotImplementedError


class MappingNetwork(Mapping):
    """Normalised latent and embedded label -> `num_layers` layers -> w, broadcast to all styles.

    It never changes `w_avg` by itself: the trainer calls `update_w_avg` once a step with the mean over the whole
    batch of all processes, so that the average does not depend on how the batch was cut up.
    """

    w_avg: torch.Tensor

    def __init__(
        self,
        z_dim: int,  # 0: no latent (the discriminator's label mapping)
        c_dim: int,  # 0: no label
        w_dim: int,
        num_ws: int | None,  # copies of w to return; None: just [N, w_dim], and no w_avg
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
        w_avg_beta: float = 0.995,  # decay of w_avg per step
        activation: str = "lrelu",  # any activation of ops.bias_act
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.num_ws, self.num_layers, self.w_avg_beta = num_ws, num_layers, w_avg_beta
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        features = z_dim + (w_dim if c_dim else 0)
        for i in range(num_layers):
            layer = FullyConnected(features, w_dim, activation=activation, lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", layer)
            features = w_dim
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: torch.Tensor | None,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> torch.Tensor:
        """[N, num_ws, w_dim], or [N, w_dim] where num_ws is None."""
        parts = []
        if self.z_dim:
            assert z is not None
            parts.append(normalize_2nd_moment(z.float()))
        if self.c_dim:
            assert c is not None
            parts.append(normalize_2nd_moment(self.embed(c.float())))
        w = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        for i in range(self.num_layers):
            w = self.get_submodule(f"fc{i}")(w)
        if self.num_ws is None:
            return w
        return truncate(w.unsqueeze(1).repeat(1, self.num_ws, 1), self.w_avg, truncation_psi, truncation_cutoff)

    @torch.no_grad()
    def update_w_avg(self, w_mean: torch.Tensor) -> None:
        """Moves the running average a step towards `w_mean` [w_dim], the mean w of a whole batch."""
        self.w_avg.copy_(w_mean.detach().lerp(self.w_avg, self.w_avg_beta))


def truncate(ws: torch.Tensor, w_avg: torch.Tensor, psi: float, cutoff: int | None = None) -> torch.Tensor:
    """Truncation trick on ws [N, num_ws, w_dim]: the first `cutoff` styles (all if None) move towards `w_avg`."""
    if psi == 1:
        return ws
    k = ws.shape[1] if cutoff is None else cutoff
    return torch.cat([w_avg.lerp(ws[:, :k], psi), ws[:, k:]], dim=1)
