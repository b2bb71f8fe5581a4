"""The files that examples in help texts and pages name, and what makes the examples short."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from detectron2.config import instantiate

from nanodet_d2 import cli, zoo
from nanodet_d2.data.shapes import draw_picture
from nanodet_d2.data.synthetic import make_shapes_dataset
from tests.engine.small_training import FAST
from tests.small_models import require

PORT = 18_437  # of the server
# Smaller and shorter than the example says: appended to it, so that it decides.
SHORT = {
    "train my_config.py": FAST,
    "train my_data": [
        *("data.input_size=[64,64]", "dataloader.train.total_batch_size=4", "train.minutes=0.4"),
        *("dataloader.train.num_workers=0", "dataloader.test.num_workers=0", "train.device=cpu"),
    ],
    "benchmark": ["--rounds", "1"],
    "export": ["--input-size", "64", "96"],
    "serve": ["--port", str(PORT)],
    "ship": [
        *("--formats", "torchscript", "--sizes", "64", "--rounds", "2"),
        *("--max-ms", "10000", "--max-ap-drop", "100"),
    ],
    # The only tracker that needs no package.
    "track": [] if importlib.util.find_spec("trackers") else ["--tracker", "nearest"],
}
MY_CONFIG = """
from detectron2.config import LazyConfig
from nanodet_d2.config import config_path

cfg = LazyConfig.load(str(config_path("nanodet_plus/demo_shapes.py")))
model, data, dataloader, optimizer = cfg.model, cfg.data, cfg.dataloader, cfg.optimizer
lr_multiplier, train = cfg.lr_multiplier, cfg.train
for name in ("train", "val"):
    data[name].json, data[name].images = f"my/{name}.json", f"my/{name}"
"""


def write_files(folder: Path) -> None:
    """Fill a folder with all files that the examples name."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        _write_data()
        arguments = ["train", "my_config.py", *FAST, "train.output_dir=trained"]
        assert cli.main(arguments) == 0
        shutil.copy("trained/model_final.pth", "model_final.pth")
        require("onnx", "onnxscript", "onnxslim", "onnxruntime")
        arguments = ["export", "model_final.pth", "--format", "onnx", "--no-verify"]
        assert cli.main([*arguments, "--output", "output/export"]) == 0
        (exported,) = Path("output/export").glob("*.onnx")
        for end in ("", ".json"):
            shutil.copy(f"{exported}{end}", f"model.onnx{end}")
            shutil.copy(f"{exported}{end}", f"output/export/my_data.onnx{end}")
        assert cli.main(["kit", "model.onnx"]) == 0
        shutil.copytree("model_onnx_kit", "my_port")
        Path("my_port/expected.json").rename("my_port/result.json")
        for name in ("nanodet-plus-m-320", "nanodet-plus-m-416"):  # in place of the official ones
            torch.save({"model": zoo.get(name).state_dict()}, f"weights/{zoo.entry(name).files[1]}")
        three = zoo.get_config("nanodet-plus-m-416")
        three.data.classes = ["cat", "dog", "cow"]
        torch.save({"state_dict": instantiate(three.model).state_dict()}, "my.ckpt")
        for end in ("pth", "ckpt"):
            shutil.copy("weights/nanodet-plus-m_416.pth", f"nanodet-plus-m_416.{end}")
    finally:
        os.chdir(before)


def _write_data() -> None:
    splits = make_shapes_dataset(Path("drawn"), num_train=12, num_val=4, image_size=96)
    shutil.copytree("drawn", "my_data")
    for folder in ("my", "photos", "weights"):
        Path(folder).mkdir()
    for split, paths in splits.items():
        shutil.copy(paths["json"], f"my/{split}.json")
        shutil.copytree(paths["images"], f"my/{split}")
    shutil.copytree("my", "my/set", ignore=shutil.ignore_patterns("set"))
    Path("my_config.py").write_text(MY_CONFIG)
    picture = draw_picture(0, "val", 0, 96)[0]
    for name in ("street.jpg", "large.jpg"):
        cv2.imwrite(name, picture)
    cv2.imwrite("photos/a.png", picture)
    clip = cv2.VideoWriter("clip.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 96))
    for _ in range(3):
        clip.write(picture)
    clip.release()


def shortened(arguments: Sequence[str]) -> list[str]:
    """The arguments of an example, a verb first, with what makes it short."""
    verb = arguments[0]
    added = list(SHORT.get(verb, SHORT.get(" ".join(arguments[:2]), [])))
    if verb == "train":
        added.append(f"train.output_dir={'trained' if '--resume' in arguments else 'new'}")
    return [*arguments, *added]
