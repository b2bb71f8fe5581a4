"""A batch in pieces through the network: the memory of one piece, the gradients of the whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Callable, Optional

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nanodet_d2.layers import batch_norms

# Raw outputs of head and auxiliary head (None without one), (N, P, K) each, and priors (P, 3).
Outputs = tuple[Tensor, Optional[Tensor], Tensor]


def in_micro_batches(
    network: Callable[[Tensor], Outputs], images: Tensor, count: int, *, model: nn.Module
) -> Outputs:
    """Outputs for images (N, 3, H, W) that keep no activations of the network.

    The backward pass runs each piece again with gradients and frees it before the next (Gao et al.
    2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"). So the losses
    are those of the whole batch, with its normalisers, for one more forward pass. Adding up the
    gradients of the pieces' own losses would weigh them by other normalisers. Only batch norms that
    are not frozen see a piece in place of the batch.

    Args:
        network: from images to outputs.
        count: of pieces, of equal size but for the last.
        model: whose batch norms keep their statistics when a piece is run again.
    """
    pieces = [
        checkpoint(
            network,
            piece,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), _statistics_kept(model)),
        )
        for piece in images.chunk(count)
    ]
    raw, aux_raw, priors = zip(*pieces)
    return torch.cat(raw), None if aux_raw[0] is None else torch.cat(aux_raw), priors[0]


@contextlib.contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
