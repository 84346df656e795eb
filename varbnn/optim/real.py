"""The real parameters beside the beliefs (biases, batch-norm scales): AdamW, by torch's own function."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from varbnn.optim.parts import Group, States, must_be
from varbnn.optim.precision import full, narrow_, widened

AVERAGES = ("exp_avg", "exp_avg_sq")
"""States shaped like their parameters."""


def step_real(group: Group, params: list[Tensor], states: States) -> None:
    """One step of AdamW (Loshchilov & Hutter 2019); of parameters in half precision the float32 step, rounded."""
    for p, state in zip(params, states, strict=True):
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")  # adamw counts by itself
        for name in AVERAGES:
            if name not in state:
                state[name] = torch.zeros_like(p, dtype=full(p.dtype), memory_format=torch.preserve_format)
    beta1, beta2 = group["betas"]
    wide = widened(params)
    adamw(
        wide,
        widened([p.grad for p in params if p.grad is not None]),
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=group["maximize"],
    )
    narrow_(params, wide)


def check_real(group: Group) -> None:
    """Raise InputError when a hyper-parameter of a group of real parameters is out of range."""
    must_be(group, "lr", 0 <= group["lr"] < math.inf, "finite and ≥ 0 (real_lr)")
    must_be(group, "betas", are_betas(group["betas"]), "two numbers in [0, 1)")
    must_be(group, "eps", 0 <= group["eps"] < math.inf, "finite and ≥ 0")
    must_be(group, "weight_decay", 0 <= group["weight_decay"] < math.inf, "finite and ≥ 0 (real_weight_decay)")


def are_betas(betas: Sequence[float]) -> bool:
    """Whether these are two averaging weights."""
    return len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
