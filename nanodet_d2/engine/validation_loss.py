"""The training's losses on the validation set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.build import trivial_batch_collator
from detectron2.engine import HookBase
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from nanodet_d2.data.validation import workers_of_test_loader
from nanodet_d2.layers import batch_norms

from .evaluation import share_buffers

PREFIX = "validation_"


def build_validation_batches(cfg: DictConfig) -> DataLoader:
    """The test set with its targets, as the evaluation sees it, in batches of the training's size.

    Every rank gets as many batches, since they wait for each other in each: up to one image per
    rank is seen twice.
    """
    test = cfg.dataloader.test
    mapper = instantiate(OmegaConf.merge(test.mapper, {"is_train": True}))
    dataset = MapDataset(DatasetFromList(instantiate(test.dataset)), mapper)
    ranks = comm.get_world_size()
    batch_size = max(1, cfg.dataloader.train.total_batch_size // ranks)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=DistributedSampler(
            dataset, num_replicas=ranks, rank=comm.get_rank(), shuffle=False
        ),
        num_workers=workers_of_test_loader(test.num_workers, mapper=mapper, batch_size=batch_size),
        collate_fn=trivial_batch_collator,
    )


class ValidationLoss(HookBase):
    """Log the losses of a validation set as ``validation_loss_…``. Needed on every rank.

    They are those of the weights in training, not of the averaged ones, and each batch is
    normalised by itself, as in training.

    Args:
        period: steps from one time to the next; it also happens at the end.
        model: without a distributed wrapper.
        batches: of samples with targets.
    """

    def __init__(self, period: int, model: nn.Module, batches: Iterable[list[dict[str, Any]]]):
        self.period = period
        self.model = model
        self.batches = batches

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done >= self.trainer.max_iter or (self.period and done % self.period == 0):
            losses = validation_losses(self.model, self.batches)
            if comm.is_main_process():
                self.trainer.storage.put_scalars(
                    smoothing_hint=False, **{PREFIX + name: x for name, x in losses.items()}
                )


@torch.no_grad()
def validation_losses(
    model: nn.Module, batches: Iterable[list[dict[str, Any]]]
) -> dict[str, float]:
    """Mean of each loss over the images, and their sum as ``total_loss``.

    The model is left as it is: batch norms use their statistics, the main rank's on all ranks, and
    do not collect any.
    """
    share_buffers(model)
    was_training = model.training
    model.train()
    for norm in batch_norms(model):
        norm.eval()
    count = 0
    sums: dict[str, Any] = {}
    try:
        for batch in batches:
            count += len(batch)
            for name, loss in model(batch).items():
                sums[name] = sums.get(name, 0.0) + len(batch) * loss
    finally:
        model.train(was_training)
    gathered = comm.all_gather((count, {name: float(x) for name, x in sums.items()}))
    total = sum(n for n, _ in gathered)
    means = {name: sum(x[name] for _, x in gathered) / total for name in gathered[0][1]}
    return {"total_loss": sum(means.values()), **means}
