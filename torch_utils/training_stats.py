"""Running means of named scalars between two reports, summed over all processes when they are read."""

import math

import torch

from torch_utils import distributed

Stats = dict[str, dict[str, float]]  # name -> {num, mean, std}


class Collector:
    """Count, sum and sum of squares per name. Every process must report the same names before `take`."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = device
        self._moments: dict[str, torch.Tensor] = {}

    def report(self, name: str, value: torch.Tensor | float) -> None:
        """Adds every element of `value`. No synchronisation with the device, no gradient."""
        x = torch.as_tensor(value, device=self.device).detach().flatten().double()
        moments = torch.stack([torch.full_like(x, 1).sum(), x.sum(), x.square().sum()])
        self._moments[name] = self._moments[name] + moments if name in self._moments else moments

    def take(self) -> Stats:
        """name -> {num, mean, std} over everything reported since the last call, over all processes."""
        if not self._moments:
            return {}
        names = sorted(self._moments)
        table = distributed.all_sum(torch.stack([self._moments[n] for n in names])).tolist()
        self._moments.clear()
        return {name: _summary(*row) for name, row in zip(names, table)}

    def state(self) -> dict[str, torch.Tensor]:
        """Moments that `take` has not taken yet, summed over all processes, on the CPU; nothing changes here."""
        return _summed(self._moments)

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Goes on from what `state` gave, with any number of processes."""
        self._moments = _first_rank_only(state, self.device)


def _summed(table: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: distributed.all_sum(table[name].clone()).cpu() for name in sorted(table)}


def _first_rank_only(state: dict[str, torch.Tensor], device: torch.device | str) -> dict[str, torch.Tensor]:
    share = 1 if distributed.rank() == 0 else 0
    return {name: (total * share).to(device) for name, total in state.items()}


def _summary(num: float, total: float, squares: float) -> dict[str, float]:
    if num == 0:
        return {"num": 0, "mean": math.nan, "std": math.nan}
    mean = total / num
    return {"num": int(num), "mean": mean, "std": math.sqrt(max(squares / num - mean**2, 0.0))}


class BatchMean:
    """Means over one step's whole batch of values that only micro-batches know: w, path lengths, signs of D(real)."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, name: str, values: torch.Tensor, rows: torch.Tensor | None = None, count: int = 1) -> None:
        """Adds `values` [N, ...] to the mean called `name`, or each to that of `count` means which `rows` [N] says."""
        flat = values.detach().reshape(len(values), -1).double()
        if rows is None:
            total = torch.cat([flat.sum(0), flat.new_tensor([len(flat)])])
        else:
            total = flat.new_zeros(count, flat.shape[1] + 1)
            total.index_add_(0, rows, torch.cat([flat, flat.new_ones(len(flat), 1)], dim=1))
        self._sums[name] = self._sums[name] + total if name in self._sums else total

    def take(self, name: str) -> torch.Tensor | None:
        """Mean over all micro-batches of all processes since the last call, [D] or [count, D] (NaN for a row that got
        nothing); None if nothing was added."""
        if name not in self._sums:
            return None
        total = distributed.all_sum(self._sums.pop(name))
        return (total[..., :-1] / total[..., -1:]).float()

    def state(self) -> dict[str, torch.Tensor]:
        """Sums that have not been taken yet, over all processes, on the CPU; nothing changes here."""
        return _summed(self._sums)

    def load_state(self, state: dict[str, torch.Tensor], device: torch.device | str) -> None:
        """Goes on from what `state` gave, with any number of processes."""
        self._sums = _first_rank_only(state, device)
