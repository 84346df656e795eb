"""Lightning's automatic optimization is the loop people write by hand, bit for bit, and its checkpoints go on."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

import varbnn as vb

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    lightning = pytest.importorskip(
        "lightning", reason='Lightning is not tested without: pip install "varbnn[lightning]"'
    )

pytestmark = pytest.mark.filterwarnings("ignore")  # it speaks of loggers, workers and folders

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
LOADER = DataLoader(TensorDataset(X, Y), batch_size=10, generator=torch.Generator())  # its seeds are its own
EPOCHS = 4


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        layers = [nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3), nn.BatchNorm1d(3)]
        self.net = vb.binarize(nn.Sequential(*layers))
        self.bits: list[float] = []

    def training_step(self, batch, index):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def on_train_epoch_end(self):
        self.bits.append(vb.health(self, warn=False).entropy_bits)

    def configure_optimizers(self):
        optimizer = vb.optim.BayesBiNN(self.parameters(), lr=0.1, dataset_size=60, temperature=0.1, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": CosineAnnealingLR(optimizer, EPOCHS)}


def trainer(folder, epochs=EPOCHS, **options):
    return lightning.Trainer(
        max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        default_root_dir=folder, **options,
    )  # fmt: skip


def by_hand(accumulate: int, clip: float | None, autocast: bool) -> nn.Module:
    module = Module()
    choice = module.configure_optimizers()
    optimizer, schedule = choice["optimizer"], choice["lr_scheduler"]
    torch.manual_seed(2)
    module.train()
    for _ in range(EPOCHS):
        for number, batch in enumerate(LOADER, 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = module.training_step(batch, number)
            (loss / accumulate).backward()
            if number % accumulate == 0:
                if clip is not None:
                    every = [p for group in optimizer.param_groups for p in group["params"]]  # in Lightning's order
                    nn.utils.clip_grad_norm_(every, clip)
                optimizer.step()
                optimizer.zero_grad()
        schedule.step()
    return module.net


@pytest.mark.parametrize("accumulate, clip, autocast", [(1, None, False), (2, 0.05, False), (3, 0.05, True)])
def test_a_trainer_does_what_the_loop_does(accumulate, clip, autocast, tmp_path):
    expected, module = by_hand(accumulate, clip, autocast).state_dict(), Module()
    torch.manual_seed(2)
    options = dict(accumulate_grad_batches=accumulate, gradient_clip_val=clip, enable_checkpointing=False)
    trainer(tmp_path, precision="bf16-mixed" if autocast else "32-true", **options).fit(module, LOADER)
    found = module.net.state_dict()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert len(module.bits) == EPOCHS


def test_a_checkpoint_goes_on(tmp_path):
    expected, first, second = by_hand(1, None, False).state_dict(), Module(), Module()
    torch.manual_seed(2)
    started = trainer(tmp_path, epochs=2)
    started.fit(first, LOADER)
    started.save_checkpoint(tmp_path / "two.ckpt")
    state = torch.get_rng_state()  # which Lightning leaves to its user
    torch.manual_seed(3)
    going_on = trainer(tmp_path)
    second.on_train_start = lambda: torch.set_rng_state(state)
    going_on.fit(second, LOADER, ckpt_path=str(tmp_path / "two.ckpt"))
    found = second.net.state_dict()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
