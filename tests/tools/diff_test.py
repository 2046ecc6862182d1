"""lockstep diff as its users see it, with each number compared as docs/tools.md says."""

import copy
import itertools
import math
import pathlib
import random
import struct
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "testing"), str(ROOT / "tests" / "tools")]
import report
from checkpoint_file import DTYPES, Double, Tensor
from command import GOLDEN, Case, group, nasty_state, training_state, unwrapped

EMPTY = {"only_in_a": [], "only_in_b": [], "types": [], "values": [], "tensors": []}
FOR_PEOPLE = """\
A  a
B  b
only in A
  model/drop
    dict of 2
  optimizer/param_groups/0/params/0.weight
    "0.weight"
only in B
  model/1.weight
    f64 (2, 1)
  progress/steps/2
    -1
of another kind, dtype or shape
  model/mask
    A  u8 (0, 4)
    B  u8 (4, 0)
  progress/done
    A  true
    B  1
of another value
  optimizer/param_groups/0/lr
    A  0.001
    B  0.002
  progress/note
    A  "two\\nlines"
    B  "one line"
with other numbers: the first, the largest absolute and relative difference
  model/0.weight
    2 of 6 numbers differ, 1 of them not finite
    first     at (0, 1): A 1, B 1.1
    absolute  0.1 at (0, 1): A 1, B 1.1
    relative  0.0909091 at (0, 1): A 1, B 1.1
  progress/counts
    1 of 3 numbers differ
    first     at (2): A 9223372036854775807, B -9223372036854775808
    absolute  18446744073709551615 at (2): A 9223372036854775807, B
              -9223372036854775808
    relative  2 at (2): A 9223372036854775807, B -9223372036854775808
"""


def changed_state():
    state = training_state()
    del state["model"]["drop"]
    state["model"]["1.weight"] = Tensor("f64", [2, 1], [1, 2])
    state["model"]["0.weight"] = Tensor("f32", [2, 3], [0, 1.1, 2, 3, 4, math.inf])
    state["model"]["mask"] = Tensor("u8", [4, 0], [])
    state["optimizer"]["param_groups"][0].update(params=[], lr=0.002)
    state["progress"].update(counts=Tensor("i64", [3], [-2**63, 5, -2**63]), done=1, note="one line",
                             steps=[1, 2.5, -1])
    return state


def bits(number, dtype):
    return struct.pack("<" + DTYPES[dtype], number)


def tensor_difference(a, b, tolerance):
    """The differences of two tensors, number by number, as the manual tells them."""
    numbers_a, numbers_b = (struct.unpack(f"<{len(one.data) // struct.calcsize(DTYPES[one.dtype])}{DTYPES[one.dtype]}",
                                          one.data) for one in (a, b))
    floating = a.dtype in ("f32", "f64")
    greatest = max((abs(x) for x in (*numbers_a, *numbers_b) if math.isfinite(x)), default=0)
    found, not_finite = [], 0
    for index, x, y in zip(itertools.product(*map(range, a.shape)), numbers_a, numbers_b):
        finite = math.isfinite(x) and math.isfinite(y)
        if bits(x, a.dtype) == bits(y, a.dtype) or \
                floating and finite and tolerance is not None and abs(x - y) <= tolerance * greatest:
            continue
        not_finite += not finite
        larger = max(abs(float(x)), abs(float(y)))
        found.append((list(index), x, y, abs(x - y), float(abs(x - y)) / (larger or 1), finite))
    if not found:
        return None

    def number(x):
        return x if math.isfinite(x) else "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"

    def largest(column):
        rows = [row for row in found if row[5]]
        if not rows:
            return None
        row = max(rows, key=lambda row: row[column])
        return {"difference": number(row[column]), "index": row[0], "a": row[1], "b": row[2]}
    return {"numbers": len(numbers_a), "differing": len(found), "not_finite": not_finite,
            "first": {"index": found[0][0], "a": number(found[0][1]), "b": number(found[0][2])},
            "largest_absolute": largest(3), "largest_relative": largest(4)}


