"""Which modules are batch norms."""

from __future__ import annotations

from torch import nn


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """All batch norms of torch's kinds, those across ranks included; frozen ones are none."""
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
