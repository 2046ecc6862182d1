"""lockstep convert as its users see it: files of each kind, read and written by the descriptions of the
formats alone."""

import ast
import json
import math
import os
import pathlib
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "testing"), str(ROOT / "tests" / "tools")]
import report
from checkpoint_file import DTYPES, Tensor, encode
from command import GOLDEN, Case, group, nasty_state, training_state
from terminal import on_a_terminal

SAFETENSORS = {"F32": "f32", "F64": "f64", "I64": "i64", "U8": "u8", "BOOL": "u8"}
NPY = {"<f4": "f32", "<f8": "f64", "<i8": "i64", "|u1": "u8"}
LONG = 65 << 20


def read_safetensors(path):
    """(dtype, shape, bytes) by name, and the metadata."""
    contents = path.read_bytes()
    length, = struct.unpack_from("<Q", contents)
    header, data = json.loads(contents[8:8 + length]), contents[8 + length:]
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = entry["dtype"], entry["shape"], data[begin:end]
    assert sum(len(tensor[2]) for tensor in tensors.values()) == len(data)
    return tensors, metadata


def safetensors_file(tensors, metadata=None):
    """The bytes of a file of tensors, of checkpoint_file or (dtype, shape, bytes)."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            dtype, = (key for key, value in SAFETENSORS.items() if value == tensor.dtype and key != "BOOL")
            tensor = dtype, tensor.shape, tensor.data
        header[name] = {"dtype": tensor[0], "shape": tensor[1], "data_offsets": [len(data), len(data) + len(tensor[2])]}
        data += tensor[2]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def read_npy(path):
    contents = path.read_bytes()
    assert contents[:8] == b"\x93NUMPY\x01\x00"
    length, = struct.unpack_from("<H", contents, 8)
    header = ast.literal_eval(contents[10:10 + length].decode())
    assert header.pop("fortran_order") is False and set(header) == {"descr", "shape"}
    return NPY[header["descr"]], list(header["shape"]), contents[10 + length:]


def npy_file(tensor):
    descr, = (key for key, value in NPY.items() if value == tensor.dtype)
    header = repr({"descr": descr, "fortran_order": False, "shape": tuple(tensor.shape)})[:-1] + ", }"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + tensor.data


def parts(tensor):
    return tensor.dtype, tensor.shape, tensor.data


def plain_state():
    """A model of tensors alone, and its optimizer."""
    return {"model": {"0.weight": Tensor("f32", [2, 3], [0.1, -0.0, math.nan, math.inf, 1e-45, 3]),
                      "steps": Tensor("i64", [2], [-2**63, 2**63 - 1]), "gain": Tensor("f64", [], [0.1])},
            "optimizer": {"rule": "Adam", "param_groups": [group("all.of.it", ["0.weight", "gain"])],
                          "state": {"0.weight": {"exp_avg": Tensor("f32", [2, 3], range(6)), "step": 3}}}}


class Convert(Case):
    def convert(self, source, target, *options, read=None):
        output = self.output("convert", *options, source, target)
        self.assertRegex(output, rf"\A(left out  .*\n)*wrote  {target}  \d+ tensors?, \d+ bytes\n\Z")
        self.assertEqual([path for path in self.folder.rglob("*.tmp")], [])
        return read(self.folder / target) if read else output

    def test_a_training_checkpoint_has_the_names_of_the_document_in_a_safetensors_file(self):
        state = plain_state()
        self.write("a.lockstep", state)
        tensors, metadata = self.convert("a.lockstep", "a.safetensors", read=read_safetensors)
        self.assertEqual({name: (SAFETENSORS[dtype], *rest) for name, (dtype, *rest) in tensors.items()}, {
            **{name: parts(tensor) for name, tensor in state["model"].items()},
            "state.0.weight.exp_avg": parts(state["optimizer"]["state"]["0.weight"]["exp_avg"]),
            "state.0.weight.step": ("i64", [], struct.pack("<q", 3)),
            "param_groups.all.of.it.lr": ("f64", [], struct.pack("<d", 0.001)),
            "param_groups.all.of.it.beta1": ("f64", [], struct.pack("<d", 0.9)),
            "param_groups.all.of.it.amsgrad": ("u8", [], b"\0")})
        self.assertEqual(tensors["param_groups.all.of.it.amsgrad"][0], "BOOL")
        self.assertEqual({name: json.loads(text) for name, text in metadata.items()}, {
            "optimizer": {"rule": "Adam", "scalars": ["step"],
                          "param_groups": [{"name": "all.of.it", "params": ["0.weight", "gain"]}]}})

    def test_other_items_go_by_their_dotted_names(self):
        self.write("a.lockstep", training_state())
        tensors, metadata = self.convert("a.lockstep", "a.safetensors", read=read_safetensors)
        self.assertEqual(tensors["drop.calls"], ("I64", [], struct.pack("<q", 7)))
        self.assertEqual(tensors["progress.loss"], ("F64", [], struct.pack("<d", 0.1)))
        self.assertEqual(tensors["progress.steps.1"], ("F64", [], struct.pack("<d", 2.5)))
        self.assertEqual(tensors["progress.done"], ("BOOL", [], b"\1"))
        self.assertEqual(metadata["progress.note"], "two\nlines")
        described = json.loads(metadata["lockstep"])
        self.assertEqual((described["model"], described["optimizer"]), ("model", "optimizer"))
        self.assertEqual(described["items"]["progress"], {
            "best": "double", "counts": "tensor", "done": "bool", "empty": {}, "loss": "double", "note": "string",
            "steps": ["integer", "double"]})

    def test_checkpoints_come_back_to_the_bit(self):
        lbfgs = plain_state()
        lbfgs["optimizer"]["search"] = {"step": 1.5}
        two = {**plain_state(), "other": plain_state()["optimizer"]}
        for name, state in {
                "plain": plain_state(), "training": training_state(), "golden": GOLDEN.read_bytes(), "nothing": {},
                "empty": {"model": {}, "b": [], "c": {"d": {}, "e": [[], {}]}},
                "renamed": {"net": plain_state()["model"], "adam": plain_state()["optimizer"]},
                "optimizer": {"optimizer": plain_state()["optimizer"]},
                "model": {"net": plain_state()["model"]},
                "lbfgs": lbfgs, "two": two,
                "dots": {"model": {"": {"": Tensor("u8", [1], [7])}}, "a.b": {"c.d": 1, "e": {"f.g": "h"}}},
                "values": {"a": 1, "b": True, "c": -0.0, "d": "text", "e": Tensor("u8", [0, 3], []), "größe": "größe"},
                "deep": {"a": eval("[" * 63 + "1" + "]" * 63)}}.items():
            with self.subTest(name):
                path = self.write(f"{name}.lockstep", state)
                self.convert(path.name, f"{name}.safetensors")
                self.convert(f"{name}.safetensors", f"{name}_back.lockstep")
                self.assertEqual((self.folder / f"{name}_back.lockstep").read_bytes(), path.read_bytes())

    def test_a_foreign_safetensors_file_becomes_the_model(self):
        model = {"a.weight": Tensor("f32", [2], [1, 2]), "state.x": Tensor("u8", [1], [3])}
        self.write("a.safetensors", safetensors_file(model, {"format": "pt"}))
        self.convert("a.safetensors", "a.lockstep")
        self.assertEqual((self.folder / "a.lockstep").read_bytes(), encode({"model": model}))
        self.convert("a.safetensors", "b.lockstep", "--item", "net")
        self.assertEqual((self.folder / "b.lockstep").read_bytes(), encode({"net": model}))

    def test_other_dtypes_keep_their_values(self):
        self.write("a.safetensors", safetensors_file({
            "half": ("F16", [2], struct.pack("<2e", 1.5, -65504)), "small": ("I8", [2], b"\x80\x7f"),
            "upper": ("BF16", [1], b"\xc0\x3f"), "flag": ("BOOL", [2], b"\1\0")}))
        self.convert("a.safetensors", "a.lockstep")
        self.assertEqual((self.folder / "a.lockstep").read_bytes(), encode({"model": {
            "half": Tensor("f32", [2], [1.5, -65504]), "small": Tensor("i64", [2], [-128, 127]),
            "upper": Tensor("f32", [1], [1.5]), "flag": Tensor("u8", [2], [1, 0])}}))

    def test_an_optimizer_of_another_program_becomes_an_item(self):
        state = plain_state()
        tensors = {**state["model"], "state.0.weight.exp_avg": state["optimizer"]["state"]["0.weight"]["exp_avg"],
                   "state.0.weight.step": Tensor("i64", [], [3]), "param_groups.all.of.it.lr": Tensor("f64", [], [0.001]),
                   "param_groups.all.of.it.beta1": Tensor("f64", [], [0.9]),
                   "param_groups.all.of.it.amsgrad": ("BOOL", [], b"\0")}
        self.write("a.safetensors", safetensors_file(tensors, {"optimizer": json.dumps(
            {"rule": "Adam", "scalars": ["step"], "param_groups": [{"name": "all.of.it", "params": ["0.weight", "gain"]}]})}))
        self.convert("a.safetensors", "a.lockstep")
        self.assertEqual((self.folder / "a.lockstep").read_bytes(), encode(state))

    def test_only_the_items_that_are_asked_for(self):
        state = training_state()
        self.write("a.lockstep", state)
        self.convert("a.lockstep", "b.lockstep", "--item", "model")
        self.assertEqual((self.folder / "b.lockstep").read_bytes(), encode({"model": state["model"]}))
        self.convert("a.lockstep", "c.lockstep", "--item", "progress", "--item", "model")
        self.assertEqual((self.folder / "c.lockstep").read_bytes(),
                         encode({"model": state["model"], "progress": state["progress"]}))
        tensors, _ = self.convert("a.lockstep", "d.safetensors", "--item", "progress", read=read_safetensors)
        self.assertEqual(set(tensors), {"best", "counts", "done", "loss", "steps.0", "steps.1"})
        tensors, _ = self.convert("a.lockstep", "e.safetensors", "--item=optimizer", read=read_safetensors)
        self.assertEqual({name.split(".")[0] for name in tensors}, {"state", "param_groups"})
        self.assertIn("has no item 'mode'; it has: model, optimizer, progress",
                      self.error("convert", "a.lockstep", "f.lockstep", "--item", "mode", status=1))

    def test_metadata_go_with_a_checkpoint_to_a_checkpoint_alone(self):
        state = {**training_state(), "metadata": {"ranks": 2, "time": "2026-01-31T12:00:00Z"}}
        self.write("a.lockstep", state)
        self.convert("a.lockstep", "b.lockstep", "--item", "model")
        self.assertEqual((self.folder / "b.lockstep").read_bytes(),
                         encode({"metadata": state["metadata"], "model": state["model"]}))
        self.convert("a.lockstep", "c.safetensors")
        self.convert("c.safetensors", "c.lockstep")
        self.assertEqual((self.folder / "c.lockstep").read_bytes(), encode(training_state()))
        self.convert("a.lockstep", "bias.npy", "--tensor", "model/0.bias")
        self.assertIn("'metadata'", self.error("convert", "bias.npy", "d.lockstep", "--tensor", "metadata/bias", status=1))

    def test_one_tensor_goes_to_an_npy_file_and_back(self):
        state = training_state()
        self.write("a.lockstep", state)
        for path, expected in {
                "model/0.weight": parts(state["model"]["0.weight"]), "model/mask": parts(state["model"]["mask"]),
                "model/norm.mean": parts(state["model"]["norm.mean"]), "progress/counts": parts(state["progress"]["counts"]),
                "optimizer/state/0.bias/exp_avg": parts(state["optimizer"]["state"]["0.bias"]["exp_avg"]),
                "optimizer/param_groups/1/lr": ("f64", [], struct.pack("<d", 2.5e-7)),
                "progress/steps/0": ("i64", [], struct.pack("<q", 1)), "progress/done": ("u8", [], b"\1")}.items():
            self.assertEqual(self.convert("a.lockstep", "x.npy", "--force", "--tensor", path, read=read_npy), expected)
        self.write("y.npy", npy_file(state["model"]["0.weight"]))
        self.convert("y.npy", "y.lockstep", "--tensor", "net/0/weight")
        self.assertEqual((self.folder / "y.lockstep").read_bytes(), encode({"net": {"0/weight": state["model"]["0.weight"]}}))
        tensors, metadata = self.convert("y.npy", "y.safetensors", "--tensor", "0/weight", read=read_safetensors)
        self.assertEqual((tensors, metadata), ({"0/weight": ("F32", *parts(state["model"]["0.weight"])[1:])}, {}))
        self.assertEqual(self.convert("y.safetensors", "z.npy", "--tensor", "0/weight", read=read_npy),
                         parts(state["model"]["0.weight"]))

    def test_refuses_tensors_that_are_not_there(self):
        self.write("a.lockstep", {"model": {"a": {"b": Tensor("u8", [1], [1])}, "a/b": 2, "text": "x", "none": {}}})
        for path, why in {"model": "no tensor 'model'", "model/a": "no tensor", "": "no tensor ''",
                          "model/a/b": "two tensors 'model/a/b'", "model/text": "found a string",
                          "model/none": "found a dict"}.items():
            self.assertIn(why, self.error("convert", "a.lockstep", "a.npy", "--tensor", path, status=1))
        self.write("a.npy", npy_file(Tensor("u8", [1], [1])))
        for path in "weight", "/weight", "model/", "":
            self.assertIn("such as model/0.weight", self.error("convert", "a.npy", "b.lockstep", "--tensor", path, status=2))

    def test_a_folder_has_a_file_of_each_tensor(self):
        state = plain_state()["model"]
        state["random"] = {"calls": 7}
        self.write("a.lockstep", {"model": state})
        (self.folder / "there").mkdir()
        for folder in "new/", "deeper/new/", "there":
            self.convert("a.lockstep", folder)
            found = {str(path.relative_to(self.folder / folder)): read_npy(path)
                     for path in (self.folder / folder).rglob("*.npy")}
            self.assertEqual(found, {
                "model/0.weight.npy": parts(state["0.weight"]), "model/steps.npy": parts(state["steps"]),
                "model/gain.npy": parts(state["gain"]), "model/random/calls.npy": ("i64", [], struct.pack("<q", 7))})
        self.assertIn("'there' has files in it", self.error("convert", "a.lockstep", "there", status=1))
        (self.folder / "there" / "kept").write_text("x")
        self.write("c.safetensors", safetensors_file({"gain": Tensor("u8", [1], [1])}))
        self.convert("c.safetensors", "there", "--force")
        self.assertEqual({path.name for path in (self.folder / "there").iterdir()}, {"kept", "model", "gain.npy"})

    def test_names_never_lead_out_of_the_folder(self):
        tensor = Tensor("u8", [1], [1])
        for key in "..", ".", "", "/etc", "../x", "a/b", "a\0b":
            path = self.write("a.lockstep", {"model": {key: {"x": tensor}, "good": tensor}})
            self.assertIn("is no name for one", self.error("convert", path, "out/", status=1))
            path = self.write("a.lockstep", {key: tensor})
            self.assertIn("is no name for one", self.error("convert", path, "out/", status=1))
            self.assertFalse((self.folder / "out").exists())
        path = self.write("a.lockstep", {"model": {"x" * 300: tensor}})
        self.assertIn("name too long", self.error("convert", path, "out/", status=1).lower())

    def test_what_would_be_lost_is_refused_or_told(self):
        state = {"model": {"a": Tensor("u8", [1], [1]), "b": {}, "c": [], "d": "x", "e": "y"}}
        self.write("a.lockstep", state)
        error = self.error("convert", "a.lockstep", "out/", status=1)
        self.assertIn("model/b, model/c, model/d and 1 more; --drop", error)
        self.assertFalse((self.folder / "out").exists())
        self.assertEqual(self.convert("a.lockstep", "out/", "--drop").splitlines()[:-1],
                         [f"left out  model/{key}" for key in "bcde"])
        self.write("b.safetensors", safetensors_file({"a": Tensor("u8", [1], [1])}, {"format": "pt", "author": "me"}))
        for target in "b.lockstep", "b/":
            self.assertIn("has: the metadata author; --drop", self.error("convert", "b.safetensors", target, status=1))
            self.assertFalse((self.folder / target).exists())
            self.assertEqual(self.convert("b.safetensors", target, "--drop").splitlines()[0],
                             "left out  the metadata author")

    def test_names_that_would_be_one_are_refused(self):
        tensor = Tensor("u8", [1], [1])
        for state, why in (
                ({"model": {"a.b": tensor, "a": {"b": tensor}}}, "two entries of a safetensors file are called 'a.b'"),
                ({"model": {"progress.x": tensor}, "progress": {"x": 1}}, "are called 'progress.x'"),
                ({"model": {"progress": {"y": 1}}, "progress": {"x": 1}}, "the model has 'progress'"),
                ({"model": {"__metadata__": tensor}}, "cannot be called '__metadata__'"),
                ({"model": {"lockstep": "x"}}, "two texts of a safetensors file are called 'lockstep'"),
                ({"model": {"state.x": tensor}, "optimizer": plain_state()["optimizer"]}, "'state.x' cannot be"),
                ({"model": {"x": tensor}, "state": {}, "optimizer": plain_state()["optimizer"]}, "'state' cannot be"),
                ({"model": {b"\xff": tensor}}, "UTF-8"), ({"model": {"x": b"\xff"}}, "UTF-8"), (nasty_state(), "UTF-8")):
            path = self.write("a.lockstep", state)
            self.assertIn(why, self.error("convert", path, "a.safetensors", status=1))
            self.assertFalse((self.folder / "a.safetensors").exists())

    def test_safetensors_files_that_contradict_themselves_are_refused(self):
        self.write("a.lockstep", training_state())
        self.convert("a.lockstep", "a.safetensors")
        tensors, metadata = read_safetensors(self.folder / "a.safetensors")
        described = json.loads(metadata["lockstep"])

        def changed(**fields):
            return {"lockstep": json.dumps({**described, **fields})}
        for change, why in (
                ({"lockstep": "{"}, "metadata 'lockstep'"), ({"lockstep": "[]"}, "metadata 'lockstep'"),
                ({"lockstep": "[" * 100000}, "nests too deep"), ({"optimizer": "[" * 100000}, "nests too deep"),
                ({"optimizer": "{}"}, "metadata 'optimizer'"), ({"optimizer": None}, "no text 'optimizer'"),
                ({"progress.note": None}, "no text 'progress.note'"),
                (changed(model=1), "metadata 'lockstep'"), (changed(model="other"), "no tensor 'model.0.bias'"),
                (changed(optimizer="model"), "two items are called 'model'"),
                (changed(items={}), "tensor '0.bias' is of none of its items"),
                (changed(items={**described["items"], "more": "tensor"}), "no tensor 'more'"),
                (changed(items={**described["items"], "more": "sauce"}), "no tensor 'more'"),
                (changed(items={"model": {"0.bias": "double"}}), "'0.bias': expected one BOOL, I64 or F64"),
                (changed(items={"model": {"drop": {"calls": "double"}}}), "'drop.calls': expected kind double"),
                (changed(items={"model": 7}), "metadata 'lockstep'")):
            texts = {name: text for name, text in {**metadata, **change}.items() if text is not None}
            self.write("b.safetensors", safetensors_file(tensors, texts))
            error = self.error("convert", "b.safetensors", "b.lockstep", status=1)
            self.assertIn("the safetensors file 'b.safetensors' cannot be used: ", error)
            self.assertIn(why, error)
        self.assertFalse((self.folder / "b.lockstep").exists())
        self.convert("a.safetensors", "c.lockstep", "--item", "net")
        state = training_state()
        state["net"] = state.pop("model")
        self.assertEqual((self.folder / "c.lockstep").read_bytes(), encode(state))
        self.assertIn("two items", self.error("convert", "a.safetensors", "d.lockstep", "--item", "progress", status=1))

    def test_an_output_that_exists_is_replaced_only_by_force(self):
        source = self.write("a.lockstep", plain_state())
        for name, options in ("b.lockstep", ()), ("b.safetensors", ()), ("b.npy", ("--tensor", "model/gain")):
            self.write(name, b"precious")
            error = self.error("convert", source, name, *options, status=1)
            self.assertIn(f"'{name}' exists; --force", error)
            self.assertEqual((self.folder / name).read_bytes(), b"precious")
            self.convert(source, name, *options, "--force")
            self.assertNotEqual((self.folder / name).read_bytes(), b"precious")
        self.convert("b.lockstep", "b.lockstep", "--force", "--item", "model")
        self.assertEqual((self.folder / "b.lockstep").read_bytes(), encode({"model": plain_state()["model"]}))
        (self.folder / "link.lockstep").symlink_to("nowhere")
        self.assertIn("exists", self.error("convert", source, "link.lockstep", status=1))

    def test_a_failure_leaves_no_file_and_spares_the_old_one(self):
        source = self.write("a.lockstep", plain_state())
        for name, options in ("b.lockstep", ()), ("b.safetensors", ()), ("b.npy", ("--tensor", "model/gain")):
            self.assertIn("No such file", self.error("convert", source, f"none/{name}", *options, status=1))
            self.write(name, b"precious")
            # A disk that is full, where the temporary file is to be.
            (self.folder / f"{name}.tmp").symlink_to("/dev/full")
            error = self.error("convert", source, name, *options, "--force", status=1)
            self.assertRegex(error, rf"'{name}\.tmp': No space left on device")
            self.assertEqual((self.folder / name).read_bytes(), b"precious")
            self.assertFalse((self.folder / f"{name}.tmp").is_symlink())
        (self.folder / "file").write_text("")
        self.assertIn("cannot create the folder", self.error("convert", source, "file/", "--drop", "--force", status=1))
        locked = self.folder / "locked"
        locked.mkdir(mode=0o555)
        before = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
        for name in "b.lockstep", "b.safetensors", "new/":
            job = self.tool("convert", "--drop", source, f"{locked}/{name}", status=1, before=before)
            self.assertRegex(job.stderr, r"\Aerror: .*Permission denied\n\Z")

    def test_refuses_what_is_no_file_that_it_reads(self):
        for data, why in ((b"", "begins neither"), (b"LOCKSTE", "begins neither"), (b"x" * 100, "begins neither"),
                          (b"LOCKSTEP", "only 8 bytes"), (GOLDEN.read_bytes()[:-1], "cut off"),
                          (b"\x93NUMPY", "only 6 bytes"), (struct.pack("<Q", 99) + b"{}", "claims 99 bytes")):
            path = self.write("bad", data)
            tensor = ["--tensor", "a/b"] if data[:1] == b"\x93" else []
            self.assertIn(why, self.error("convert", path, "out.lockstep", *tensor, status=1))
        self.assertIn("no such file", self.error("convert", "none", "out.lockstep", status=1))
        self.assertIn("not a regular file", self.error("convert", self.folder, "out.lockstep", status=1))
        self.assertFalse((self.folder / "out.lockstep").exists())

    def test_refuses_arguments_that_do_not_go_together(self):
        self.write("a.lockstep", plain_state())
        self.write("a.safetensors", safetensors_file({"x": Tensor("u8", [1], [1])}))
        self.write("a.npy", npy_file(Tensor("u8", [1], [1])))
        for arguments, why in (
                ([], "try --help"), (["a.lockstep"], "try --help"), (["a.lockstep", "b.lockstep", "c"], "try --help"),
                (["a.lockstep", "b"], "ends with .lockstep, .safetensors, .npy or a slash"),
                (["a.lockstep", "b.lockstep.gz"], "ends with"), (["a.lockstep", "/dev/full"], "ends with"),
                (["a.lockstep", "b.npy"], "say which with --tensor"), (["a.npy", "b.lockstep"], "say which"),
                (["a.lockstep", "b.safetensors", "--tensor", "x"], "for NPY files only"),
                (["a.lockstep", "b/", "--tensor", "x"], "for NPY files only"),
                (["a.safetensors", "b.safetensors"], "is a safetensors file already"),
                (["a.npy", "b.npy", "--tensor", "x"], "is an NPY file already"),
                (["a.npy", "b/", "--tensor", "x"], "is an NPY file already"),
                (["a.npy", "b.lockstep", "--tensor", "m/x", "--item", "m"], "--item is for"),
                (["a.safetensors", "b.lockstep", "--item", "m", "--item", "n"], "--item is for"),
                (["a.safetensors", "b/", "--item", "m"], "--item is for")):
            self.assertIn(why, self.error("convert", *arguments, status=2))
        self.assertEqual(len(list(self.folder.iterdir())), 3)

    def test_shows_the_progress_of_long_work_on_a_terminal(self):
        self.write("a.lockstep", {"model": {"x": Tensor("u8", [LONG], bytes(LONG))}})
        for source, target in ("a.lockstep", "b.safetensors"), ("b.safetensors", "c.lockstep"):
            shown, output = on_a_terminal(self, "convert", source, target)
            self.assertRegex(output, rf"\Awrote  {target}  1 tensor, \d+ bytes\n\Z")
            self.assertRegex(shown, rf"(?s){source} +\d% \[.*{source}: +65 MiB in .*{target} +\d+% \[.*{target}: +65 MiB in ")
            self.assertEqual(self.tool("convert", "--force", source, target).stderr, "")


report.main()
