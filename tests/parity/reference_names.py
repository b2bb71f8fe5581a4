"""Names and shapes of the reference's weights at widths that no golden case has.

Written from its layout, not from this project's modules, so that the one can be held against the
other. RepVGG: Ding et al. 2021; ShuffleNetV2: Ma et al. 2018, in torchvision's names.
"""

from __future__ import annotations

from collections.abc import Sequence

Shapes = dict[str, tuple[int, ...]]
NUM_CLASSES = 80


def norm(name: str, channels: int) -> Shapes:
    entries = ("weight", "bias", "running_mean", "running_var")
    shapes: Shapes = {f"{name}.{entry}": (channels,) for entry in entries}
    return {**shapes, f"{name}.num_batches_tracked": ()}


def shufflenet(widths: Sequence[int]) -> Shapes:
    """``widths``: channels of stages 2 to 4."""

    def conv_norm(name: str, first: int, shape: tuple[int, ...]) -> Shapes:
        return {f"{name}.{first}.weight": shape, **norm(f"{name}.{first + 1}", shape[0])}

    shapes = conv_norm("backbone.conv1", 0, (24, 3, 3, 3))
    before = 24
    for stage, width, blocks in zip((2, 3, 4), widths, (4, 8, 4)):
        half = width // 2
        for i in range(blocks):
            block = f"backbone.stage{stage}.{i}"
            if i == 0:
                shapes |= conv_norm(f"{block}.branch1", 0, (before, 1, 3, 3))
                shapes |= conv_norm(f"{block}.branch1", 2, (half, before, 1, 1))
            inputs = before if i == 0 else half
            shapes |= conv_norm(f"{block}.branch2", 0, (half, inputs, 1, 1))
            shapes |= conv_norm(f"{block}.branch2", 3, (half, 1, 3, 3))
            shapes |= conv_norm(f"{block}.branch2", 5, (half, half, 1, 1))
        before = width
    return shapes


def repvgg(depths: Sequence[int], widths: Sequence[int], *, conv: str, bn: str) -> Shapes:
    """``widths``: channels of the stem and four stages; ``conv`` and ``bn``: what its branches call
    theirs."""

    def block(name: str, inputs: int, outputs: int, same: bool) -> Shapes:
        shapes: Shapes = {}
        for branch, size in (("rbr_dense", 3), ("rbr_1x1", 1)):
            shapes[f"{name}.{branch}.{conv}.weight"] = (outputs, inputs, size, size)
            shapes |= norm(f"{name}.{branch}.{bn}", outputs)
        return {**shapes, **(norm(f"{name}.rbr_identity", outputs) if same else {})}

    shapes = block("backbone.stage0", 3, widths[0], same=False)
    for stage, depth in enumerate(depths, start=1):
        for i in range(depth):
            inputs = widths[stage] if i else widths[stage - 1]
            shapes |= block(f"backbone.stage{stage}.{i}", inputs, widths[stage], same=i > 0)
    return shapes


def pan(inputs: Sequence[int], width: int) -> Shapes:
    shapes: Shapes = {}
    for i, channels in enumerate(inputs):
        shapes[f"fpn.lateral_convs.{i}.conv.weight"] = (width, channels, 1, 1)
        shapes[f"fpn.lateral_convs.{i}.conv.bias"] = (width,)
    return shapes


def head(width: int, *, reg_max: int, depthwise: bool, levels: int = 3, convs: int = 2) -> Shapes:
    """``NanoDetHead`` with shared convolutions, and the idle ones that it has for boxes."""
    shapes: Shapes = {"head.distribution_project.project": (reg_max + 1,)}
    for level in range(levels):
        for i in range(convs):
            name = f"head.cls_convs.{level}.{i}"
            if depthwise:
                shapes[f"{name}.depthwise.weight"] = (width, 1, 3, 3)
                shapes[f"{name}.pointwise.weight"] = (width, width, 1, 1)
                shapes |= norm(f"{name}.dwnorm", width) | norm(f"{name}.pwnorm", width)
            else:
                shapes[f"{name}.conv.weight"] = (width, width, 3, 3)
                shapes |= norm(f"{name}.bn", width)
    box = 4 * (reg_max + 1)
    for part, outputs in (("gfl_cls", NUM_CLASSES + box), ("gfl_reg", box)):
        for level in range(levels):
            shapes[f"head.{part}.{level}.weight"] = (outputs, width, 1, 1)
            shapes[f"head.{part}.{level}.bias"] = (outputs,)
    return shapes
