"""COCO-format data: detectron2's COCO 2017 by default, any file by overriding ``data``."""

from detectron2.config import LazyCall as L
from detectron2.data import get_detection_dataset_dicts

from nanodet_d2.data import (
    DetectionMapper,
    RandomColor,
    RandomWarp,
    build_test_loader,
    build_train_loader,
    split_name,
)
from nanodet_d2.engine import DetectionEvaluator

data = dict(
    # A folder of a COCO, Pascal VOC or YOLO data set, or YOLO's data.yaml, with all splits.
    source=None,
    layout=None,  # coco, voc or yolo, where the folder could be several
    # Without it each split is one of json (a COCO file), voc and yolo (folders), with the folder of
    # its images; else a name in detectron2's catalog. With it, split picks one of the folder's.
    train=dict(
        name="coco_2017_train",  # in detectron2's catalog
        json=None,  # a file of COCO's format
        voc=None,  # a folder of Pascal VOC's XML files, or a devkit
        yolo=None,  # a folder of YOLO's text files
        images=None,  # the folder of the images, with json, voc or yolo
        split=None,  # with source: which of the folder's splits
    ),
    # The same for the images that evaluations are made on.
    val=dict(name="coco_2017_val", json=None, voc=None, yolo=None, images=None, split=None),
    # Share of train's images that are kept for val; 0.2 where a folder has neither val nor test.
    val_share=None,
    split_seed=0,  # of the choice of these images
    group_by=None,  # a regular expression: images with the same match stay together
    split_file=None,  # json of the names in train and val; a training writes the one it made
    classes=None,  # names; found in the files, but for YOLO without data.yaml
    difficult="keep",  # Pascal VOC's difficult objects; or ignore: they neither teach nor count
    # Modules that are imported first, e.g. [my_package.datasets], whose code registers data sets.
    imports=[],
    allow_outside=False,  # the files may name images outside these folders
    input_size=[320, 320],  # height, width
)

dataloader = dict(
    train=L(build_train_loader)(
        dataset=L(get_detection_dataset_dicts)(
            names=L(split_name)(data="${data}", split="train"),
            filter_empty=False,  # images without boxes teach the background
        ),
        mapper=L(DetectionMapper)(
            is_train=True,
            augmentations=[
                L(RandomWarp)(
                    size="${data.input_size}",
                    scale=(0.6, 1.4),
                    stretch=((0.8, 1.2), (0.8, 1.2)),
                    flip=0.5,
                    translate=0.2,
                ),
                L(RandomColor)(brightness=0.2, contrast=(0.6, 1.4), saturation=(0.5, 1.2)),
            ],
        ),
        total_batch_size=96,
        num_workers=None,  # per rank: as many as the cores allow, at most 8
        # With a default, as all that is read here of ``train``: another trainer's has no seed.
        seed="${oc.select:train.seed,-1}",
        mixers=[],  # of Mosaic, MixUp and CopyPaste
        close_after=None,  # the iteration from which on they are left out
        cache=None,  # an ImageCache of decoded images, in memory or on disk
        sizes=[],  # (height, width) to draw from for each batch; data.input_size if empty
        # Large pictures in slices: the side of one; a mapping of size, overlap, whole, levels and
        # min_visible; or auto.
        tiles="${oc.select:train.tiles,null}",
        max_broken_share=0.05,  # of the images, which are replaced by others; beyond, it stops
        # where they are listed
        broken_file="${oc.select:train.output_dir,./output}/broken_images.txt",
    ),
    test=L(build_test_loader)(
        dataset=L(get_detection_dataset_dicts)(
            names=L(split_name)(data="${data}", split="val"),
            filter_empty=False,  # a detection on an empty image is a false one
        ),
        mapper=L(DetectionMapper)(
            is_train=False,
            augmentations=[L(RandomWarp)(size="${data.input_size}")],
        ),
        num_workers=None,  # the same, at most 4
        batch_size=1,  # images that go through the model together, where all have one size
    ),
    evaluator=L(DetectionEvaluator)(
        dataset_name="${..test.dataset.names}",
        output_dir="${oc.select:train.output_dir,./output}/inference",
    ),
)
