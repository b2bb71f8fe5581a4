"""Trainings of several processes (torchrun, Gloo) end as those of one."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nanodet_d2.checkpoint import read_file
from nanodet_d2.engine import launch
from tests.engine.launching import OVERRIDES, SCRIPT, losses, torchrun

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no Gloo here")


@pytest.fixture(scope="module")
def alone(shapes_overrides, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    done = torchrun(1, *OVERRIDES, *shapes_overrides, f"train.output_dir={folder}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return folder


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_together_as_alone(alone, shapes_overrides, tmp_path, processes):
    """Whole trainings: each step's batch is the same, and the 8 test images are shared out."""
    output = f"train.output_dir={tmp_path}"
    done = torchrun(processes, *OVERRIDES, *shapes_overrides, output)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
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
    done = torchrun(processes, "--eval-only", *OVERRIDES, *shapes_overrides, weights, output)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    expected = json.loads((alone / "evaluation.json").read_text())
    assert json.loads((tmp_path / "evaluated" / "evaluation.json").read_text()) == expected


KEEPS_GRADIENTS = """
import os, sys, runpy
import torch
from nanodet_d2.engine import trainer, training

build = training.build_model
training.build_model = lambda *args, **options: build(*args, **options).to(
    getattr(torch, os.environ["DTYPE"])
)
whole_step = trainer.Trainer.run_step
def step(self):
    whole_step(self)
    model = getattr(self.model, "module", self.model)
    if os.environ.get("RANK", "0") == "0":
        means = {{k: b for k, b in model.named_buffers() if k.endswith("running_mean")}}
        gradients = {{k: p.grad for k, p in model.named_parameters() if p.grad is not None}}
        torch.save((gradients, means), self.report_dir + "/step.pth")
trainer.Trainer.run_step = step
sys.argv[0] = {script!r}
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    "norms, dtype",
    [
        ("model.freeze_norm=true", "float32"),
        # In float32 torch's batch norm of one process is 7e-3 off its own float64 here: rounding
        # decides between equal maxima and the signs of zeros. detectron2's of two is 2e-5 off.
        ("train.sync_norm=true", "float64"),
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
    script = tmp_path / "keeps_gradients.py"
    script.write_text(KEEPS_GRADIENTS.format(script=str(SCRIPT)))
    options = [*OVERRIDES, "train.max_iter=1", "dataloader.train.total_batch_size=2"]
    options += ["model.freeze_norm=false", norms, "data.input_size=[96,96]"]
    for split in ("train", "val"):
        options += [f"data.{split}.json={file}", f"data.{split}.images={shapes['train']['images']}"]
    steps, logs = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        output = f"train.output_dir={folder}"
        done = torchrun(processes, *options, output, script=script, DTYPE=dtype)
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
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


TELLS_WHAT_IS_SENT = """
import os, sys, runpy
from nanodet_d2.engine import trainer

whole_step, sent = trainer.Trainer.run_step, []
def collect(state, bucket):
    sent.append(bucket.buffer().numel())
    return default_hooks.allreduce_hook(None, bucket)
def step(self):
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
    globals()["default_hooks"] = default_hooks
    if self.model is not getattr(self, "_watched", None):
        self.model.register_comm_hook(None, collect)
        self._watched = self.model
    whole_step(self)
    with open(self.report_dir + "/sent_" + os.environ["RANK"], "a") as file:
        print(sum(sent), file=file)
    sent.clear()
trainer.Trainer.run_step = step
sys.argv[0] = {script!r}
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_a_branch_that_left_is_sent_no_more(alone, shapes_overrides, tmp_path):
    script = tmp_path / "tells_what_is_sent.py"
    script.write_text(TELLS_WHAT_IS_SENT.format(script=str(SCRIPT)))
    options = [*OVERRIDES, *shapes_overrides, f"train.output_dir={tmp_path}"]
    done = torchrun(2, *options, script=script)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    sent = [int(x) for x in (tmp_path / "sent_0").read_text().split()]
    weights = read_file(str(alone / "model_final.pth"))["model"]
    buffers = ("running_mean", "running_var", "num_batches_tracked", "bins")
    sizes = {k: x.numel() for k, x in weights.items() if not k.endswith(buffers)}
    without = sum(x for k, x in sizes.items() if not k.startswith("aux_"))
    assert sent == [sum(sizes.values())] * 4 + [without] * 2  # model.aux_detach_iter=4


LOSES_ITS_WAY = """
import os, sys, runpy, time
from nanodet_d2.engine import trainer
from nanodet_d2.modeling import NanoDetPlusHead

whole, save = NanoDetPlusHead.losses, trainer.save_report
steps = 0
def losses(self, *args, **kwargs):
    global steps
    steps += 1
    bad = steps == 3 and os.environ["RANK"] == "1"
    return {{k: x * float("nan") if bad else x for k, x in whole(self, *args, **kwargs).items()}}
def slowly(*args, **kwargs):
    time.sleep(3)
    return save(*args, **kwargs)
NanoDetPlusHead.losses, trainer.save_report = losses, slowly
sys.argv[0] = {script!r}
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_bad_loss_of_one_rank_is_reported(shapes_overrides, tmp_path):
    script = tmp_path / "loses_its_way.py"
    script.write_text(LOSES_ITS_WAY.format(script=str(SCRIPT)))
    done = torchrun(2, *OVERRIDES, *shapes_overrides, f"train.output_dir={tmp_path}", script=script)
    assert done.returncode != 0
    for rank in (0, 1):  # both know where
        assert re.search(
            rf"rank{rank}.*FloatingPointError: loss is not finite in iteration 2: .*loss_qfl.*nan"
            r".* reported in .*nonfinite_0000002.pth",
            done.stdout + done.stderr,
        )
    assert read_file(str(tmp_path / "nonfinite_0000002.pth"))["batch"]


OVERFLOWS = """
import os, sys, runpy
import torch
from nanodet_d2.engine import trainer