class Diff(Case):
    def differences(self, a, b, tolerance=None):
        """What a program is told of two states, where all keys agree with one another."""
        options = [] if tolerance is None else ["--tolerance", tolerance]
        paths = self.write("a", a), self.write("b", b)
        job = self.tool("diff", *paths, *options, status=None)
        document = self.document("diff", *paths, *options, status=job.returncode)
        for key, value in (("schema", "lockstep.diff"), ("version", 1), ("a", str(paths[0])), ("b", str(paths[1])),
                           ("tolerance", tolerance), ("equal", job.returncode == 0)):
            self.assertEqual(document.pop(key), value)
        self.assertEqual(list(document), list(EMPTY))
        self.assertEqual(document == EMPTY, job.returncode == 0)
        self.assertEqual(job.stdout.startswith("equal "), job.returncode == 0)
        self.check_for_people(job.stdout)
        return document

    def differs(self, a, b, tolerance=None):
        return self.differences({"x": a}, {"x": b}, tolerance) != EMPTY

    def test_says_that_equal_states_are(self):
        a, b = self.write("a", training_state()), self.write("b", training_state())
        self.assertEqual(self.output("diff", a, b), "equal to the bit\n")
        self.assertEqual(self.output("diff", a, b, "--tolerance", "1e-6"), "equal to a tolerance of 1e-06\n")
        self.assertEqual(self.output("diff", GOLDEN, GOLDEN), "equal to the bit\n")
        self.assertEqual(self.differences(nasty_state(), nasty_state()), EMPTY)

    def test_tells_people_of_all_kinds_of_difference(self):
        self.write("a", training_state())
        self.write("b", changed_state())
        self.assertEqual(self.output("diff", "a", "b", status=1), FOR_PEOPLE)

    def test_tells_programs_of_all_kinds_of_difference(self):
        a, b = training_state(), changed_state()
        tensors = []
        for item, name in ("model", "0.weight"), ("progress", "counts"):
            tensor = a[item][name]
            tensors.append({"path": [item, name], "kind": "tensor", "dtype": tensor.dtype, "shape": tensor.shape,
                            "bytes": len(tensor.data), **tensor_difference(tensor, b[item][name], None)})
        self.assertEqual(self.differences(a, b), {
            "only_in_a": [{"path": ["model", "drop"], "kind": "dict", "size": 2},
                          {"path": ["optimizer", "param_groups", 0, "params", "0.weight"], "kind": "string",
                           "value": "0.weight"}],
            "only_in_b": [{"path": ["model", "1.weight"], "kind": "tensor", "dtype": "f64", "shape": [2, 1],
                           "bytes": 16},
                          {"path": ["progress", "steps", 2], "kind": "integer", "value": -1}],
            "types": [{"path": ["model", "mask"], "a": {"kind": "tensor", "dtype": "u8", "shape": [0, 4], "bytes": 0},
                       "b": {"kind": "tensor", "dtype": "u8", "shape": [4, 0], "bytes": 0}},
                      {"path": ["progress", "done"], "a": {"kind": "bool", "value": True},
                       "b": {"kind": "integer", "value": 1}}],
            "values": [{"path": ["optimizer", "param_groups", 0, "lr"], "kind": "double", "a": 0.001, "b": 0.002},
                       {"path": ["progress", "note"], "kind": "string", "a": "two\nlines", "b": "one line"}],
            "tensors": tensors})

    def test_finds_a_change_of_each_entry(self):
        def leaves(value, path=()):
            if isinstance(value, (dict, list)) and value:
                for key in value if isinstance(value, dict) else range(len(value)):
                    yield from leaves(value[key], (*path, key))
            else:
                yield path
        state = training_state()
        paths = list(leaves(state))
        self.assertGreater(len(paths), 20)
        for path in paths:
            changed = copy.deepcopy(state)
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = "something else"
            self.assertNotEqual(self.differences(state, changed), EMPTY, path)

    def test_compares_names_of_parameters_as_a_set(self):
        names = ["a", "b", "c", "d"]
        found = self.differences({"o": {"param_groups": [group("0", names)]}},
                                 {"o": {"param_groups": [group("0", ["b", "c", "x", "d"])]}})
        self.assertEqual([entry["path"][-1] for entry in found["only_in_a"]], ["a"])
        self.assertEqual([entry["path"][-1] for entry in found["only_in_b"]], ["x"])
        self.assertEqual(found["values"], [])
        once, twice = ({"o": {"param_groups": [group("0", names)]}} for names in (["a"], ["a", "a"]))
        self.assertEqual(len(self.differences(twice, once)["only_in_a"]), 1)
        self.assertEqual(len(self.differences(once, twice)["only_in_b"]), 1)

    def test_tells_keys_apart_that_look_alike(self):
        found = self.differences({"a": {"b": 1}, "a/b": 2, "l": [1]}, {"a": {"b": 1}, "l": {"0": 1}})
        self.assertEqual([entry["path"] for entry in found["only_in_a"]], [["a/b"]])
        self.assertEqual([entry["path"] for entry in found["types"]], [["l"]])

    def test_compares_scalars_by_their_bits_or_to_a_tolerance(self):
        nan, other_nan = Double(0x7FF8 << 48), Double((0x7FF8 << 48) + 1)
        cases = [(0.0, -0.0, True, False), (nan, nan, False, False), (nan, other_nan, True, True),
                 (nan, 0.0, True, True), (math.inf, math.inf, False, False), (math.inf, 1e308, True, True),
                 (math.inf, -math.inf, True, True), (1.0, 1.0 + 2**-52, True, False), (1.0, 1.0009, True, False),
                 (1.0, 1.002, True, True), (1e-30, 1.0009e-30, True, False), (1e-30, 0.0, True, True),
                 (1e308, -1e308, True, True), (1, 2, True, True), (10**6, 10**6 + 1, True, True),
                 (True, False, True, True), ("a", "b", True, True)]
        for tolerance, differs in (None, 2), (0.001, 3):
            a, b = ({f"{i:02}": case[side] for i, case in enumerate(cases)} for side in (0, 1))
            expected = [f"{i:02}" for i, case in enumerate(cases) if case[differs]]
            for states in (a, b), (b, a):
                found = self.differences(*states, tolerance)
                self.assertEqual([entry["path"][0] for entry in found["values"]], expected)
                self.assertEqual({**found, "values": []}, EMPTY)
        self.assertFalse(self.differs(0.0, -0.0, 0))
        self.assertTrue(self.differs(1.0, 1.0 + 2**-52, 0))
        self.assertFalse(self.differs(1e308, -1e308, 10))
        self.assertTrue(self.differs(math.inf, 1e308, 10))

    def test_compares_tensors_number_by_number(self):
        draw = random.Random(1)
        special = [0.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, 1.0]
        state_a, state_b = {}, {}
        for i in range(200):
            dtype = draw.choice(list(DTYPES))
            shape = [draw.randint(0 if i % 9 == 0 else 1, 4) for _ in range(draw.randint(0, 3))]
            count, scale = math.prod(shape), 10.0 ** draw.randint(-30, 30)
            if dtype in ("f32", "f64"):
                a = [draw.choice(special) if draw.random() < 0.2 else scale * draw.gauss(0, 1) for _ in range(count)]
                b = [draw.choice(special) if draw.random() < 0.2 else x * (1 + draw.choice([0, 1e-5, 1e-3, 1]))
                     for x in a]
            else:
                low, high = (0, 255) if dtype == "u8" else (-2**63, 2**63 - 1)
                a = [draw.randint(low, high) for _ in range(count)]
                b = [draw.choice([x, draw.randint(low, high)]) for x in a]
            state_a[f"{i:03}"], state_b[f"{i:03}"] = Tensor(dtype, shape, a), Tensor(dtype, shape, b)
        for tolerance in None, 0, 1e-4, 0.5:
            expected = []
            for name, a in state_a.items():
                if difference := tensor_difference(a, state_b[name], tolerance):
                    expected.append({"path": [name], "kind": "tensor", "dtype": a.dtype, "shape": a.shape,
                                     "bytes": len(a.data), **difference})
            self.assertEqual(self.differences(state_a, state_b, tolerance)["tensors"], expected)

    def test_compares_floats_that_are_not_numbers_by_their_bits(self):
        def nan(bits):
            return Tensor("f32", [], struct.pack("<I", bits))
        quiet, signalling = 0x7FC00001, 0x7F800001
        self.assertFalse(self.differs(nan(signalling), nan(signalling)))
        for other in quiet, signalling ^ 3, signalling | 1 << 31:
            self.assertTrue(self.differs(nan(signalling), nan(other)))
            self.assertTrue(self.differs(nan(signalling), nan(other), 1))

    def test_the_tolerance_goes_by_the_greatest_number_of_a_tensor(self):
        a = Tensor("f32", [3], [1000, 1e-6, math.inf])
        self.assertFalse(self.differs(a, Tensor("f32", [3], [1000, 0.5, math.inf]), 0.001))
        self.assertTrue(self.differs(a, Tensor("f32", [3], [1000, 1.5, math.inf]), 0.001))
        self.assertFalse(self.differs(Tensor("f32", [2], [0, 1]), Tensor("f32", [2], [1, 1000]), 1))
        self.assertTrue(self.differs(Tensor("i64", [2], [1000, 1]), Tensor("i64", [2], [1000, 2]), 1))

    def test_fits_a_terminal_whatever_is_in_the_files(self):
        self.differences(nasty_state(), {})
        self.differences({}, nasty_state())
        other = nasty_state()
        long, = (key for key in other if len(key) > 100)
        other[long].update({long: Tensor("f32", [1, 2, 1, 1, 1, 1, 1, 1], [1.1, 2]), "words": "x", "long": ""})
        del other["escapes"]["\x1b[2J\n\r\t"]
        self.differences(nasty_state(), other)
        text = self.output("diff", self.folder / "a", self.folder / "b", status=1)
        for part in f"{long}/{long}", "x" * 300, "escapes/\\u001b[2J\\n\\r\\t":
            self.assertIn(part, unwrapped(text))

    def test_ends_with_status_2_where_it_cannot_compare(self):
        good, bad = self.write("good", training_state()), self.write("bad", GOLDEN.read_bytes()[:-1])
        for pair in (good, bad), (bad, good), (good, "none"), ("none", good), (good, self.folder):
            error = self.error("diff", *pair, status=2)
            self.assertIn(str(pair[0] if pair[1] == good else pair[1]), error)
        for arguments in [], [good], [good, good, good], [good, good, "--turbo"], [good, good, "--tolerance"], \
                *([good, good, "--tolerance", x] for x in ("-1", "nan", "inf", "1e999", "x", "", "1e-6x")):
            self.error("diff", *arguments, status=2)
        with open("/dev/full", "w") as full:
            self.tool("diff", good, good, status=2, stdout=full, stderr=subprocess.PIPE, capture_output=False)


report.main()
