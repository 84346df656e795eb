"""The same for real targets: means of S networks, and the law of total variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from varbnn.checks import Values, as_tensor, finite_number
from varbnn.errors import InputError
from varbnn.predict.checks import at_least_float32
from varbnn.predict.mixture import quantile
from varbnn.predict.uncertainty import count, input_index, mean64


@dataclass(frozen=True, init=False, eq=False, repr=False)
class RegressionPrediction:
    """Outputs of S networks for N inputs, and the noise each network expects; all uncertainties are variances.

    The law of total variance, in squared units of the target (not nats), per input and output:

        total      epistemic + aleatoric               variance of an observation under the mixture of the S networks
        aleatoric  mean_s of the noise variance        (0 where none is given)
        epistemic  mean_s of (output - mean)²          (the mixture weights its members equally)

    Args:
        means: S×N or S×N×D, floating, finite.
        noise_variance: None, a positive number for all, or positive values shaped like `means`.

    Raises:
        InputError: another shape, S or N = 0, NaN or inf, a noise variance that is not positive.

    >>> pred = RegressionPrediction([[0.0, 1.0], [2.0, 1.0]], noise_variance=0.25)
    >>> pred.epistemic.tolist(), pred.total.tolist()
    ([1.0, 0.0], [1.25, 0.25])
    """

    means: Tensor
    noise_variance: Tensor | None

    def __init__(self, means: Values, noise_variance: Values | float | None = None) -> None:
        means = as_tensor(means, "means")
        if means.ndim not in (2, 3) or 0 in means.shape:
            raise InputError(
                "means must be S×N or S×N×D (samples × inputs × outputs), none of them 0, "
                f"got shape {tuple(means.shape)}. For a single network pass means[None]."
            )
        if not means.is_floating_point():
            raise InputError(f"means must be floating point, got {means.dtype}; call .float()")
        means = at_least_float32(means)
        if not all(bool(sample.isfinite().all()) for sample in means):
            raise InputError("means hold NaN or inf; every output must be finite. Look for a diverged network.")
        object.__setattr__(self, "means", means)
        noise = None if noise_variance is None else _checked_noise(noise_variance, means)
        object.__setattr__(self, "noise_variance", noise)

    @property
    def num_samples(self) -> int:
        """S, how many networks voted."""
        return self.means.shape[0]

    @property
    def mean(self) -> Tensor:
        """Mean over the samples, N or N×D, in units of the target."""
        return mean64(self.means).to(self.means.dtype)

    @property
    def epistemic(self) -> Tensor:
        """Variance of the outputs over the networks, N or N×D, squared units; exactly 0 where all agree."""
        return self._epistemic64().to(self.means.dtype)

    @property
    def aleatoric(self) -> Tensor:
        """Mean noise variance, N or N×D, squared units; zeros where no noise is given."""
        return self._aleatoric64().to(self.means.dtype)

    @property
    def total(self) -> Tensor:
        """Variance of an observation, N or N×D, squared units."""
        return (self._epistemic64() + self._aleatoric64()).to(self.means.dtype)

    @property
    def std(self) -> Tensor:
        """Standard deviation of an observation, N or N×D, in units of the target."""
        return (self._epistemic64() + self._aleatoric64()).sqrt().to(self.means.dtype)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Lower and upper end of the central interval that holds an observation with probability `level`.

        Of the mixture of the S Gaussians itself, not of one Gaussian with its variance; N or N×D each, units of the
        target.

        Raises:
            InputError: no noise variance, so that there is no density; `level` not between 0 and 1.

        >>> low, high = RegressionPrediction([[0.0]], noise_variance=1.0).interval()
        >>> f"{float(low):.2f} {float(high):.2f}"
        '-1.96 1.96'
        """
        level = finite_number("level", level, above=0, most=1 - 2**-52)  # above this (1 + level) / 2 is rounded to 1
        if self.noise_variance is None:
            raise InputError("an interval of observations needs a noise variance; see varbnn.nn.LearnedNoise")
        ends = (quantile(self.means, self.noise_variance, p) for p in ((1 - level) / 2, (1 + level) / 2))
        low, high = (end.to(self.means.dtype) for end in ends)
        return low, high

    def in_units(self, scale: float, shift: float = 0.0) -> RegressionPrediction:
        """The prediction of scale · target + shift, in float64: undoes the standardisation of the targets.

        Raises:
            InputError: `scale` is not positive, or what comes out is not finite or a noise of 0.

        >>> RegressionPrediction([[1.0]], noise_variance=0.25).in_units(2.0, 10.0).std
        tensor([1.], dtype=torch.float64)
        """
        scale, shift = finite_number("scale", scale, above=0), finite_number("shift", shift)
        noise = None if self.noise_variance is None else self.noise_variance.double() * scale * scale
        return RegressionPrediction(self.means.double() * scale + shift, noise)  # float32 would round to a large shift

    def numpy(self) -> np.ndarray[Any, np.dtype[Any]]:
        """`means` as an array; shares memory with a CPU tensor."""
        array: np.ndarray[Any, np.dtype[Any]] = self.means.cpu().numpy()
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, np.dtype[Any]]:
        """The same for numpy's functions, but for those that ask for a method of their name (`numpy.mean`)."""
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __len__(self) -> int:
        """N, the number of inputs."""
        return self.means.shape[1]

    def __getitem__(self, index: Any) -> RegressionPrediction:
        """The same networks' predictions for some inputs; see `Prediction.__getitem__`."""
        index, noise = input_index(index, len(self)), self.noise_variance
        if noise is not None and noise.ndim > 0:
            noise = noise[:, index]
        return RegressionPrediction(self.means[:, index], noise)

    def __repr__(self) -> str:
        samples, inputs, *outputs = self.means.shape
        shape = f"{count(samples, 'sample')} × {count(inputs, 'input')}" + "".join(f" × {d} outputs" for d in outputs)
        noise = "no noise variance" if self.noise_variance is None else "with noise variance"
        return f"RegressionPrediction({shape}, {noise})"

    def _epistemic64(self) -> Tensor:
        first = self.means[0].double()
        shift = torch.zeros_like(first)
        for sample in self.means:  # from the first on: the mean of S equal numbers is rounded, that of zeros is not
            shift += (sample.double() - first) / self.num_samples
        centre, accumulated = first + shift, torch.zeros_like(first)
        for sample in self.means:  # second pass over centred values: E[x²] - E[x]² would cancel
            accumulated += (sample.double() - centre).square()
        return accumulated / self.num_samples

    def _aleatoric64(self) -> Tensor:
        noise, shape = self.noise_variance, self.means.shape[1:]
        if noise is None:
            return torch.zeros(shape, dtype=torch.float64, device=self.means.device)
        return mean64(noise) if noise.ndim > 0 else noise.double().expand(shape).clone()


def _checked_noise(noise_variance: Values | float, means: Tensor) -> Tensor:
    noise = as_tensor(noise_variance, "noise_variance")
    if noise.ndim != 0 and noise.shape != means.shape:
        raise InputError(
            f"noise_variance must be a number or shaped like means {tuple(means.shape)}, "
            f"got shape {tuple(noise.shape)}; expand it over the samples"
        )
    noise, given = noise.to(dtype=means.dtype, device=means.device), noise
    usable = noise.isfinite() & (noise > 0)
    if not usable.all():
        wrong, dtype = given[~usable.to(given.device)][0].item(), str(means.dtype).removeprefix("torch.")
        raise InputError(f"noise_variance must be > 0 and finite in {dtype}, got {wrong:.4g}; pass None for no noise")
    return noise
