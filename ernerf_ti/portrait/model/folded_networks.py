"""The networks of the head for one frame, with what the frame alone decides multiplied out. Without gradients.

With encoded positions x, encoded directions d, and weights as in :mod:`ernerf_ti.portrait.model.head_field`, density
and color of a point are

    r = relu([A1; E1] x)                                                      hidden units of region attention
    h = relu(W_x x + W_a diag(audio) A2 r_A + w_e eye sigmoid(E2 r_E))        of the density network
    [log sigma, c] = [1, C_g] D h + [0, C_d] d + [0, C_i appearance];  rgb = C2 relu(c)

Of linear maps that follow each other only the product is kept: [A1; E1; W_x] is one matrix, W_a diag(audio) A2 a
second, and [1, C_g] D a third. The results are those of the networks, up to rounding. Expression dials are gates like
that of the eyes, times how far they reach the point.
"""

import copy

import torch
from torch import Tensor

from ernerf_ti.portrait.model import activations
from ernerf_ti.portrait.model.dials import Dials
from ernerf_ti.portrait.model.mlp import MLP, in_precision
from ernerf_ti.portrait.model.region_attention import FoldedAttention, RegionAttention

N_VALUES, N_VALUES_WITH_ATTENTION = 4, 6
"""Density and color; audio and eye attention behind them."""
_CONSTANT_HARMONIC = 0.28209479177387814  # the first one, 1 / sqrt(4 pi)


