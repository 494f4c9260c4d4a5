"""A trainable weight on the steps of a table: latent weights, scales and the steps themselves learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporters.formats.base import Encoded
from exporters.formats.learned_steps import LARGEST_STEP, rising
from exporters.formats.parts import Grid
from toolchain.compress.grids import storable
from toolchain.compress.values import codes_of_steps
from toolchain.tuning.parametrization import HALF_STEP, LatentWeight


class TableWeight(LatentWeight):
    """w = scale steps[nearest(latent / scale)], the codes chosen anew at every step.

    The gradient passes the rounding unchanged to latent weights and scales, as in FakeQuantizedWeight; a step gets the
    sum of those of the weights that it stands for, times their scales. Parameters have the size of an integer format's
    scales, for which learning rates are meant, and are 2^shift times smaller than the weight.
    """

    def __init__(self, encoded: Encoded, weight: Tensor) -> None:
        """encoded: in a format of learned steps; weight: the original matrix, float32 [rows, cols]."""
        super().__init__(encoded)
        (part,) = self.fmt.split(encoded)
        self.values, steps = part.values, torch.tensor(part.values.learned, dtype=torch.float32)
        self.unit = 2.0 * LARGEST_STEP / self.values.levels  # steps from one integer to the next
        scales = torch.from_numpy(part.scales) * self.moved * self.unit
        self.typical = float(scales.abs().median().clamp_min(torch.finfo(torch.float32).tiny))
        self.scales = nn.ParameterList([nn.Parameter(scales), nn.Parameter(steps / self.unit * self.typical)])
        gaps = torch.nn.functional.pad(steps.diff(), (1, 1), value=float("inf"))
        near = torch.minimum(gaps[1:], gaps[:-1])[self._codes(self._exactly(encoded), steps)]
        reach = HALF_STEP * near * self._spread().detach().abs()
        self.latent = self._started(encoded, weight, reach)

    def _spread(self) -> Tensor:
        """What a step of 1 is worth, [rows, cols]."""
        spread: Tensor = self.scales[0].repeat_interleave(self.values.group_size(self.cols), 1)[:, : self.cols]
        return spread / self.unit

    def _steps(self) -> Tensor:
        """The steps in order, before they are rounded to integers."""
        steps: Tensor = self.scales[1] / self.typical * self.unit
        return steps.sort().values

    @torch.no_grad()
    def _codes(self, weight: Tensor, steps: Tensor) -> Tensor:
        return codes_of_steps(weight / self._spread(), tuple(int(step) for step in steps))

    def forward(self) -> Tensor:
        """The weight [rows, cols] as it would be stored, except that scales are not rounded to float16."""
        steps, spread = self._steps(), self._spread()
        whole = torch.from_numpy(rising(steps.detach().numpy()))
        steps = steps + (whole - steps).detach()
        rounded = steps[self._codes(self.latent, whole)]
        wanted = (self.latent / spread).clamp(float(whole[0]), float(whole[-1]))
        weight: Tensor = (wanted - wanted.detach() + rounded) * spread
        return weight * 2.0**self.shift if self.shift else weight

    @torch.no_grad()
    def normalised(self, exponent: int) -> Encoded:
        moved = float(2.0 ** (self.shift - exponent))
        grid = Grid(storable(self.scales[0] / self.unit * moved).numpy(), None, rising(self._steps().numpy()))
        codes = self.values.codes((self.latent * moved).numpy(), grid)
        return self.fmt.join([(torch.ones(self.latent.shape, dtype=torch.bool).numpy(), codes, grid)])
