"""Adam on stacked tensors: PyTorch's own fused kernel, and the models that it must not touch.

    a <- b1 a + (1 - b1) g,   q <- b2 q + (1 - b2) g^2
    w <- w - lr a / (1 - b1^t) / (sqrt(q / (1 - b2^t)) + eps)

M Adams with one learning rate are one Adam over the whole buffer.

Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor
from torch.optim.adam import adam

from vaekit.model import Layer
from vaekit.state import BETA1, BETA2, EPSILON, State


def healthy(nll: Tensor, kl: Tensor, gradients: list[Layer]) -> Tensor:
    """Tell which models [M] may be updated: their terms and gradients' norms are finite.

    The norm and not the gradient: a finite gradient whose square overflows would make the second
    moment infinite, and its weights would stand still for good without a sign of it. That of the
    biases alone would not do either: activations can be huge where their layer's errors are not.
    """
    total = nll.sum(1) + kl.sum(1)
    for piece in chain.from_iterable(gradients):
        total = total + torch.linalg.vector_norm(piece.flatten(1), dim=1)
    return total.isfinite()


# A dead unit has no gradient, and its first moment would fall below the smallest normal float32
# within some 800 steps, where a CPU computes slowly: with 5 default models at mu = 0 a model-step
# went from 1.4 to 2.8 ms on two threads of an Intel Xeon. A moment below `LEAST` moves its weight
# by at most 1e-22 of a learning rate, and stays normal while it is multiplied by b1 `SWEEP` times.
LEAST = 1e-30
SWEEP = 64


class Adam:
    """The update of a state by the gradients of its layers.

    Models that share a learning rate at the start share it always; it may change from step to step.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        for moment in (state.exp_avg, state.exp_avg_sq):
            moment.data = moment.to(state.vae.flat.device)
        rates = state.learning_rate.tolist()
        # One call for a whole tensor of every layer, unless its models have rates of their own.
        # Which values share a call never changes: the bits at the ends of a call depend on it.
        self.groups = [
            (rates.index(rate), None if len(set(rates)) == 1 else _where(rates, rate))
            for rate in sorted(set(rates))
        ]
        flats = (state.vae.flat, state.exp_avg, state.exp_avg_sq)
        self.updated = [
            [_pieces(state.vae.architecture.split(flat), models) for flat in flats]
            for _, models in self.groups
        ]
        # What a model had when it was stopped; it is put back after each update of its neighbours.
        self.kept: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, healthy: Tensor, gradients: list[Layer]) -> None:
        """Stop the models [M] that are not healthy, and update those that train."""
        state = self.state
        state.stopped.masked_fill_(~healthy & (state.stopped == 0), int(state.steps) + 1)
        self._keep([model for model, step in enumerate(state.stopped.tolist()) if step])
        steps = state.steps.float()
        for (first, models), (parameters, exp_avgs, exp_avg_sqs) in zip(
            self.groups, self.updated, strict=True
        ):
            adam(
                parameters,
                _pieces(gradients, models),
                exp_avgs,
                exp_avg_sqs,
                [],
                [steps.clone() for _ in parameters],
                fused=True,
                amsgrad=False,
                beta1=BETA1,
                beta2=BETA2,
                lr=state.learning_rate[first].item(),
                weight_decay=0.0,
                eps=EPSILON,
                maximize=False,
            )
        state.steps.add_(1)
        if not state.steps.is_cuda and int(state.steps) % SWEEP == 0:
            for moment in (state.exp_avg, state.exp_avg_sq):
                torch.ops.aten.hardshrink.out(moment, LEAST, out=moment)
        for pieces in self.kept.values():
            for view, before in pieces:
                view.copy_(before)

    def _keep(self, stopped: list[int]) -> None:
        """Remember the stopped models as they are now, unless they are remembered."""
        state = self.state
        flats = (state.vae.flat, state.exp_avg, state.exp_avg_sq)
        self.kept = {
            model: self.kept.get(model)
            or [
                (view, view.clone())
                for flat in flats
                for view in _pieces(state.vae.architecture.split(flat), [model])
            ]
            for model in stopped
        }


def _pieces(layers: list[Layer], models: list[int] | None) -> list[Tensor]:
    """Weights and biases of all models together, or of some models one by one."""
    pieces = list(chain.from_iterable(layers))
    return pieces if models is None else [piece[model] for piece in pieces for model in models]


def _where(rates: list[float], rate: float) -> list[int]:
    return [model for model, other in enumerate(rates) if other == rate]
