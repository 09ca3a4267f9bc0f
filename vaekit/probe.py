"""Linear probes between truth and code, for all models of a stack at once.

Two fits: exact (least squares from streamed moments) and as the post did it (Adam, three epochs).
The difference between them is a property of the probe, not of the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam

from vaekit_kernels import Stream
from vaekit_kernels.philox import uniforms

# Directions of a standardised input with less than this share of the variance count as absent:
# below it float32 codes hold rounding, not signal.
RELATIVE_CUTOFF = 1e-9

# Rows whose float64 copies stand in memory at once, for every model of a stack.
CHUNK_ROWS = 4096


@dataclass(frozen=True)
class LinearProbe:
    """M affine maps y = x W + b: weight [M, I, O], bias [M, O]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Map inputs [M, N, I] or shared [N, I] to outputs [M, N, O]."""
        models = self.weight.shape[0]
        return torch.baddbmm(self.bias[:, None], x.expand(models, *x.shape[-2:]), self.weight)


class Moments:
    """Mean and covariance of the columns of M streams of rows, added up chunk by chunk in float64.

    Sums are taken about the first chunk's mean, so that the covariance does not cancel.
    """

    def __init__(self) -> None:
        self.count = 0
        self.shift: Tensor
        self.total: Tensor
        self.products: Tensor

    def add(self, rows: Tensor) -> None:
        """Add rows [M, N, C]."""
        rows = rows.double()
        if not self.count:
            self.shift = rows.mean(dim=1, keepdim=True)
            self.total = torch.zeros_like(self.shift)
            self.products = rows.new_zeros(rows.shape[0], rows.shape[2], rows.shape[2])
        centred = rows - self.shift
        self.count += rows.shape[1]
        self.total += centred.sum(dim=1, keepdim=True)
        self.products += centred.transpose(1, 2) @ centred

    @property
    def mean(self) -> Tensor:
        """Column means [M, C]."""
        return (self.shift + self.total / self.count)[:, 0]

    @property
    def covariance(self) -> Tensor:
        """Population covariance [M, C, C]."""
        drift = self.total / self.count
        return self.products / self.count - drift.transpose(1, 2) @ drift


def moments_of(*columns: Tensor, chunk: int = CHUNK_ROWS) -> Moments:
    """Moments of columns laid side by side, each [M, N, C] or shared [N, C]."""
    models = max(column.shape[0] for column in columns if column.ndim == 3)
    moments = Moments()
    for first in range(0, columns[0].shape[-2], chunk):
        rows = [column[..., first : first + chunk, :] for column in columns]
        moments.add(torch.cat([row.expand(models, *row.shape[-2:]) for row in rows], dim=-1))
    return moments


def least_squares(moments: Moments, inputs: slice, outputs: slice) -> LinearProbe:
    """Fit outputs on inputs exactly: W = C_xx^-1 C_xy, b = mean(y) - mean(x) W.

    Inputs are standardised first; directions that are absent (a collapsed code, say) get weight 0,
    which is the minimum-norm solution.

    Args:
        moments: of all columns, [M, C].
        inputs, outputs: which columns.

    Returns:
        The probe, in float64.
    """
    covariance, mean = moments.covariance, moments.mean
    xx, xy = covariance[:, inputs, inputs], covariance[:, inputs, outputs]
    scale = xx.diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt()
    inverse_scale = torch.where(scale > 0, 1.0 / scale.clamp(min=1e-300), 0.0)
    correlation = inverse_scale[:, :, None] * xx * inverse_scale[:, None, :]
    values, vectors = torch.linalg.eigh(correlation)
    kept = values > RELATIVE_CUTOFF * values[:, -1:].clamp(min=1e-300)
    inverse = torch.where(kept, 1.0 / torch.where(kept, values, 1.0), 0.0)
    projected = vectors.transpose(1, 2) @ (inverse_scale[:, :, None] * xy)
    weight = inverse_scale[:, :, None] * (vectors @ (inverse[:, :, None] * projected))
    bias = mean[:, outputs] - (mean[:, None, inputs] @ weight)[:, 0]
    return LinearProbe(weight, bias)


def fit_exact(inputs: Tensor, targets: Tensor) -> LinearProbe:
    """Fit a probe by least squares on all rows.

    Args:
        inputs: [M, N, I], or [N, I] shared by all models (not both shared).
        targets: [M, N, O] or [N, O].

    Returns:
        The probe, float32.
    """
    width = inputs.shape[-1]
    probe = least_squares(moments_of(inputs, targets), slice(0, width), slice(width, None))
    return LinearProbe(probe.weight.float(), probe.bias.float())


def fit_adam(
    inputs: Tensor,
    targets: Tensor,
    seeds: Tensor,
    *,
    epochs: int = 3,
    batch: int = 128,
    learning_rate: float = 1e-3,
) -> LinearProbe:
    """Fit a probe as the post did: torch.nn.Linear, mean squared error, a few epochs of Adam.

    Initial weights and the order of the rows come from counters: weights are the same for all
    models of a seed, the order for all models.

    Args:
        inputs: [M, N, I], or [N, I] shared.
        targets: [M, N, O], or [N, O] shared.
        seeds: [M] int64.
        epochs, batch, learning_rate: of the fit.

    Returns:
        The probe, float32.
    """
    models, rows = len(seeds), inputs.shape[-2]
    width, height = inputs.shape[-1], targets.shape[-1]
    ids = torch.full_like(seeds, width)
    draw = uniforms(seeds, ids, 0, Stream.PROBE, width + 1, height)
    draw = draw.mul_(2.0).sub_(1.0).div_(math.sqrt(width))
    # Inputs get a column of ones, so that one matrix [M, I + 1, O] holds weight and bias.
    parameters = draw.clone()
    exp_avg, exp_avg_sq = torch.zeros(2, *parameters.shape, device=parameters.device)
    steps = torch.zeros(())
    ones = inputs.new_ones(1, 1, 1)
    for epoch in range(1, epochs + 1):
        # One order for all seeds: that of the stack's first would hang on what else is in it.
        shared = seeds.new_zeros(1)
        keys = uniforms(shared, shared, epoch, Stream.PROBE, 1, rows)
        order = torch.argsort(keys[0, 0], stable=True)
        for pick in order.split(batch):
            x = inputs[..., pick, :].expand(models, len(pick), width)
            x = torch.cat([x, ones.expand(models, len(pick), 1)], dim=-1)
            error = torch.bmm(x, parameters) - targets[..., pick, :]
            gradient = torch.bmm(x.transpose(1, 2), error)
            # torch.optim.Adam with its defaults; the class would load torch's compiler, a second.
            adam(
                [parameters],
                [gradient.mul_(2.0 / (len(pick) * height))],
                [exp_avg],
                [exp_avg_sq],
                [],
                [steps],
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=learning_rate,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )
    return LinearProbe(parameters[:, :-1].contiguous(), parameters[:, -1].contiguous())


def mse_and_r2(probe: LinearProbe, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Score a probe: mean squared error, and the share of the targets' variance explained.

        r2 = 1 - sum (y - probe(x))^2 / sum (y - mean y)^2, pooled over rows and outputs

    Targets without variance (a code that has collapsed to a point) score r2 = 0: nothing was there
    to explain.

    Args:
        probe: [M].
        inputs: [M, N, I] or [N, I].
        targets: [M, N, O] or [N, O].

    Returns:
        mse [M] and r2 [M], float64.
    """
    models, rows = probe.weight.shape[0], inputs.shape[-2]
    mean = targets.mean(dim=-2, keepdim=True, dtype=torch.float64)
    error = mean.new_zeros(models)
    spread = mean.new_zeros(models)
    for first in range(0, rows, CHUNK_ROWS):
        part = slice(first, first + CHUNK_ROWS)
        wanted = targets[..., part, :].double()
        error += (probe(inputs[..., part, :]).double() - wanted).square().sum(dim=(1, 2))
        spread += (wanted - mean).square().sum(dim=(-2, -1))
    explained = torch.where(spread > 0, 1.0 - error / spread.clamp(min=1e-300), 0.0)
    return error / (rows * targets.shape[-1]), explained
