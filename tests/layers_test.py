"""Checks what no compiler checks: which layer includes which, what public headers drag in and export, how
long files are, and where the world's communicator is named."""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "testing"))
import report

LAYERS = {
    "core": [],
    "tensor": ["core"],
    "state": ["tensor"],
    "autograd": ["tensor"],
    "nn": ["autograd", "state"],
    "optim": ["autograd", "state"],
    "comm": ["core"],
    "parallel": ["nn", "optim", "comm"],
    "checkpoint": ["state", "comm"],
    "data": ["state"],
    "train": ["parallel", "checkpoint", "data"],
    "bindings": ["train"],
    "tools": ["train"],
    "testing": ["state", "comm"],
}
CODE = {".hpp", ".cpp", ".h", ".c", ".f90", ".py"}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
MAX_LINES = 400


def allowed(layer):
    found = {layer}
    for below in LAYERS[layer]:
        found |= allowed(below)
    return found


def files(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))
            if path.suffix in CODE]


def name(path):
    return str(path.relative_to(ROOT))


def layer_of_include(include):
    """The layer of "lockstep/<layer>/x.hpp" or "<layer>/x.hpp"; None for headers of others."""
    parts = include.split("/")
    if parts[0] == "lockstep":
        return parts[1]
    return parts[0] if len(parts) > 1 and parts[0] in LAYERS else None


class Layers(unittest.TestCase):
    def test_every_folder_is_a_layer(self):
        folders = [path for path in [*ROOT.glob("include/lockstep/*"), *ROOT.glob("src/*")]
                   if path.is_dir()]
        self.assertTrue(folders)
        for folder in folders:
            self.assertIn(folder.name, LAYERS, name(folder))

    def test_a_layer_includes_only_what_is_below_it(self):
        wrong = []
        for path in files("include/lockstep", "src"):
            layer = path.relative_to(ROOT).parts[2 if "include" in path.relative_to(ROOT).parts else 1]
            for include in INCLUDE.findall(path.read_text()):
                target = layer_of_include(include)
                if layer in LAYERS and target and target not in allowed(layer):
                    wrong.append(f"{name(path)} includes {include}")
        self.assertEqual(wrong, [])

    def test_public_headers_include_no_other_library_than_mpi(self):
        foreign = re.compile(r"^(Eigen|unsupported|boost|fmt|nlohmann|xxhash)\b", re.IGNORECASE)
        wrong = []
        for path in files("include"):
            for include in INCLUDE.findall(path.read_text()):
                excused = (name(path) == "include/lockstep/state/serialization.hpp"
                           and include.startswith("boost/"))
                if foreign.match(include) and not excused:
                    wrong.append(f"{name(path)} includes {include}")
        self.assertEqual(wrong, [])

    def test_public_headers_export_what_they_declare_after_what_they_include(self):
        push, pop = "\n#pragma GCC visibility push(default)\n", "\n#pragma GCC visibility pop\n"
        wrong = []
        for path in files("include"):
            if path.suffix == ".h":
                continue  # of the C interface each call says so itself
            text = path.read_text()
            before, _, exported = text.partition(push)
            declares = re.search(r"^(namespace|class|struct|enum|extern)\b", before, re.MULTILINE)
            if declares or exported and (INCLUDE.search(exported) or not exported.endswith(pop)):
                wrong.append(name(path))
        self.assertEqual(wrong, [])

    def test_only_the_environment_names_the_communicator_of_all(self):
        users = [name(path) for path in files("include", "src")
                 if "MPI_COMM_WORLD" in re.sub(r"//.*", "", path.read_text())]
        self.assertLessEqual(set(users), {"src/comm/environment.cpp", "src/testing/main.cpp"})

    def test_no_file_is_too_long(self):
        lengths = {name(path): path.read_text().count("\n")
                   for path in files("include", "src", "tests", "bench")}
        self.assertEqual({path: lines for path, lines in lengths.items() if lines > MAX_LINES}, {})


report.main()
