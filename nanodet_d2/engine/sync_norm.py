"""Batch norms whose statistics are those of all ranks' images."""

from __future__ import annotations

from detectron2.layers import NaiveSyncBatchNorm
from timm.layers import convert_sync_batchnorm
from torch import nn

from nanodet_d2.modeling import NanoDetPlus


def synchronise_norms(model: NanoDetPlus, *, torchs_own: bool) -> NanoDetPlus:
    """A model whose batch norms are replaced; parameters and names of the state stay.

    Args:
        torchs_own: by torch's layer, which runs on GPUs only; else by detectron2's, which needs
            maps of one size on all ranks.

    Raises:
        ValueError: for micro-batches, whose norms would have to wait for each other in the
            backward pass; for norms that detectron2 has no other for.
    """
    if model.micro_batches > 1:
        raise ValueError(
            f"train.sync_norm with model.micro_batches={model.micro_batches}; allowed: one of both"
        )
    if torchs_own:
        return convert_sync_batchnorm(model)  # torch's own would lose timm's fused activations
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, _synchronised(child))
    return model


def _synchronised(norm: nn.Module) -> NaiveSyncBatchNorm:
    if type(norm) is not nn.BatchNorm2d:
        raise ValueError(f"train.sync_norm without a GPU: found {type(norm)}; allowed: BatchNorm2d")
    new = NaiveSyncBatchNorm(norm.num_features, norm.eps, norm.momentum, stats_mode="N")
    new.weight, new.bias = norm.weight, norm.bias
    new.running_mean, new.running_var = norm.running_mean, norm.running_var
    new.num_batches_tracked = norm.num_batches_tracked
    return new
