"""A training that is killed at any moment and resumed ends as one that was never stopped."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.utils.env import seed_all_rng

from nanodet_d2.checkpoint import SafeCheckpointer, read_file, replace_file
from nanodet_d2.config import apply_overrides
from nanodet_d2.engine import train
from nanodet_d2.engine.resume import find_resume_point, rewind_log
from nanodet_d2.modeling import NanoDetPlusHead
from tests.engine.launching import CONFIG
from tests.engine.small_training import SMALL
from tests.forking import forks
from tests.scripts import load_script

try:
    import resource
except ImportError:
    resource = None

gpu_check = load_script(CONFIG.parents[1] / "benchmarks" / "gpu_check.py")
final, first_difference = gpu_check.resume.final_checkpoint, gpu_check.resume.first_difference
OVERRIDES = [
    *SMALL,
    "dataloader.train.total_batch_size=4",
    "model.aux_detach_iter=9",
    "train.eval_period=10",
    "train.checkpointer.period=3",
    "train.log_period=2",
    "train.max_iter=24",
    "train.ema.settings.start_share=0.25",
]
WITH_A_WORKER = [*OVERRIDES, "dataloader.train.num_workers=1"]
TIMES = {"eta_seconds", "time", "data_time", "rank_data_time"}  # differ from run to run


def run(overrides: list[str], output: str, *, resume: bool) -> None:
    seed_all_rng(1)  # as detectron2's default_setup does
    cfg = apply_overrides(LazyConfig.load(str(CONFIG)), overrides)
    cfg.train.output_dir = output
    train(cfg, resume=resume)


def run_alone(overrides: list[str], output: str, *, resume: bool) -> None:
    """In a process of its own: with one thread, and the console in a file."""
    torch.set_num_threads(1)
    logging.basicConfig(filename=f"{output}.log", level=logging.INFO)
    run(overrides, output, resume=resume)


def start(overrides: list[str], output: Path, *, resume: bool) -> BaseProcess:
    """A training in a process of its own, which has torch imported already."""
    process = forks.Process(
        target=run_alone, args=(overrides, str(output)), kwargs={"resume": resume}
    )
    process.start()
    return process


def outcome(folder: Path) -> tuple[dict, list[dict], dict]:
    """What has to be the same: everything that is saved, the log but for its times, the best."""
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    log = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    best = json.loads((folder / "model_best.json").read_text())
    return final(folder), log, best


def assert_same(a, b) -> None:
    assert first_difference(a, b) == ""


@pytest.mark.slow
def test_killed_at_twenty_random_moments(shapes_overrides, tmp_path):
    overrides = [*WITH_A_WORKER, *shapes_overrides]
    begin = time.monotonic()
    whole = start(overrides, tmp_path / "whole", resume=False)
    whole.join()
    seconds = time.monotonic() - begin
    assert whole.exitcode == 0
    expected = outcome(tmp_path / "whole")
    assert [line["iteration"] for line in expected[1] if "total_loss" in line][-1] == 23
    moments = random.Random(0)
    for i in range(20):
        folder = tmp_path / str(i)
        killed = start(overrides, folder, resume=False)
        killed.join(moments.uniform(0.2, 1.0) * seconds)
        killed.kill()  # SIGKILL
        killed.join()
        resumed = start(overrides, folder, resume=True)
        resumed.join()
        assert resumed.exitcode == 0, Path(f"{folder}.log").read_text()[-2000:]
        assert_same(outcome(folder), expected)


def killed_after_file(number: int, overrides: list[str], output: str) -> None:
    """A training that is killed as soon as its number-th whole file has its name."""
    replace, count = os.replace, 0

    def replace_and_die(source, target) -> None:
        nonlocal count
        replace(source, target)
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_and_die
    run_alone(overrides, output, resume=False)


@pytest.mark.slow
def test_killed_between_any_two_files(shapes_overrides, tmp_path):
    """Evaluation and checkpoint, the best and the latest, a file and its tag: all in one step."""
    overrides = [*WITH_A_WORKER, *shapes_overrides, "train.eval_period=3", "train.log_period=1"]
    overrides += ["train.max_iter=9", "train.evaluate_raw=true", "train.validation_loss=true"]
    whole = start(overrides, tmp_path / "whole", resume=False)
    whole.join()
    expected = outcome(tmp_path / "whole")
    for number in range(1, 100):
        folder = tmp_path / str(number)
        killed = forks.Process(target=killed_after_file, args=(number, overrides, str(folder)))
        killed.start()
        killed.join()
        if killed.exitcode == 0:
            break  # it has fewer files than that
        resumed = start(overrides, folder, resume=True)
        resumed.join()
        assert resumed.exitcode == 0, Path(f"{folder}.log").read_text()[-2000:]
        assert_same(outcome(folder), expected)
    assert number > 10


@pytest.fixture(scope="module")
def six_steps(shapes_overrides, tmp_path_factory) -> Path:
    overrides = [*OVERRIDES, *shapes_overrides, "train.max_iter=6", "train.eval_period=0"]
    overrides += ["train.checkpointer.period=2"]
    folder = tmp_path_factory.mktemp("trained") / "out"
    run(overrides, str(folder), resume=False)
    return folder


@pytest.fixture
def trained(six_steps, tmp_path) -> Path:
    """A training's folder, to do with as one likes."""
    return Path(shutil.copytree(six_steps, tmp_path / "out"))


