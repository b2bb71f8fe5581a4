"""Every checkpoint of a training says what it is, and needs nothing else to be used."""

from __future__ import annotations

import os
import random
import shutil
import signal

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from nanodet_d2 import Detector, __version__
from nanodet_d2.checkpoint import SafeCheckpointer, read_card, read_file
from nanodet_d2.data.synthetic import CATEGORY_IDS
from nanodet_d2.engine import Evaluation, evaluate_checkpoint, train
from nanodet_d2.engine.building import build_model, describe
from nanodet_d2.export.loading import describe_source, load_model
from nanodet_d2.resolve import resolve

CLASS_NAMES = tuple(sorted(CATEGORY_IDS, key=CATEGORY_IDS.get))  # as they come from the file
BY_OVERRIDES = ("model.neck.out_channels=16", "model.neck.kernel_size=3", "model.score_thresh=0.2")
USER_CODE = """
from nanodet_d2.modeling import ShuffleNetV2


class MyBackbone(ShuffleNetV2):
    imported = True
"""


@pytest.fixture
def no_evaluation(monkeypatch):
    monkeypatch.setattr(Evaluation, "_measure", lambda self, model: {"bbox": {"AP": 1.0}})


@pytest.fixture
def saved(config, tmp_path):
    """Path of a checkpoint as the first step of a training with these overrides would leave it."""

    def save(*overrides: str, cfg=None) -> str:
        cfg = config(*overrides) if cfg is None else cfg
        torch.manual_seed(0)
        model = build_model(cfg)
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        SafeCheckpointer(model, str(folder), card=describe(cfg, model)).save("model_final")
        return str(folder / "model_final.pth")

    return save


def test_all_checkpoints_of_a_training_say_the_same(config, tmp_path, no_evaluation):
    train(config(*BY_OVERRIDES, "train.evaluate_raw=true", "model.aux_head=null"))
    files = {"model_0000001", "model_final", "model_best", "model_best_raw"}
    out = tmp_path / "out"
    assert {x.stem for x in out.glob("*.pth")} == files
    cards = [read_card(str(out / f"{name}.pth")) for name in files]
    assert all(card == cards[0] for card in cards)
    assert cards[0].class_names == CLASS_NAMES and cards[0].input_size == (64, 64)
    assert cards[0].name == "out" and '"kernel_size": 3' in cards[0].config


def test_an_interrupted_training_says_it_as_well(config, tmp_path):
    cfg = config("train.max_iter=50", "train.eval_period=0", "train.checkpointer.period=1000")
    good = instantiate(cfg.dataloader.train.mapper)
    calls = []

    def mapper(record):  # has no name by which it could be found again
        calls.append(record)
        if len(calls) == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        return good(record)

    cfg.dataloader.train.mapper = mapper
    with pytest.raises(SystemExit):
        train(cfg)
    (path,) = (tmp_path / "out").glob("*.pth")
    loaded = load_model(str(path))
    assert loaded.metadata.class_names == CLASS_NAMES


def test_a_checkpoint_needs_nothing_else(saved, tmp_path, monkeypatch):
    path = tmp_path / "elsewhere" / "weights.pth"
    path.parent.mkdir()
    shutil.copy(saved(*BY_OVERRIDES), path)
    monkeypatch.chdir(path.parent)
    loaded = load_model("weights.pth")
    assert loaded.metadata.name == "out" and loaded.metadata.class_names == CLASS_NAMES
    assert (loaded.metadata.input.height, loaded.metadata.input.width) == (64, 64)
    assert loaded.metadata.score_threshold == 0.2
    state, weights = loaded.model.state_dict(), read_file("weights.pth")["model"]
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    again = load_model("weights.pth", overrides=["model.nms_thresh=0.3"])
    assert again.metadata.nms_threshold == 0.3
    with pytest.raises(ValueError, match="did you mean 'nms_thresh'"):
        load_model("weights.pth", overrides=["model.nms_tresh=0.3"])


def test_what_a_checkpoint_is_in_words(saved, config):
    facts = describe_source(saved(*BY_OVERRIDES), overrides=["model.nms_thresh=0.3"])
    assert facts["name"] == "out" and facts["input"] == [64, 64]
    assert facts["classes"] == 7 and tuple(facts["class_names"]) == CLASS_NAMES
    assert (facts["score_threshold"], facts["nms_threshold"]) == (0.2, 0.3)
    assert facts["nanodet_d2"] == __version__ and len(facts["sha256"]) == 64
    assert 0 < facts["parameters"] < facts["parameters_in_training"]
    facts = describe_source("nanodet-plus-m-320")
    assert facts["parameters"] == 1_197_924 and "sha256" not in facts


def test_detectors_take_a_checkpoint_by_itself(saved):
    path = saved("model.score_thresh=0.0")
    detector = Detector(path, input_size=(96, 64))
    found = detector(np.zeros((30, 40, 3), np.uint8))
    assert detector.metadata.name == "out_96x64" and len(found.xyxy) > 0
    with pytest.raises(ValueError, match="has its own weights; allowed with weights: a config"):
        Detector("model.onnx", path)


