"""Natural-gradient steps and a prior that follows the belief, as in the docstring of the rule."""

SETTINGS = [
    dict(lr=0.05, window=900, settling=300, batch_size=10),
    dict(lr=0.03, window=float("inf"), settling=60, batch_size=5, prior=-0.3),
    dict(lr=0.1, window=40, settling=40, batch_size=4, prior=0.2, maximize=True),
]
CHANGES = {50: dict(lr=0.02, window=300), 90: dict(batch_size=20), 120: dict(lr=0.01, settling=50)}


def step(natural, gradient, state, *, lr, window, settling, batch_size, prior, maximize):
    before = state.get("prior", prior)
    moved = batch_size / settling * (natural - before)
    state["prior"] = (1 - batch_size / window) * (before + moved)
    return natural - lr * batch_size * (-gradient if maximize else gradient) - moved
