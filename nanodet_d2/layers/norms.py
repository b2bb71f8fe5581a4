"""Batch norms: which there are, whether they are folded, and a copy of their statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """All batch norms of torch's kinds, those across ranks included; frozen ones are none."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm)]


@torch.no_grad()
def norms_are_folded(model: nn.Module) -> bool:
    """Whether trained batch norms were folded into the convolutions before them.

    What is left of such norms is a bias: their statistics are a mean of 0 and a variance of 1.
    Norms that were never trained have these as well, but no bias.
    """
    biased = False
    for norm in batch_norms(model):
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None or not norm.affine:
            continue
        if (mean != 0).any() or (variance != 1).any():
            return False
        biased = biased or bool(norm.bias.any())
    return biased


class KeptBuffers:
    """A copy of a model's buffers, made by an operator or two whatever their number.

    Those that do not lie in memory in their own order are left out: they are tables, while what a
    forward pass changes are vectors and counters.

    Args:
        model: whose buffers stay the same tensors, changed in place.
    """

    def __init__(self, model: nn.Module):
        alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for x in model.buffers():
            if x.is_contiguous():
                alike.setdefault((x.dtype, x.device), []).append(x.view(-1))
        self._groups = list(alike.values())
        self._kept = [torch.cat(group) for group in self._groups]

    @torch.no_grad()
    def keep(self) -> None:
        """Take the present values."""
        for group, kept in zip(self._groups, self._kept):
            torch.cat(group, out=kept)

    @torch.no_grad()
    def restore(self) -> None:
        """Bring back the values that were kept."""
        for group, kept in zip(self._groups, self._kept):
            torch._foreach_copy_(group, list(kept.split([x.numel() for x in group])))
