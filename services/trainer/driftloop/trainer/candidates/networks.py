"""Networks, each as torch computes it and as nodes of the served graph.

Only candidates that need torch import this module.
"""

import math
from typing import Any

import numpy as np
import torch
from driftloop.trainer.candidates.network_input import Inputs
from driftloop.trainer.graph import Matrix
from driftloop.trainer.preprocessing.wiring import Drawing
from onnx import helper

EMBEDDING_SPREAD = 0.3
MAX_EMBEDDING = 32
KERNEL = 3
"""Steps that one convolution sees."""


def embedding_width(count: int) -> int:
    """Return the length of the vectors of ``count`` categories.

    Source: the rule of thumb of fastai's tabular learner, ``emb_sz_rule``.

    >>> embedding_width(9), embedding_width(64), embedding_width(10_000)
    (5, 16, 32)
    """
    return min(MAX_EMBEDDING, round(1.6 * math.pow(count, 0.56)))


class Dropout(torch.nn.Module):  # type: ignore[misc]
    """Dropout of a batch of which this process may have only some of the rows.

    The dice are thrown for the whole batch, so that several processes, each with its
    rows, drop what one process would. They are thrown in float32 for any precision.

    Attributes
    ----------
    share : (first row here, rows of the whole batch); None: all rows are here.

    Source: Srivastava et al. (2014), Dropout, JMLR 15.
    """

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self._ratio = ratio
        self.share: tuple[int, int] | None = None

    def forward(self, values: Any) -> Any:
        if not self.training or not self._ratio:
            return values
        first, total = self.share or (0, len(values))
        shape = (total, *values.shape[1:])
        kept = torch.empty(shape, device=values.device).bernoulli_(1 - self._ratio)
        return values * kept[first : first + len(values)].div_(1 - self._ratio)


class Gru:
    """A gated recurrent unit's state after the newest step.

    Source: Cho et al. (2014), arXiv:1406.1078.
    """

    def __init__(self, channel_count: int, width: int) -> None:
        self.width = width
        self.module = torch.nn.GRU(channel_count, width, batch_first=True)

    def __call__(self, steps: Any) -> Any:
        """Return (n_rows, width) of (n_rows, n_channels, n_steps)."""
        _, state = self.module(steps.transpose(1, 2))
        return state[0]

    def wire(self, drawing: Drawing, source: str) -> str:
        given = drawing.node("Transpose", source, perm=[2, 0, 1])
        layer, width = self.module, self.width
        constants = [
            drawing.constant(self._gates(layer.weight_ih_l0)[None]),
            drawing.constant(self._gates(layer.weight_hh_l0)[None]),
            drawing.constant(
                np.concatenate(
                    [self._gates(layer.bias_ih_l0), self._gates(layer.bias_hh_l0)]
                )[None]
            ),
        ]
        state = f"{drawing.prefix}/state"
        drawing.nodes.append(
            helper.make_node(
                "GRU", [given, *constants], ["", state],
                hidden_size=width, linear_before_reset=1,
            )
        )  # fmt: skip
        return drawing.node("Squeeze", state, drawing.constant([0], np.int64))

    def _gates(self, weights: Any) -> Matrix:
        """Order the gates as ONNX has them: update before reset."""
        reset, update, new = weights.detach().cpu().numpy().reshape(
            3, self.width, *weights.shape[1:]
        )  # fmt: skip
        return np.concatenate([update, reset, new])


class Tcn:
    """Causal convolutions of growing dilation, each pair with a way around it.

    As many pairs as it takes for the newest step to see the oldest one.

    Source: Bai, Kolter and Koltun (2018), arXiv:1803.01271.
    """

    def __init__(
        self, channel_count: int, step_count: int, width: int, dropout: float
    ) -> None:
        self.width, self._last = width, step_count - 1
        self._dropout = Dropout(dropout)
        seen, dilation, given = 1, 1, channel_count
        self._pairs: list[Any] = []
        self._dilations: list[int] = []
        while seen < step_count or not self._pairs:
            first = torch.nn.Conv1d(given, width, KERNEL, dilation=dilation)
            second = torch.nn.Conv1d(width, width, KERNEL, dilation=dilation)
            around = torch.nn.Conv1d(given, width, 1)
            self._pairs.append(torch.nn.ModuleList([first, second, around]))
            self._dilations.append(dilation)
            seen += 2 * (KERNEL - 1) * dilation
            dilation, given = 2 * dilation, width
        self.module = torch.nn.ModuleList([*self._pairs, self._dropout])

    def __call__(self, steps: Any) -> Any:
        """Return (n_rows, width) of (n_rows, n_channels, n_steps)."""
        for (first, second, around), dilation in self._with_dilations():
            found = steps
            for layer in (first, second):
                padded = torch.nn.functional.pad(found, ((KERNEL - 1) * dilation, 0))
                found = self._dropout(torch.relu(layer(padded)))
            steps = torch.relu(found + around(steps))
        return steps[:, :, self._last]

    def wire(self, drawing: Drawing, source: str) -> str:
        for (first, second, around), dilation in self._with_dilations():
            found = source
            for layer in (first, second):
                found = _wire_convolution(drawing, found, layer, dilation)
                found = drawing.node("Relu", found)
            past = _wire_convolution(drawing, source, around, 1)
            source = drawing.node("Relu", drawing.node("Add", found, past))
        last = drawing.constant(self._last, np.int64)
        return drawing.node("Gather", source, last, axis=2)

    def _with_dilations(self) -> Any:
        return zip(self._pairs, self._dilations, strict=True)