whole_step = trainer.Trainer.run_step
def step(self):
    bias = self.model.module.head.predictors[0].bias
    bad = self.iter == 3 and os.environ["RANK"] == "1"
    overflows = bad and os.environ["FAULT"] == "gradient"
    handle = bias.register_hook(lambda g: g * float("inf") if overflows else g)
    whole_step(self)
    handle.remove()
    if bad and os.environ["FAULT"] == "buffer":
        variances = (b for n, b in self.model.named_buffers() if n.endswith("running_var"))
        next(variances)[0] = -float("inf")
    sums = [float(p.double().sum()) for p in self.model.module.parameters()]
    with open(self.report_dir + "/sums_" + os.environ["RANK"], "a") as file:
        print(sum(sums), file=file)
trainer.Trainer.run_step = step
sys.argv[0] = {script!r}
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_a_bad_gradient_of_one_rank_is_left_out_on_both(shapes_overrides, tmp_path):
    script = tmp_path / "overflows.py"
    script.write_text(OVERFLOWS.format(script=str(SCRIPT)))
    output = f"train.output_dir={tmp_path}"
    fault = dict(script=script, FAULT="gradient")
    done = torchrun(2, *OVERRIDES, *shapes_overrides, output, **fault)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    sums = [(tmp_path / f"sums_{rank}").read_text().split() for rank in (0, 1)]
    assert sums[0] == sums[1] and len(sums[0]) == 6
    moved = [a != b for a, b in zip(sums[0], sums[0][1:])]
    assert moved == [True, True, False, True, True]  # iterations 1 to 5
    assert read_file(str(tmp_path / "model_final.pth"))["trainer"]["skipped_steps"] == 1


@pytest.mark.slow
def test_bad_statistics_of_one_rank_end_both(shapes_overrides, tmp_path):
    script = tmp_path / "overflows.py"
    script.write_text(OVERFLOWS.format(script=str(SCRIPT)))
    output = f"train.output_dir={tmp_path}"
    done = torchrun(2, *OVERRIDES, *shapes_overrides, output, script=script, FAULT="buffer")
    assert done.returncode != 0
    # torchrun may end the slower one before it has told the whole traceback on its way out.
    told = re.findall(
        r"rank(\d).*FloatingPointError: not finite after iteration 3, rank 1: model.*runn",
        done.stdout + done.stderr,
    )
    others = re.findall(r"rank\d\]: (\w+(?:Error|Exception)):", done.stdout + done.stderr)
    assert told and set(others) == {"FloatingPointError"}
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    content = read_file(str(tmp_path / "model_0000002.pth"))["model"]
    assert all(x.isfinite().all() for x in content.values())


@pytest.mark.slow
def test_ranks_evaluate_the_model_that_is_saved(shapes_overrides, tmp_path):
    """Each rank's batch norms have seen other images than the other's."""
    options = [*OVERRIDES, *shapes_overrides, "model.freeze_norm=false", "optimizer.lr=0.01"]
    options += ["train.ema.settings.decay=0.5", "train.evaluate_raw=true"]
    done = torchrun(2, *options, f"train.output_dir={tmp_path / 'two'}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    options += [f"train.init_checkpoint={tmp_path / 'two' / 'model_final.pth'}"]
    done = torchrun(1, "--eval-only", *options, f"train.output_dir={tmp_path / 'one'}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
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
    done = torchrun(3, *OVERRIDES, *names, f"train.output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert len(losses(tmp_path / "out")) == 6


FAILS_ONCE = """
import os, sys, runpy
from detectron2.engine import HookBase
import nanodet_d2
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
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert "Restart 1 by torchrun: the training is resumed" in done.stdout + done.stderr
    assert re.search(r"Resumed after [2-4] steps", done.stdout + done.stderr)
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


FOLDER_PER_RANK = """
import os, sys, runpy
sys.argv = [{script!r}, *(x.replace("FOLDER", "of_" + os.environ["RANK"]) for x in sys.argv[1:])]
sys.path.insert(0, os.path.dirname({script!r}))
runpy.run_path({script!r}, run_name="__main__")
"""


def test_a_resume_without_a_shared_folder_is_refused(alone, shapes_overrides, tmp_path):
    script = tmp_path / "folder_per_rank.py"
    script.write_text(FOLDER_PER_RANK.format(script=str(SCRIPT)))
    shutil.copytree(alone, tmp_path / "of_0")
    output = f"train.output_dir={tmp_path}/FOLDER"
    done = torchrun(2, "--resume", *OVERRIDES, *shapes_overrides, output, script=script)
    assert done.returncode != 0
    assert re.search(
        "ValueError: train.output_dir=.* is not that of .*: only one has model_final.pth; "
        "to resume, hosts need to share the folder",
        done.stdout + done.stderr,
    )
