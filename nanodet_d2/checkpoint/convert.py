"""Checkpoints for other programs: detectron2's tools, safetensors, the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from .card import Card, read_card
from .checkpointer import replace_file
from .reading import CARD_KEY, SAFETENSORS, read_weights
from .reference import to_reference_state_dict


def convert_to_detectron2(source: str, target: str | Path, *, card: Card | None = None) -> int:
    """Write a model's weights in this project's names, as detectron2's tools read them.

    Averaged weights are preferred. A ".pth" file has them as "model"; a ".safetensors" file, which
    detectron2 does not read, has them by themselves.

    Args:
        source: path or URL of any checkpoint that ``read_weights`` knows.
        target: file to write.
        card: what the file says about itself; the source's own if None, if it has one.

    Returns:
        the number of tensors.

    Raises:
        FileNotFoundError, ValueError: as ``read_weights``, and for a target of another suffix.
        ImportError: for safetensors without the package.
        RuntimeError: if it cannot be written.

    Example:
        >>> from nanodet_d2.checkpoint.convert import convert_to_detectron2
        >>> convert_to_detectron2("nanodet-plus-m_416.ckpt", "nanodet-plus-m-416.pth")
    """
    path = _checked(target, (".pth", SAFETENSORS))
    tensors = read_weights(source).state_dict
    card = card or read_card(source)
    described = card.to_dict() if card is not None else None
    if path.suffix == SAFETENSORS:
        replace_file(path, _as_safetensors(tensors, described))
    else:
        replace_file(path, {"model": tensors, **({CARD_KEY: described} if described else {})})
    return len(tensors)


def convert_to_reference(source: str, target: str | Path) -> int:
    """Write a model's weights in the reference's names, as its own best weights lie in its files.

    Its demo and its exports read them; its resume needs files of its trainer.

    Args, Returns, Raises:
        as of :func:`convert_to_detectron2`; ``ValueError`` as well for parts that the reference
        does not have.

    Example:
        >>> from nanodet_d2.checkpoint.convert import convert_to_reference
        >>> convert_to_reference("nanodet-plus-m_416.ckpt", "converted.ckpt")
    """
    path = _checked(target, (".pth", ".ckpt"))
    tensors = to_reference_state_dict(read_weights(source).state_dict)
    replace_file(path, {"state_dict": tensors})
    return len(tensors)


def _checked(target: str | Path, allowed: tuple[str, ...]) -> Path:
    path = Path(target)
    if path.suffix not in allowed:
        raise ValueError(f"{path} cannot be written; allowed names: *{', *'.join(allowed)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _as_safetensors(tensors: dict[str, Tensor], card: dict[str, Any] | None) -> bytes:
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ImportError(
            "safetensors files need the package safetensors: pip install safetensors"
        ) from error
    metadata = {"format": "pt"}
    if card is not None:
        metadata[CARD_KEY] = json.dumps(card, ensure_ascii=False)
    # Tensors that share memory are refused there.
    return save({name: x.clone().contiguous() for name, x in tensors.items()}, metadata)
