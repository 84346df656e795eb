"""Training without floating point: a perceptron of ±1 weights whose state and every step are integers.

encoder = integer.Thermometer.fit(train_x, levels=4)                 # inputs as ±1
network = integer.IntegerNetwork([256, 256, 256, 10], spread=16)     # one counter per weight
integer.fit(network, data.batches(encoder(train_x), train_y, 32), epochs=30, shifts=(2, 7))
model = integer.as_model(network)                                    # for vb.predict, vb.pack and the rest
"""

from varbnn.integer.learning import fit, step
from varbnn.integer.model import as_model
from varbnn.integer.network import IntegerNetwork
from varbnn.integer.thermometer import Thermometer

__all__ = ["IntegerNetwork", "Thermometer", "as_model", "fit", "step"]
