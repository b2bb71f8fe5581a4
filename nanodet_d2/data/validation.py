"""The loader of an evaluation, whose images are opened before a training and not after it."""

from __future__ import annotations

import filecmp
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader
from tqdm import tqdm

from nanodet_d2.runtime.images import ImageError, printable

from .images import image_size
from .mapper import DetectionMapper
from .workers import start_worker, workers_of_loader

logger = logging.getLogger(__name__)

MAX_WORKERS = 4  # if none are asked for: reading takes a part of the model's time
_NAMED = 1000  # images that an error names
_THREADS = 8  # they wait for the disk, or the network, more than they compute
_BAR_AFTER = 3.0  # seconds, from which on a bar is worth the line


def build_test_loader(
    dataset: list[dict[str, Any]],
    *,
    mapper: Callable[..., dict[str, Any]],
    num_workers: int | None = 0,
    batch_size: int = 1,
) -> DataLoader:
    """The images in order, each rank's its share, after a look at each of them.

    Args:
        dataset: detectron2's data set dicts.
        mapper: makes a sample of one of them. What another than a ``DetectionMapper`` can read is
            not known, and not looked at.
        num_workers: processes per rank; 0 for none, None for as many as the cores allow, at most
            ``MAX_WORKERS``.
        batch_size: images that go through the model together, if the mapper makes all of one size.
            Others stay single: padded to each other's sizes, their detections would differ.

    Raises:
        ValueError: for images that cannot be used; the message names them. For a ``batch_size``
            below 1.
    """
    if batch_size < 1:
        raise ValueError(f"dataloader.test.batch_size {batch_size}; allowed: 1 or more")
    if isinstance(mapper, DetectionMapper):
        require_usable_images(dataset, max_pixels=mapper.max_pixels)
    if not (isinstance(mapper, DetectionMapper) and mapper.makes_one_size):
        batch_size = 1
    loader: Any = DataLoader(
        MapDataset(DatasetFromList(dataset, copy=False), mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(dataset)),
        num_workers=workers_of_test_loader(num_workers, mapper=mapper, batch_size=batch_size),
        collate_fn=trivial_batch_collator,
        worker_init_fn=start_worker,
    )
    loader.file_names = file_names(dataset)
    return loader


def workers_of_test_loader(
    wanted: int | None, *, mapper: Callable[..., Any], batch_size: int = 1
) -> int:
    """The number of worker processes of a loader of ``dataloader.test``."""
    return workers_of_loader(
        "dataloader.test", wanted, at_most=MAX_WORKERS, mapper=mapper, batch_size=batch_size
    )


def file_names(dataset: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths of data set dicts; empty for those without."""
    return [str(record.get("file_name", "")) for record in dataset]


def require_usable_images(records: Sequence[Mapping[str, Any]], *, max_pixels: int) -> None:
    """Open every image of the records, as far as its header, and name all that cannot be used.

    The ranks take turns, so that each opens its share, and all of them raise the same error.
    Images behind a URL are left out: each of them would be fetched.

    Args:
        records: detectron2's data set dicts, the same on all ranks.
        max_pixels: of the mapper.

    Raises:
        ValueError: with the path of each image that cannot be used, and why.
    """
    local = [x for x in records if "://" not in x.get("file_name", "://")]
    if len(local) < len(records):
        logger.info("%d images by URL are not opened before their use", len(records) - len(local))
    mine = local[comm.get_rank() :: comm.get_world_size()]
    broken = unusable_images(mine, max_pixels=max_pixels)
    broken = {k: v for part in comm.all_gather(broken) for k, v in part.items()}
    if broken:
        paths = sorted(broken)
        named = "; ".join(printable(f"{path}: {broken[path]}") for path in paths[:_NAMED])
        more = f"; … and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        raise ValueError(
            f"{len(broken)} of the {len(records)} images of the evaluation cannot be used: repair "
            f"them, or remove them and their annotations. They are {named}{more}"
        )


def unusable_images(records: Sequence[Mapping[str, Any]], *, max_pixels: int) -> dict[str, str]:
    """Path -> why, of the images whose headers cannot be read, or tell another size than a record.

    With a progress bar where it takes long.
    """

    def reason(record: Mapping[str, Any]) -> str | None:
        try:
            height, width = image_size(record["file_name"], max_pixels=max_pixels)
        except ImageError as error:
            return error.reason
        expected = record.get("height", height), record.get("width", width)
        if expected != (height, width):
            told = f"{expected[1]} x {expected[0]}"
            return f"{width} x {height} pixels, {told} in the annotations"
        return None

    with ThreadPoolExecutor(_THREADS) as pool:
        bar = tqdm(
            pool.map(reason, records),
            "opening the images of the evaluation",
            len(records),
            unit="image",
            delay=_BAR_AFTER,
            disable=not comm.is_main_process(),
        )
        paths = (record["file_name"] for record in records)
        return {path: why for path, why in zip(paths, bar) if why is not None}


def warn_of_shared_images(train: Any, val: Any) -> None:
    """Say once how many images two loaders share: what was learnt by heart looks like a good AP.

    Args:
        train, val: loaders with ``file_names``; of others nothing is known.
    """
    names = getattr(train, "file_names", []), getattr(val, "file_names", [])
    shared = shared_images(*names)
    what = "are trained on as well"
    if not shared:
        shared, what = copied_images(*names), "are copies of images that are trained on"
    if shared:
        logger.warning(
            "%d of the %d images of the evaluation %s, so that its figures tell little of other "
            "images: give data.val others, or data.val_share=0.2 in its place. The first: %s",
            len(shared),
            len(val.file_names),
            what,
            printable(shared[0]),
        )


def shared_images(train: Sequence[str], val: Sequence[str]) -> list[str]:
    """The paths of ``val`` that are in ``train``, in order, however their folders are named."""
    folders: dict[str, str] = {}

    def real(path: str) -> str:
        if "://" in path:
            return path
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        return os.path.join(folders[folder], name)

    known = {real(path) for path in train if path}
    return [path for path in val if real(path) in known]


def copied_images(train: Sequence[str], val: Sequence[str]) -> list[str]:
    """The files of ``val`` that have the bytes of one of ``train``, in order.

    Only files of the same size are read.
    """
    sizes: dict[int, list[str]] = {}
    for path in train:
        if os.path.isfile(path):
            sizes.setdefault(os.path.getsize(path), []).append(path)
    return [
        path
        for path in val
        if os.path.isfile(path)
        and any(
            filecmp.cmp(path, other, shallow=False)
            for other in sizes.get(os.path.getsize(path), ())
        )
    ]
