"""Settings of a living posterior that were measured, by the kind of data they were measured on.

Every number was chosen on validation data, and the benchmark named in `measured` writes the table that shows it. They
are starting points: the temperature is the number to try again on your own data, between a third and three times as
much.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from varbnn.optim import BayesBiNN
from varbnn.posteriors import Bernoulli

__all__ = ["PRESETS", "Preset", "fitting"]

FEW, MANY = 5_000, 30_000
"""Training inputs, below and from which data are taken as few and many."""


@dataclass(frozen=True)
class Preset:
    """What to train a Bernoulli posterior with, and what to ask of it.

    Attributes:
        suits: data like those it was measured on.
        why: the reason of each number.
        measured: where the numbers come from.
        lr, temperature, real_lr: of `varbnn.optim.BayesBiNN`; rates fall along a cosine to 0.
        widths: of the fully connected hidden layers of the network it was measured on.
        epochs, batch_size: of the training.
        dropout: share of the inputs that are set to zero in training, ``nn.Dropout`` in front.
        num_samples: draws of a prediction.
        refresh: training inputs, at most, from which each draw's batch norms are re-estimated.
        channels: of 3×3 convolutions in front of the fully connected layers, each with a 2×2 pooling.
        activation: between the layers, ``"relu"`` or ``"sign"``.
    """

    suits: str
    why: str
    measured: str
    lr: float
    temperature: float
    real_lr: float
    widths: tuple[int, ...]
    epochs: int
    batch_size: int
    dropout: float = 0.0
    num_samples: int = 32
    refresh: int = 10_000
    channels: tuple[int, ...] = ()
    activation: str = "relu"

    @property
    def posterior(self) -> Bernoulli:
        """Straight-through draws from λ = 0.1 · N(0, 1), the defaults."""
        return Bernoulli()

    @property
    def settings(self) -> dict[str, float]:
        """Of the rule, without the number of training inputs."""
        return {"lr": self.lr, "temperature": self.temperature, "real_lr": self.real_lr}

    def optimizer(self, model: nn.Module, dataset_size: int) -> BayesBiNN:
        """The rule on the parameters of a model with binary layers.

        >>> import varbnn as vb
        >>> preset = PRESETS["digits"]
        >>> model = vb.binarize(nn.Linear(64, 10), preset.posterior)
        >>> preset.optimizer(model, dataset_size=1437).param_groups[0]["temperature"]
        0.001
        """
        return BayesBiNN(
            model.parameters(), self.lr, dataset_size=dataset_size, temperature=self.temperature, real_lr=self.real_lr
        )


PRESETS = {
    "digits": Preset(
        suits="about a thousand small inputs whose classes hardly overlap",
        why=(
            "Of 1/30 to 1/3000, NLL and ECE stop falling at 1/1000; colder draws gain nothing and agree more. 1200 "
            "steps need lr 3e-3 to come near their fixed point, and the head's scale real_lr 3e-2."
        ),
        measured="benchmarks/accuracy.py --activation relu, nine trials; benchmarks/posterior_ablation.py",
        lr=3e-3,
        temperature=1 / 1000,
        real_lr=3e-2,
        widths=(256, 256),
        epochs=100,
        batch_size=100,
    ),
    "digits-signs": Preset(
        suits="about a thousand small inputs whose classes hardly overlap, where activations are to be ±1 too",
        why=(
            "Of 1/300 and 1/1000, each with real_lr 2e-2, 6e-2 and 2e-1, the validation NLL was lowest here, 0.059. Of "
            "four other splits three chose 1/300 with 6e-2. The narrower the network, the more draws gain."
        ),
        measured="benchmarks/accuracy.py --data digits, six trials on each of five splits",
        lr=3e-3,
        temperature=1 / 1000,
        real_lr=2e-2,
        widths=(128, 128),
        epochs=100,
        batch_size=100,
        activation="sign",
    ),
    "digits-conv": Preset(
        suits="about a thousand small grey images whose classes hardly overlap",
        why=(
            "Convolutions take the NLL down, from about 0.04 to 0.02 on test digits. Over five splits the settings of "
            "digits had the lowest validation NLL, 0.029; 1/300 had 0.031 with real_lr 1e-1, and 1/100 0.040."
        ),
        measured="benchmarks/accuracy.py --data digits --convolutions, nine trials on each of five splits",
        lr=3e-3,
        temperature=1 / 1000,
        real_lr=3e-2,
        widths=(128,),
        epochs=100,
        batch_size=100,
        channels=(32, 64),
    ),
    "mnist": Preset(
        suits="tens of thousands of inputs whose classes hardly overlap",
        why=(
            "1/100 had the lowest validation NLL of 1/100, 1/200 and 1/300: colder draws agree where they should not. "
            "lr · steps is 6 under the cosine, enough to feel the prior."
        ),
        measured="benchmarks/accuracy.py --data mnist --activation relu, nine trials",
        lr=1e-3,
        temperature=1 / 100,
        real_lr=1e-2,
        widths=(400, 400),
        epochs=20,
        batch_size=100,
    ),
    "mnist-signs": Preset(
        suits="tens of thousands of inputs whose classes hardly overlap, where activations are to be ±1 too",
        why=(
            "Of 1/100, 1/200 and 1/300, 1/200 had the lowest validation NLL (0.057, 0.056, 0.059); real_lr 1e-2 is "
            "level with 3e-2 and 1e-1 is too fast (0.072)."
        ),
        measured="benchmarks/accuracy.py --data mnist, nine trials",
        lr=1e-3,
        temperature=1 / 200,
        real_lr=3e-2,
        widths=(400, 400),
        epochs=20,
        batch_size=100,
        activation="sign",
    ),
    "fashion": Preset(
        suits="some ten thousand inputs whose classes overlap",
        why=(
            "Where labels contradict each other one network learns them by heart and is too sure of them, so the "
            "prior may weigh more: of 1/15, 1/30, 1/60, 1/150 and 1/400, 1/60 had the lowest ECE and an NLL within "
            "0.003 of the lowest. 4000 steps take lr 3e-3. Inputs left out (0.2 of them, rather than 0, 0.1 or 0.3) "
            "take the NLL down by as much as the draws do, and real_lr 3e-2 by a little. 40 epochs gain on 20 (0.340 "
            "for 0.348); 80 gain a little more (0.336) and make it too sure."
        ),
        measured=(
            "benchmarks/uncertainty.py, 10,000 images of Fashion-MNIST, five trials for each length; "
            "benchmarks/posterior_ablation.py --data fashion"
        ),
        lr=3e-3,
        temperature=1 / 60,
        real_lr=3e-2,
        widths=(200, 200),
        epochs=40,
        batch_size=100,
        dropout=0.2,
    ),
    "fashion-signs": Preset(
        suits="some ten thousand inputs whose classes overlap, where activations are to be ±1 too",
        why=(
            "Colder than with ReLU: of 1/200, 1/300 and 1/600, 1/300 had the lowest validation NLL (0.361), level with "
            "1/200 at real_lr 1e-1 (0.362). At 1/200 a tenth of inputs left out has 0.364, none 0.373, a fifth 0.368."
        ),
        measured="benchmarks/uncertainty.py --scale signs, 10,000 images of Fashion-MNIST, eight trials",
        lr=2e-3,
        temperature=1 / 300,
        real_lr=3e-2,
        widths=(200, 200),
        epochs=20,
        batch_size=100,
        dropout=0.1,
        activation="sign",
    ),
    "fashion-conv": Preset(
        suits="tens of thousands of grey images whose classes overlap",
        why=(
            "Of 1/20, 1/30, 1/60 and 1/120, 1/30 had the lowest validation NLL (0.225, 0.217, 0.218, 0.222) and 1/60 "
            "the lowest ECE; lr 3e-3 had 0.223, 5e-4 at 1/40 0.224. Leaving inputs or units out was not tried."
        ),
        measured="benchmarks/uncertainty.py --scale conv, 50,000 images of Fashion-MNIST, six trials",
        lr=1e-3,
        temperature=1 / 30,
        real_lr=1e-2,
        widths=(128,),
        epochs=12,
        batch_size=100,
        channels=(16, 32),
    ),
}
"""By the data they were measured on."""


def fitting(dataset_size: int) -> str:
    """The name of the preset to begin with for so many training inputs, where nothing else is known of them.

    >>> fitting(1437), fitting(10_000), fitting(60_000)
    ('digits', 'fashion', 'mnist')
    """
    if dataset_size < FEW:
        return "digits"
    return "mnist" if dataset_size >= MANY else "fashion"
