"""`varbnn info`: this installation, or a packed file."""

from __future__ import annotations

import argparse
import math
import operator
import os
import platform
import textwrap
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

import varbnn
from varbnn.cli.training import MODEL
from varbnn.packed.call import Call, Constant
from varbnn.packed.file import Opened, read
from varbnn.packed.program import Program
from varbnn.text import plural, size, table

EXTRAS = {
    "plot": ("matplotlib",),
    "sdp": ("cvxpy", "highspy"),
    "sklearn": ("scikit-learn",),
    "lightning": ("lightning",),
    "pyro": ("pyro-ppl",),
    "demo": ("matplotlib", "scikit-learn", "pillow"),
}
"""The distributions each optional extra brings."""


def add(commands: Any) -> None:
    about = "show versions, threads, kernels and optional extras; or with a packed file what is in it"
    parser = commands.add_parser("info", help=about, description=about)
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="a packed file, usually *.vbnn, or the folder of varbnn train"
    )
    parser.set_defaults(command=_run)


def _run(chosen: argparse.Namespace) -> None:
    if chosen.file is None:
        _installation()
    else:
        _file(chosen.file)


def _installation() -> None:
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(f"varbnn       {varbnn.__version__}")
    print(f"python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"torch        {torch.__version__}, CPU {torch.backends.cpu.get_cpu_capability()}")
    print(f"threads      {torch.get_num_threads()} of {os.cpu_count()} cores")
    print(f"accelerator  {accelerator}")
    print("kernels")
    print(textwrap.indent(str(varbnn.backend_info()), "  "))
    print("extras")
    for extra, distributions in EXTRAS.items():
        print(f"  {extra:<9}  {_presence(extra, distributions)}")


def _presence(extra: str, distributions: Sequence[str]) -> str:
    found = {name: _version(name) for name in distributions}
    if all(found.values()):
        return ", ".join(f"{name} {version}" for name, version in found.items())
    missing = ", ".join(name for name, version in found.items() if version is None)
    return f'- {missing} absent: pip install "varbnn[{extra}]"'


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _file(path: str) -> None:
    if os.path.isdir(path) and os.path.exists(inside := os.path.join(path, MODEL)):
        path = inside  # of a run of varbnn train
    opened = read(path, mmap=True, verify=False)
    document = opened.document
    print(f"file       {path}, {size(opened.size)}, written by varbnn {document['varbnn']}")
    print(f"networks   {opened.num_samples:,}")
    print(f"input      {_input(document['input'] or _takes(opened.program))}")
    binary = [step for step in document["steps"] if step["kind"] in ("linear", "conv")]
    weights = sum(map(_weights, binary))
    print(f"weights    {weights:,} binary in each network, 1 bit each")
    opened.verify(path)  # whatever is wrong with the numbers is told after what the file says of itself
    print(f"checksums  {plural(len(document['tensors']), 'tensor')}, all right")
    print()
    print(table([["step", "kind", "takes", "what", "bytes"], *_rows(opened)], left=range(4)))


def _input(stated: dict[str, int] | None) -> str:
    if stated is None:
        return "whatever its first step takes"
    if "tokens" in stated:
        return f"N × …, tokens 0 … {stated['tokens'] - 1}"
    if "features" in stated:
        return f"N × {stated['features']}"
    axes = ["length"] if stated["space"] == 1 else ["length", "height", "width"][-stated["space"] :]
    return f"N × {stated['channels']} channels × {' × '.join(axes)}"


def _takes(program: Program) -> dict[str, int] | None:
    """What real layers say of the input, on which a file says nothing; in the words of `Program.takes`."""
    for step, wire in zip(program.steps, program.wires, strict=True):
        module = getattr(step, "module", None)
        if 0 in wire and isinstance(module, _ConvNd):
            return {"channels": module.in_channels, "space": len(module.kernel_size)}
        if 0 in wire and isinstance(module, nn.Linear):
            return {"features": module.in_features}
        if 0 in wire and isinstance(step, Call) and step.target is operator.mul:  # as of nn.Scale
            held = [program.steps[value - 1] for value in wire if value]
            return next(
                ({"features": len(c.value)} for c in held if isinstance(c, Constant) and c.value.ndim == 1), None
            )
    return None


def _weights(step: dict[str, Any]) -> int:
    if step["kind"] == "linear":
        return step["in_features"] * step["out_features"]
    inputs, outputs = step["channels"]
    return inputs // step["groups"] * outputs * math.prod(step["kernel"])


def _rows(opened: Opened) -> list[list[str]]:
    rows, counted = [], set[str]()
    for number, step in enumerate(opened.document["steps"], 1):
        held = [name for name in _tensors(step) if name not in counted]
        counted.update(held)
        count = sum(t.nbytes for t in (opened.tensors[name] for name in held))
        takes = ", ".join("input" if value == 0 else str(value) for value in step["from"]) or "-"
        rows.append([str(number), step["kind"], takes, _what(step), f"{count:,}" if count else "-"])
    return rows


def _tensors(step: dict[str, Any]) -> list[str]:
    own = [step.get(key) for key in ("weight", "scale", "shift", "turned", "value")]
    return [name for name in [*own, *step.get("state", {}).values()] if name is not None]


def _what(step: dict[str, Any]) -> str:
    kind = step["kind"]
    if kind == "call":
        return step["function"]
    if kind == "module":
        return step["module"]
    parts = []
    if kind == "linear":
        parts.append(f"{step['in_features']} → {step['out_features']}")
    if kind == "conv":
        parts.append(f"{step['channels'][0]} → {step['channels'][1]} channels, {'×'.join(map(str, step['kernel']))}")
    parts += [key for key in ("scale", "shift") if step.get(key) is not None]
    if step.get("activation", "none") != "none":
        parts.append(step["activation"])
    return ", ".join(parts)
