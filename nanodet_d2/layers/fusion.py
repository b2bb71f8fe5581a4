"""Folding of batch norms into the convolutions before them, for inference."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

logger = logging.getLogger(__name__)

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)


def fuse_conv_norm(root: nn.Module) -> int:
    """Fold the batch norms of detectron2's ``Conv2d`` modules below ``root``, in place.

    Returns:
        how many were folded.
    """
    count = 0
    for conv in root.modules():
        if isinstance(conv, Conv2d) and isinstance(conv.norm, BATCH_NORMS):
            _fold(conv, conv.norm)
            conv.norm = None
            count += 1
    return count


def fuse_traced_conv_norm(network: nn.Module) -> int:
    """Fold the batch norms of another library's network, in place.

    Which norm follows which convolution is only known from tracing the network. Where that fails,
    and for convolutions that compute with anything but their weight, nothing is folded.

    Returns:
        how many were folded.
    """
    try:
        graph = _LeafTracer().trace(network)
    except Exception as error:  # control flow that depends on values, …
        logger.info("Norms are not folded: the network cannot be traced (%s)", error)
        return 0
    pairs = list(_followed_by_norm(graph, dict(network.named_modules())))
    for conv_name, norm_name in pairs:
        norm = network.get_submodule(norm_name)
        _fold(network.get_submodule(conv_name), norm)
        # timm's norms hold the activation that follows them
        rest = [x for x in (getattr(norm, "drop", None), getattr(norm, "act", None)) if x]
        parent, _, child = norm_name.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Sequential(*rest))
    return len(pairs)


class _LeafTracer(fx.Tracer):
    """Looks into no norm, whichever library it is from."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, BATCH_NORMS) or super().is_leaf_module(m, module_qualified_name)


def _followed_by_norm(graph: fx.Graph, modules: dict[str, nn.Module]) -> Iterator[tuple[str, str]]:
    """Names of each convolution and norm that only ever see each other."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], BATCH_NORMS):
            continue
        before = node.args[0]
        if (
            before.op == "call_module"
            and type(modules[before.target]) is nn.Conv2d
            and modules[node.target].running_mean is not None
            and len(before.users) == 1
            and calls[before.target] == calls[node.target] == 1
        ):
            yield before.target, node.target


def _fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
