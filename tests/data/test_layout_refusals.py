"""Folders that are no data set, or could be several: what is asked back."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from nanodet_d2.data.readers import find_layout
from nanodet_d2.data.sources import layout_of
from nanodet_d2.data.splits import class_names, split_content, split_name
from tests.data import layouts, one_set
from tests.data.one_set import CLASSES, data_section, of

pytestmark = pytest.mark.usefixtures("catalog_as_before")


def test_no_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="data set .*nowhere not found"):
        find_layout(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"looks like an empty folder\. Allowed: COCO, Pascal VOC"):
        find_layout(str(tmp_path))
    one_set.put(tmp_path, of("train"))
    with pytest.raises(ValueError, match="looks like a folder of .jpg files"):
        find_layout(str(tmp_path))
    with pytest.raises(ValueError, match="no data set of the layout voc"):
        find_layout(str(tmp_path), "voc")


def test_a_file_in_place_of_the_folder(tmp_path):
    one_set.put_coco(tmp_path / "mine.json", of("train"))
    with pytest.raises(ValueError, match=r"neither a folder nor YOLO's data.yaml; it looks"):
        layout_of(data_section(tmp_path / "mine.json"))
    (tmp_path / "mine.yaml").write_text("model: nano\n")
    with pytest.raises(ValueError, match="mine.yaml is no description of a YOLO data set"):
        layout_of(data_section(tmp_path / "mine.yaml"))


def test_an_unknown_layout_or_difficult(tmp_path):
    with pytest.raises(ValueError, match="data.layout=cvat; allowed: coco, voc, yolo"):
        layout_of(data_section(tmp_path, layout="cvat"))
    with pytest.raises(ValueError, match="data.difficult=drop; allowed: keep, ignore"):
        layout_of(data_section(tmp_path, difficult="drop"))


def test_two_layouts_in_one_folder(tmp_path):
    """YOLO's files beside Pascal VOC's, as labelImg leaves them."""
    layouts.voc_one_folder(tmp_path)
    one_set.put_yolo(tmp_path, tmp_path, of())
    with pytest.raises(ValueError, match=r"data\.layout=voc\); YOLO .* \(data\.layout=yolo\): ch"):
        split_name(data_section(tmp_path), "train")
    for name in ("voc", "yolo"):
        data = data_section(tmp_path, layout=name, classes=CLASSES)
        assert layout_of(data).name == name
        assert len(split_content(data, "train")[0]["images"]) == 10


def test_two_coco_files_of_a_split(tmp_path):
    layouts.coco_images_below(tmp_path)
    shutil.copy(tmp_path / "annotations" / "train.json", tmp_path / "annotations" / "train_2.json")
    with pytest.raises(ValueError, match=r"several COCO files for train: .*train.json and "):
        find_layout(str(tmp_path))
    (tmp_path / "annotations" / "train_2.json").rename(tmp_path / "annotations" / "all.json")
    with pytest.raises(ValueError, match="all.json does not say what split it is of, beside"):
        find_layout(str(tmp_path))


def test_several_descriptions(tmp_path):
    layouts.yolo_folders(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "a.yaml")
    shutil.copy(tmp_path / "a.yaml", tmp_path / "b.yaml")
    (tmp_path / "hyp.yaml").write_text("lr0: 0.01\n")  # of something else
    with pytest.raises(ValueError, match=r"descriptions of YOLO data sets: a.yaml, b.yaml; give"):
        find_layout(str(tmp_path))
    assert set(find_layout(str(tmp_path / "b.yaml")).splits) == {"train", "val", "test"}
    (tmp_path / "b.yaml").rename(tmp_path / "data.yaml")  # the usual name is the one
    assert find_layout(str(tmp_path)).what == "YOLO, described by data.yaml"


def test_several_devkits_or_folders_of_a_split(tmp_path):
    for year in (2007, 2012):
        layouts.voc_devkit(tmp_path / "VOCdevkit" / f"VOC{year}")
    with pytest.raises(ValueError, match=r"devkits of Pascal VOC: VOC2007, VOC2012"):
        find_layout(str(tmp_path))
    for name in ("val", "valid"):
        one_set.put_voc(tmp_path / "two" / name, tmp_path / "two" / name, of("val"))
    with pytest.raises(ValueError, match="two folders for val: val and valid"):
        find_layout(str(tmp_path / "two"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (dict(train="images/none"), "names images/none, which is not there; looked for in "),
        (dict(train=7), "train is 7; allowed: a path, or a list of paths"),
        (dict(train=["images/train", 7]), "allowed: a path, or a list of paths"),
        (
            dict(names={0: "a", 2: "b"}),
            "names has the keys 0, 2; allowed: 0, 1, 2, … with",
        ),
        (dict(names={"a": 0, "b": 1}), "names has the keys a, b; allowed: 0, 1"),
        (dict(names="dog"), "names is 'dog'; allowed: a list, or a mapping"),
        (dict(names=[]), r"names is \[\]; allowed: a list, or a mapping"),
        (dict(names=["a", ["b"]]), "allowed: a list, or a mapping"),
    ],
)
def test_a_description_that_does_not_fit(tmp_path, keys, message):
    layouts.yolo_folders(tmp_path)
    one_set.put_description(tmp_path / "data.yaml", **{"train": "images/train", **keys})
    with pytest.raises(ValueError, match=message) as caught:
        find_layout(str(tmp_path))
    assert "data.yaml" in str(caught.value)


def test_a_list_of_images_that_are_elsewhere(tmp_path):
    layouts.yolo_text_files(tmp_path)
    (tmp_path / "val.txt").write_text("/home/somebody/a.jpg\n/home/somebody/b.jpg\n")
    with pytest.raises(ValueError, match=r"val.txt has none of its images; found: 2 listed images"):
        split_name(data_section(tmp_path), "val")


def test_yolo_without_names(tmp_path):
    layouts.yolo_undescribed(tmp_path)
    (tmp_path / "classes.txt").unlink()
    for call in (class_names, lambda data: split_name(data, "val")):
        with pytest.raises(ValueError, match="needs data.classes, the names in YOLO's order"):
            call(data_section(tmp_path))
    assert class_names(data_section(tmp_path, classes=CLASSES)) == CLASSES


def test_lists_that_name_other_images(tmp_path):
    layouts.voc_devkit(tmp_path)
    path = tmp_path / "ImageSets" / "Main" / "train.txt"
    path.write_text("x\ny\n")
    with pytest.raises(ValueError, match="found: 2 listed images without their file"):
        split_name(data_section(tmp_path, train="train", val="test"), "train")
    path.write_text("")  # an empty list is none
    assert set(find_layout(str(tmp_path)).splits) == {"val", "test"}


def test_classes_that_differ_between_splits(tmp_path):
    layouts.coco_roboflow(tmp_path)
    path = tmp_path / "valid" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    content["categories"][1]["name"] = "dragon"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="Only in data.val: dragon; lacking in it: 狗"):
        split_name(data_section(tmp_path), "val")


def test_splits_where_they_are_not_looked_for(tmp_path):
    """All images as train would be trained on those for the test."""
    for scene in ("street", "field"):
        for split in ("train", "test"):
            place = tmp_path / scene / split
            one_set.put_voc(place, place, of(split))
    with pytest.raises(ValueError, match=r"has the folder field.test: give a .* data.layout=voc"):
        find_layout(str(tmp_path))
    assert set(find_layout(str(tmp_path), "voc").splits) == {"train"}
    assert set(find_layout(str(tmp_path / "street")).splits) == {"train", "test"}


def test_a_test_split_alone(tmp_path):
    one_set.put_voc(tmp_path / "test", tmp_path / "test", of("test"))
    with pytest.raises(ValueError, match="has no split train for data.train; it is Pascal VOC, a"):
        split_name(data_section(tmp_path), "train")


@pytest.mark.parametrize(
    ("write", "name", "message"),
    [
        (layouts.voc_devkit, "ImageSets/Main/train.txt", "no text in UTF-8: 'utf-8' codec can't"),
        (layouts.yolo_text_files, "train.txt", "no text in UTF-8"),
        (layouts.yolo_undescribed, "classes.txt", "no text in UTF-8"),
        (layouts.yolo_folders, "data.yaml", "no YAML: 'utf-8' codec can't"),
        (layouts.coco_annotations, "annotations/instances_train2017.json", "not valid json"),
    ],
)
def test_texts_of_another_encoding(tmp_path, write, name, message):
    """The file is named."""
    write(tmp_path)
    text = (tmp_path / name).read_text("utf-8").replace("狗", "Hündin")
    (tmp_path / name).write_bytes(text.replace("\\u72d7", "ü").encode("latin-1"))
    with pytest.raises(ValueError, match=message) as caught:
        split_name(data_section(tmp_path), "train")
    assert str(tmp_path / name) in str(caught.value) and type(caught.value) is ValueError


def test_a_description_that_is_no_yaml(tmp_path):
    layouts.yolo_undescribed(tmp_path)
    (tmp_path / "other.yaml").write_text("a: [1\n")
    assert find_layout(str(tmp_path)).what == "YOLO without a description"
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [a, b\n")
    with pytest.raises(ValueError, match="data.yaml is no YAML: while parsing a flow sequence"):
        find_layout(str(tmp_path))


@pytest.mark.parametrize("write", layouts.WITH_SPLITS, ids=lambda x: x.__name__)
def test_damaged_files_never_end_in_a_traceback(tmp_path, write):
    """An error of one line that names a file or a key, or a reading of what is left."""
    for seed in range(6):
        rng, place = random.Random(seed), tmp_path / str(seed)
        data = data_section(write(place))
        files = sorted(x for x in place.rglob("*") if x.is_file() and x.suffix != ".jpg")
        for path in rng.sample(files, 2):
            whole = path.read_bytes()
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
            options = [b"", bytes(damaged), rng.randbytes(99), whole[: rng.randrange(len(whole))]]
            path.write_bytes(rng.choice(options))
        try:
            for split in ("train", "val"):
                split_name(data, split)
                split_content(data, split)
        except (ValueError, FileNotFoundError) as error:
            assert type(error) in (ValueError, FileNotFoundError), error
            assert "\n" not in str(error) and (str(place) in str(error) or "data." in str(error))
