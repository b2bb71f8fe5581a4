"""Training and evaluation of a config, from start to resume, with faults."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.engine import SimpleTrainer, default_argument_parser, hooks
from detectron2.evaluation import inference_on_dataset
from detectron2.utils.env import seed_all_rng

from nanodet_d2.checkpoint import read_file
from nanodet_d2.engine import Evaluation, train
from nanodet_d2.engine.nonfinite import replay
from nanodet_d2.engine.validation_loss import build_validation_batches, validation_losses
from nanodet_d2.layers import batch_norms
from tests.engine.small_training import FAST
from tests.scripts import load_script


@pytest.fixture(scope="module")
def train_net(root):
    return load_script(root / "projects" / "nanodet_plus" / "train_net.py")


@pytest.fixture(scope="module")
def four_steps(load_config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "out"
    train(load_config("train.eval_period=0", f"train.output_dir={folder}"))
    return folder


@pytest.fixture
def trained(four_steps, tmp_path) -> Path:
    """The folder of a training of ``config("train.eval_period=0")``, as if it had just ended."""
    return Path(shutil.copytree(four_steps, tmp_path / "out"))


def metrics_log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_training_writes_everything_and_resumes(config, tmp_path, pictures):
    out = tmp_path / "out"
    results = train(config())
    assert results["bbox"].keys() >= {"AP", "AR100", "AP-circle"}
    names = {p.name for p in out.iterdir()}
    assert {"model_0000001.pth", "model_final.pth", "metrics.json", "evaluation.json"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert "curves.png" in names
    reports = {p.name for p in (out / "inference").iterdir()}
    assert {"precision_recall.png", "confusion.png", "confusion.json", "per_class.json"} <= reports
    confusion = json.loads((out / "inference" / "confusion.json").read_text())
    per_class = json.loads((out / "inference" / "per_class.json").read_text())
    assert [*per_class, "background"] == confusion["classes"]
    for i, entry in enumerate(per_class.values()):
        assert sum(count for row, _, count in confusion["counts"] if row == i) == entry["objects"]
    log = metrics_log(out)
    assert "aux_loss_qfl" in log[1]

    saved = read_file(str(out / "model_final.pth"))
    assert saved["iteration"] == 3 and saved["ema"].keys() == saved["model"].keys()
    name = "head.predictors.0.weight"
    assert not torch.equal(saved["ema"][name], saved["model"][name])
    assert saved["trainer"]["optimizer"]["state"][0]["step"] == 4

    train(config("train.max_iter=6", "train.eval_period=0"), resume=True)
    assert [x["iteration"] for x in metrics_log(out) if "total_loss" in x][-2:] == [4, 5]
    resumed = read_file(str(out / "model_final.pth"))
    assert resumed["iteration"] == 5 and resumed["trainer"]["optimizer"]["state"][0]["step"] == 6
    # The branch left at iteration 2 and stays out: its weights move no more.
    aux = "aux_head.class_predictor.weight"
    steps = resumed["trainer"]["optimizer"]["state"]
    assert min(int(x["step"]) for x in steps.values()) == 2
    assert torch.equal(resumed["model"][aux], saved["model"][aux])
    again = train(config("train.max_iter=6"), resume=True)  # no step left, but an evaluation
    assert again["bbox"].keys() >= {"AP"}
    assert metrics_log(out)[-1].keys() >= {"bbox/AP"}


def test_deterministic_trainings_end_with_the_same_bits(config, tmp_path):
    def weights(name: str) -> dict[str, torch.Tensor]:
        args = ["train.deterministic=true", f"train.output_dir={tmp_path / name}"]
        seed_all_rng(5)
        try:
            train(config(*args, "train.eval_period=0"))
        finally:
            torch.use_deterministic_algorithms(False)
        return read_file(str(tmp_path / name / "model_final.pth"))["model"]

    first, second = weights("first"), weights("second")
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_best_checkpoint_is_remembered_across_a_resume(config, tmp_path, monkeypatch):
    scores = iter([10.0, 30.0, 20.0])

    def fake(self, model):
        return {"bbox": {"AP": next(scores)}}

    monkeypatch.setattr(Evaluation, "_measure", fake)
    train(config())
    out = tmp_path / "out"
    best = read_file(str(out / "model_best.pth"))["model"]
    assert (out / "last_checkpoint").read_text() == "model_final.pth"
    train(config("train.max_iter=6"), resume=True)  # evaluates to 20
    again = read_file(str(out / "model_best.pth"))["model"]
    last = read_file(str(out / "model_final.pth"))["model"]
    name = "head.predictors.0.weight"
    assert torch.equal(again[name], best[name]) and not torch.equal(last[name], best[name])
    kept = json.loads((out / "model_best.json").read_text())
    assert kept == {"metric": "bbox/AP", "value": 30.0, "iteration": 4}


def test_evaluation_uses_the_averaged_weights(config, monkeypatch):
    seen = []

    def spy(self, model):
        seen.append(model.head.predictors[0].weight.clone())
        return {"bbox": {"AP": 1.0}}

    monkeypatch.setattr(Evaluation, "_measure", spy)
    cfg = config()
    train(cfg)
    saved = read_file(f"{cfg.train.output_dir}/model_final.pth")
    assert torch.equal(seen[-1], saved["ema"]["head.predictors.0.weight"])


def test_an_error_in_training_loses_nothing(config, tmp_path, shapes):
    cfg = config("train.max_iter=50", "train.eval_period=0", "train.checkpointer.period=1000")
    good = instantiate(cfg.dataloader.train.mapper)
    count = 0

    def failing(record):
        nonlocal count
        count += 1
        if count > 14:  # in the fourth batch of four
            raise ValueError("image broken.jpg cannot be used")
        return good(record)

    cfg.dataloader.train.mapper = failing
    with pytest.raises(ValueError, match="broken.jpg"):
        train(cfg)
    out = tmp_path / "out"
    saved = read_file(str(out / "model_0000002.pth"))
    assert saved["trainer"]["iteration"] == 2
    assert (out / "last_checkpoint").read_text() == "model_0000002.pth"
    train(config("train.max_iter=4", "train.eval_period=0"), resume=True)
    assert read_file(str(out / "model_final.pth"))["iteration"] == 3


def test_fine_tuning_starts_from_the_checkpoint(config, tmp_path, trained):
    start = f"train.init_checkpoint={trained / 'model_final.pth'}"
    again = f"train.output_dir={tmp_path / 'again'}"
    frozen = "optimizer.lr=0.0"
    train(config(start, again, frozen, "train.eval_period=0", "train.max_iter=1"))
    first = read_file(str(trained / "model_final.pth"))["ema"]
    second = read_file(str(tmp_path / "again" / "model_final.pth"))["model"]
    name = "head.towers.0.0.pointwise.weight"
    torch.testing.assert_close(second[name], first[name])


def test_a_bad_test_set_is_found_before_the_training(config, tmp_path):
    with pytest.raises(ValueError, match="data.val has the classes person, .*model is for square"):
        train(config("data.val.json=null"))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_amp_on_a_cpu_is_refused(config):
    with pytest.raises(ValueError, match="amp.enabled needs a CUDA device, found .*cpu"):
        train(config("train.amp.enabled=true"))


def test_mixed_precision_of_bfloat16_trains_on_a_cpu(config, tmp_path):
    train(config("train.amp.enabled=true", "train.amp.dtype=bfloat16", "train.eval_period=0"))
    content = read_file(str(tmp_path / "out" / "model_final.pth"))
    assert all(x.isfinite().all() for x in content["model"].values())
    assert "grad_scaler" not in content["trainer"]
    weights = {x.dtype for x in content["model"].values() if x.is_floating_point()}
    assert weights == {torch.float32}
    with pytest.raises(ValueError, match="amp.dtype 'half'; allowed: float16, bfloat16"):
        train(config("train.amp.enabled=true", "train.amp.dtype=half"))


def test_folded_norms_are_frozen(config, tmp_path, caplog):
    """As of released weights: a bias, a mean of 0 and a variance of 1."""
    model = instantiate(config().model)
    with torch.no_grad():
        for norm in batch_norms(model):
            norm.bias.normal_()
    weights = tmp_path / "folded.pth"
    torch.save({"model": model.state_dict()}, weights)
    cfg = config(f"train.init_checkpoint={weights}", "train.eval_period=0")
    train(cfg)
    assert caplog.text.count("norms are folded into their convolutions") == 1
    train(config("train.max_iter=6", "train.eval_period=0"), resume=True)  # nor do they thaw
    state = read_file(str(tmp_path / "out" / "model_final.pth"))["model"]
    means = [x for name, x in state.items() if name.endswith("running_mean")]
    assert len(means) > 20 and not any(x.any() for x in means)
    assert caplog.text.count("norms are folded into their convolutions") == 2


def test_norms_in_use_are_not_taken_for_folded(config, trained, tmp_path, caplog):
    once = ("train.eval_period=0", "train.max_iter=1", f"train.output_dir={tmp_path / 'again'}")
    train(config(*once))  # from random weights, whose norms are at 0 and 1 as well
    train(config(f"train.init_checkpoint={trained / 'model_final.pth'}", *once))
    assert "are folded" not in caplog.text


def test_a_resume_takes_the_rate_of_the_config(config, trained, caplog):
    longer = ("train.max_iter=6", "train.eval_period=0")
    train(config(*longer), resume=True)
    assert "from here on" not in caplog.text
    cfg = config("train.max_iter=8", "train.eval_period=0", "optimizer.lr=0.0")
    before = read_file(str(trained / "model_final.pth"))
    train(cfg, resume=True)
    after = read_file(str(trained / "model_final.pth"))
    rate = before["trainer"]["optimizer"]["param_groups"][0]["initial_lr"]
    assert f"optimizer.lr was {rate} and is 0.0 from here on" in caplog.text
    assert after["trainer"]["optimizer"]["param_groups"][0]["lr"] == 0.0
    name = "head.predictors.0.weight"
    assert torch.equal(before["model"][name], after["model"][name])  # decay is a share of the rate
    assert after["trainer"]["iteration"] == 7


def test_another_batch_at_a_resume_is_named(config, trained, caplog):
    cfg = config("train.max_iter=5", "train.eval_period=0", "dataloader.train.total_batch_size=2")
    train(cfg, resume=True)
    assert "The batch was 4 and is 2 from here on: the 4 steps" in caplog.text


def test_a_share_of_the_start_cannot_begin_at_a_resume(config, trained):
    cfg = config("train.max_iter=6", "train.eval_period=0", "train.ema.settings.start_share=0.25")
    with pytest.raises(ValueError, match="start_share=0.25, but .*final.pth is of a training"):
        train(cfg, resume=True)


def run(train_net, root, *arguments: str) -> dict:
    config = root / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
    parser = default_argument_parser()
    return train_net.main(parser.parse_args(["--config-file", str(config), *arguments]))


def test_train_net_trains_and_evaluates(train_net, root, shapes_overrides, tmp_path, capfd):
    common = [*FAST, *shapes_overrides]
    trained = run(train_net, root, *common, f"train.output_dir={tmp_path / 'a'}")
    weights = f"train.init_checkpoint={tmp_path / 'a' / 'model_final.pth'}"
    evaluated = run(
        train_net, root, "--eval-only", *common, weights, f"train.output_dir={tmp_path / 'b'}"
    )
    assert evaluated["bbox"]["AP"] == pytest.approx(trained["bbox"]["AP"], abs=1e-6, nan_ok=True)
    written = json.loads((tmp_path / "b" / "evaluation.json").read_text())
    assert written["bbox"]["AR100"] == pytest.approx(evaluated["bbox"]["AR100"])
    assert written["bbox"]["APl"] is None  # no object of that size; NaN is not json
    assert "copypaste: AP,AP50,AP75" in capfd.readouterr().out
    assert (tmp_path / "b" / "config.yaml").is_file()


def test_train_net_refuses(train_net, root, shapes_overrides, tmp_path):
    common = [*FAST, *shapes_overrides, f"train.output_dir={tmp_path}"]
    with pytest.raises(ValueError, match="needs train.init_checkpoint"):
        run(train_net, root, "--eval-only", *common)
    with pytest.raises(ValueError, match="did you mean 'max_iter'"):
        run(train_net, root, *common, "train.max_itr=3")


def test_configs_run_as_detectron2s_own_script_runs_them(config):
    """The steps of detectron2's ``tools/lazyconfig_train_net.py``."""
    cfg = config("train.max_iter=2")
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), optimizer)
    os.makedirs(cfg.train.output_dir)
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=False)
    trainer.train(0, cfg.train.max_iter)
    results = inference_on_dataset(
        model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    )
    assert "AP" in results["bbox"]


