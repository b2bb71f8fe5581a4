"""Data sets that the user's own code registers in detectron2."""

from __future__ import annotations

import sys
import textwrap

import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog

from nanodet_d2.config import apply_overrides
from nanodet_d2.data import num_classes, split_name
from nanodet_d2.data.splits import class_names, names_for_model, split_content
from nanodet_d2.resolve import resolve

IMPORTS = "data.imports=[my_sets_of_tests]"
NAMES = ("my_train", "my_val", "my_odd")


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    """A module that registers a data set for each of ``NAMES`` when it is imported."""
    (tmp_path / "my_sets_of_tests.py").write_text(
        textwrap.dedent(
            """
            from detectron2.data import DatasetCatalog, MetadataCatalog

            CLASSES = {"my_train": "cat dog", "my_val": "cat dog", "my_odd": "dog cat"}
            BOX = {"bbox": [1, 2, 30, 40], "bbox_mode": 0, "category_id": 1}
            for name, classes in CLASSES.items():
                record = {"file_name": name + ".png", "height": 50, "width": 60, "image_id": 1}
                records = [{**record, "annotations": [BOX]}]
                DatasetCatalog.register(name, lambda records=records: records)
                MetadataCatalog.get(name).thing_classes = classes.split()
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_sets_of_tests", None)
    for name in NAMES:
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


@pytest.fixture
def config(root):
    path = root / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
    return lambda *overrides: apply_overrides(LazyConfig.load(str(path)), list(overrides))


def test_code_is_imported_before_its_data_sets_are_looked_up(user_code, config):
    cfg = config(IMPORTS, "data.train.name=my_train", "data.val.name=my_val")
    assert "my_train" not in DatasetCatalog
    assert num_classes(cfg.data) == 2
    assert instantiate(cfg.model).head.num_classes == 2
    assert split_name(cfg.data, "val") == "my_val"
    assert len(instantiate(cfg.dataloader.test.dataset)) == 1
    content, name, folder = split_content(cfg.data, "train")  # as the doctor sees it
    assert (name, folder, len(content["annotations"])) == ("my_train", "", 1)


def test_it_is_imported_where_a_config_is_resolved(user_code, root):
    path = str(root / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py")
    resolve(path, [IMPORTS])
    assert "my_val" in DatasetCatalog


def test_detectron2s_way_of_naming_a_data_set_tells_the_classes(user_code, config):
    train = "dataloader.train.dataset.names=my_train"
    for names in ("my_train", ["my_train", "my_val"]):  # a list only in a file: omegaconf merges
        cfg = config(IMPORTS, "dataloader.test.dataset.names=my_val")
        cfg.dataloader.train.dataset.names = names
        assert class_names(cfg.data) == ["cat", "dog"]
        assert instantiate(cfg.model).head.num_classes == 2
    assert len(instantiate(cfg.dataloader.train.dataset)) == 2
    assert instantiate(cfg.dataloader.evaluator)._metadata.name == "my_val"
    assert split_content(cfg.data, "val")[1] == "my_val"
    with pytest.raises(ValueError, match="data.val has the classes person, .* for cat, dog: it st"):
        instantiate(config(IMPORTS, train).dataloader.test.dataset)
    cfg = config("data.classes=[a,b,c]", train)  # what is said in so many words wins
    assert num_classes(cfg.data) == 3


def test_one_split_alone_tells_the_classes(user_code, config):
    cfg = config(IMPORTS, "data.val.name=my_val")  # as for an evaluation
    assert class_names(cfg.data) == ["cat", "dog"] and split_name(cfg.data, "val") == "my_val"
    cfg = config(IMPORTS, "dataloader.test.dataset.names=my_val")
    assert class_names(cfg.data) == ["cat", "dog"]
    with pytest.raises(
        ValueError, match="data.train has the classes person, .*still is coco_2017_t"
    ):
        split_name(cfg.data, "train")


def test_errors_say_what_to_type(user_code, config):
    cfg = config("data.train.name=my_train")
    with pytest.raises(ValueError, match=r"'my_train' is not registered .*data.imports=\[my_pack"):
        num_classes(cfg.data)
    cfg = config(IMPORTS, "data.train.name=my_train")
    message = (
        "data.val has the classes person, .* but the model is for cat, dog: it still is "
        "coco_2017_val. Give data.val.json=… and data.val.images=…, or data.val.name=…, a data set"
    )
    with pytest.raises(ValueError, match=message):
        split_name(cfg.data, "val")
    cfg = config(IMPORTS, "data.train.name=my_train", "data.val.name=my_odd")
    with pytest.raises(ValueError, match="'my_odd' numbers its classes dog, cat, but .* cat, dog"):
        split_name(cfg.data, "val")
    for name, reason in (("no_such_module_anywhere", "ModuleNotFoundError"), ("bad", "ValueError")):
        (user_code / "bad.py").write_text("raise ValueError('at\\nimport')")
        cfg = config(f"data.imports=[{name}]", "data.train.name=my_train")
        with pytest.raises(ValueError, match=f"{name} cannot be imported .{reason}.*PYTHONPATH=. "):
            num_classes(cfg.data)


def test_a_section_by_itself_has_no_loaders(user_code, config):
    data = dict(config(IMPORTS, "data.train.name=my_train").data)
    assert num_classes(data) == 2
    alone = config(IMPORTS, "data.train.name=my_train").data.copy()
    alone._set_parent(None)
    assert num_classes(alone) == 2


def test_names_for_a_model_of_other_classes(config):
    data = config("data.classes=[a,b]").data
    assert names_for_model(data, 2) == ["a", "b"]
    assert names_for_model(data, 3) == names_for_model(None, 3) == ["class 0", "class 1", "class 2"]
    assert names_for_model(config("data.train.name=nowhere").data, 1) == ["class 0"]
