"""INT8: the arithmetic, and what is done to a network before any format is written."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from nanodet_d2.export.int8 import Range, Scheme, calibrate, in_words
from nanodet_d2.export.int8.equalise import equalise
from nanodet_d2.export.int8.explain import BUDGET, choose_float, divergence
from nanodet_d2.export.int8.network import Network
from nanodet_d2.export.int8.ranges import input_peaks, mean_range, output_range, picture_range
from nanodet_d2.export.int8.rounding import output_error, round_weights
from nanodet_d2.export.int8.scheme import rounded, stored

CLASSES, SIDES = 3, 4 * 8
SCHEMES = [
    Scheme(symmetric=s, outputs=o, depthwise=d)
    for s, o, d in [(True, False, False), (False, False, True), (False, True, True)]
]


class Small(nn.Module):
    """Every way in which convolutions may follow one another; raw output (N, P, C + 4 * 8)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.beside = nn.Conv2d(8, 16, 1)
        self.pointwise = nn.Conv2d(8, 16, 1, bias=False)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.twice = nn.Conv2d(16, 16, 1)
        self.gated = nn.Conv2d(16, 16, 1)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.predictor = nn.Conv2d(16, CLASSES + SIDES, 1)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.leaky, self.relu = nn.LeakyReLU(0.1, inplace=True), nn.ReLU()

    def forward(self, data):
        x = self.pool(self.leaky(self.stem(data)))
        x = self.pointwise(self.leaky(self.depthwise(x))) + self.beside(x)
        x = self.grouped(self.relu(x))
        x = self.twice(self.twice(x))
        x = self.body(self.gated(x).sigmoid() * x)
        raw = self.predictor(self.leaky(x)).flatten(2).transpose(1, 2)
        return torch.cat([raw[..., :CLASSES].sigmoid(), raw[..., CLASSES:]], dim=-1)


def program(change=lambda network: None):
    torch.manual_seed(0)
    network = Small().eval()
    with torch.no_grad():
        change(network)
    return torch.export.export(network, (torch.zeros(1, 3, 24, 16),))


@pytest.fixture(scope="module")
def samples():
    """Images, one of which is much brighter than the others."""
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(1, 3, 24, 16)).astype(np.float32) for _ in range(6)]
    return [*images, 3 * images[0]]


@pytest.fixture(scope="module")
def images(samples):
    return list(map(torch.from_numpy, samples))


# -- eight bits --------------------------------------------------------------------------------


def test_grids_computed_by_hand():
    assert Range(-1.0, 4.1).grid(symmetric=False) == (pytest.approx(0.02), 50)
    assert Range(-1.0, 2.54).grid(symmetric=True) == (pytest.approx(0.02), 0)
    assert Range(-2.54, 1.0).peak == 2.54
    scale, zero = Range(0.0, 0.0).grid(symmetric=False)  # of a channel that is always zero
    assert scale > 0 and zero == 0


def test_what_is_left_of_values():
    x = torch.tensor([-9.0, -1.0, 0.0, 0.011, 0.009, 4.1, 9.0])
    found = stored(x, Range(-1.0, 4.1), symmetric=False)
    torch.testing.assert_close(found, torch.tensor([-1.0, -1.0, 0.0, 0.02, 0.0, 4.1, 4.1]))
    found = stored(x, Range(-1.0, 2.54), symmetric=True)
    torch.testing.assert_close(found, torch.tensor([-2.54, -1.0, 0.0, 0.02, 0.0, 2.54, 2.54]))