def _wire_convolution(drawing: Drawing, source: str, layer: Any, dilation: int) -> str:
    padding = (layer.kernel_size[0] - 1) * dilation
    return drawing.node(
        "Conv",
        source,
        drawing.constant(layer.weight.detach().cpu().numpy()),
        drawing.constant(layer.bias.detach().cpu().numpy()),
        dilations=[dilation],
        pads=[padding, 0],
    )


class Network:
    """Numbers, their bins, embedded categories and a sequence, then hidden layers.

    Parameters
    ----------
    sequence : what reads the inputs' channels, if anything does.
    """

    def __init__(
        self,
        inputs: Inputs,
        sequence: Gru | Tcn | None,
        hidden: list[int],
        dropout: float,
        n_outputs: int,
    ) -> None:
        self._inputs, self._sequence = inputs, sequence
        sizes = [end - first for first, end in inputs.embedded]
        self._tables = [
            torch.nn.Linear(size, embedding_width(size), bias=False) for size in sizes
        ]
        for table in self._tables:
            torch.nn.init.normal_(table.weight, std=EMBEDDING_SPREAD)
        width = len(inputs.numbers) + len(inputs.bins.column)
        width += sum(table.out_features for table in self._tables)
        width += sequence.width if sequence else 0
        self._layers = []
        for size in [*hidden, n_outputs]:
            self._layers.append(torch.nn.Linear(width, size))
            width = size
        self._dropout = Dropout(dropout)
        parts = [*self._tables, *self._layers, self._dropout]
        parts += [sequence.module] if sequence else []
        self.module = torch.nn.ModuleList(parts)
        bins = inputs.bins
        self._numbers = torch.from_numpy(inputs.numbers)
        self._bins = [torch.from_numpy(x) for x in (bins.column, bins.low)]
        self._inverse = torch.from_numpy(bins.inverse)
        self._channels = torch.from_numpy(inputs.channels)
        self._dropouts = [x for x in self.module.modules() if isinstance(x, Dropout)]

    def to(self, device: Any) -> None:
        """Move everything to a device."""
        self.module.to(device)
        self._numbers = self._numbers.to(device)
        self._bins = [x.to(device) for x in self._bins]
        self._inverse = self._inverse.to(device)
        self._channels = self._channels.to(device)

    def share(self, first: int, total: int) -> None:
        """Say which rows of the whole batch come next; see :class:`Dropout`."""
        for dropout in self._dropouts:
            dropout.share = (first, total)

    def __call__(self, scaled: Any) -> Any:
        """Return (n_rows, n_outputs) of (n_rows, width) of :meth:`Inputs.scaled`."""
        inputs, parts = self._inputs, []
        if len(inputs.numbers):
            parts.append(scaled[:, self._numbers])
        if len(inputs.bins.column):
            column, low = self._bins
            parts.append(((scaled[:, column] - low) * self._inverse).clamp(0, 1))
        for (first, end), table in zip(inputs.embedded, self._tables, strict=True):
            parts.append(table(scaled[:, first:end]))
        if self._sequence:
            steps = scaled[:, self._channels.reshape(-1)]
            parts.append(self._sequence(steps.view(-1, *self._channels.shape)))
        found = torch.cat(parts, dim=1)
        for layer in self._layers[:-1]:
            found = self._dropout(torch.relu(layer(found)))
        return self._layers[-1](found)

    def wire(self, drawing: Drawing, spread: float, centre: float, output: str) -> None:
        """Draw everything, with the target's scale put back at the end."""
        scaled = self._inputs.wire(drawing)
        found = drawing.node("Concat", *self._wire_parts(drawing, scaled), axis=1)
        for layer in self._layers:
            weight = layer.weight.detach().cpu().numpy()
            bias = layer.bias.detach().cpu().numpy()
            is_last = layer is self._layers[-1]
            scale, shift = (spread, centre) if is_last else (1.0, 0.0)
            names = [
                drawing.constant(weight * scale),
                drawing.constant(bias * scale + shift),
            ]
            found = drawing.node("Gemm", found, *names, transB=1)
            if not is_last:
                found = drawing.node("Relu", found)
        drawing.nodes.append(helper.make_node("Identity", [found], [output]))

    def _wire_parts(self, drawing: Drawing, scaled: str) -> list[str]:
        inputs, bins, parts = self._inputs, self._inputs.bins, []

        def columns(positions: Any) -> str:
            return drawing.node(
                "Gather", scaled, drawing.constant(positions, np.int64), axis=1
            )

        if len(inputs.numbers):
            parts.append(columns(inputs.numbers))
        if len(bins.column):
            low, inverse = drawing.constant([bins.low]), drawing.constant(
                [bins.inverse]
            )  # fmt: skip
            above = drawing.node("Sub", columns(bins.column), low)
            ends = (drawing.constant(0.0), drawing.constant(1.0))
            pieces = drawing.node("Mul", above, inverse)
            parts.append(drawing.node("Clip", pieces, *ends))
        for (first, end), table in zip(inputs.embedded, self._tables, strict=True):
            where = [drawing.constant([x], np.int64) for x in (first, end, 1)]
            hot = drawing.node("Slice", scaled, *where)
            vectors = drawing.constant(table.weight.detach().cpu().numpy().T)
            parts.append(drawing.node("MatMul", hot, vectors))
        if self._sequence:
            flat = columns(inputs.channels.ravel())
            shape = drawing.constant([-1, *inputs.channels.shape], np.int64)
            steps = drawing.node("Reshape", flat, shape)
            parts.append(self._sequence.wire(drawing, steps))
        return parts
