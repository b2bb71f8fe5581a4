"""The batched assigner and losses against the per-image oracle and hand-made cases."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances

from nanodet_d2.modeling.head import DynamicSoftLabelAssigner, GroundTruth, NanoDetPlusHead
from nanodet_d2.modeling.head.assigner import centers_inside, class_cost
from nanodet_d2.modeling.head.box_coding import grid_priors
from nanodet_d2.modeling.head.losses import background_focal_loss
from tests import oracle

CLASSES = 5
SIZE = 128
PRIORS = grid_priors([(16, 16), (8, 8), (4, 4), (2, 2)], [8, 16, 32, 64], torch.device("cpu"))


def make_head(**arguments) -> NanoDetPlusHead:
    shapes = {f"p{i}": ShapeSpec(channels=8, stride=2**i) for i in range(3, 7)}
    return NanoDetPlusHead(shapes, num_classes=CLASSES, **arguments)


def random_truth(generator: torch.Generator, counts: list[int]):
    truth = []
    for count in counts:
        size = torch.rand(count, 2, generator=generator) * 90 + 2
        low = torch.rand(count, 2, generator=generator) * (SIZE - size)
        classes = torch.randint(CLASSES, (count,), generator=generator)
        truth.append((torch.cat([low, low + size], 1), classes))
    return truth


def to_ground_truth(truth, ignored=None) -> GroundTruth:
    instances = [
        Instances((SIZE, SIZE), gt_boxes=Boxes(boxes), gt_classes=classes)
        for boxes, classes in truth
    ]
    return GroundTruth.from_instances(instances, ignored)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("counts", [[3, 0, 7], [1], [0, 0], [25, 2]])
def test_losses_equal_the_oracle(seed, counts):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(counts), len(PRIORS), CLASSES + 32)
    raw = torch.randn(shape, generator=generator).requires_grad_()
    aux_raw = torch.randn(shape, generator=generator).requires_grad_()
    truth = random_truth(generator, counts)

    mine = make_head().losses(raw, PRIORS, to_ground_truth(truth), aux_raw)
    theirs = oracle.losses(raw, aux_raw, PRIORS, truth)
    assert set(mine) == set(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-5, atol=1e-6)
    grads = torch.autograd.grad(sum(mine.values()), [raw, aux_raw], retain_graph=True)
    expected = torch.autograd.grad(sum(theirs.values()), [raw, aux_raw])
    for a, b in zip(grads, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_labels_equal_the_oracle(seed):
    generator = torch.Generator().manual_seed(100 + seed)
    counts = torch.randint(0, 12, (4,), generator=generator).tolist()
    raw = 2 * torch.randn(4, len(PRIORS), CLASSES + 32, generator=generator)
    truth = random_truth(generator, counts)
    guide = make_head().decode(raw, PRIORS)
    target = DynamicSoftLabelAssigner()(guide.logits, guide.boxes, PRIORS, to_ground_truth(truth))
    for i, (boxes, classes) in enumerate(truth):
        logits, _, decoded = oracle.decode(raw[i], PRIORS, CLASSES)
        labels, scores, owner = oracle.assign(logits, decoded, PRIORS, boxes, classes)
        assert torch.equal(target.labels[i], labels)
        torch.testing.assert_close(target.scores[i], scores)
        positive = owner >= 0
        assert torch.equal(target.boxes[i][positive], boxes[owner[positive]])


def test_class_cost_equals_the_sum_over_classes():
    logits = torch.randn(2, 6, CLASSES)
    classes = torch.tensor([[0, 3], [4, 4]])
    iou = torch.rand(2, 2, 6)
    expected = torch.zeros(2, 2, 6)
    for n in range(2):
        for g in range(2):
            target = torch.zeros(6, CLASSES)
            target[:, classes[n, g]] = iou[n, g]
            entropy = torch.nn.functional.binary_cross_entropy_with_logits(
                logits[n], target, reduction="none"
            )
            expected[n, g] = (entropy * (target - logits[n].sigmoid()) ** 2).sum(-1)
    background = background_focal_loss(logits)
    torch.testing.assert_close(class_cost(logits, background, classes, iou), expected)


def test_centres_on_the_border_are_outside():
    centers = torch.tensor([[0.0, 0.0], [8.0, 8.0], [16.0, 8.0]])
    boxes = torch.tensor([[[0.0, 0.0, 16.0, 16.0]]])
    assert centers_inside(centers, boxes).tolist() == [[[False, True, False]]]


def assign(truth: GroundTruth, **options):
    """Labels and weights where every prediction is a box of 2 strides around its prior."""
    logits = torch.zeros(len(truth.boxes), len(PRIORS), CLASSES)
    low, high = PRIORS[:, :2] - 2 * PRIORS[:, 2:], PRIORS[:, :2] + 2 * PRIORS[:, 2:]
    boxes = torch.cat([low, high], 1).expand(len(truth.boxes), -1, -1)
    return DynamicSoftLabelAssigner(**options)(logits, boxes, PRIORS, truth)


def test_object_between_the_priors_is_background():
    """No prior lies in it and no other object offers one: the reference loses it, too."""
    target = assign(to_ground_truth([(torch.tensor([[1.0, 1.0, 7.0, 7.0]]), torch.tensor([2]))]))
    assert (target.labels == CLASSES).all() and (target.scores == 0).all()


def test_every_object_gets_a_prior_where_the_image_has_candidates():
    boxes = torch.tensor([[1.0, 1.0, 7.0, 7.0], [60.0, 60.0, 120.0, 120.0]])
    target = assign(to_ground_truth([(boxes, torch.tensor([2, 4]))]))
    assert (target.labels == 2).sum() == 1 and (target.labels == 4).sum() >= 1


def test_padding_is_never_assigned():
    truth = [
        (torch.tensor([[20.0, 20.0, 90.0, 90.0]]), torch.tensor([1])),
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
    ]
    target = assign(to_ground_truth(truth))
    assert (target.labels[0] == 1).any()
    assert (target.labels[1] == CLASSES).all() and (target.weights == 1).all()


def test_ignored_region_has_no_weight_except_where_positive():
    boxes = torch.tensor([[32.0, 32.0, 96.0, 96.0]])
    crowd = Boxes(torch.tensor([[0.0, 0.0, 128.0, 128.0]]))
    truth = to_ground_truth([(boxes, torch.tensor([1]))], [crowd])
    assert (assign(truth).weights == 1).all()  # off by default

    target = assign(truth, ignore_iof_thr=0.5)
    positive = target.labels[0] < CLASSES
    centred = ((PRIORS[:, :2] > 32) & (PRIORS[:, :2] < 96)).all(1)
    inside = centred & (PRIORS[:, 2] <= 16)  # their predictions lie wholly in the crowd box
    assert positive.any() and (target.weights[0][positive] == 1).all()
    assert (target.weights[0][inside & ~positive] == 0).all()
    # A prediction around the corner prior lies by 1/4 in the crowd box: below the threshold.
    assert target.weights[0][0] == 1


def test_ignored_region_counts_in_an_image_without_objects():
    nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    crowd = Boxes(torch.tensor([[0.0, 0.0, 128.0, 128.0]]))
    target = assign(to_ground_truth([nothing], [crowd]), ignore_iof_thr=0.5)
    assert (target.weights == 0).any() and (target.labels == CLASSES).all()


def test_options_are_checked():
    with pytest.raises(ValueError, match="topk 0; allowed: 1 or more"):
        DynamicSoftLabelAssigner(topk=0)
    with pytest.raises(ValueError, match="num_classes 0"):
        NanoDetPlusHead({"p3": ShapeSpec(channels=8, stride=8)}, num_classes=0)


@pytest.mark.parametrize("num_classes", [1, 80])
def test_any_number_of_classes(num_classes):
    shapes = {"p3": ShapeSpec(channels=8, stride=8)}
    head = NanoDetPlusHead(shapes, num_classes=num_classes)
    raw = head({"p3": torch.randn(2, 8, 16, 16)})
    assert raw.shape == (2, 256, num_classes + 32)
    truth = [(torch.tensor([[20.0, 20.0, 90.0, 90.0]]), torch.tensor([num_classes - 1]))] * 2
    losses = head.losses(
        raw, head.priors({"p3": torch.zeros(2, 8, 16, 16)}), to_ground_truth(truth)
    )
    assert all(torch.isfinite(x) and x > 0 for x in losses.values())
