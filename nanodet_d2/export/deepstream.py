"""What DeepStream's ``nvinfer`` has to be told of a file for TensorRT."""

from __future__ import annotations

from nanodet_d2.runtime.metadata import FIT, STRETCH, ExportMetadata

OUTPUTS = ("num_dets", "det_boxes", "det_scores", "det_classes")
COLORS = {"RGB": 0, "BGR": 1}  # model-color-format

RESIZE = {
    STRETCH: "Images are stretched (maintain-aspect-ratio=0), as in training.",
    FIT: "Images lie in the upper left corner, with black, not the mean colour, around.",
}

CONFIG = """\
# {model} in DeepStream. Not tried on a GPU.
#
# nvinfer hands the network scale * (pixel - offset), one scale for all channels. The network's own
# normalisation has one for each, and is in the graph: so scale 1, offsets 0.
# {resize} nvinfer's scaler is another than
# that of the evaluation, which may cost some tenths of AP.
#
# The parser of custom-lib-path, a function of the form of NvDsInferParseCustomFunc, gets:
#   num_dets     int32   (1)           K, the number of detections
#   det_boxes    float32 ({most}, 4)   x1, y1, x2, y2 in pixels of the network's input, {width} x
#                                      {height}; they do not leave it
#   det_scores   float32 ({most})      in [0, 1], best first
#   det_classes  int32   ({most})      0 to {last}, lines of labelfile-path
# The first K rows count. NMS is done: it adds an NvDsInferObjectDetectionInfo for each, with left =
# x1, top = y1, width = x2 - x1, height = y2 - y1, which nvinfer scales to the frame.
[property]
gpu-id=0
gie-unique-id=1
process-mode=1
network-type=0
# 0 for float32, 2 for float16
network-mode=0
onnx-file={model}
labelfile-path={labels}
batch-size=1
infer-dims=3;{height};{width}
net-scale-factor=1
offsets=0;0;0
model-color-format={color}
maintain-aspect-ratio={ratio}
scaling-filter=1
num-detected-classes={classes}
output-blob-names={outputs}
parse-bbox-func-name=NvDsInferParseNanoDet
custom-lib-path=libnvdsinfer_nanodet.so
# no clustering after the graph's
cluster-mode=4

[class-attrs-all]
pre-cluster-threshold={threshold:g}
"""


def nvinfer_config(metadata: ExportMetadata, model: str, labels: str) -> str:
    """The text of a configuration file.

    Args:
        model, labels: names of the files beside it.
    """
    x = metadata.input
    return CONFIG.format(
        model=model,
        labels=labels,
        most=metadata.max_detections,
        width=x.width,
        height=x.height,
        color=COLORS[x.channel_order],
        classes=len(metadata.class_names),
        last=len(metadata.class_names) - 1,
        outputs=";".join(OUTPUTS),
        threshold=metadata.score_threshold,
        resize=RESIZE[x.resize],
        ratio=int(x.resize == FIT),
    )
