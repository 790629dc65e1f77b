"""Several S4D classifiers of one shape, trained side by side as the chip will run them.

A `Trainable` starts from models, holds their parameters with a leading axis of runs (seeds or
chips that differ), and computes what the deployed network computes: rounded weights and
activations, the recurrence with its rounded state step by step, and fresh errors of the cells in
every batch. All of it is differentiable, rounding with straight-through gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm.model import Model
from ssm.onchips import OnChips
from ssm.quantize import Precision
from ssm.rounding import Step, learn_step, learned_step, quantize_weights, step_for, weight_grid
from ssm.schemes import Scheme
from ssm.stacking import stack_of, to_array, to_tensor
from ssm.trainable_layer import TrainableLayer, largest_of

Watch = Callable[[TrainableLayer, Tensor], None]


class Trainable(nn.Module):
    """Models of one shape as one module; `forward` gives logits (B, runs, classes).

    Parameters
    ----------
    models : one a run. precision : bits of every quantity. chips : errors of each run's chip,
    drawn anew in every pass while training. form : of A, "digital" or "leapfrog". decay :
    leapfrog: "tile" or "digital". scheme : how weights are rounded.
    """

    chips: OnChips

    def __init__(
        self, models: Sequence[Model], precision: Precision | None = None,
        chips: OnChips | None = None, form: str = "digital", decay: str = "tile",
        scheme: Scheme | None = None,
    ) -> None:
        super().__init__()
        self.start, self.precision = tuple(models), precision or Precision()
        self.scheme = scheme or Scheme()
        self.chips = chips or OnChips()
        first = models[0]
        self.norm, self.pool, self.layer_norm = first.norm, first.pool, first.norm_kind == "layer"
        self.norm_epsilon = first.norm_epsilon
        stack = stack_of(models)
        self.encoder_weight = nn.Parameter(to_tensor(stack("encoder_weight")))
        self.encoder_bias = nn.Parameter(to_tensor(stack("encoder_bias")))
        self.decoder_weight = nn.Parameter(to_tensor(stack("decoder_weight")))
        self.decoder_bias = nn.Parameter(to_tensor(stack("decoder_bias")))
        self.layers = [
            TrainableLayer(
                [model.layers[k] for model in models], self.precision, self.chips, form, decay,
                self.scheme,
            )
            for k in range(first.n_layers)
        ]
        for k, layer in enumerate(self.layers):
            self.add_module(f"layer_{k}", layer)
        self.input_step = step_for((len(models), 1), self.precision.act)
        self.decode_step = step_for((len(models), 1), self.precision.act)
        self.weight_steps = nn.ModuleDict()
        for name in ("enc", "dec"):
            learn_step(
                self.weight_steps, name, *self._weight(name), getattr(self.precision, name),
                self.scheme.of(name),
            )

    def set_precision(self, precision: Precision) -> None:
        """Change the bits of what is rounded; ranges stay."""
        self.precision = precision
        for layer in self.layers:
            layer.precision = precision
            if layer.state_step is not None and precision.state is not None:
                layer.state_step.bits = precision.state
        for step in self._act_steps():
            step.bits = precision.act or step.bits
        parts: list[Trainable | TrainableLayer] = [self, *self.layers]
        for part in parts:
            for name, learned in part.weight_steps.items():
                assert isinstance(learned, Step)
                learned.bits = getattr(precision, name) or learned.bits

    def kernel_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of A of all layers."""
        return [p for layer in self.layers for p in layer.kernel_parameters()]

    def step_parameters(self) -> list[nn.Parameter]:
        """Return the learned ranges of all quantisers."""
        return [part.log_range for part in self.modules() if isinstance(part, Step)]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, runs, classes) for x (B, T, d_input)."""
        h = self._pooled(x)
        if self.decode_step is not None:
            h = self.decode_step.quantize(h)
        logits = self._dense("decoder", h[:, None], self.decode_step is not None)
        return logits[:, 0] + self.decoder_bias

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set the ranges of all quantisers from what the network shows on x (n, T, d_input)."""
        if self.input_step is not None:
            self.input_step.set_range(x.abs().amax().expand_as(self.input_step.log_range))
        with self._undisturbed():
            # what a quantiser sees depends on those before it alone, so one pass is enough
            pooled = self._pooled(x, TrainableLayer.calibrate, TrainableLayer.calibrate_mixing)
        if self.decode_step is not None:
            self.decode_step.set_range(largest_of(pooled[:, None]))

    @torch.no_grad()
    def set_row_ranges(self, x: Tensor) -> None:
        """Set the full-scale inputs of C's rows to what the network as it is shows on x."""
        if self.chips.disturbance is not None:
            with self._undisturbed():
                self._pooled(x, TrainableLayer.set_row_ranges)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        was = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was)

    def _pooled(
        self, x: Tensor, see_inputs: Watch | None = None, see_outputs: Watch | None = None
    ) -> Tensor:
        """Return the last layer's output, pooled over time (B, runs, H).

        see_inputs, see_outputs : called with every layer and its heads' inputs or outputs.
        """
        x = x[:, :, None, :]
        if self.input_step is not None:
            x = self.input_step.quantize(x)
        x = x.expand(-1, -1, len(self.encoder_weight), -1)
        h = self._dense("encoder", x, self.input_step is not None) + self.encoder_bias
        for layer in self.layers:
            u = self._normalise(layer, h) if self.norm == "pre" else h
            if see_inputs is not None:
                see_inputs(layer, u)
            y = layer.respond(u, self.training)
            if see_outputs is not None:
                see_outputs(layer, y)
            h = h + layer.mix(y, self.training)
            h = self._normalise(layer, h) if self.norm == "post" else h
        return h.mean(dim=1) if self.pool == "mean" else h[:, -1]

    def _dense(self, name: str, x: Tensor, rounded: bool) -> Tensor:
        """Return x (B, T, runs, n_in) through the encoder or decoder."""
        short = name[:3]
        w, dims = self._weight(short)
        weight = quantize_weights(
            w, getattr(self.precision, short), dims, self.scheme.of(short),
            learned_step(self.weight_steps, short),
        )
        return self.chips.product(name, x, weight, self.training, rounded=rounded)

    def _weight(self, name: str) -> tuple[Tensor, tuple[int, ...]]:
        """Return enc or dec before rounding, and the axes that share a range."""
        w = self.encoder_weight if name == "enc" else self.decoder_weight
        return w, (1, 2) if self.scheme.of(name).per == "tensor" else (1,)

    def _normalise(self, layer: TrainableLayer, h: Tensor) -> Tensor:
        if self.layer_norm:
            h = functional.layer_norm(h, h.shape[-1:], eps=self.norm_epsilon)
        return h * layer.norm_scale + layer.norm_shift

    def _act_steps(self) -> list[Step]:
        steps = [self.input_step, self.decode_step]
        steps += [step for layer in self.layers for step in (layer.skip_step, layer.mix_step)]
        return [step for step in steps if step is not None]

    @torch.no_grad()
    def to_models(self) -> list[Model]:
        """Return the model of every run: weights on their grids, precision, learned steps."""
        result = []
        for run, start in enumerate(self.start):
            p = self.precision
            act = [float(s()[run]) for s in (self.input_step, self.decode_step) if s is not None]
            carried = {**(start.precision or {}), **p.given()}
            arrays = {"encoder_weight": self.encoder_weight, "decoder_weight": self.decoder_weight}
            grids = {}
            for name, array in (("enc", "encoder_weight"), ("dec", "decoder_weight")):
                bits = getattr(p, name)
                if bits is not None:
                    w, dims = self._weight(name)
                    grids[array] = weight_grid(
                        w, bits, dims, self.scheme.of(name),
                        learned_step(self.weight_steps, name), run,
                    )
            weights = {name: to_array(w[run]) for name, w in arrays.items()}
            result.append(
                start.replace(
                    **weights | {name: grid.values() for name, grid in grids.items()},
                    grids=grids,
                    encoder_bias=to_array(self.encoder_bias[run]),
                    layers=tuple(layer.to_layer(run) for layer in self.layers),
                    decoder_bias=to_array(self.decoder_bias[run]),
                    precision=carried or None,
                    act_step=np.array(act) if act else None,
                    sha256="",
                )
            )
        return result
