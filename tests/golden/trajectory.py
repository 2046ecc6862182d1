"""What optim/update_rules_test.cpp runs each update rule on: parameters in two groups, gradients
that are absent at some steps, parameters that are frozen for a while; and the form of the files of
expected numbers."""

import json

import numpy as np

from philox import uniform

SHAPES = [(2, 3), (4,), (9,), (1,), (2,)]
FIRST_GROUP, SECOND_GROUP = (0, 1), (2, 3, 4)
STEPS = 26
VALUES_AFTER = (1, 5, 12)  # steps; after the last one there are the slots as well
DTYPES = {"f32": np.float32, "f64": np.float64}


def initial_values(dtype):
    """Parameter 4 starts at zero, as biases do."""
    values = [uniform(10**6 + i, shape, -1.0, 1.0, dtype) for i, shape in enumerate(SHAPES)]
    values[4][:] = 0
    return values


def frozen(step, i):
    return (i == 1 and 8 <= step <= 12) or (i == 4 and step < 5)


def gradient(step, i, dtype):
    """None where there is none. Some numbers are zero, and once all numbers of parameter 1."""
    if frozen(step, i) or (3 * step + i) % 7 == 2:
        return None
    numbers = uniform(100 * step + i, SHAPES[i], -1.0, 1.0, dtype)
    if i == 0:
        numbers.reshape(-1)[step % numbers.size] = 0
    if i == 1 and step == 15:
        numbers[:] = 0
    return numbers


def run(optimizer, dtype):
    """`optimizer` has step(gradients), values() and state(), each a list by parameter."""
    values = {}
    for step in range(STEPS):
        optimizer.step([gradient(step, i, dtype) for i in range(len(SHAPES))])
        if step + 1 in VALUES_AFTER:
            values[str(step + 1)] = [numbers(value, dtype) for value in optimizer.values()]
    state = [
        {"value": value, **slots} for value, slots in zip(optimizer.values(), optimizer.state())
    ]
    return {
        "values": values,
        "state": [{name: numbers(x, dtype) for name, x in slots.items()} for slots in state],
    }


def numbers(array, dtype):
    digits = 9 if dtype == np.float32 else 17
    return [float(f"{x:.{digits}g}") for x in np.atleast_1d(array).reshape(-1)]


def write(path, cases, make_optimizer):
    """Runs cases (rule, options, what the second group overrides) of the optimizers
    make_optimizer(rule, options of the first group, of the second, initial values)."""
    results = []
    for rule, options, second in cases:
        for name, dtype in DTYPES.items():
            optimizer = make_optimizer(
                rule, options, {**options, **second}, initial_values(dtype)
            )
            case = {"rule": rule, "options": options, "second": second, "dtype": name}
            results.append({**case, **run(optimizer, dtype)})
    text = json.dumps(results, separators=(",", ":"))
    text = text.replace("],", "],\n").replace("]},", "]},\n")
    path.write_text(text + "\n")
