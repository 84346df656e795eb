"""Choose what to label next: the inputs that the sampled networks know least about.

Of a fixed set, in rounds:

    pool = active.Pool(len(x), start=20, generator=generator)
    while len(pool.labelled) < 200:
        model = train(x[pool.labelled], y[pool.labelled])                       # your own function
        pool.query(vb.predict(model, x[pool.unlabelled], refresh_bn=x), 10)     # moves ten inputs, by BALD

Of a stream, where an input is labelled when it comes or never:

    query = active.StreamQuery(budget=0.03)                                     # at most 3 labels for 100 inputs
    for x, y in stream:
        active.learn(model, optimizer, query, x, lambda asked: y[asked])        # nothing is done with the others
"""

from varbnn.active.learning import learn
from varbnn.active.pool import Pool
from varbnn.active.scores import ACQUISITIONS, Acquisition, bald, drawn, entropy, margin, random, top, variation_ratio
from varbnn.active.stream import StreamQuery

__all__ = [
    "ACQUISITIONS",
    "Acquisition",
    "Pool",
    "StreamQuery",
    "bald",
    "drawn",
    "entropy",
    "learn",
    "margin",
    "random",
    "top",
    "variation_ratio",
]