class FoldedNetworks:
    """Density and color of points, from their encoded positions and directions, for one frame.

    Args:
        attention: region attention.
        density_net: takes features, weighted audio code and weighted eye closure.
        color_net: takes encoded directions, geometry features and appearance.
        audio_code: [A].
        eye_closure: [1].
        appearance: [appearance_size].
        precision: torch.float32 leaves matrices in the dtype of the weights; torch.bfloat16 and torch.float16 cast
            them once they are multiplied out.
        with_attention: compute audio and eye attention too.
        dials: the expression dials; None for a neutral face.

    The weights are read here, and may change afterwards. Memory for intermediate values is kept between calls: use an
    instance in one thread at a time.
    """

    @torch.no_grad()
    def __init__(
        self,
        attention: RegionAttention,
        density_net: MLP,
        color_net: MLP,
        audio_code: Tensor,
        eye_closure: Tensor,
        appearance: Tensor,
        precision: torch.dtype = torch.float32,
        with_attention: bool = False,
        dials: Dials | None = None,
    ):
        density, (color, *later) = density_net.weights, color_net.weights
        n_geometry, n_features = len(density[-1]) - 1, attention.n_features
        n_harmonics = color.shape[1] - n_geometry - len(appearance)
        of_harmonics, of_geometry, of_appearance = color.split((n_harmonics, n_geometry, len(appearance)), 1)
        density[-1] = torch.cat((density[-1][:1], of_geometry @ density[-1][1:]))
        # The appearance adds the same to all points, as does the first harmonic.
        constant = (of_appearance @ appearance / _CONSTANT_HARMONIC)[:, None]
        of_harmonics = torch.cat((of_harmonics[:, :1] + constant, of_harmonics[:, 1:]), 1)
        of_harmonics = torch.cat((of_harmonics.new_zeros(1, n_harmonics), of_harmonics))
        own, others, of_dials = density[0].tensor_split((n_features, n_features + len(audio_code) + 1), 1)
        folded = attention.folded(others, audio_code, eye_closure)
        if dials is not None:
            more = dials.folded(of_dials)
            folded = FoldedAttention(
                torch.cat((folded.hidden, more.hidden)),
                torch.block_diag(folded.gates, more.gates),
                torch.cat((folded.mixed, more.mixed), 1),
                folded.bias,
            )
        if len(density) > 1:
            # Harmonics are stored behind the last hidden units, and enter the same product.
            density[-1] = torch.cat((density[-1], of_harmonics), 1)
        self.n_values = N_VALUES_WITH_ATTENTION if with_attention else N_VALUES
        self._attention, self._precision = attention, precision
        self._first = in_precision(torch.cat((folded.hidden, own)), precision)
        self._gates = in_precision(folded.gates, precision)
        self._mixed = in_precision(folded.mixed, precision)
        self._bias = None if folded.bias is None else in_precision(folded.bias, precision)[:, None]
        self._density = [in_precision(weight, precision) for weight in density[1:]]
        self._of_harmonics = in_precision(of_harmonics, precision)
        self._color = [in_precision(weight, precision) for weight in later]
        self._n_hidden, self._n_harmonics = len(folded.hidden), n_harmonics
        self._n_first = len(self._first) + n_harmonics
        self._unit_steps: Tensor | None = None
        self._memory: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(
        self, features: Tensor, harmonics: Tensor, out: Tensor | None = None, reach: Tensor | None = None
    ) -> Tensor:
        """Evaluate M points. With 1,000 to 4,000 at once the intermediate values stay in the cache of a CPU.

        Args:
            features: [M, F] encoded positions, best channel-major in memory.
            harmonics: [M, degree^2] encoded directions.
            out: [4, M], or [6, M] with attention, for the result; each row in one piece.
            reach: [D, M] of the dials, as of :meth:`BoundHeadField.reach`; needed with dials.

        Returns:
            [4, M] density per scene unit and color in [-0.001, 1.001], and with attention the norm of the weights of
            the audio code and the weight of the eye closure, [6, M] in all; in the dtype of the features.
        """
        n = len(features)
        if out is None:
            out = features.new_empty(self.n_values, n)
        mixed, h = self._first_layers(features, harmonics, self._rows("first", self._n_first, n), out, reach)
        return self._later_layers(mixed, h, out)

    @torch.no_grad()
    def point_units(self, features: Tensor, harmonics: Tensor) -> Tensor:
        """What a point and the direction alone decide, whatever is said: without dials the same for all frames.

        Args:
            features, harmonics: as of a call.

        Returns:
            [P, M] for :meth:`of_point_units`: what the audio code and the eye closure are multiplied with, what the
            point adds to the density network's first layer, and the harmonics.
        """
        out = features.new_empty(N_VALUES_WITH_ATTENTION, len(features))
        mixed, h = self._first_layers(features, harmonics, self._rows("first", self._n_first, len(features)), out, None)
        return torch.cat((mixed, h))

    @torch.no_grad()
    def of_point_units(self, units: Tensor, out: Tensor) -> Tensor:
        """What a call returns without attention, for points whose units are known, in a third of the time.

        Args:
            units: [P, M] of :meth:`point_units`, or what stands for them, see :meth:`take_scaled_units`. May be
                overwritten.
            out: [4, M] for the result; each row in one piece.
        """
        mixed, h = units.to(self._first.dtype).tensor_split((self._mixed.shape[1],))
        if self._unit_steps is not None:
            h[: -self._n_harmonics].mul_(self._unit_steps)
        return self._later_layers(mixed, h, out)

    @torch.no_grad()
    def take_scaled_units(self, lowest: Tensor, steps: Tensor) -> None:
        """From now on take numbers u in place of the units lowest + steps u, which multiplies out, too.

        Args:
            lowest: [P, 1].
            steps: [P, 1], above 0. The numbers of the first harmonic, which is constant, are 1.
        """
        n_mixed, n_harmonics = self._mixed.shape[1], self._n_harmonics
        of_parts = (n_mixed, len(lowest) - n_harmonics)
        low_mixed, low_units, low_harmonics = lowest.to(self._first.dtype).tensor_split(of_parts)
        mixed_steps, unit_steps, harmonic_steps = steps.to(self._first.dtype).tensor_split(of_parts)

        def of_harmonics(weight: Tensor) -> Tensor:
            scaled = weight * harmonic_steps.t()
            scaled[:, :1] += weight @ low_harmonics
            return scaled

        bias = low_units + self._mixed @ low_mixed
        if self._bias is not None:
            bias += self._bias
        mixed = self._mixed * mixed_steps.t()
        if self._density:
            # The units stay divided by their steps, which ReLU does not mind, and the next layer multiplies them.
            mixed, bias = mixed / unit_steps, bias / unit_steps
            last = self._density[-1]
            self._density[-1] = torch.cat((last[:, :-n_harmonics], of_harmonics(last[:, -n_harmonics:])), 1)
            n_units = len(unit_steps)
            following = self._density[0]
            self._density[0] = torch.cat((following[:, :n_units] * unit_steps.t(), following[:, n_units:]), 1)
        else:
            self._unit_steps = unit_steps
            self._of_harmonics = of_harmonics(self._of_harmonics)
        self._mixed, self._bias = mixed, bias

    def with_own_memory(self) -> "FoldedNetworks":
        """The same networks for another thread."""
        other = copy.copy(self)
        other._memory = {}
        return other

    def _first_layers(
        self, features: Tensor, harmonics: Tensor, rows: Tensor, out: Tensor, reach: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """All that does not depend on the audio code and the eye closure.

        Args:
            rows: [n_first, M] for the results.
            out: its last two rows get the attention, if that is asked for.
            reach: [D, M] multiplies the last D gates.

        Returns:
            what is mixed into the density network's first layer, and its units before that, with the harmonics
            behind them.
        """
        torch.mm(self._first, features.t().to(rows.dtype), out=rows[: -self._n_harmonics])
        hidden, h = rows[: self._n_hidden].relu_(), rows[self._n_hidden :]
        n_mixed, n_gates = self._mixed.shape[1], len(self._gates)
        linear = hidden[: n_mixed - n_gates]
        gates = (self._gates @ hidden[len(linear) :]).sigmoid_()
        if self.n_values == N_VALUES_WITH_ATTENTION:
            out[4], out[5] = self._attention.norms(linear, gates)
        if reach is not None:
            gates[-len(reach) :].mul_(reach)
        # The gates take the place of hidden units that nothing needs any longer.
        hidden[len(linear) : n_mixed] = gates
        h[-self._n_harmonics :] = harmonics.t()
        return hidden[:n_mixed], h

    def _later_layers(self, mixed: Tensor, h: Tensor, out: Tensor) -> Tensor:
        """Arguments as :meth:`_first_layers` returns them; h is overwritten."""
        n, units = h.shape[1], h[: -self._n_harmonics]
        if len(mixed):
            units.addmm_(self._mixed, mixed)
        if self._bias is not None:
            units.add_(self._bias)
        if not self._density:
            units.addmm_(self._of_harmonics, h[-self._n_harmonics :])
        else:
            for i, weight in enumerate(self._density[:-1]):
                h[: -self._n_harmonics].relu_()
                wider = self._rows(f"density {i}", len(weight) + self._n_harmonics, n)
                torch.mm(weight, h[: -self._n_harmonics], out=wider[: len(weight)])
                wider[len(weight) :] = h[-self._n_harmonics :]
                h = wider
            h[: -self._n_harmonics].relu_()
            units = torch.mm(self._density[-1], h, out=self._rows("units", len(self._density[-1]), n))
        color = units[1:]
        for i, weight in enumerate(self._color):
            color = torch.mm(weight, color.relu_(), out=self._rows(f"color {i}", len(weight), n))
        activations.density_(out[0].copy_(units[0]))
        activations.unit_interval_(out[1:4].copy_(color))
        return out

    def _rows(self, name: str, n_rows: int, n: int) -> Tensor:
        """[n_rows, n] of the memory for some values."""
        memory = self._memory.get(name)
        if memory is None or len(memory) < n_rows * n:
            memory = self._memory[name] = self._first.new_empty(n_rows * n)
        return memory[: n_rows * n].view(n_rows, n)
