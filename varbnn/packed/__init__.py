"""Sampled networks as bits: pack, run, save, load."""

from varbnn.packed.build import objection, pack
from varbnn.packed.ensemble import AveragePrediction, PackedEnsemble
from varbnn.packed.load import load_packed
from varbnn.packed.predictor import Predictor

__all__ = ["AveragePrediction", "PackedEnsemble", "Predictor", "load_packed", "objection", "pack"]
