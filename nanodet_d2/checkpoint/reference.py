"""The only place that knows how the reference implementation names its weights.

The reference is RangiLyu/nanodet 1.0; its files are Lightning checkpoints (``*.ckpt``, with raw and
averaged weights) and plain weights (``*.pth``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Callable, TypeVar, Union

T = TypeVar("T")
_Rule = tuple[str, Union[str, Callable[[re.Match], str]]]

_EMA_PREFIX = "avg_model."
_WRAPPERS = ("module.", "model.")

# A name passes through all rules in order; the first field is searched, not matched.
_RULES: tuple[_Rule, ...] = (
    # ShuffleNetV2: torchvision's layout, where norms are numbered beside their convolutions
    (r"^backbone\.conv1\.0\.", "backbone.stem."),
    (r"^backbone\.conv1\.1\.", "backbone.stem.norm."),
    (r"^backbone\.stage(\d)\.", lambda m: f"backbone.stages.res{int(m[1]) + 1}."),
    (r"\.(branch[12])\.1\.", r".\1.0.norm."),
    (r"\.branch1\.2\.", ".branch1.1."),
    (r"\.branch1\.3\.", ".branch1.1.norm."),
    (r"\.branch2\.3\.", ".branch2.1."),
    (r"\.branch2\.4\.", ".branch2.1.norm."),
    (r"\.branch2\.5\.", ".branch2.2."),
    (r"\.branch2\.6\.", ".branch2.2.norm."),
    # GhostNet: the names of timm as well
    (r"^backbone\.conv_stem\.", "backbone.stem."),
    (r"^backbone\.bn1\.", "backbone.stem.norm."),
    (r"^backbone\.blocks\.9\.0\.bn1\.", "backbone.stages.9.0.norm."),
    (r"^backbone\.blocks\.", "backbone.stages."),
    (r"\.conv_dw\.", ".downsample."),
    (r"\.bn_dw\.", ".downsample.norm."),
    (r"\.se\.conv_reduce\.", ".se.fc1."),
    (r"\.se\.conv_expand\.", ".se.fc2."),
    # GhostPAN
    (r"^(aux_)?fpn\.", lambda m: f"{m[1] or ''}neck."),
    (r"\.extra_lvl_(in|out)_conv\.", r".extra_\1_convs."),
    (r"\.reduce_conv\.", ".residual."),
    (r"\.ghost1\.", ".expand."),
    (r"\.ghost2\.", ".project."),
    (r"\.primary_conv\.0\.", ".primary."),
    (r"\.primary_conv\.1\.", ".primary.norm."),
    (r"\.cheap_operation\.0\.", ".cheap."),
    (r"\.cheap_operation\.1\.", ".cheap.norm."),
    (r"\.shortcut\.1\.", ".shortcut.0.norm."),
    (r"\.shortcut\.2\.", ".shortcut.1."),
    (r"\.shortcut\.3\.", ".shortcut.1.norm."),
    # TAN
    (r"^neck\.transformer\.conv\.conv\.", "neck.mix."),
    (r"^neck\.transformer\.(encoders\.\d+)\.", r"neck.\1."),
    (r"^(neck\.encoders\.\d+)\.attn\.", r"\1.self_attn."),
    (r"^(neck\.encoders\.\d+)\.mlp\.fc(\d)\.", r"\1.linear\2."),
    # heads: those of one tower for all levels have one number less
    (r"^head\.cls_convs\.(\d+)\.(?=\D)", r"head.class_tower.\1."),
    (r"^head\.reg_convs\.(\d+)\.(?=\D)", r"head.box_tower.\1."),
    (r"^head\.gfl_cls\.(?=\D)", "head.class_predictor."),
    (r"^head\.gfl_reg\.(?=\D)", "head.box_predictor."),
    (r"^head\.cls_convs\.", "head.towers."),
    (r"^head\.reg_convs\.", "head.box_towers."),
    (r"^head\.gfl_cls\.", "head.predictors."),
    (r"^head\.gfl_reg\.", "head.box_predictors."),
    (r"^head\.distribution_project\.project$", "head.bins"),
    (r"^aux_head\.cls_convs\.", "aux_head.class_tower."),
    (r"^aux_head\.reg_convs\.", "aux_head.box_tower."),
    (r"^aux_head\.gfl_cls\.", "aux_head.class_predictor."),
    (r"^aux_head\.gfl_reg\.", "aux_head.box_predictor."),
    (r"^((aux_)?head\.scales\.\d+)\.scale$", r"\1"),
    # convolution blocks
    (r"\.dwnorm\.", ".depthwise.norm."),
    (r"\.pwnorm\.", ".pointwise.norm."),
    (r"\.(bn|gn)\.", ".norm."),
    (r"\.conv\.", "."),
)

# Backbones that timm has: one of these names passes through no other rules.
_TIMMS: tuple[_Rule, ...] = (
    # EfficientNet-Lite; the blocks of stage 0 do not expand
    (r"^backbone\.stem\.0\.", "backbone.network.conv_stem."),
    (r"^backbone\.stem\.1\.", "backbone.network.bn1."),
    (r"^backbone\.(blocks\.0\.\d+)\._depthwise_conv\.", r"backbone.network.\1.conv_dw."),
    (r"^backbone\.(blocks\.0\.\d+)\._project_conv\.", r"backbone.network.\1.conv_pw."),
    (r"^backbone\.(blocks\.0\.\d+)\._bn([12])\.", r"backbone.network.\1.bn\2."),
    (r"^backbone\.(blocks\.\d+\.\d+)\._expand_conv\.", r"backbone.network.\1.conv_pw."),
    (r"^backbone\.(blocks\.\d+\.\d+)\._depthwise_conv\.", r"backbone.network.\1.conv_dw."),
    (r"^backbone\.(blocks\.\d+\.\d+)\._project_conv\.", r"backbone.network.\1.conv_pwl."),
    (
        r"^backbone\.(blocks\.\d+\.\d+)\._bn(\d)\.",
        lambda m: f"backbone.network.{m[1]}.bn{int(m[2]) + 1}.",
    ),
    # RepVGG
    (r"^backbone\.stage0\.(?=rbr_)", "backbone.network.stem."),
    (
        r"^backbone\.stage(\d)\.(\d+)\.(?=rbr_)",
        lambda m: f"backbone.network.stages_{int(m[1]) - 1}.{m[2]}.",
    ),
    (r"\.rbr_(dense|1x1)\.(0|conv)\.", r".rbr_\1.conv."),
    (r"\.rbr_(dense|1x1)\.(1|bn)\.", r".rbr_\1.bn."),
    (r"\.rbr_dense\.", ".conv_kxk."),
    (r"\.rbr_1x1\.", ".conv_1x1."),
    (r"\.rbr_identity\.", ".identity."),
)
# What the reference has and never uses; the boxes' convolutions unless they have towers.
_IDLE = re.compile(r"^fpn\.transformer\.linear\.")
_IDLE_WITHOUT_TOWERS = re.compile(r"^head\.gfl_reg\.\d")
_BOX_TOWERS = re.compile(r"^head\.reg_convs\.")


def is_reference_state_dict(state_dict: Mapping[str, object]) -> bool:
    """Whether the names are the reference's: only it calls the neck ``fpn``."""
    return any(re.search(r"(^|\.)fpn\.", name) for name in state_dict)


