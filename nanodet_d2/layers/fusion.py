"""Folding of batch norms into the convolutions before them, for inference."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Callable

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

from .conv import ConvNormAct

logger = logging.getLogger(__name__)

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
# Those of others may compute with anything but their own weight and bias.
_KNOWN_CONVOLUTIONS = tuple(x.forward for x in (nn.Conv2d, Conv2d, ConvNormAct, Conv2dSame))


def fuse_conv_norm(root: nn.Module, run: Callable[[], Any]) -> int:
    """Fold each batch norm below ``root`` into the convolution that it follows, in place.

    Which these are is seen by watching them run, so it does not matter how a module is made. What
    stays: a convolution whose output goes anywhere but into one norm, a norm that is fed by
    anything but one convolution, and all of them if ``run`` fails.

    Args:
        root: in evaluation mode.
        run: runs ``root`` once, on any input, and returns its outputs.

    Returns:
        how many were folded.
    """
    assert not root.training
    watch = _Watch(root)
    if not watch.norms:
        return 0
    try:
        with torch.no_grad(), watch:
            outputs = run()
    except Exception as error:  # whatever a part of someone else's may raise
        logger.warning("Batch norms are not folded: the network does not run (%s)", error)
        return 0
    watch.note_use(outputs)
    pairs = watch.pairs()
    for conv, norm in pairs:
        _fold(conv, norm)
    _take_out(root, {norm for _, norm in pairs})
    return len(pairs)


class _Watch(TorchFunctionMode):
    """Notes for each convolution who takes its output, and for each norm who made its input."""

    def __init__(self, root: nn.Module):
        super().__init__()
        convs: list[Any] = [x for x in root.modules() if type(x).forward in _KNOWN_CONVOLUTIONS]
        owners = Counter(id(x.weight) for x in convs)
        # By the tensors that give them away in a call.
        self.convs = {id(x.weight): x for x in convs if owners[id(x.weight)] == 1}
        self.norms = {
            id(x.running_mean): x
            for x in root.modules()
            if isinstance(x, BATCH_NORMS) and x.running_mean is not None
        }
        self._takers: dict[nn.Conv2d, set[nn.Module | None]] = defaultdict(set)
        self._makers: dict[nn.Module, set[nn.Module | None]] = defaultdict(set)
        self._made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is kept, and so its id

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(True for _ in _tensors(result)):
            return result  # a size or a type was asked for
        given = list(_tensors((args, kwargs)))
        norm = next((self.norms[id(x)] for x in given if id(x) in self.norms), None)
        conv = next((self.convs[id(x)] for x in given if id(x) in self.convs), None)
        if norm is not None:
            self._makers[norm].add(self._made.get(id(given[0]), (None,))[0])
            self.note_use(given[:1], taker=norm)
            self.note_use(given[1:])
        else:
            self.note_use(given)
        if conv is not None:
            self._made[id(result)] = conv, result
        return result

    def note_use(self, values: Any, *, taker: nn.Module | None = None) -> None:
        """Someone takes these values; None is anyone but a norm."""
        for x in _tensors(values):
            if id(x) in self._made:
                self._takers[self._made[id(x)][0]].add(taker)

    def pairs(self) -> list[tuple[nn.Conv2d, nn.Module]]:
        """Each convolution and norm that only ever saw each other."""
        return [
            (conv, norm)
            for conv, takers in self._takers.items()
            for norm in takers
            if norm is not None and len(takers) == 1 and self._makers[norm] == {conv}
        ]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for x in value:
            yield from _tensors(x)


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )


def _take_out(root: nn.Module, norms: set[nn.Module]) -> None:
    for name, norm in list(root.named_modules(remove_duplicate=False)):
        if norm in norms:
            # timm's norms hold the activation that follows them
            rest = [x for x in (getattr(norm, "drop", None), getattr(norm, "act", None)) if x]
            parent, _, child = name.rpartition(".")
            left = nn.Sequential(*rest) if rest else nn.Identity()
            setattr(root.get_submodule(parent), child, left)
