"""What each rank of the distributed tests does; `launch` starts two of them on gloo and collects what they found."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from tests.torch_life.networks import bayes, normalised, plain, train_step
from varbnn import fit, freeze, health, pack, predict
from varbnn.errors import InputError
from varbnn.nn.draws import gathered
from varbnn.optim import VISPA
from varbnn.posteriors import Bernoulli, LowRankGaussian

RANKS = 2


def launch() -> dict[str, list[dict[str, Any]]]:
    """Run every work in two processes; name of the work → what each rank returned."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_start, args=(folder,), nprocs=RANKS)
        found = [torch.load(Path(folder) / str(rank), weights_only=True) for rank in range(RANKS)]
        return {name: [results[name] for results in found] for name in found[0]}


def _start(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=RANKS, timeout=timedelta(seconds=60))
    try:
        torch.save({work.__name__: work(rank) for work in WORKS}, Path(folder) / str(rank))
    finally:
        dist.destroy_process_group()


def shard_of_the_batch(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = torch.Generator().manual_seed(7)
    x, y = torch.randn(32, 8, generator=data), torch.randint(4, (32,), generator=data)
    return x[rank::RANKS], y[rank::RANKS]


def data_parallel(rank: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = plain()
    parallel = DistributedDataParallel(model)
    optimizer = bayes(parallel)
    torch.manual_seed(100 + rank)
    x, y = shard_of_the_batch(rank)

    before = torch.get_rng_state()
    drawn: list[torch.Tensor] = []
    model[0].register_forward_hook(lambda layer, args, output: drawn.append(layer.weight.detach()))
    # a rank's own gradient: autograd.grad does not reach the hooks that average over ranks
    own = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    torch.set_rng_state(before)
    F.cross_entropy(parallel(x), y).backward()
    averaged = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    for _ in range(2):
        train_step(parallel, optimizer, x, y)
    return {
        "draw": drawn[1],
        "own": list(own),
        "averaged": averaged,
        "parameters": [p.detach() for p in model.parameters()],
    }


def data_parallel_published(rank: int) -> dict[str, Any]:
    """The posterior with buffers, and batch norm."""
    torch.manual_seed(0)
    model = normalised(Bernoulli(estimator="concrete", numerics="reference"))
    parallel = DistributedDataParallel(model)
    optimizer = bayes(parallel)
    torch.manual_seed(100 + rank)
    for _ in range(3):
        train_step(parallel, optimizer, *shard_of_the_batch(rank))
    return {"parameters": [p.detach() for p in model.parameters()], "buffer": model[0].previous_natural}


def data_parallel_low_rank(rank: int) -> dict[str, Any]:
    """Each rank has noise of its own; its gradients in the factors are products with it, before they are averaged."""
    torch.manual_seed(0)
    model = plain(LowRankGaussian(rank=3, scale=1.0, scope="network", constraint="unit"))
    parallel = DistributedDataParallel(model)
    optimizer = VISPA(parallel.parameters(), lr=0.5)
    torch.manual_seed(100 + rank)
    x, y = shard_of_the_batch(rank)
    before = torch.get_rng_state()
    own = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    torch.set_rng_state(before)
    F.cross_entropy(parallel(x), y).backward()
    averaged = [p.grad.clone() for p in model.parameters()]
    for _ in range(3):
        train_step(parallel, optimizer, x, y)
    return {"own": list(own), "averaged": averaged, "parameters": [p.detach() for p in model.parameters()]}


def sharded_low_rank(rank: int) -> dict[str, Any]:
    """Location and factors are sharded along different axes; the constraint needs both."""
    torch.manual_seed(0)
    model = plain(LowRankGaussian(rank=4, scale=1.0, constraint="unit"))
    fully_shard(model, mesh=init_device_mesh("cpu", (RANKS,)))
    optimizer = VISPA(model.parameters(), lr=0.5)
    torch.manual_seed(1)
    losses = [train_step(model, optimizer, *shard_of_the_batch(0)) for _ in range(3)]
    return {"losses": losses, "parameters": [p.full_tensor().detach() for p in model.parameters()]}


def sharded(rank: int) -> dict[str, Any]:
    """The same seed and data on both ranks, so that the run equals one on a single process."""
    torch.manual_seed(0)
    model = plain()
    mesh = init_device_mesh("cpu", (RANKS,))
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = bayes(model)
    torch.manual_seed(1)
    x, y = shard_of_the_batch(0)
    losses = [train_step(model, optimizer, x, y) for _ in range(3)]
    kinds = [f"{group['kind']} {len(group['params'])}" for group in optimizer.param_groups]
    result = {"losses": losses, "kinds": kinds, "parameters": [p.full_tensor().detach() for p in model.parameters()]}

    # a gradient that is NaN in the shard of one rank only must stop both, or the other waits for ever
    if rank == 1:
        model[0].natural.grad.to_local()[0, 0] = float("nan")
    before = [p.full_tensor().detach().clone() for p in model.parameters()]
    try:
        optimizer.step()
        result["refused"] = "no"
    except InputError as error:
        result["refused"] = str(error)
    result["unchanged"] = all(torch.equal(p.full_tensor(), q) for p, q in zip(model.parameters(), before, strict=True))
    return result


def sharded_with_own_draws(rank: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = plain()
    mesh = init_device_mesh("cpu", (RANKS,))
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = bayes(model)
    torch.manual_seed(100 + rank)
    losses = [train_step(model, optimizer, *shard_of_the_batch(rank)) for _ in range(3)]
    model.eval()
    return {"losses": losses, "mode": model(torch.ones(1, 8)).detach()}


def run_of_fit(model: torch.nn.Module, epochs: int = 3, checkpoint: Path | None = None) -> list[dict[str, float]]:
    """The same on one process and on sharded ranks."""
    torch.manual_seed(1)
    x, y = shard_of_the_batch(0)
    loader = [(x[:8], y[:8]), (x[8:], y[8:])]
    options = dict(epochs=epochs, validation=[shard_of_the_batch(1)], checkpoint=checkpoint, progress=False)
    rows = fit(model, bayes(model, lr=0.1), loader, **options)
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def sharded_fit(rank: int) -> dict[str, Any]:
    """`fit`, `health` and `predict` on a model that is spread over the ranks; a run that goes on from a file."""

    def spread() -> torch.nn.Module:
        torch.manual_seed(0)
        model = normalised()
        mesh = init_device_mesh("cpu", (RANKS,))
        for layer in (model[0], model[3]):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model

    model, parted = spread(), spread()
    rows = run_of_fit(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        run_of_fit(parted, epochs=2, checkpoint=path)
        parted = spread()
        resumed = run_of_fit(parted, checkpoint=path)
    x, _ = shard_of_the_batch(1)
    own = torch.Generator().manual_seed(3)
    found = {
        "rows": rows,
        "resumed": resumed,
        "parameters": [gathered(p).detach() for p in model.parameters()],
        "resumed_parameters": [gathered(p).detach() for p in parted.parameters()],
        "entropy": health(model, warn=False).layer_entropy_bits,
        "probs": predict(model, x, 3, refresh_bn=shard_of_the_batch(0)[0], generator=own).probs,
    }
    for name, copies in (
        ("freeze", lambda: freeze(model, refresh_bn=x)),
        ("pack", lambda: pack(model, 2, refresh_bn=x)),
    ):
        try:
            copies()
        except InputError as error:
            found[name] = str(error)
    return found


def ended_by_one_rank(rank: int) -> dict[str, Any]:
    """Data parallel: one rank wants to stop, and the ranks have different numbers of validation batches."""
    torch.manual_seed(0)
    model = normalised()
    parallel = DistributedDataParallel(model)
    torch.manual_seed(100 + rank)
    x, y = shard_of_the_batch(rank)
    new = [(x[:4], y[:4])] * (1 + rank)
    rows = fit(
        parallel,
        bayes(parallel),
        [(x, y)],
        epochs=5,
        validation=new,
        after_epoch=lambda history: rank == 1 and len(history) == 2,
        progress=False,
    )
    return {"epochs": len(rows), "parameters": [p.detach() for p in model.parameters()]}


def ended_by_the_only_one_asked(rank: int) -> dict[str, Any]:
    """Data parallel: one rank alone has a function that may end the run, which is over on both."""
    torch.manual_seed(0)
    parallel = DistributedDataParallel(plain())
    options = dict(after_epoch=lambda history: len(history) == 2) if rank == 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        options |= dict(checkpoint=Path(folder) / "run.pt", progress=False, epochs=5)
        rows = fit(parallel, bayes(parallel), [shard_of_the_batch(rank)], **options)
        again = fit(parallel, bayes(parallel), [shard_of_the_batch(rank)], **options)
    if rank == 0:  # a model of this rank alone waits for nobody
        own = plain()
        fit(own, bayes(own), [shard_of_the_batch(rank)], epochs=1, progress=False)
    return {"epochs": len(rows), "again": len(again)}


def plateau(rank: int) -> dict[str, Any]:
    """Data parallel: what one rank sees would lower its rate alone, and the other would not follow."""
    torch.manual_seed(0)
    parallel = DistributedDataParallel(normalised())
    torch.manual_seed(100 + rank)
    x, y = shard_of_the_batch(rank)
    optimizer = bayes(parallel)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.0)
    data = [(x[:4], y[:4])]
    rows = fit(parallel, optimizer, [(x, y)], epochs=6, scheduler=schedule, validation=data, progress=False)
    one = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    alone = dict(validation=data) if rank == 1 else {}
    judged = fit(parallel, optimizer, [(x, y)], epochs=2, scheduler=one, progress=False, **alone)
    return {
        "lr": [row["lr"] for row in rows],
        "val_loss": [row["val_loss"] for row in rows],
        "best": schedule.best,
        "judged": [row.get("val_loss", 0.0) for row in judged],
        "best of one": one.best,
    }


WORKS = [
    data_parallel,
    data_parallel_published,
    data_parallel_low_rank,
    sharded_low_rank,
    sharded,
    sharded_with_own_draws,
    sharded_fit,
    ended_by_one_rank,
    ended_by_the_only_one_asked,
    plateau,
]