def test_a_checkpoint_does_not_need_the_data_set_it_was_trained_on(
    saved, tmp_path, shapes, no_evaluation
):
    folder = tmp_path / "gone"
    folder.mkdir()
    overrides = []
    for split, files in shapes.items():
        shutil.copy(files["json"], folder / f"{split}.json")
        overrides.append(f"data.{split}.json={folder / split}.json")
    path = saved(*overrides)
    shutil.rmtree(folder)
    assert load_model(path).metadata.class_names == CLASS_NAMES
    resolved = resolve(path, ["data.val.json=" + shapes["val"]["json"]])
    assert resolved.cfg.train.init_checkpoint == path and resolved.weights() == path
    assert resolved.cfg.train.output_dir == "./output/out"  # not the folder of who trained it
    resolved.cfg.train.output_dir = str(tmp_path / "evaluated")
    assert evaluate_checkpoint(resolved.cfg) == {"bbox": {"AP": 1.0}}


def test_classes_are_those_of_the_training_not_of_its_start(saved, config):
    start = saved()
    cfg = config(f"train.init_checkpoint={start}", "data.classes=[9,cat,dog]")
    card = describe(cfg, build_model(cfg))
    assert card.class_names == ("9", "cat", "dog")
    cfg = config(f"train.init_checkpoint={start}", "model.head.num_classes=2")
    assert describe(cfg, build_model(cfg)).class_names == ("class 0", "class 1")


def test_the_config_that_training_wrote(saved, config, tmp_path):
    path = saved(*BY_OVERRIDES)
    LazyConfig.save(config(*BY_OVERRIDES), str(tmp_path / "out" / "config.yaml"))
    loaded = load_model(str(tmp_path / "out" / "config.yaml"), path)
    assert loaded.metadata.name == "out" and loaded.metadata.score_threshold == 0.2
    with pytest.raises(ValueError, match="config.yaml is a config and needs weights"):
        load_model(str(tmp_path / "out" / "config.yaml"))


def test_code_of_the_user_is_run_only_if_he_says_so(saved, config, tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(USER_CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = config("data.imports=[my_parts]")
    cfg.model.backbone._target_ = "my_parts.MyBackbone"
    path = saved(cfg=cfg)
    message = r"final.pth names 'my_parts.MyBackbone', .*data.imports=\[my_parts\]; or give the"
    with pytest.raises(ValueError, match=message):
        load_model(path)
    assert load_model(path, overrides=["data.imports=[my_parts]"]).model.backbone.imported
    assert load_model(path, trust=True).model.backbone.imported


def test_cards_that_were_tampered_with(saved, caplog):
    path = saved()
    content = read_file(path)
    text = content["card"]["config"]

    def tamper(old: str, new: str) -> None:
        assert old in text
        content["card"]["config"] = text.replace(old, new)
        torch.save(content, path)

    tamper("nanodet_d2.engine.build_optimizer", "my.optimizer")
    assert "optimizer" not in resolve(path).cfg and "'optimizer' is left out" in caplog.text
    load_model(path)  # which does not need it
    tamper("${oc.select:train.output_dir,./output}", "${gone.output_dir}")
    assert "dataloader" not in resolve(path).cfg
    tamper("nanodet_d2.modeling.GhostPAN", "os.system")
    with pytest.raises(ValueError, match="names 'os.system'"):
        load_model(path)
    tamper(text, "a: 1")
    with pytest.raises(ValueError, match="config is not json: .*or give the config of"):
        load_model(path)
    tamper(text, "{}")
    with pytest.raises(ValueError, match="does not tell its 'model': give its config as well"):
        load_model(path)


def test_damaged_cards_are_refused_by_one_kind_of_error(saved):
    path = saved()
    content = {**read_file(path), "model": {}}
    text = content["card"]["config"]
    rng = random.Random(0)
    outcomes = set()
    for _ in range(60):
        where = rng.randrange(len(text))
        new = rng.choice(["", "{", "}", '"', "[", ",", "$", ".", "0", "_", "é"])
        content["card"]["config"] = text[:where] + new + text[where + 1 :]
        torch.save(content, path)
        try:
            resolve(path)
        except ValueError:
            outcomes.add("refused")
        else:
            outcomes.add("taken")  # where it does not matter, or the model will tell
    assert outcomes == {"refused", "taken"}


def test_a_model_that_this_version_cannot_build(saved):
    path = saved()
    content = read_file(path)
    text = content["card"]["config"]
    content["card"]["config"] = text.replace('"out_channels"', '"channels_out"')
    torch.save(content, path)
    with pytest.raises(ValueError, match="no 'channels_out'"):
        load_model(path)
    content["card"]["config"] = text.replace('"aux_detach_iter"', '"detach_iter"')
    torch.save(content, path)
    with pytest.raises(ValueError, match="final.pth tells of cannot be built here .*'detach_iter'"):
        load_model(path)
    model = '{"model": {"_target_": "torch.nn.Identity"}, "data": {"input_size": [64, 64]}}'
    content["card"]["config"] = model
    torch.save(content, path)
    with pytest.raises(ValueError, match="out is a Identity; allowed: NanoDetPlus"):
        load_model(path)


def test_what_is_no_source_is_named(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "old.pth")
    with pytest.raises(ValueError, match="old.pth does not tell what model .*: give its config"):
        load_model(str(tmp_path / "old.pth"))
    for name, error in (("a.pth", FileNotFoundError), ("a.py", FileNotFoundError)):
        with pytest.raises(error, match=f"{name} not found"):
            resolve(str(tmp_path / name))
    with pytest.raises(
        ValueError, match=r"a.onnx is no model: allowed are \*.py, .*nanodet-plus-m-416"
    ):
        resolve("a.onnx")