def test_raw_weights_are_evaluated_beside_the_averaged_ones(config, tmp_path, monkeypatch):
    scores = iter([50.0, 10.0, 40.0, 20.0])  # raw, averaged, raw, averaged
    seen = []

    def fake(self, model):
        seen.append(model.head.predictors[0].weight.clone())
        return {"bbox": {"AP": next(scores)}}

    monkeypatch.setattr(Evaluation, "_measure", fake)
    results = train(config("train.evaluate_raw=true"))
    assert results == {"raw_bbox": {"AP": 40.0}, "bbox": {"AP": 20.0}}
    out = tmp_path / "out"
    assert json.loads((out / "evaluation.json").read_text()) == results
    name = "head.predictors.0.weight"
    raw, averaged = (read_file(str(out / f"model_best{x}.pth")) for x in ("_raw", ""))
    assert raw.keys() == {"model", "iteration", "card"} and torch.equal(raw["model"][name], seen[0])
    assert torch.equal(averaged["ema"][name], seen[3])
    assert json.loads((out / "model_best_raw.json").read_text())["metric"] == "raw_bbox/AP"
    assert (out / "last_checkpoint").read_text() == "model_final.pth"


def test_a_training_that_gets_no_better_ends_early(config, tmp_path, monkeypatch, caplog):
    scores = iter([10.0, 30.0, 20.0, 25.0])
    monkeypatch.setattr(Evaluation, "_measure", lambda self, model: {"bbox": {"AP": next(scores)}})
    results = train(config("train.max_iter=50", "train.early_stop_patience=2"))
    assert results["bbox"]["AP"] == 25.0
    out = tmp_path / "out"
    assert "Stopped after 8 of 50 steps: no better metric than 30 in 2 evaluations" in caplog.text
    assert "Exception" not in caplog.text and "ended early" not in caplog.text
    assert read_file(str(out / "model_final.pth"))["iteration"] == 7
    assert json.loads((out / "model_best.json").read_text())["iteration"] == 3
    with pytest.raises(ValueError, match="early_stop_patience 0 .*allowed: 1 or more"):
        train(config("train.early_stop_patience=0"))


