"""A training loader whose samples depend on their position alone.

The k-th sample of a training is drawn from a random state made of the seed and k. So the same seed
gives the same batches, whatever the number of workers and of ranks, of which each makes its part.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from detectron2.data import DatasetFromList
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from nanodet_d2.runtime.images import ImageError

from .broken import BrokenImages, Replacer
from .cache import ImageCache
from .mapper import DetectionMapper
from .mixing import Mixer, Size
from .tiling import AUTO, tile_records
from .validation import file_names
from .workers import start_worker, workers_of_loader

MAX_WORKERS = 8  # if none are asked for

Mapper = Callable[..., dict[str, Any]]


def build_train_loader(
    dataset: Sequence[dict[str, Any]],
    *,
    mapper: Mapper,
    total_batch_size: int,
    num_workers: int | None = 0,
    seed: int | None = None,
    mixers: Sequence[Mixer] = (),
    close_after: int | None = None,
    sizes: Sequence[Size] = (),
    repeat_threshold: float = 0.0,
    cache: ImageCache | None = None,
    max_broken_share: float = 0.05,
    broken_file: str | None = None,
    tiles: Any = None,
) -> TrainLoader:
    """Endless batches, as lists of samples.

    Args:
        dataset: detectron2's data set dicts.
        mapper: makes a sample of one of them; with mixers or sizes it is also given the size.
        total_batch_size: over all ranks.
        num_workers: processes per rank; 0 for none, None for as many as the cores allow, at most
            ``MAX_WORKERS``. Fewer, with a warning, where their batches do not fit the shared
            memory.
        seed: of order and augmentation; a random one, shared by the ranks, if None or negative.
        mixers: augmentations of several images, in order.
        close_after: iteration from which on they are left out; None for never.
        sizes: (height, width) of the images, one of which is drawn per batch; the mapper's own
            if empty. It has to be one that the network takes.
        repeat_threshold: classes in a smaller share of the images are repeated (Gupta et al.
            2019, "LVIS", section 4.1); off if 0.
        cache: keeps the decoded images; the mapper is a ``DetectionMapper`` then.
        max_broken_share: images that cannot be used are replaced by others, up to this share of
            the data set. Beyond, the loader raises ``ValueError`` with their list.
        broken_file: where they are listed; what it holds already counts, so that the share is that
            of all ranks and of a resumed training's start. None for only the log.
        tiles: cuts large pictures into slices, as in :func:`nanodet_d2.data.tiling.tile_records`.

    Raises:
        ValueError: for a batch that does not divide among the ranks, a share outside 0 to 1, or
            tiles that are not allowed or that the mapper cannot cut.
    """
    world_size = comm.get_world_size()
    if total_batch_size < 1 or total_batch_size % world_size:
        raise ValueError(
            f"total_batch_size {total_batch_size}; allowed: multiples of the {world_size} processes"
        )
    if seed is None or seed < 0:
        seed = comm.shared_random_seed()
    seed %= 2**31
    if cache is not None:
        reader = cast(DetectionMapper, mapper)
        cache.prepare(dataset, image_format=reader.image_format)
        mapper = reader.with_cache(cache)
    names = file_names(dataset)  # each file once, whatever it is cut into
    if tiles is not None:
        dataset = _cut(dataset, tiles, mapper)
    samples = Samples(
        dataset,
        mapper,
        seed=seed,
        batch_size=total_batch_size,
        mixers=mixers,
        close_after=close_after,
        sizes=sizes,
    )
    num_workers = workers_of_loader(
        "dataloader.train",
        num_workers,
        at_most=MAX_WORKERS,
        mapper=mapper,
        batch_size=total_batch_size // world_size,
        sizes=sizes,
        reserved=cache.shared_bytes if cache is not None else 0,
    )
    return TrainLoader(
        samples,
        batch_sampler=BatchSampler(
            Positions(
                _order(dataset, repeat_threshold, seed), rank=comm.get_rank(), ranks=world_size
            ),
            total_batch_size // world_size,
            drop_last=True,
        ),
        num_workers=num_workers,
        collate_fn=trivial_batch_collator,
        worker_init_fn=start_worker,
        broken=BrokenImages(names, max_broken_share, broken_file),
        file_names=names,
    )


def _cut(dataset: Sequence[dict[str, Any]], tiles: Any, mapper: Mapper) -> list[dict[str, Any]]:
    """The records of all tiles."""
    if not isinstance(mapper, DetectionMapper):
        name = getattr(mapper, "__name__", type(mapper).__name__)
        raise ValueError(f"tiles with the mapper {name}; allowed: a DetectionMapper")
    return tile_records(dataset, tiles, input_size=mapper.size if tiles == AUTO else None)


def _order(dataset: Sequence[dict[str, Any]], repeat_threshold: float, seed: int) -> Sampler:
    """Indices without end."""
    if repeat_threshold <= 0:
        return TrainingSampler(len(dataset), seed=seed)
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        dataset, repeat_threshold
    )
    return RepeatFactorTrainingSampler(factors, seed=seed)


class TrainLoader(DataLoader):
    """Takes the notes on broken images off the samples of its batches.

    Not detectron2's loader, in which the number of workers decides which samples share a batch.
    """

    def __init__(self, *args: Any, broken: BrokenImages, file_names: Sequence[str], **kwargs: Any):
        self.broken = broken
        self.file_names = file_names
        super().__init__(*args, **kwargs)

    # torch promises an iterator of a class of its own, which nobody needs.
    def __iter__(self) -> Iterator[list[dict[str, Any]]]:  # type: ignore[override]
        for batch in super().__iter__():
            self.broken.take_notes(batch)
            yield batch

    def start_at(self, iteration: int) -> None:
        """Begin the next pass with the batch of this iteration."""
        batches = self.batch_sampler
        assert isinstance(batches, BatchSampler) and isinstance(batches.sampler, Positions)
        batches.sampler.start = iteration * batches.batch_size


class Positions(Sampler):
    """(position in the whole training, index) for each index of a rank's endless sampler.

    Args:
        sampler: of one rank of so many; the ranks take turns.
        start: where in it to begin.
    """

    def __init__(self, sampler: Sampler, *, rank: int = 0, ranks: int = 1, start: int = 0):
        self.sampler = sampler
        self.rank = rank
        self.ranks = ranks
        self.start = start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        indices = itertools.islice(self.sampler, self.start, None)
        return zip(itertools.count(self.start * self.ranks + self.rank, self.ranks), indices)


class Samples(Dataset):
    """Samples by (position, index); see :func:`build_train_loader`.

    Args:
        batch_size: of all ranks together.
    """

    def __init__(
        self,
        dataset: Sequence[dict[str, Any]],
        mapper: Mapper,
        *,
        seed: int,
        batch_size: int,
        mixers: Sequence[Mixer] = (),
        close_after: int | None = None,
        sizes: Sequence[Size] = (),
    ):
        self.records = DatasetFromList(list(dataset), copy=False)
        self.mapper = mapper
        self.seed = seed
        self.batch_size = batch_size
        self.mixers = list(mixers)
        self.close_after = close_after
        self.sizes: list[Size] = [(height, width) for height, width in sizes]
        self.replace_broken = Replacer(len(self.records))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: tuple[int, int]) -> dict[str, Any]:
        position, index = draw
        iteration = position // self.batch_size
        size = self._size(iteration)
        state = np.random.SeedSequence((self.seed, position)).generate_state(1)[0]
        np.random.seed(state)
        random.seed(int(state))
        make = functools.partial(self._map, index)
        if self.close_after is None or iteration < self.close_after:
            for mixer in self.mixers:
                make = functools.partial(mixer, make, self._other)
        try:
            return self.replace_broken.note(make(size))
        except ImageError as error:
            return self.replace_broken.given_up(error)

    def _size(self, iteration: int) -> Size | None:
        """One size per iteration, the same on all ranks."""
        if not self.sizes:
            return cast(DetectionMapper, self.mapper).size if self.mixers else None
        choice = np.random.default_rng((self.seed, iteration)).integers(len(self.sizes))
        return self.sizes[choice]

    def _map(self, index: int, size: Size | None) -> dict[str, Any]:
        arguments = {} if size is None else {"size": size}
        return self.replace_broken(lambda i: self.mapper(self.records[i], **arguments), index)

    def _other(self, size: Size) -> dict[str, Any]:
        return self._map(np.random.randint(len(self.records)), size)
