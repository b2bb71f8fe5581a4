"""A network as the graph of its operators, whose convolutions can be watched and changed.

The graph is that of ``torch.export``, so it does not matter how a backbone is written.
Letters: O output channels, I input channels of a group.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

CONVOLUTION = torch.ops.aten.conv2d.default
_RELU = {  # of any slope
    torch.ops.aten.relu.default,
    torch.ops.aten.relu_.default,
    torch.ops.aten.leaky_relu.default,
    torch.ops.aten.leaky_relu_.default,
}
# Those for which f(s * x) = s * f(x), with a factor s > 0 for each channel.
_HOMOGENEOUS = {*_RELU, torch.ops.aten.max_pool2d.default}
_DEFAULTS = (None, None, None, (1, 1), (0, 0), (1, 1), 1)  # of the operator's arguments


@dataclasses.dataclass(frozen=True, eq=False)
class Convolution:
    """One that can be quantised.

    Attributes:
        name: of its module in the network.
        weight: (O, I, height, width)
        bias: (O,) or None.
        last: it predicts: between it and the network's output is no other convolution.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    last: bool

    def __call__(self, x: Tensor) -> Tensor:
        options = (self.stride, self.padding, self.dilation, self.groups)
        return torch.conv2d(x, self.weight, self.bias, *options)


# What is computed in place of a convolution: of it and its input (1, groups * I, H, W).
Instead = Callable[[Convolution, Tensor], Tensor]


class Network:
    """A network of one image with weights of its own.

    Convolutions that are used twice, or in groups that are not single channels (ncnn has one scale
    for a group), are none to it: they are left as they are.

    Args:
        program: of one normalised image (1, 3, H, W).

    Attributes:
        convolutions: by name, in the order in which they run.
    """

    def __init__(self, program: ExportedProgram):
        self._module: fx.GraphModule = program.module()
        nodes: list[fx.Node] = [x for x in self._module.graph.nodes if x.target == CONVOLUTION]
        sources = [x.args[1] for x in nodes]
        last = _last(self._module.graph)
        self.convolutions: dict[str, Convolution] = {}
        self._nodes: dict[str, fx.Node] = {}
        for node, source in zip(nodes, sources):
            found = self._read(node, last=node in last)
            if found is not None and sources.count(source) == 1:
                self.convolutions[found.name] = found
                self._nodes[found.name] = node

    def _read(self, node: fx.Node, *, last: bool) -> Convolution | None:
        given: list[Any] = list(node.args)
        _, weight, bias, *options = given + list(_DEFAULTS[len(given) :])
        name, dot, kind = str(getattr(weight, "target", "")).rpartition(".")
        if getattr(weight, "op", "") != "get_attr" or kind != "weight" or not dot:
            return None
        stride, padding, dilation, groups = options
        found = Convolution(
            name=name,
            weight=self._tensor(weight),
            bias=None if bias is None else self._tensor(bias),
            stride=tuple(stride),
            padding=tuple(padding),
            dilation=tuple(dilation),
            groups=groups,
            last=last,
        )
        return found if groups in (1, len(found.weight)) else None

    def _tensor(self, node: Any) -> Tensor:
        value: Any = self._module
        for part in node.target.split("."):
            value = getattr(value, part)
        return value.detach().clone()

    def fans(self) -> Iterator[tuple[str, list[str]]]:
        """Names of a convolution and of those that its output goes into, where it goes into
        nothing else; directly, or by a ReLU of any slope or the largest of neighbours."""
        names = {node: name for name, node in self._nodes.items()}
        for node, name in names.items():
            ends, todo = [], list(node.users)
            while todo:
                user = todo.pop(0)
                if user.target in _HOMOGENEOUS:
                    todo += user.users
                else:
                    ends.append(user)
            if ends and all(x in names for x in ends):
                yield name, [names[x] for x in ends]

    def activation(self, name: str) -> Callable[[Tensor], Tensor] | None:
        """The ReLU of any slope that is all that a convolution's output goes into, if it does."""
        users = list(self._nodes[name].users)
        if len(users) != 1 or users[0].target not in _RELU:
            return None
        target: Any = users[0].target
        rest = users[0].args[1:]
        return lambda x: target(x.clone(), *rest)  # some of them work in place

    @torch.inference_mode()
    def run(self, image: Tensor, instead: Instead = lambda conv, x: conv(x)) -> Tensor:
        """The output for an image (1, 3, H, W).

        Args:
            instead: what to compute in place of each convolution.
        """
        calls: dict[fx.Node, Callable[[Tensor], Tensor]] = {
            node: functools.partial(instead, self.convolutions[name])
            for name, node in self._nodes.items()
        }
        # As detectors run: depthwise convolutions take a fraction of the time.
        return _Runner(self._module, calls).run(image.to(memory_format=torch.channels_last))


class _Runner(fx.Interpreter):
    """Calls others for some nodes, with their first argument alone."""

    def __init__(self, module: fx.GraphModule, calls: dict[fx.Node, Callable[[Tensor], Tensor]]):
        super().__init__(module)
        self._calls = calls

    def run_node(self, n: fx.Node) -> Any:
        if n not in self._calls:
            return super().run_node(n)
        (x, *_), _ = self.fetch_args_kwargs_from_env(n)
        return self._calls[n](x)


def _last(graph: fx.Graph) -> set[fx.Node]:
    """The convolutions between which and the output is no other."""
    found, seen = set(), set()
    todo = [x for x in graph.nodes if x.op == "output"]
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.target == CONVOLUTION:
            found.add(node)
        else:
            todo += node.all_input_nodes
    return found
