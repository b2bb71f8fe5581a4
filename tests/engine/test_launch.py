"""Trainings of several processes (torchrun, Gloo) end as those of one."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch.distributed as dist

from nanodet_d2.checkpoint import read_file
from nanodet_d2.engine import launch
from tests.engine.launching import OVERRIDES, SCRIPT, losses, ranks, torchrun

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no Gloo here")


@pytest.fixture(scope="module")
def alone(shapes_overrides, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    ranks(1, *OVERRIDES, *shapes_overrides, f"train.output_dir={folder}").check()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("start", "processes"), [(ranks, 2), (torchrun, 3)])
def test_together_as_alone(alone, shapes_overrides, tmp_path, start, processes):
    """Whole trainings: each step's batch is the same, and the 8 test images are shared out."""
    output = f"train.output_dir={tmp_path}"
    start(processes, *OVERRIDES, *shapes_overrides, output).check()
    expected, found = losses(alone), losses(tmp_path)
    assert len(expected) == len(found) == 6
    assert found[0] == pytest.approx(expected[0], rel=1e-5)  # one step
    for i in range(6):  # later ones add up the rounding
        assert found[i] == pytest.approx(expected[i], rel=1e-3)
    a, b = (read_file(str(x / "model_final.pth"))["model"] for x in (alone, tmp_path))
    for name, value in a.items():
        assert (value - b[name]).abs().max() <= 1e-3 * max(float(value.abs().max()), 1e-3), name

    weights = f"train.init_checkpoint={alone / 'model_final.pth'}"
    output = f"train.output_dir={tmp_path / 'evaluated'}"
    ranks(processes, "--eval-only", *OVERRIDES, *shapes_overrides, weights, output).check()
    expected = json.loads((alone / "evaluation.json").read_text())
    assert json.loads((tmp_path / "evaluated" / "evaluation.json").read_text()) == expected


def tell_what_is_sent() -> None:
    """A line in a file for each step: how many numbers this rank has sent."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    from nanodet_d2.engine.trainer import Trainer

    whole_step, sent = Trainer.run_step, []

    def collect(state, bucket):
        sent.append(bucket.buffer().numel())
        return default_hooks.allreduce_hook(None, bucket)

    def step(self):
        if self.model is not getattr(self, "_watched", None):
            self.model.register_comm_hook(None, collect)
            self._watched = self.model
        whole_step(self)
        with open(f"{self.report_dir}/sent_{os.environ['RANK']}", "a") as file:
            file.write(f"{sum(sent)}\n")
        sent.clear()

    Trainer.run_step = step


@pytest.mark.slow
def test_a_branch_that_left_is_sent_no_more(alone, shapes_overrides, tmp_path):
    options = [*OVERRIDES, *shapes_overrides, f"train.output_dir={tmp_path}"]
    ranks(2, *options, patch=tell_what_is_sent).check()
    sent = [int(x) for x in (tmp_path / "sent_0").read_text().split()]
    weights = read_file(str(alone / "model_final.pth"))["model"]
    buffers = ("running_mean", "running_var", "num_batches_tracked", "bins")
    sizes = {k: x.numel() for k, x in weights.items() if not k.endswith(buffers)}
    without = sum(x for k, x in sizes.items() if not k.startswith("aux_"))
    assert sent == [sum(sizes.values())] * 4 + [without] * 2  # model.aux_detach_iter=4


@pytest.mark.slow
def test_ranks_evaluate_the_model_that_is_saved(shapes_overrides, tmp_path):
    """Each rank's batch norms have seen other images than the other's."""
    options = [*OVERRIDES, *shapes_overrides, "model.freeze_norm=false", "optimizer.lr=0.01"]
    options += ["train.ema.settings.decay=0.5", "train.evaluate_raw=true"]
    ranks(2, *options, f"train.output_dir={tmp_path / 'two'}").check()
    options += [f"train.init_checkpoint={tmp_path / 'two' / 'model_final.pth'}"]
    ranks(1, "--eval-only", *options, f"train.output_dir={tmp_path / 'one'}").check()
    of_two, of_one = (
        json.loads((tmp_path / x / "inference" / "coco_instances_results.json").read_text())
        for x in ("two", "one")
    )
    key = lambda x: (x["image_id"], x["category_id"], -x["score"], *x["bbox"])  # noqa: E731
    of_two, of_one = sorted(of_two, key=key), sorted(of_one, key=key)
    assert len(of_one) > 50
    assert [x["score"] for x in of_two] == pytest.approx([x["score"] for x in of_one], rel=1e-4)


@pytest.mark.slow
def test_fewer_images_than_ranks(shapes, tmp_path):
    """One image and three ranks: two ranks have nothing to evaluate, one image has no box."""
    content = json.loads(Path(shapes["val"]["json"]).read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = []
    file = tmp_path / "one.json"
    file.write_text(json.dumps(content))
    names = [f"data.{s}.json={file}" for s in ("train", "val")]
    names += [f"data.{s}.images={shapes['val']['images']}" for s in ("train", "val")]
    ranks(3, *OVERRIDES, *names, f"train.output_dir={tmp_path / 'out'}").check()
    assert len(losses(tmp_path / "out")) == 6


FAILS_ONCE = """
import os, sys, runpy
from nanodet_d2.engine import trainer

whole_step = trainer.Trainer.run_step
def step(self):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and self.iter == 4 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), 9)
    whole_step(self)
trainer.Trainer.run_step = step
sys.argv[0] = {script!r}
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_an_elastic_restart_resumes(alone, shapes_overrides, tmp_path):
    """Rank 1 is killed in its fifth step; torchrun starts both again."""
    script = tmp_path / "fails_once.py"
    script.write_text(FAILS_ONCE.format(script=str(SCRIPT)))
    folder = f"train.output_dir={tmp_path / 'out'}"
    options = [*OVERRIDES, *shapes_overrides, folder, "train.checkpointer.period=2"]
    done = torchrun(2, *options, restarts=1, script=script)
    done.check()
    assert "Restart 1 by torchrun: the training is resumed" in done.output
    assert re.search(r"Resumed after [2-4] steps", done.output)
    expected, found = losses(alone), losses(tmp_path / "out")
    assert len(found) == 6
    for i in range(6):
        assert found[i] == pytest.approx(expected[i], rel=1e-3)


def test_two_ways_at_once_and_absent_gpus_are_refused(monkeypatch):
    args = argparse.Namespace(num_gpus=99, num_machines=1)
    with pytest.raises(ValueError, match="--num-gpus 99; found .* GPUs. .*torchrun"):
        launch(print, args)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(ValueError, match="under torchrun allowed: --nproc_per_node"):
        launch(print, args)


def take_folder_of_rank() -> None:
    """``main`` for a folder for each rank, as on hosts that do not share their disks."""
    from tests.engine import launching

    main = launching.main

    def main_of_rank(args):
        args.opts = [x.replace("FOLDER", f"of_{os.environ['RANK']}") for x in args.opts]
        return main(args)

    launching.main = main_of_rank


def test_a_resume_without_a_shared_folder_is_refused(alone, shapes_overrides, tmp_path):
    shutil.copytree(alone, tmp_path / "of_0")
    output = f"train.output_dir={tmp_path}/FOLDER"
    options = ["--resume", *OVERRIDES, *shapes_overrides, output]
    done = ranks(2, *options, patch=take_folder_of_rank)
    assert done.returncode != 0
    assert re.search(
        "ValueError: train.output_dir=.* is not that of .*: only one has model_final.pth; "
        "to resume, hosts need to share the folder",
        done.output,
    )