def test_validation_loss(config, tmp_path):
    cfg = config("train.validation_loss=true", "model.aux_head=null", "optimizer.lr=0.0")
    train(cfg)
    logged = [x for x in metrics_log(tmp_path / "out") if "validation_total_loss" in x]
    assert [x["iteration"] for x in logged][:2] == [1, 3]
    names = [f"validation_loss_{x}" for x in ("qfl", "bbox", "dfl")]
    for x in logged[:2]:
        assert x["validation_total_loss"] == pytest.approx(sum(x[name] for name in names))


def test_validation_losses_are_those_of_the_batches(config):
    cfg = config("dataloader.train.total_batch_size=5", "model.freeze_norm=true")
    torch.manual_seed(0)
    model = instantiate(cfg.model).train()
    batches = list(build_validation_batches(cfg))
    assert [len(batch) for batch in batches] == [5, 3]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    found = validation_losses(model, batches)
    with torch.no_grad():
        five, three = (model(batch) for batch in batches)
    for name in five:
        assert found[name] == pytest.approx((5 * float(five[name]) + 3 * float(three[name])) / 8)
    assert found["total_loss"] == pytest.approx(sum(found[name] for name in five))
    model.freeze_norm = False
    model.train()
    assert validation_losses(model, batches) == found and model.training
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_the_console_shows_the_loaders_share_and_present_losses(config, caplog):
    with caplog.at_level("INFO", logger="nanodet_d2"):
        train(config("model.aux_after_detach=drop", "train.eval_period=0", "train.max_iter=5"))
    lines = [x.getMessage() for x in caplog.records if x.name.endswith("writers")]
    assert len(lines) == 4 or len(lines) == 5
    assert "aux_loss_qfl" in lines[0] and "aux_loss_qfl" not in lines[-1]
    assert all("waiting for data" in x for x in lines[2:])


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_loss_that_is_not_finite_is_reported_and_can_be_seen_again(config, tmp_path, pieces):
    cfg = config("train.max_iter=20", "train.log_period=5", "train.eval_period=0")
    cfg.model.micro_batches = pieces
    good = instantiate(cfg.dataloader.train.mapper)

    def poisoned(record):
        sample = good(record)
        if sample["image_id"] == poisoned.image_id:
            sample["image"] = sample["image"].float() * float("nan")
        return sample

    seen = list(itertools.islice(instantiate(cfg.dataloader.train), 8))
    poisoned.image_id = seen[5][0]["image_id"]  # comes in iteration 5 at the latest
    first = min(i for i, b in enumerate(seen) for x in b if x["image_id"] == poisoned.image_id)
    cfg.dataloader.train.mapper = poisoned
    with pytest.raises(FloatingPointError, match=f"not finite in iteration {first}: .*shapes"):
        train(cfg)
    report = tmp_path / "out" / f"nonfinite_{first:07d}.pth"
    content = read_file(str(report))
    assert content["files"] == [x["file_name"] for x in seen[first]]
    model = instantiate(cfg.model).train()
    assert all(content["model"][name].isfinite().all() for name, _ in model.named_parameters())
    assert not any(x.isfinite() for x in replay(model, str(report)).values())
