"""Sampled networks as bits: pack, run, save, load."""

from varbnn.packed.build import draw_packed, objection, pack
from varbnn.packed.ensemble import AveragePrediction, PackedEnsemble
from varbnn.packed.load import load_packed
from varbnn.packed.predictor import Predictor

__all__ = ["AveragePrediction", "PackedEnsemble", "Predictor", "draw_packed", "load_packed", "objection", "pack"]
