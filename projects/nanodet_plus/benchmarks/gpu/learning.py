"""A short training that has to learn something, its evaluation, and inference with its weights."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import common
import torch
from detectron2.utils.env import seed_all_rng
from torch import nn

from nanodet_d2.checkpoint import FINAL, load_weights
from nanodet_d2.engine import Evaluation, train
from nanodet_d2.engine.building import build_model

from .report import MEASURED, Row, judged
from .setting import Setting, repeated


def learns(setting: Setting) -> Iterator[Row]:
    """A training on the drawn pictures, as ``nanodet-d2 train`` does it."""
    steps = setting.sizes.steps
    output = setting.folder / "learns"
    cfg = setting.config(
        f"train.output_dir={output}",
        f"train.max_iter={steps}",
        "train.eval_period=0",
        f"train.log_period={max(1, steps // 10)}",
        "train.seed=1",
        "train.amp.enabled=true",
        "train.amp.dtype=bfloat16",
        "train.ema.settings.decay=0.98",
        "train.ema.settings.warmup=50",
        "optimizer.lr=0.002",
        f"lr_multiplier.warmup_iters={steps // 10}",
        f"dataloader.train.total_batch_size={setting.sizes.batch}",
    )
    seed_all_rng(1)
    begin = time.perf_counter()
    results = train(cfg)
    seconds = time.perf_counter() - begin
    lines = map(json.loads, (output / "metrics.json").read_text().splitlines())
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    precision = float(results["bbox"]["AP"])
    # The total loss says little: it rises while the first boxes come to lie on objects.
    finding = f"loss {losses[0]:.2f} to {losses[-1]:.2f}, AP {precision:.1f} after {seconds:.0f} s"
    least = setting.sizes.least_ap
    if least is None:
        name = f"{steps} steps in bfloat16 on the drawn shapes"
        yield Row(name, MEASURED, finding, figures={"AP": precision})
    else:
        name = f"{steps} steps in bfloat16 learn the drawn shapes"
        yield judged(name, precision >= least, finding, AP=precision)


def evaluation(setting: Setting) -> Iterator[Row]:
    """Of many copies of the drawn pictures: loading, network, NMS, metrics."""
    val = setting.pictures()["val"]
    file = repeated(val, setting.sizes.val_repeats, setting.folder / "repeated.json")
    cfg = setting.config(
        f"data.val.json={file}", f"train.output_dir={setting.folder / 'evaluation'}"
    )
    evaluate = Evaluation(cfg)
    model = trained_model(setting, cfg)
    images = len(json.loads(file.read_text())["images"])
    begin = time.perf_counter()
    evaluate(model)
    rate = images / (time.perf_counter() - begin)
    text = f"{rate:.0f} images/s, {images} images, metrics included"
    yield Row(f"evaluation on {setting.device}", MEASURED, text, figures={"rate": rate})


def inference(setting: Setting) -> Iterator[Row]:
    """From uint8 images in host memory to boxes, norms folded, in two precisions."""
    model = trained_model(setting, setting.config()).fuse()
    title = f"inference on {setting.device}, images/s"
    for amp in (None, torch.bfloat16):
        name = "float32" if amp is None else "bfloat16"
        for images in setting.sizes.inference:
            batch = [{"image": x["image"]} for x in setting.batch(images)]
            rate = images * common.calls_per_second(
                _in_precision(model, batch, amp, setting.device),
                seconds=setting.sizes.seconds,
                device=setting.device,
            )
            yield Row(
                f"{title}: {name}, batch {images}",
                MEASURED,
                f"{rate:.0f}",
                (title, name, str(images)),
                {"rate": rate},
            )


def _in_precision(
    model: nn.Module, batch: list[dict[str, Any]], amp: torch.dtype | None, device: str
) -> Callable[[], Any]:
    def run() -> Any:
        context = contextlib.nullcontext() if amp is None else torch.autocast(device, amp)
        with torch.inference_mode(), context:
            return model(batch)

    return run


def trained_model(setting: Setting, cfg: Any) -> Any:
    """With the weights of :func:`learns`, in evaluation mode; random ones where it failed."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    weights = setting.folder / "learns" / f"{FINAL}.pth"
    if weights.is_file():
        load_weights(model, str(weights), require_all=True)
    return model
