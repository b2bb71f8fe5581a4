"""Image files of all kinds: what each becomes, and how a training goes on without the broken."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig
from PIL import Image

from nanodet_d2.config import apply_overrides
from nanodet_d2.data import DetectionMapper, Mosaic, RandomWarp, build_train_loader
from nanodet_d2.data.broken import NOTE, BrokenImages
from nanodet_d2.data.files import Problems, listed_image_size
from nanodet_d2.data.images import ImageError, image_size, read_image
from nanodet_d2.data.synthetic import make_shapes_dataset
from nanodet_d2.engine import train
from tests.data.broken_files import KINDS, break_file, encoded, noise, png_that_declares

REASONS = {
    "truncated JPEG": "truncated",
    "truncated PNG": "truncated",
    "zero bytes": "the file is empty",
    "text": "not an image of the formats BMP",
    "PostScript": "not an image of the formats BMP",  # Ghostscript is never asked
    "damaged PNG": "",
    "bomb": "600000000 pixels|30000 x 20000 pixels",
    "another size": "[Mm]ismatched image shape",
    "32-bit TIFF": "32 bits per pixel",
    "link to nothing": "no such file",
    "folder": "not a regular file",
    "GIF without pixels": "",
}


@pytest.mark.parametrize("kind", KINDS)
def test_broken_kinds_are_named_with_their_reason(tmp_path, kind):
    path = tmp_path / "picture.png"
    path.touch()
    break_file(kind, path)
    with pytest.raises(ImageError, match=f"picture.png cannot be used: .*({REASONS[kind]})") as e:
        read_image({"file_name": str(path), "width": 96, "height": 96}, "BGR")
    assert "\n" not in str(e.value) and e.value.path == str(path)


def grey16(turn: bool = False) -> bytes:
    exif = Image.Exif()
    if turn:
        exif[0x0112] = 6
    pixels = np.array([[0, 256, 32768, 65535]] * 2, np.uint16)
    return encoded(Image.fromarray(pixels), "PNG", exif=exif)


def turned(form: str = "TIFF", unit: int = 1) -> bytes:
    """4 x 2 squares of ``unit`` pixels, of which the upper left one is red."""
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    picture = Image.new("RGB", (4 * unit, 2 * unit))
    picture.paste((200, 0, 0), (0, 0, unit, unit))
    return encoded(picture, form, exif=exif)


@pytest.mark.parametrize(
    ("name", "data", "shape", "pixel"),
    [
        ("wrong.jpg", encoded(Image.new("RGB", (4, 2), (9, 8, 7)), "PNG"), (2, 4), (9, 8, 7)),
        ("grey.png", encoded(Image.new("L", (4, 2), 77), "PNG"), (2, 4), (77, 77, 77)),
        ("bits.png", encoded(Image.new("1", (4, 2), 1), "PNG"), (2, 4), (255, 255, 255)),
        ("clear.png", encoded(Image.new("RGBA", (4, 2), (9, 8, 7, 0)), "PNG"), (2, 4), (9, 8, 7)),
        ("print.jpg", encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), (8, 8), None),
        ("deep.png", grey16(), (2, 4), (0, 0, 0)),
        ("turned.tif", turned(), (4, 2), (0, 0, 0)),
        ("turned.jpg", turned("JPEG", unit=16), (64, 32), (0, 0, 0)),
        ("deep turned.png", grey16(turn=True), (4, 2), (0, 0, 0)),
    ],
)
def test_odd_kinds_are_read(tmp_path, name, data, shape, pixel):
    path = tmp_path / name
    path.write_bytes(data)
    record = {"file_name": str(path)}
    image = read_image(record, "RGB")
    assert image.shape == (*shape, 3) and image.dtype == np.uint8
    assert (record["height"], record["width"]) == shape == image_size(str(path))
    if pixel is not None:
        assert tuple(image[0, 0]) == pixel


def test_what_the_pixels_of_odd_kinds_are(tmp_path):
    (tmp_path / "a").write_bytes(grey16())
    assert read_image({"file_name": str(tmp_path / "a")}, "RGB")[0, :, 0].tolist() == [
        0, 1, 128, 255,
    ]  # fmt: skip
    (tmp_path / "b").write_bytes(turned())
    assert read_image({"file_name": str(tmp_path / "b")}, "RGB")[0].tolist() == [
        [0, 0, 0],
        [200, 0, 0],  # the upper left corner is at the upper right
    ]
    (tmp_path / "j").write_bytes(turned("JPEG", unit=16))
    red = read_image({"file_name": str(tmp_path / "j")}, "RGB")[8::16, 8::16].astype(int)
    expected = np.zeros((4, 2, 3), int)
    expected[0, 1] = (200, 0, 0)
    assert np.abs(red - expected).max() <= 4
    (tmp_path / "c").write_bytes(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    red = read_image({"file_name": str(tmp_path / "c")}, "RGB")
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 4


def test_the_limit_holds_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_declares(10_000, 9_000))
    with pytest.raises(ImageError, match="10000 x 9000 pixels declared, max_pixels is 89478485"):
        read_image({"file_name": str(path)}, "BGR")
    path.write_bytes(encoded(noise(), "PNG"))
    mapper = DetectionMapper(is_train=False, augmentations=[], max_pixels=96 * 96)
    assert mapper({"file_name": str(path)})["image"].shape == (3, 96, 96)
    mapper = DetectionMapper(is_train=False, augmentations=[], max_pixels=96 * 96 - 1)
    with pytest.raises(ImageError, match="96 x 96 pixels declared, max_pixels is 9215"):
        mapper({"file_name": str(path)})
    for wrong in (0, 10**9):
        with pytest.raises(ValueError, match=f"max_pixels {wrong}; allowed: 1 to 178956970"):
            DetectionMapper(is_train=False, augmentations=[], max_pixels=wrong)
    problems = Problems()
    Image.new("1", (12_000, 9_000)).save(path)  # the readers list what a mapper may allow
    assert listed_image_size(path, problems) == (9_000, 12_000) and not list(problems)
    path.write_bytes(png_that_declares(30_000, 20_000))
    assert listed_image_size(path, problems) is None and "600000000" in str(problems)


def records(folder: Path, broken: int) -> list[dict]:
    result = []
    for i in range(10):
        path = folder / f"{i}.png"
        path.write_bytes(encoded(Image.new("RGB", (40, 30), (20 * i, 0, 0)), "PNG"))
        if i < broken:
            path.write_bytes(b"")
        box = {"bbox": [5, 5, 20, 20], "bbox_mode": 0, "category_id": 0}
        result.append({"file_name": str(path), "image_id": i, "annotations": [box]})
    return result


def loader(dataset, **arguments):
    mapper = DetectionMapper(is_train=True, augmentations=[RandomWarp((32, 32), translate=0.2)])
    options = dict(total_batch_size=2, seed=5, max_broken_share=0.5)
    return build_train_loader(dataset, mapper=mapper, **{**options, **arguments})


def first(loader, batches: int = 20) -> list[dict]:
    return list(itertools.chain.from_iterable(itertools.islice(iter(loader), batches)))


def test_replacements_follow_from_the_seed_and_are_listed_once(tmp_path):
    dataset, file = records(tmp_path, broken=3), tmp_path / "out" / "broken_images.txt"
    expected = first(loader(dataset, broken_file=str(file)))
    assert all(x["image_id"] >= 3 and NOTE not in x for x in expected)
    listed = file.read_text().splitlines()
    assert sorted(listed) == [f"{tmp_path / f'{i}.png'}\tthe file is empty" for i in range(3)]
    np.random.seed(99)
    for workers in (0, 2):
        again = first(loader(dataset, num_workers=workers, broken_file=str(file)))
        assert all(torch.equal(a["image"], b["image"]) for a, b in zip(expected, again))
    assert file.read_text().splitlines() == listed
    # The samples that needed no replacement are those of a whole data set.
    (tmp_path / "whole").mkdir()
    whole = first(loader(records(tmp_path / "whole", broken=0)))
    same = [torch.equal(a["image"], b["image"]) for a, b in zip(expected, whole)]
    assert same == [b["image_id"] >= 3 for b in whole]


def test_the_tiles_of_a_mosaic_are_replaced_too(tmp_path):
    broken = loader(records(tmp_path, broken=3), mixers=[Mosaic()], num_workers=1)
    assert all(len(x["instances"]) > 1 for x in first(broken, 10))
    assert len(broken.broken.reasons) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_names_that_no_line_holds_are_escaped(tmp_path, workers):
    names = ["tab\t.png", "line\nbreak\r.png", "page\x0c\u2028.png", os.fsdecode(b"latin \xe9.png")]
    dataset, file = records(tmp_path, broken=0), tmp_path / "broken.txt"
    for record, name in zip(dataset, names):
        record["file_name"] = str(tmp_path / name)
        Path(record["file_name"]).touch()
    log = logging.FileHandler(tmp_path / "log.txt", encoding="utf-8")
    logging.getLogger("nanodet_d2").addHandler(log)
    try:
        first(loader(dataset, num_workers=workers, broken_file=str(file)))
    finally:
        logging.getLogger("nanodet_d2").removeHandler(log)
        log.close()
    shown = [r"tab\t.png", r"line\nbreak\r.png", r"page\x0c\u2028.png", r"latin \udce9.png"]
    lines = [f"{tmp_path / name}\tthe file is empty" for name in shown]
    assert sorted(file.read_text(encoding="utf-8").splitlines()) == sorted(lines)
    logged = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert len(logged) == 4 and all(any(name in line for line in logged) for name in shown)
    again = loader(dataset, broken_file=str(file), max_broken_share=0.3)
    with pytest.raises(ValueError, match="4 of the 10") as error:
        first(again)
    str(error.value).encode("utf-8")
    with pytest.raises(ImageError, match="image .*cannot be used") as error:
        read_image(dict(dataset[1]), "BGR")
    assert "\n" not in str(error.value) and error.value.path == dataset[1]["file_name"]


def test_a_list_of_other_bytes_is_read(tmp_path):
    file = tmp_path / "broken.txt"
    file.write_bytes(b"latin \xe9.png\twhy\na.png\twhy\n")
    assert list(BrokenImages(["a.png", "b.png"], 0.5, str(file)).reasons) == ["a.png"]


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_stop_with_the_list(tmp_path, workers):
    file = tmp_path / "broken.txt"
    broken = loader(
        records(tmp_path, broken=3),
        max_broken_share=0.2,
        broken_file=str(file),
        num_workers=workers,
    )
    with pytest.raises(ValueError, match=r"3 of the 10 training images .* a share of 0.2") as e:
        first(broken)
    assert all(str(tmp_path / f"{i}.png") in str(e.value) for i in range(3))
    assert len(file.read_text().splitlines()) == 3
    with pytest.raises(ValueError, match="max_broken_share 1.5; allowed: 0 to 1"):
        BrokenImages(["a.png"] * 10, 1.5)


def noted(*names: str) -> list[dict]:
    return [{NOTE: {name: "the file is empty"}} for name in names]


def test_the_share_is_that_of_all_ranks_and_starts(tmp_path, caplog):
    images = [f"{i}.png" for i in range(10)]
    file = tmp_path / "out" / "broken_images.txt"
    ranks = [BrokenImages(images, 0.3, str(file)) for _ in range(2)]
    ranks[0].take_notes(noted("0.png", "1.png"))
    ranks[1].take_notes(noted("1.png", "2.png"))
    assert [line.split("\t")[0] for line in file.read_text().splitlines()] == images[:3]
    assert "3 of 10 images so far" in caplog.text and caplog.text.count("1.png") == 1
    with pytest.raises(ValueError, match="4 of the 10 training images .* are 0.png, 1.png, 2.png"):
        ranks[0].take_notes(noted("3.png"))

    resumed = BrokenImages(images, 0.4, str(file))
    resumed.take_notes(noted("0.png"))
    with pytest.raises(ValueError, match="5 of the 10 .*to be deleted after their repair"):
        resumed.take_notes(noted("4.png"))
    with pytest.raises(ValueError, match="5 of the 10 "):  # a known one: no start is a way around
        BrokenImages(images, 0.4, str(file)).take_notes(noted("0.png"))


def test_an_old_list_stops_no_training_of_whole_or_other_images(tmp_path):
    file = tmp_path / "broken_images.txt"
    file.write_text("".join(f"{i}.png\tthe file is empty\n" for i in range(9)))
    repaired = BrokenImages([f"{i}.png" for i in range(10)], 0.1, str(file))
    repaired.take_notes([{"image_id": 0}])
    other = BrokenImages([f"other/{i}.png" for i in range(10)], 0.1, str(file))
    other.take_notes(noted("other/3.png"))
    assert list(other.reasons) == ["other/3.png"]
    with pytest.raises(ValueError, match="2 of the 10 "):
        other.take_notes(noted("other/4.png"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_without_a_single_image_ends(tmp_path, workers):
    """With the list, so that a disk that is not there is seen to be one."""
    dataset, file = records(tmp_path, broken=10), tmp_path / "broken.txt"
    broken = loader(dataset, num_workers=workers, broken_file=str(file))
    with pytest.raises(ValueError, match=r"10 of the 10 training images .* listed in .*broken.txt"):
        first(broken)
    assert len(file.read_text().splitlines()) == 10
    file.unlink()
    mosaic = dict(mixers=[Mosaic()], num_workers=workers, max_broken_share=1.0)
    with pytest.raises(ImageError, match="no image can be used of 100 .* the file is empty; list"):
        first(loader(dataset, broken_file=str(file), **mosaic))
    assert len(file.read_text().splitlines()) == 10


def demo_config(root, overrides):
    path = root / "projects" / "nanodet_plus" / "configs" / "demo_shapes.py"
    return apply_overrides(LazyConfig.load(str(path)), overrides)


@pytest.mark.slow
def test_training_goes_on_without_twenty_of_two_hundred(root, tmp_path):
    """Ten kinds of broken images, two of each, and two worker processes."""
    shapes = make_shapes_dataset(tmp_path / "set", num_train=200, num_val=2, image_size=96)
    names = [f"data.{s}.{k}={v}" for s, x in shapes.items() for k, v in x.items()]
    images = sorted(Path(shapes["train"]["images"]).iterdir())
    assert len(images) == 200
    broken = {str(path) for path in images[::10]}
    for i, path in enumerate(sorted(broken)):
        break_file(KINDS[i % 10], Path(path))
    overrides = [
        *names,
        "data.input_size=[64,64]",
        "dataloader.train.total_batch_size=20",
        "dataloader.train.num_workers=2",
        "dataloader.test.num_workers=0",
        "dataloader.train.max_broken_share=0.1",
        "model.backbone.out_features=[res3]",
        "model.neck.out_channels=32",
        "model.aux_head=null",
        "train.max_iter=10",  # an epoch: every image is met
        "train.eval_period=0",
        "train.seed=1",
        "train.device=cpu",
        f"train.output_dir={tmp_path / 'out'}",
    ]
    train(demo_config(root, overrides))
    listed = (tmp_path / "out" / "broken_images.txt").read_text().splitlines()
    assert {line.split("\t")[0] for line in listed} == broken and len(listed) == 20
    assert (tmp_path / "out" / "model_final.pth").is_file()

    stopping = [
        *overrides,
        "dataloader.train.max_broken_share=0.05",
        f"train.output_dir={tmp_path / 'stopped'}",
    ]
    with pytest.raises(ValueError, match=r"1\d of the 200 training images cannot be used"):
        train(demo_config(root, stopping))
    assert len((tmp_path / "stopped" / "broken_images.txt").read_text().splitlines()) >= 11


def test_evaluation_names_a_broken_image(tmp_path):
    mapper = DetectionMapper(is_train=False, augmentations=[])
    with pytest.raises(ValueError, match="0.png cannot be used: the file is empty"):
        mapper(records(tmp_path, broken=1)[0])