def test_a_torn_checkpoint_is_set_aside(trained, caplog):
    for name in ("model_final.pth", "model_0000003.pth"):
        content = (trained / name).read_bytes()
        (trained / name).write_bytes(content[: len(content) // 2])
    (trained / "model_0000008.pth.unfinished").write_bytes(b"half")
    point = find_resume_point(str(trained))
    assert (point.checkpoint, point.steps) == (str(trained / "model_0000001.pth"), 2)
    for name in ("model_final.pth", "model_0000003.pth"):
        assert f"set aside as {name}.damaged" in caplog.text
        assert (trained / f"{name}.damaged").is_file()
    assert not list(trained.glob("*.unfinished"))
    lines = (trained / "metrics.json").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1]

    for file in trained.glob("*.pth"):
        file.write_bytes(b"")
    for _ in range(2):  # what was set aside is not forgotten: nothing begins anew
        with pytest.raises(ValueError, match="no checkpoint .* can be resumed from; found model_0"):
            find_resume_point(str(trained))


def test_a_disk_that_gives_nothing_away_damages_nothing(trained, monkeypatch):
    files = sorted(trained.iterdir())
    real = open

    def failing(file, *args, **kwargs):
        if str(file).endswith(".pth"):
            raise OSError(errno.EIO, "Input/output error")
        return real(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", failing)
    with pytest.raises(OSError, match="model_final.pth cannot be read .*Input/output error"):
        find_resume_point(str(trained))
    monkeypatch.undo()
    assert sorted(trained.iterdir()) == files


def test_the_tag_and_the_newest_file_decide(trained, tmp_path):
    other = tmp_path / "thesis.pdf"
    other.write_text("mine")
    (trained / "last_checkpoint").write_text(str(other))
    torch.save(torch.load(trained / "model_final.pth"), trained / "model_0000001.pth")
    assert find_resume_point(str(trained)).checkpoint == str(trained / "model_0000001.pth")
    assert other.read_text() == "mine"


def test_a_new_training_does_not_mix_with_an_earlier_one(trained, shapes_overrides, caplog):
    """Nor does a resume after it go on with the earlier one."""
    files = {x.name for x in trained.iterdir() if x.is_file()}
    overrides = [*OVERRIDES, *shapes_overrides, "train.eval_period=0", "train.seed=7"]
    overrides += [f"train.init_checkpoint={trained / 'model_final.pth'}"]

    with pytest.raises(KeyboardInterrupt):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(NanoDetPlusHead, "losses", interrupt)
            run(overrides, str(trained), resume=False)
    assert "held an earlier training, which is now in" in caplog.text
    moved = {x.name for x in (trained / "earlier_1").iterdir()}
    assert moved >= {"model_final.pth", "model_0000003.pth", "last_checkpoint", "metrics.json"}
    assert moved <= files
    assert find_resume_point(str(trained)) is None


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_interrupted_in_a_step(shapes_overrides, tmp_path, monkeypatch):
    """By Ctrl-C after the forward pass, whose batch norms have seen the batch by then."""
    overrides = [*WITH_A_WORKER, *shapes_overrides, "train.eval_period=0", "train.max_iter=8"]
    run(overrides, str(tmp_path / "whole"), resume=False)
    whole, count = NanoDetPlusHead.losses, 0

    def losses(self, *args, **kwargs):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return whole(self, *args, **kwargs)

    folder = tmp_path / "interrupted"
    monkeypatch.setattr(NanoDetPlusHead, "losses", losses)
    with pytest.raises(KeyboardInterrupt):
        run(overrides, str(folder), resume=False)
    assert (folder / "last_checkpoint").read_text() == "model_0000004.pth"
    run(overrides, str(folder), resume=True)
    assert_same(final(folder), final(tmp_path / "whole"))
    assert losses_of(folder) == losses_of(tmp_path / "whole")


def losses_of(folder: Path) -> list[dict]:
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [{k: v for k, v in x.items() if "loss" in k} for x in lines if "total_loss" in x]


def test_the_last_file_is_written_late_rather_than_never(trained, shapes_overrides):
    saved = read_file(str(trained / "model_final.pth"))
    (trained / "model_final.pth").rename(trained / "model_0000005.pth")
    (trained / "last_checkpoint").unlink()
    run([*OVERRIDES, *shapes_overrides, "train.max_iter=6"], str(trained), resume=True)
    late = read_file(str(trained / "model_final.pth"))
    assert late["iteration"] == late["trainer"]["iteration"] == 5
    assert_same(late["model"], saved["model"])


def test_averaging_may_begin_at_a_resume(shapes_overrides, tmp_path, caplog):
    overrides = [*OVERRIDES, *shapes_overrides, "train.eval_period=0"]
    first = [*overrides, "train.ema.enabled=false", "train.max_iter=3"]
    run(first, str(tmp_path), resume=False)
    weights = read_file(str(tmp_path / "model_final.pth"))["model"]
    run([*overrides, "train.max_iter=4"], str(tmp_path), resume=True)
    assert "has no averaged weights: they start here" in caplog.text
    saved = read_file(str(tmp_path / "model_final.pth"))
    for name, before in weights.items():  # the average lies between them
        after, averaged = saved["model"][name], saved["ema"][name]
        assert ((averaged - before).abs() <= (after - before).abs() + 1e-6).all(), name


def test_without_a_seed_a_resumed_training_keeps_its_own(shapes_overrides, tmp_path, trained):
    overrides = [*OVERRIDES, *shapes_overrides, "train.eval_period=0", "train.seed=-1"]
    run([*overrides, "train.max_iter=9"], str(trained), resume=True)
    assert read_file(str(trained / "model_final.pth"))["trainer"]["seed"] == 1


def test_validation_losses_go_on(shapes_overrides, tmp_path):
    """One that was saved with the training's losses of its step is not one of these."""
    overrides = [*OVERRIDES, *shapes_overrides, "train.validation_loss=true"]
    overrides += ["train.eval_period=2", "train.checkpointer.period=2", "train.log_period=1"]
    for steps, resume in ((4, False), (6, True)):
        run([*overrides, f"train.max_iter={steps}"], str(tmp_path), resume=resume)
    lines = [json.loads(x) for x in (tmp_path / "metrics.json").read_text().splitlines()]
    found = {x["iteration"] for x in lines if "validation_total_loss" in x}
    assert found >= {1, 3, 5}


def test_a_resumed_training_keeps_as_many_files(shapes_overrides, trained):
    overrides = [*OVERRIDES, *shapes_overrides, "train.eval_period=0"]
    overrides += ["train.max_iter=14", "train.checkpointer={period: 2, max_to_keep: 3}"]
    run(overrides, str(trained), resume=True)
    numbers = sorted(int(x.stem[6:]) for x in trained.glob("model_0*.pth"))
    assert numbers == [7, 9, 11]


def test_a_full_disk_leaves_the_last_good_checkpoint(trained, shapes_overrides, monkeypatch):
    before = (trained / "model_final.pth").read_bytes()
    real = torch.save

    def full(content, file, *args, **kwargs):
        file.write(b"some bytes")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    overrides = [*OVERRIDES, *shapes_overrides, "train.max_iter=12", "train.eval_period=0"]
    with pytest.raises(RuntimeError, match="model_0000008.pth could not be written.*No space left"):
        run(overrides, str(trained), resume=True)
    monkeypatch.setattr(torch, "save", real)
    assert (trained / "model_final.pth").read_bytes() == before
    assert not list(trained.glob("*.unfinished"))
    run(overrides, str(trained), resume=True)
    assert read_file(str(trained / "model_final.pth"))["iteration"] == 11


@pytest.mark.skipif(resource is None, reason="needs POSIX limits")
def test_a_write_that_the_system_refuses_is_named(tmp_path):
    """A file that may not grow is to torch what a full disk is."""
    path = tmp_path / "file"
    replace_file(path, "one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(RuntimeError, match="file could not be written .*File too large"):
            replace_file(path, {"x": torch.ones(2**20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "one"
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_file_is_whole_or_as_before(tmp_path):
    path = tmp_path / "file"
    replace_file(path, "one")
    replace_file(path, {"x": torch.ones(2)})
    assert torch.equal(read_file(str(path))["x"], torch.ones(2))
    with pytest.raises(RuntimeError, match="could not be written"):
        replace_file(tmp_path / "absent" / "file", "one")


def test_the_log_is_taken_back(tmp_path):
    lines = ['{"iteration": 1, "lr": 1}', '{"iteration": 3}', '{"iteration": 5}']
    lines += ['{"iteration": 2}', '{"iterat']  # 2: written with 5
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    rewind_log(str(tmp_path), 4)
    assert (tmp_path / "metrics.json").read_text() == "\n".join(lines[:2]) + "\n"


def test_a_lack_of_memory_on_the_rank_that_looks_ends_all(trained, monkeypatch):
    """The others got no word of it, and waited."""
    told = []

    def gather(x):
        told.append(x)
        return [x]

    def read(path):
        raise MemoryError

    monkeypatch.setattr("nanodet_d2.engine.resume.read_file", read)
    monkeypatch.setattr("nanodet_d2.engine.ranks.comm.all_gather", gather)
    with pytest.raises(MemoryError):
        find_resume_point(str(trained))
    assert isinstance(told[0], MemoryError)
    assert not list(trained.glob("*.damaged"))


def test_best_checkpoints_are_not_resumed_from(tmp_path):
    model = torch.nn.Linear(1, 1)
    SafeCheckpointer(model, str(tmp_path)).save("model_0000001")
    SafeCheckpointer(model, str(tmp_path), tag=False).save("model_best")
    newest = SafeCheckpointer(model, str(tmp_path)).newest_whole_checkpoint()
    assert newest == str(tmp_path / "model_0000001.pth")


def test_resume_and_fine_tune_say_what_they_did(trained, shapes_overrides, caplog):
    caplog.set_level("INFO")
    overrides = [*OVERRIDES, *shapes_overrides, "train.eval_period=0"]
    init = f"train.init_checkpoint={trained / 'model_final.pth'}"
    run([*overrides, init, "train.max_iter=7"], str(trained), resume=True)
    assert "Resumed after 6 steps from" in caplog.text
    assert "init_checkpoint was where the training began; it is not read again" in caplog.text
    run([*overrides, init, "train.max_iter=1"], str(trained.parent / "again"), resume=False)
    assert "A new training starts from the weights of" in caplog.text
