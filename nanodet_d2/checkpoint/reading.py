"""Reading checkpoint files without running anything they contain."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .faults import DamagedError, check_records, says_damaged, says_nothing_of_the_file
from .fetching import local_path
from .reference import (
    convert_reference_state_dict,
    has_averaged_weights,
    is_reference_state_dict,
)

# Objects of these packages lie in the reference's Lightning checkpoints beside the weights. They
# are read as empty placeholders.
_TRAINER_PACKAGES = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "nanodet.")
_WEIGHT_KEYS = ("model", "state_dict")
# Of torch.load; the first holds even where a caller asks for the opposite.
_FORCE, _UNFORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_environment = threading.RLock()  # of the two above: threads that change them in turn mix them up
EMA_KEY, CARD_KEY = "ema", "card"
SAFETENSORS = ".safetensors"  # the end of a file's name


class Weights(NamedTuple):
    """A model's weights and where they come from, in words."""

    state_dict: dict[str, Tensor]
    origin: str


class _Placeholder:
    """Stands for an object of a trainer; keeps nothing and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Placeholder:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def read_file(source: str) -> Any:
    """Content of a checkpoint file, on the CPU, read with ``weights_only=True``.

    Args:
        source: a local path, or a URL (it is cached), with a checksum if wanted; see
            :func:`.fetching.local_path`. The content of a safetensors file is that of a checkpoint
            with the same "model" and "card".

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: a ``ValueError``, if the file is not a checkpoint, holds objects that could
            run code, or would grow in memory beyond its size.
        ValueError: if it cannot be read for another reason.
        MemoryError, OSError, RuntimeError: as they are, if memory is short or the disk fails.
        ImportError: for a safetensors file without that package.
    """
    path = local_path(source)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"checkpoint {source} not found")
    read_safetensors = safetensors_reader() if path.endswith(SAFETENSORS) else None
    try:
        if read_safetensors is not None:
            return read_safetensors(path)
        check_records(path)
        with _trainer_placeholders(path):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling what was made to fail may raise anything
        if says_nothing_of_the_file(error, path):
            raise
        kind = DamagedError if says_damaged(error, path) else ValueError
        reason = " ".join(str(error).partition("\n")[0].split())[:200] or type(error).__name__
        raise kind(
            f"checkpoint {source} cannot be read safely. It is damaged, not a torch file, or holds "
            f"objects other than weights (nothing of it was run): {reason}"
        ) from error


def safetensors_reader() -> Callable[[str], dict[str, Any]]:
    """Reads a safetensors file as the content of a checkpoint: "model", and "card" if it has one.

    Raises:
        ImportError: without the package.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError(
            "safetensors files need the package safetensors: pip install safetensors"
        ) from error

    def read(path: str) -> dict[str, Any]:
        with safe_open(path, framework="pt") as file:
            content: dict[str, Any] = {
                "model": {name: file.get_tensor(name) for name in file.keys()}
            }
            card = (file.metadata() or {}).get(CARD_KEY)
        if card is not None:
            content[CARD_KEY] = json.loads(card)
        return content

    return read


@contextlib.contextmanager
def weights_only() -> Iterator[None]:
    """In here every ``torch.load`` reads with ``weights_only=True``, whatever its caller asks for.

    For libraries that read what they fetched themselves: some of their versions do not ask for it,
    others do and, when that fails, try again without.

    It is an environment variable of the whole process, so it holds for its other threads, too, and
    is restored afterwards. Threads that enter wait for each other.
    """
    with _environment:
        before = {name: os.environ.pop(name, None) for name in (_FORCE, _UNFORCE)}
        os.environ[_FORCE] = "1"
        try:
            yield
        finally:
            os.environ.pop(_FORCE, None)
            os.environ.update({name: value for name, value in before.items() if value is not None})


@contextlib.contextmanager
def _trainer_placeholders(path: str) -> Iterator[None]:
    """Let trainers' objects in the file at ``path`` load as placeholders, where torch can."""
    find = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)  # torch >= 2.6
    names = []
    if find is not None:
        with contextlib.suppress(Exception):  # not a zip file: torch.load itself will say more
            names = find(path)
    trainer_names = [name for name in names if name.startswith(_TRAINER_PACKAGES)]
    if not trainer_names:
        yield
        return
    placeholders: list[Any] = [(_placeholder_class(name), name) for name in trainer_names]
    with torch.serialization.safe_globals(placeholders):
        yield


def _placeholder_class(name: str) -> type:
    return type(name.rpartition(".")[2], (_Placeholder,), {})


def read_weights(source: str) -> Weights:
    """A model's weights from any checkpoint that this project knows.

    These are: its own (averaged weights win over raw ones), the reference's ``.pth`` and ``.ckpt``
    files (likewise), and a bare state dict.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_file`, and if there are no weights in it.
    """
    content = read_file(source)
    if isinstance(content, Mapping) and _is_state_dict(content.get(EMA_KEY)):
        return Weights(dict(content[EMA_KEY]), "averaged (EMA) weights")
    candidates = [content]
    if isinstance(content, Mapping):
        candidates = [content[key] for key in _WEIGHT_KEYS if key in content] + candidates
    for state_dict in candidates:
        if _is_state_dict(state_dict):
            return _named_our_way(state_dict)
    found = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise ValueError(
        f"checkpoint {source} holds no weights; found {found}, "
        f"allowed: a state dict, alone or under one of {[EMA_KEY, *_WEIGHT_KEYS]}"
    )


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(x, Tensor) for x in value.values())
    )


def _named_our_way(state_dict: Mapping[str, Tensor]) -> Weights:
    if not is_reference_state_dict(state_dict):
        return Weights({k.removeprefix("module."): v for k, v in state_dict.items()}, "weights")
    averaged = "averaged (EMA) " if has_averaged_weights(state_dict) else ""
    return Weights(
        convert_reference_state_dict(state_dict), f"{averaged}weights of the reference, renamed"
    )
