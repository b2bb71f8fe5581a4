"""Steps of several ranks, one of which has other images, or numbers that went wrong."""

from __future__ import annotations

import functools
import json
import os
import re
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nanodet_d2.checkpoint import read_file
from nanodet_d2.engine import trainer, training
from nanodet_d2.modeling import NanoDetPlusHead
from tests.engine.launching import OVERRIDES, losses, ranks

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no Gloo here")


def keep_gradients(dtype: torch.dtype) -> None:
    """Models of a type of numbers; the first rank writes its gradients and norms' means."""
    build = training.build_model
    whole_step = trainer.Trainer.run_step

    def step(self):
        whole_step(self)
        model = getattr(self.model, "module", self.model)
        if os.environ.get("RANK", "0") == "0":
            means = {k: b for k, b in model.named_buffers() if k.endswith("running_mean")}
            gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
            torch.save((gradients, means), self.report_dir + "/step.pth")

    training.build_model = lambda *args, **options: build(*args, **options).to(dtype)
    trainer.Trainer.run_step = step


@pytest.mark.slow
@pytest.mark.parametrize(
    "norms, dtype",
    [
        ("model.freeze_norm=true", torch.float32),
        # In float32 torch's batch norm of one process is 7e-3 off its own float64 here: rounding
        # decides between equal maxima and the signs of zeros. detectron2's of two is 2e-5 off.
        ("train.sync_norm=true", torch.float64),
    ],
)
def test_one_step_of_two_processes_is_that_of_one(shapes, tmp_path, norms, dtype):
    """Two images, one of them without a box: so has one rank."""
    content = json.loads(Path(shapes["train"]["json"]).read_text())
    content["images"] = content["images"][:2]
    first = content["images"][0]["id"]
    content["annotations"] = [x for x in content["annotations"] if x["image_id"] == first]
    file = tmp_path / "two.json"
    file.write_text(json.dumps(content))
    options = [*OVERRIDES, "train.max_iter=1", "dataloader.train.total_batch_size=2"]
    options += ["model.freeze_norm=false", norms, "data.input_size=[96,96]"]
    options += ["model.backbone.out_features=[res3,res4,res5]", "model.head.stacked_convs=2"]
    for split in ("train", "val"):
        options += [f"data.{split}.json={file}", f"data.{split}.images={shapes['train']['images']}"]
    steps, logs = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        output = f"train.output_dir={folder}"
        ranks(processes, *options, output, patch=functools.partial(keep_gradients, dtype)).check()
        steps.append(torch.load(folder / "step.pth"))
        logs.append(losses(folder))
    assert len(logs[0]) == 1
    assert logs[1][0] == pytest.approx(logs[0][0], rel=1e-5)
    (gradients, means), (gradients_of_two, means_of_two) = steps
    assert gradients.keys() == gradients_of_two.keys()
    largest = float(max(g.abs().max() for g in gradients.values()))
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradients_of_two[name], gradient, rtol=1e-4, atol=1e-6 * largest, msg=name
        )
    for name, mean in means.items():
        torch.testing.assert_close(means_of_two[name], mean, rtol=1e-4, atol=1e-5, msg=name)


def lose_its_way() -> None:
    """A bad loss of rank 1 in its third step, which takes a while to report."""
    whole, save = NanoDetPlusHead.losses, trainer.save_report
    steps = 0

    def losses(self, *args, **kwargs):
        nonlocal steps
        steps += 1
        bad = steps == 3 and os.environ["RANK"] == "1"
        found = whole(self, *args, **kwargs)
        return {k: x * float("nan") if bad else x for k, x in found.items()}

    def slowly(*args, **options):
        time.sleep(3)
        return save(*args, **options)

    NanoDetPlusHead.losses, trainer.save_report = losses, slowly


@pytest.mark.slow
def test_a_bad_loss_of_one_rank_is_reported(shapes_overrides, tmp_path):
    options = [*OVERRIDES, *shapes_overrides, f"train.output_dir={tmp_path}"]
    done = ranks(2, *options, patch=lose_its_way)
    assert done.returncode != 0
    for rank in (0, 1):  # both know where
        assert re.search(
            rf"rank{rank}.*FloatingPointError: loss is not finite in iteration 2: .*loss_qfl.*nan"
            r".* reported in .*nonfinite_0000002.pth",
            done.output,
        )
    assert read_file(str(tmp_path / "nonfinite_0000002.pth"))["batch"]


def go_wrong(fault: str) -> None:
    """A bad gradient or buffer of rank 1 in its fourth step; each rank writes its weights' sums."""
    whole_step = trainer.Trainer.run_step

    def step(self):
        bias = self.model.module.head.predictors[0].bias
        bad = self.iter == 3 and os.environ["RANK"] == "1"
        overflows = bad and fault == "gradient"
        handle = bias.register_hook(lambda g: g * float("inf") if overflows else g)
        whole_step(self)
        handle.remove()
        if bad and fault == "buffer":
            variances = (b for n, b in self.model.named_buffers() if n.endswith("running_var"))
            next(variances)[0] = -float("inf")
        sums = [float(p.double().sum()) for p in self.model.module.parameters()]
        with open(f"{self.report_dir}/sums_{os.environ['RANK']}", "a") as file:
            file.write(f"{sum(sums)}\n")

    trainer.Trainer.run_step = step


def test_a_bad_gradient_of_one_rank_is_left_out_on_both(shapes_overrides, tmp_path):
    options = [*OVERRIDES, *shapes_overrides, f"train.output_dir={tmp_path}"]
    ranks(2, *options, patch=functools.partial(go_wrong, "gradient")).check()
    sums = [(tmp_path / f"sums_{rank}").read_text().split() for rank in (0, 1)]
    assert sums[0] == sums[1] and len(sums[0]) == 6
    moved = [a != b for a, b in zip(sums[0], sums[0][1:])]
    assert moved == [True, True, False, True, True]  # iterations 1 to 5
    assert read_file(str(tmp_path / "model_final.pth"))["trainer"]["skipped_steps"] == 1


def test_bad_statistics_of_one_rank_end_both(shapes_overrides, tmp_path):
    options = [*OVERRIDES, *shapes_overrides, f"train.output_dir={tmp_path}"]
    done = ranks(2, *options, patch=functools.partial(go_wrong, "buffer"))
    assert done.returncode != 0
    # The slower one may be ended before it has told the whole traceback on its way out.
    told = re.findall(
        r"rank(\d).*FloatingPointError: not finite after iteration 3, rank 1: model.*runn",
        done.output,
    )
    others = re.findall(r"rank\d\]: (\w+(?:Error|Exception)):", done.output)
    assert told and set(others) == {"FloatingPointError"}
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    content = read_file(str(tmp_path / "model_0000002.pth"))["model"]
    assert all(x.isfinite().all() for x in content.values())
