"""BayesBiNN: Meng, Bachmann, Khan 2020, eq. 8; momentum and its correction as in the published code."""

SETTINGS = [
    dict(lr=0.1, dataset_size=50),
    dict(lr=0.02, dataset_size=7, temperature=0.25, prior=-0.3),
    dict(lr=0.05, dataset_size=11, momentum=0.9, prior=0.2, maximize=True),
]
CHANGES = {50: dict(lr=0.03, temperature=2.0), 90: dict(momentum=0.0), 120: dict(momentum=0.5, prior=0.1)}


def step(natural, gradient, state, *, lr, dataset_size, temperature, momentum, prior, maximize):
    gradient = -gradient if maximize else gradient
    g = dataset_size / temperature * gradient + (natural - prior)
    if momentum == 0 and not state:
        return natural - lr * g  # the published momentum never changes; ours starts its average when it leaves 0
    state["weight"] = c = 1 - momentum * (1 - state.get("weight", 0.0))  # 1 - momentum^t while it is constant
    state["momentum"] = m = momentum * state.get("momentum", 0.0) + (1 - momentum) * g
    return natural - lr * m / c
