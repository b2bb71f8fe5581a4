"""Names of the reference's models before NanoDet-Plus, and of its other heads."""

from __future__ import annotations

import pytest
import torch

from nanodet_d2 import zoo
from nanodet_d2.checkpoint import convert_reference_state_dict, load_weights, read_weights
from nanodet_d2.checkpoint.convert import convert_to_detectron2

LITE, REPVGG = "backbone.blocks", "backbone.network"
PAIRS = {
    "fpn.lateral_convs.0.conv.bias": "neck.lateral_convs.0.bias",
    "fpn.lateral_convs.2.bn.weight": "neck.lateral_convs.2.norm.weight",
    "fpn.pos_embed": "neck.pos_embed",
    "fpn.transformer.conv.conv.weight": "neck.mix.weight",
    "fpn.transformer.encoders.0.norm1.bias": "neck.encoders.0.norm1.bias",
    "fpn.transformer.encoders.0.attn.in_proj_weight": "neck.encoders.0.self_attn.in_proj_weight",
    "fpn.transformer.encoders.0.attn.out_proj.bias": "neck.encoders.0.self_attn.out_proj.bias",
    "fpn.transformer.encoders.1.mlp.fc2.weight": "neck.encoders.1.linear2.weight",
    # a tower for each level
    "head.cls_convs.2.1.depthwise.weight": "head.towers.2.1.depthwise.weight",
    "head.cls_convs.0.0.conv.weight": "head.towers.0.0.weight",
    "head.reg_convs.0.1.pwnorm.bias": "head.box_towers.0.1.pointwise.norm.bias",
    "head.gfl_cls.1.bias": "head.predictors.1.bias",
    "head.gfl_reg.1.bias": "head.box_predictors.1.bias",
    # one for all
    "head.cls_convs.3.conv.weight": "head.class_tower.3.weight",
    "head.reg_convs.3.gn.bias": "head.box_tower.3.norm.bias",
    "head.gfl_cls.weight": "head.class_predictor.weight",
    "head.gfl_reg.bias": "head.box_predictor.bias",
    "head.scales.0.scale": "head.scales.0",
    "head.distribution_project.project": "head.bins",
    # backbones
    "backbone.stages.0.bn.weight": "backbone.stages.0.norm.weight",
    "backbone.stages.2.res_blocks.1.mid_conv.conv.weight": (
        "backbone.stages.2.res_blocks.1.mid_conv.weight"
    ),
    "backbone.stem.0.weight": "backbone.network.conv_stem.weight",
    "backbone.stem.1.running_var": "backbone.network.bn1.running_var",
    f"{LITE}.0.0._depthwise_conv.weight": "backbone.network.blocks.0.0.conv_dw.weight",
    f"{LITE}.0.0._project_conv.weight": "backbone.network.blocks.0.0.conv_pw.weight",
    f"{LITE}.0.0._bn2.bias": "backbone.network.blocks.0.0.bn2.bias",
    f"{LITE}.3.2._expand_conv.weight": "backbone.network.blocks.3.2.conv_pw.weight",
    f"{LITE}.3.2._bn0.bias": "backbone.network.blocks.3.2.bn1.bias",
    f"{LITE}.3.2._bn2.bias": "backbone.network.blocks.3.2.bn3.bias",
    f"{LITE}.3.2._project_conv.weight": "backbone.network.blocks.3.2.conv_pwl.weight",
    "backbone.stage0.rbr_dense.0.weight": f"{REPVGG}.stem.conv_kxk.conv.weight",
    "backbone.stage3.13.rbr_dense.1.bias": f"{REPVGG}.stages_2.13.conv_kxk.bn.bias",
    "backbone.stage1.0.rbr_1x1.conv.weight": f"{REPVGG}.stages_0.0.conv_1x1.conv.weight",
    "backbone.stage1.1.rbr_identity.weight": f"{REPVGG}.stages_0.1.identity.weight",
}


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model.", "avg_model."])
def test_names(prefix):
    theirs = {prefix + name: name for name in PAIRS}
    found = convert_reference_state_dict(theirs)
    assert {theirs: ours for ours, theirs in found.items()} == PAIRS


def test_what_nothing_uses_is_left_out():
    names = ["fpn.transformer.linear.weight", "head.gfl_reg.0.weight", "head.gfl_cls.0.weight"]
    assert list(convert_reference_state_dict(dict.fromkeys(names))) == ["head.predictors.0.weight"]
    names.append("head.reg_convs.0.0.conv.weight")  # now the boxes' convolutions have towers
    assert set(convert_reference_state_dict(dict.fromkeys(names))) == {
        "head.predictors.0.weight", "head.box_predictors.0.weight", "head.box_towers.0.0.weight",
    }  # fmt: skip


def test_official_weights(shared, tmp_path):
    """All of an old file, with its counters, finds its place, before and after a conversion."""
    source = str(shared / "weights" / "nanodet_m_320.pth")
    content = torch.load(source, weights_only=True)
    old = {"epoch": 280, "iter": 1, "optimizer": {}, "state_dict": content["state_dict"]}
    torch.save(old, tmp_path / "old.pth")
    convert_to_detectron2(source, tmp_path / "ours.pth")
    for path in (source, str(tmp_path / "old.pth"), str(tmp_path / "ours.pth")):
        report = load_weights(zoo.get("nanodet-m-320"), path, require_all=True)
        assert report.complete and not report.unexpected
    state = read_weights(str(tmp_path / "ours.pth")).state_dict
    assert state.keys() == zoo.get("nanodet-m-320").state_dict().keys()
