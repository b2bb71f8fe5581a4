"""The official weights score the reference's AP on real images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.engine import default_argument_parser

from nanodet_d2.engine import main
from tests.data.formats import write_voc, write_yolo
from tests.parity.golden import CASES


@pytest.fixture
def evaluate(shared, root, tmp_path, capfd):
    """The metrics of the official weights of a size, with the given overrides of the data."""

    def _evaluate(size: int, *overrides: str) -> dict[str, float]:
        arguments = [
            "--config-file",
            str(root / "projects" / "nanodet_plus" / "configs" / f"nanodet_plus_m_{size}.py"),
            "--eval-only",
            f"train.init_checkpoint={shared / 'weights' / f'nanodet-plus-m_{size}.pth'}",
            f"train.output_dir={tmp_path}",
            "train.device=cpu",
            "dataloader.test.num_workers=0",
            f"data.val.images={shared / 'coco_tiny' / 'val2017'}",
            *overrides,
        ]
        main(default_argument_parser().parse_args(arguments))
        assert "copypaste: AP,AP50,AP75,APs,APm,APl" in capfd.readouterr().out
        return json.loads((tmp_path / "evaluation.json").read_text())["bbox"]

    return _evaluate


@pytest.mark.slow
def test_average_precision_before_plus(shared, root, tmp_path, capfd):
    """NanoDet-m, whose images keep their proportions: the reference's twelve metrics."""
    arguments = [
        "--config-file",
        str(root / "projects" / "nanodet" / "configs" / "nanodet_m_320.py"),
        "--eval-only",
        f"train.init_checkpoint={shared / 'weights' / 'nanodet_m_320.pth'}",
        f"train.output_dir={tmp_path}",
        "train.device=cpu",
        "dataloader.test.num_workers=0",
        f"data.val.images={shared / 'coco_tiny' / 'val2017'}",
        f"data.val.json={annotations(shared)}",
    ]
    main(default_argument_parser().parse_args(arguments))
    capfd.readouterr()
    found = json.loads((tmp_path / "evaluation.json").read_text())["bbox"]
    golden = json.loads((CASES / "coco_tiny_val.json").read_text())["nanodet_m_320"]["metrics"]
    assert {k: found[k] for k in golden} == pytest.approx(golden, abs=0.01)


def annotations(shared: Path) -> Path:
    return shared / "coco_tiny" / "annotations" / "instances_val2017.json"


@pytest.mark.slow
@pytest.mark.parametrize("size, ap", [(416, 36.1), (320, 31.1)])
def test_average_precision(evaluate, shared, size, ap):
    found = evaluate(size, f"data.val.json={annotations(shared)}")
    golden = json.loads((CASES / "coco_tiny_val.json").read_text())
    expected = golden[f"nanodet-plus-m_{size}"]["metrics"]
    assert found["AP"] == pytest.approx(ap, abs=0.1)
    assert {k: found[k] for k in expected} == pytest.approx(expected, abs=0.3)


@pytest.mark.slow
def test_average_precision_is_the_same_from_all_formats(evaluate, shared, tmp_path):
    content = json.loads(annotations(shared).read_text())
    for x in content["annotations"]:  # which the two other formats do not have
        del x["area"], x["segmentation"]
    content["annotations"] = [x for x in content["annotations"] if not x["iscrowd"]]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    write_voc(content, tmp_path / "voc")
    names = write_yolo(content, tmp_path / "yolo")
    classes = f"data.classes=[{','.join(names)}]"
    found = {
        "coco": evaluate(416, f"data.val.json={tmp_path / 'coco.json'}"),
        "voc": evaluate(416, classes, f"data.val.voc={tmp_path / 'voc'}"),
        "yolo": evaluate(416, classes, f"data.val.yolo={tmp_path / 'yolo'}"),
    }
    for metrics in found.values():
        assert metrics["AP"] == pytest.approx(found["coco"]["AP"], abs=0.1)
