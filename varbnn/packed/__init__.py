"""Sampled networks as bits: pack, run, save, load."""

from varbnn.packed.build import pack
from varbnn.packed.ensemble import AveragePrediction, PackedEnsemble

__all__ = ["AveragePrediction", "PackedEnsemble", "pack"]