def test_weights_have_a_grid_for_each_channel():
    weight = torch.tensor([[1.27, 0.014, -0.016], [0.0127, 0.00014, 0.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[1.27, 0.01, -0.02], [0.0127, 0.0001, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(rounded(weight), expected)


# -- rounding ----------------------------------------------------------------------------------


def moment(rng, inputs, *, rank=None):
    """Of correlated inputs."""
    x = rng.normal(size=(inputs, rank or 4 * inputs)) + 2 * rng.normal(size=(1, rank or 4 * inputs))
    return torch.tensor(x @ x.T, dtype=torch.float32)


@pytest.mark.parametrize("inputs, outputs", [(1, 3), (27, 8), (64, 16)])
@pytest.mark.parametrize("case", ["full", "singular", "nothing seen", "channel of zeros"])
def test_gptq_is_never_worse_than_rounding(inputs, outputs, case):
    rng = np.random.default_rng(inputs)
    for _ in range(5):
        weight = torch.tensor(rng.normal(size=(outputs, inputs)), dtype=torch.float32)
        h = moment(rng, inputs, rank=2 if case == "singular" else None)
        if case == "nothing seen":
            h.zero_()
        if case == "channel of zeros":
            weight[0] = 0
        w, d = weight.double(), h.double()
        ours = output_error(w, round_weights(weight, h).double(), d)
        nearest = output_error(w, rounded(weight).double(), d)
        assert (ours <= nearest * 1.001 + 1e-6 * float(d.trace())).all()
        if case == "full" and inputs > 1:
            assert ours.sum() < 0.5 * nearest.sum()


def test_whoever_rounds_again_finds_the_same_weights():
    rng = np.random.default_rng(0)
    weight = torch.tensor(rng.normal(size=(16, 4, 3, 3)), dtype=torch.float32)
    found = round_weights(weight, moment(rng, 36))
    torch.testing.assert_close(rounded(found), found, rtol=1e-6, atol=0)
    assert found.shape == weight.shape and found.dtype == weight.dtype
    assert not torch.equal(rounded(weight), found)
    largest = weight.flatten(1).abs().amax(dim=1)
    torch.testing.assert_close(found.flatten(1).abs().amax(dim=1), largest)


# -- the graph ---------------------------------------------------------------------------------


def test_the_graph_computes_what_the_network_does(images):
    exported = program()
    for x in images:
        torch.testing.assert_close(Network(exported).run(x), exported.module()(x))


def test_which_convolutions_can_be_quantised():
    """Not those of several channels in a group, and not those that are used twice."""
    found = Network(program()).convolutions
    names = ["stem", "depthwise", "pointwise", "beside", "gated", "body", "predictor"]
    assert list(found) == names
    assert [name for name in names if found[name].last] == ["predictor"]
    assert found["pointwise"].bias is None and found["depthwise"].groups == 8


def test_which_follow_one_another():
    assert dict(Network(program()).fans()) == {
        "stem": ["depthwise", "beside"], "depthwise": ["pointwise"], "body": ["predictor"],
    }  # fmt: skip


def test_an_equalised_network_computes_the_same(images):
    def uneven(network):
        network.stem.weight *= torch.logspace(-0.7, 0, 8)[:, None, None, None]
        network.stem.bias *= torch.logspace(-0.7, 0, 8)

    exported = program(uneven)
    network, plain = Network(exported), Network(exported)
    before = input_peaks(network, images)
    equalise(network, before)
    after = input_peaks(network, images)
    for x in images:
        torch.testing.assert_close(network.run(x), plain.run(x), rtol=1e-4, atol=1e-4)
    assert before["depthwise"].max() > 3 * before["depthwise"].min()
    for name in ("depthwise", "beside", "pointwise", "predictor"):
        torch.testing.assert_close(after[name], before[name].max().expand_as(after[name]))
    torch.testing.assert_close(after["gated"], before["gated"])  # a sigmoid follows
    stems = [x.convolutions["stem"].weight for x in (plain, Network(exported))]
    assert torch.equal(*stems)  # not in place


def test_a_channel_of_nothing_is_not_stretched_without_end(images):
    def dead(network):
        network.stem.weight[0] = 0
        network.stem.bias[0] = 1e-6

    network = Network(program(dead))
    equalise(network, input_peaks(network, images))
    assert network.convolutions["stem"].bias[0] == pytest.approx(1e-4)


# -- ranges ------------------------------------------------------------------------------------


def test_a_picture_s_range_holds_all_values_and_zero():
    assert picture_range(torch.tensor([[-0.5, 100.0], [3.0, -7.0]])) == Range(-7.0, 100.0)
    assert picture_range(torch.tensor([2.0, 3.0])) == Range(0.0, 3.0)
    assert picture_range(torch.tensor([-2.0])) == Range(-2.0, 0.0)


def test_no_picture_alone_stretches_a_range():
    assert mean_range([Range(-1.0, 1.0), Range(0.0, 2.0), Range(-2.0, 6.0)]) == Range(-1.0, 3.0)


def test_below_a_relu_nothing_is_worth_a_step():
    x = torch.linspace(-10.0, 1.0, 1000)
    whole = Range(-10.0, 1.0)
    assert output_range(whole, x, None) == whole
    assert output_range(whole, x, torch.relu) == Range(-1.0, 1.0)
    steep = output_range(whole, x, lambda y: nn.functional.leaky_relu(y, 0.9))
    assert steep == whole


# -- which stay in float -----------------------------------------------------------------------


def test_divergence_by_hand():
    raw = torch.zeros(1, CLASSES + SIDES)
    raw[0, :CLASSES] = torch.tensor([0.5, 0.25, 0.0])
    assert divergence(raw, raw, CLASSES) == 0
    other = raw.clone()
    other[0, 0] = 0.25
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(raw, other, CLASSES) == pytest.approx(by_hand, rel=1e-4)
    other = raw.clone()
    other[0, CLASSES] = math.log(3.0)  # one of eight bins of the first side
    by_hand = math.log(10 / 8) - math.log(3) / 8
    assert divergence(raw, other, CLASSES) == pytest.approx(by_hand / 4, rel=1e-4)


def test_as_few_stay_in_float_as_the_budget_lets():
    costs = {f"{i}": 0.1 * BUDGET for i in range(9)}
    assert choose_float(costs) == ()
    costs["worst"] = 2.0
    assert choose_float(costs) == ("worst",)  # the rest is below the budget
    costs.update(bad=1.0, poor=0.5)
    assert choose_float(costs) == ("worst", "bad")  # at most a fifth of twelve
    assert choose_float({}) == ()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_broken_convolution_is_found_and_stays_in_float(samples, scheme, monkeypatch):
    """One weight of each channel takes the whole grid, and none is left for the others."""

    def broken(network):
        network.body.weight[:, 0, 0, 0] *= 3000
        network.twice.weight[0] = 0  # what the large weights see is nothing
        network.twice.bias[0] = 0

    monkeypatch.setattr("nanodet_d2.export.int8.explain.FLOAT_SHARE", 0.25)  # one of four or five
    monkeypatch.setattr("nanodet_d2.export.int8.explain.BUDGET", 0.0)
    prepared = calibrate(program(broken), samples, classes=CLASSES)
    found = prepared.explanation(scheme)
    able = {"stem", "depthwise", "pointwise", "beside", "gated", "body"}
    assert set(found.costs) == able - ({"depthwise"} if not scheme.depthwise else set())
    assert next(iter(found.costs)) == "body"
    assert found.costs["body"] > 5 * sorted(found.costs.values())[-2]
    assert found.in_float == ("body",) and found.together < found.costs["body"]
    plan = prepared.plan(scheme)
    assert list(plan.inputs) == list(plan.outputs)
    assert set(plan.inputs) == set(found.costs) - {"body"}
    assert prepared.explanation(scheme) is found  # it takes seconds
    told = in_words(found)
    assert "body" in told.splitlines()[1] and "stays in float" in told.splitlines()[1]
    assert json.loads(found.to_json())["in_float"] == ["body"]


def test_weights_are_on_their_grid_only_where_they_are_quantised(samples):
    prepared = calibrate(program(), samples, classes=CLASSES)
    scheme = Scheme(symmetric=True, outputs=False, depthwise=True)
    plan, state = prepared.plan(scheme), prepared.state(prepared.plan(scheme))
    assert "pointwise.bias" not in state and "grouped.weight" not in state
    weights = {name: state[f"{name}.weight"] for name in (*plan.inputs, "predictor")}
    on_grid = {n: torch.allclose(rounded(x), x, rtol=1e-6, atol=0) for n, x in weights.items()}
    assert on_grid == {**dict.fromkeys(plan.inputs, True), "predictor": False}