def has_averaged_weights(state_dict: Mapping[str, object]) -> bool:
    """Whether a reference checkpoint carries averaged (EMA) weights beside the raw ones."""
    return any(name.startswith(_EMA_PREFIX) for name in state_dict)


def convert_reference_state_dict(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename the reference's weights to this project's.

    Averaged weights win over raw ones of the same name, and the trainers' prefixes go, as do
    weights that nothing uses. Names of unknown parts stay as they are, so that the loader reports
    them.
    """
    names = {_strip_wrappers(name): name for name in state_dict if not _is_averaged(name)}
    names.update({_strip_wrappers(name): name for name in state_dict if _is_averaged(name)})
    idle = [_IDLE] if any(map(_BOX_TOWERS.match, names)) else [_IDLE, _IDLE_WITHOUT_TOWERS]
    return {
        _rename(name): state_dict[source]
        for name, source in names.items()
        if not any(x.match(name) for x in idle)
    }


def _is_averaged(name: str) -> bool:
    return name.startswith(_EMA_PREFIX)


def _strip_wrappers(name: str) -> str:
    if _is_averaged(name):
        return name[len(_EMA_PREFIX) :]
    for prefix in _WRAPPERS:
        if name.startswith(prefix):
            name = name[len(prefix) :]
    return name


def _rename(name: str) -> str:
    of_timm = _apply(_TIMMS, name)
    return of_timm if of_timm != name else _apply(_RULES, name)


def _apply(rules: tuple[_Rule, ...], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


# The way back, for the parts that the reference has; names pass through all rules in order.
_BACKBONES: dict[str, tuple[_Rule, ...]] = {
    r"backbone\.(stem\.(weight|norm\.)|stages\.res\d\.\d+\.branch[12]\.)": (
        (r"^backbone\.stem\.norm\.", "backbone.conv1.1."),
        (r"^backbone\.stem\.", "backbone.conv1.0."),
        (r"^backbone\.stages\.res(\d)\.", lambda m: f"backbone.stage{int(m[1]) - 1}."),
        (r"\.branch1\.1\.norm\.", ".branch1.3."),
        (r"\.branch1\.1\.", ".branch1.2."),
        (r"\.branch1\.0\.norm\.", ".branch1.1."),
        (r"\.branch2\.2\.norm\.", ".branch2.6."),
        (r"\.branch2\.2\.", ".branch2.5."),
        (r"\.branch2\.1\.norm\.", ".branch2.4."),
        (r"\.branch2\.1\.", ".branch2.3."),
        (r"\.branch2\.0\.norm\.", ".branch2.1."),
    ),
    r"backbone\.(stem\.(weight|norm\.)|stages\.\d\.\d+\.)": (
        (r"^backbone\.stem\.norm\.", "backbone.bn1."),
        (r"^backbone\.stem\.", "backbone.conv_stem."),
        (r"^backbone\.stages\.9\.0\.norm\.", "backbone.blocks.9.0.bn1."),
        (r"^backbone\.stages\.9\.0\.", "backbone.blocks.9.0.conv."),
        (r"^backbone\.stages\.", "backbone.blocks."),
        (r"\.downsample\.norm\.", ".bn_dw."),
        (r"\.downsample\.", ".conv_dw."),
        (r"\.se\.fc1\.", ".se.conv_reduce."),
        (r"\.se\.fc2\.", ".se.conv_expand."),
    ),
}
_BACK: tuple[_Rule, ...] = (
    (r"^(aux_)?neck\.", lambda m: f"{m[1] or ''}fpn."),
    (r"\.extra_(in|out)_convs\.", r".extra_lvl_\1_conv."),
    (r"\.residual\.", ".reduce_conv."),
    (r"\.expand\.", ".ghost1."),
    (r"\.project\.", ".ghost2."),
    (r"\.primary\.norm\.", ".primary_conv.1."),
    (r"\.primary\.", ".primary_conv.0."),
    (r"\.cheap\.norm\.", ".cheap_operation.1."),
    (r"\.cheap\.", ".cheap_operation.0."),
    (r"\.shortcut\.1\.norm\.", ".shortcut.3."),
    (r"\.shortcut\.1\.", ".shortcut.2."),
    (r"\.shortcut\.0\.norm\.", ".shortcut.1."),
    (r"^head\.bins$", "head.distribution_project.project"),
    (r"^head\.towers\.", "head.cls_convs."),
    (r"^head\.predictors\.", "head.gfl_cls."),
    (r"^aux_head\.class_tower\.(\d+)\.norm\.", r"aux_head.cls_convs.\1.gn."),
    (r"^aux_head\.class_tower\.(\d+)\.", r"aux_head.cls_convs.\1.conv."),
    (r"^aux_head\.box_tower\.(\d+)\.norm\.", r"aux_head.reg_convs.\1.gn."),
    (r"^aux_head\.box_tower\.(\d+)\.", r"aux_head.reg_convs.\1.conv."),
    (r"^aux_head\.class_predictor\.", "aux_head.gfl_cls."),
    (r"^aux_head\.box_predictor\.", "aux_head.gfl_reg."),
    (r"^(aux_head\.scales\.\d+)$", r"\1.scale"),
    (r"\.depthwise\.norm\.", ".dwnorm."),
    (r"\.pointwise\.norm\.", ".pwnorm."),
    # what is left is a plain convolution with its norm
    (r"\.norm\.", ".bn."),
    (r"(_layers|downsamples|extra_lvl_(?:in|out)_conv)\.(\d+)\.(weight|bias)$", r"\1.\2.conv.\3"),
    (r"(\.reduce_conv|^head\.cls_convs\.\d+\.\d+)\.(weight|bias)$", r"\1.conv.\2"),
)
# What NanoDet-Plus consists of there.
_THEIRS = re.compile(
    r"backbone\."
    r"|(aux_)?fpn\.(reduce_layers|downsamples|extra_lvl_(in|out)_conv|(top_down|bottom_up)_blocks)\."
    r"|head\.(cls_convs|gfl_cls|distribution_project)\."
    r"|aux_head\.((cls|reg)_convs\.\d+\.(conv|gn)|gfl_(cls|reg))\.(weight|bias)$"
    r"|aux_head\.scales\.\d+\.scale$"
)


def to_reference_state_dict(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename this project's weights to the reference's.

    Raises:
        ValueError: for weights of a part that the reference does not have.
    """
    rules = _rules_of_backbone([name for name in state_dict if name.startswith("backbone.")])
    renamed = {_apply(_BACK, _apply(rules, name)): name for name in state_dict}
    foreign = [
        x for theirs, x in renamed.items() if _rename(theirs) != x or not _THEIRS.match(theirs)
    ]
    if foreign:
        raise ValueError(f"the reference has no such part as that of {', '.join(foreign[:3])}")
    assert len(renamed) == len(state_dict)
    return {theirs: state_dict[ours] for theirs, ours in renamed.items()}


def _rules_of_backbone(names: Sequence[str]) -> tuple[_Rule, ...]:
    for pattern, rules in _BACKBONES.items():
        if all(re.match(pattern, name) for name in names):
            return rules
    raise ValueError(
        f"the reference has no such backbone, e.g. {names[-1]}; allowed: ShuffleNetV2, GhostNet"
    )
