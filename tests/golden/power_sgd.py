"""Writes power_sgd.json: three reductions of PowerSGD over two nodes, in float64 and with a QR
factorisation, for tests/parallel/power_sgd_test.cpp.

Run by hand, with NumPy: python3 tests/golden/power_sgd.py
"""

import json
import pathlib

import numpy as np

ROWS, COLUMNS, RANK = 6, 5, 2
SHARES = (0.25, 0.75)
REDUCTIONS = 3


def orthonormal(matrix):
    """The columns in order, as Gram-Schmidt has them: with a positive diagonal of R."""
    q, r = np.linalg.qr(matrix)
    return q * np.sign(np.diag(r))


def flat(array):
    return array.ravel().tolist()


def main():
    random = np.random.default_rng(0)

    def inputs(*shape):
        """Multiples of 1/64, which float32 has as well."""
        return random.integers(-190, 191, shape) / 64

    q = inputs(COLUMNS, RANK)
    left = [np.zeros((ROWS, COLUMNS)) for _ in SHARES]
    result = {"q": flat(q.T), "reductions": []}
    for _ in range(REDUCTIONS):
        gradients = [inputs(ROWS, COLUMNS) for _ in SHARES]
        matrices = [g + l for g, l in zip(gradients, left)]
        p = orthonormal(sum(s * m @ q for s, m in zip(SHARES, matrices)))
        own = [m.T @ p for m in matrices]
        q = sum(s * o for s, o in zip(SHARES, own))
        mean = p @ q.T
        left = [m - p @ o.T for m, o in zip(matrices, own)]
        q = q * 2.0 ** -np.floor(np.log2(np.linalg.norm(q, axis=0)))
        result["reductions"].append({
            "gradients": [flat(g) for g in gradients], "mean": flat(mean),
            "left": [flat(l) for l in left], "q": flat(q.T)})
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result).replace('{"gradients"', '\n{"gradients"') + "\n")


if __name__ == "__main__":
    main()
