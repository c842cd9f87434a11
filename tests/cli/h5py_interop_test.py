"""Files cross between NumPy users and seqpar, in both directions and in every encoding.

Usage: h5py_interop_test.py PROBLEM_FILE_DUMP WRITE_SAMPLE_FILES
Needs h5py and NumPy; the xarray part is skipped, with the reason, where xarray or h5netcdf is
absent. SPDX-License-Identifier: Apache-2.0
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

try:
    import h5py
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

DUMP, WRITE_SAMPLES = sys.argv[1:3]


def to_bfloat16(values):
    """Round to nearest even by integer arithmetic, as uint16."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(words):
    return (words.astype(np.uint32) << 16).view(np.float32)


def dump(kind, path):
    return subprocess.run([DUMP, kind, str(path)], capture_output=True, text=True)


class Files(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.directory.name) / "problem.h5"
        random = np.random.default_rng(1)
        self.q = random.standard_normal((2, 5, 4, 3))
        self.k = random.standard_normal((2, 5, 2, 3))
        self.v = random.standard_normal((2, 5, 2, 6))

    def tearDown(self):
        self.directory.cleanup()

    def write(self, convert, **attributes):
        with h5py.File(self.path, "w") as file:
            file.attrs["schema"] = "seqpar.problem"
            file.attrs["schema_version"] = 1
            for name, value in attributes.items():
                file.attrs[name] = value
            for name in "qkv":
                file[name] = convert(getattr(self, name))

    def read(self):
        result = dump("problem", self.path)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def refusal(self):
        result = dump("problem", self.path)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1)
        return result.stderr

    def assert_tensor(self, tensor, expected):
        self.assertEqual(tensor["shape"], list(expected.shape))
        np.testing.assert_array_equal(tensor["values"], expected.ravel().astype(np.float64))


class NumpyProblems(Files):
    def test_native_types_of_either_byte_order(self):
        for code in ("<f8", ">f8", "<f4", ">f4", "<f2", ">f2"):
            with self.subTest(code):
                self.write(lambda values: values.astype(code))
                problem = self.read()
                self.assertEqual(problem["dtype"], f"f{8 * int(code[2])}")
                for name in "qkv":
                    self.assert_tensor(problem[name], getattr(self, name).astype(code))

    def test_bfloat16_in_words(self):
        self.write(to_bfloat16)
        with h5py.File(self.path, "a") as file:
            for name in "qkv":
                file[name].attrs["encoding"] = "bfloat16"
        problem = self.read()
        self.assertEqual(problem["dtype"], "bf16")
        self.assert_tensor(problem["q"], from_bfloat16(to_bfloat16(self.q)))

    def test_booleans_however_they_are_spelt(self):
        spellings = (True, 1, np.bool_(True), np.uint8(1), np.int64(1), np.array([True]))
        for value in spellings:
            with self.subTest(repr(value)):
                self.write(np.float32, causal=value)
                self.assertIs(self.read()["causal"], True)
        self.write(np.float32, causal=np.bool_(False))
        self.assertIs(self.read()["causal"], False)

    def test_strings_however_they_are_spelt(self):
        for value in ("softmax", b"softmax", np.bytes_("softmax"), ["softmax"]):
            with self.subTest(repr(value)):
                self.write(np.float32, attention=value)
                self.read()

    def test_numbers_however_they_are_spelt(self):
        for value in (2, 2.0, np.float32(2), np.float16(2), np.array([2.0])):
            with self.subTest(repr(value)):
                self.write(np.float32, scale=value)
                self.assertEqual(self.read()["scale"], 2.0)
        self.write(np.float32, window=np.uint16(3), schema_version="1")
        self.assertEqual(self.read()["window"], 3)

    def test_segments_and_cotangent(self):
        self.write(np.float32)
        ids = np.repeat([[0, 0, 1, 1, -2]], 2, axis=0)
        d_out = np.ones((2, 5, 4, 6), np.float32)
        with h5py.File(self.path, "a") as file:
            file["segment_ids"] = ids
            file["d_out"] = d_out
        problem = self.read()
        self.assertEqual(problem["segment_ids"], ids.ravel().tolist())
        self.assert_tensor(problem["d_out"], d_out)

    def test_chunked_compressed_and_newer_format(self):
        for library in ("earliest", ("v110", "v110")):
            with h5py.File(self.path, "w", libver=library) as file:
                file.attrs.update(schema="seqpar.problem", schema_version=1)
                for name in "qkv":
                    data = getattr(self, name)
                    file.create_dataset(name, data=data, chunks=True, compression="gzip")
            self.assert_tensor(self.read()["v"], self.v)

    def test_misspelt_names_are_refused(self):
        self.write(np.float32)
        with h5py.File(self.path, "a") as file:
            file["d_Out"] = np.ones((2, 5, 4, 6), np.float32)
        self.assertRegex(self.refusal(), '"d_Out"; allowed data sets .*: q, k, v, d_out, ')
        self.write(np.float32, is_causal=True)
        self.assertIn('"is_causal"; allowed with attention = "softmax": schema', self.refusal())

    def test_unsupported_types_are_refused(self):
        for convert in (np.int32, np.complex64, to_bfloat16, np.longdouble):
            with self.subTest(convert):
                self.write(convert)
                self.assertIn("q has an unsupported type", self.refusal())


class NumpyLinearProblems(Files):
    def add(self, **tensors):
        with h5py.File(self.path, "a") as file:
            for name, value in tensors.items():
                file[name] = value

    def test_gated_linear_attention(self):
        decays = -np.random.default_rng(2).exponential(0.1, (2, 5, 4, 3))
        for code, held in (("<f4", np.float32), (">f8", np.float64), ("<f2", np.float32)):
            with self.subTest(code):
                self.write(lambda x: x.astype(code), attention="linear", module="gla", causal=True)
                self.add(log_decay=decays)
                problem = self.read()
                self.assertEqual((problem["module"], problem["layers"]), ("gla", ""))
                self.assertEqual((problem["scale"], problem["epsilon"]), (1.0, 0.0))
                self.assertEqual(problem["log_decay"]["dtype"], f"f{8 * held().itemsize}")
                self.assert_tensor(problem["log_decay"], decays.astype(held))

    def test_rebased(self):
        self.write(np.float32, attention="linear", module="rebased", epsilon=1e-3)
        gamma, beta = np.array([1, 2, 3.5]), np.array([0, -1, 1], np.float32)
        self.add(gamma=gamma, beta=beta)
        problem = self.read()
        self.assertEqual(problem["epsilon"], 1e-3)
        self.assert_tensor(problem["gamma"], gamma)
        self.assert_tensor(problem["beta"], beta)

    def test_hybrid_stacks(self):
        random = np.random.default_rng(3)
        self.k, self.v = (random.standard_normal((2, 5, 6, 3)) for _ in "kv")
        self.write(
            np.float32, attention="hybrid", module="retention", layers=b"LNL", causal=np.bool_(True)
        )
        problem = self.read()
        self.assertEqual((problem["module"], problem["layers"]), ("retention", "LNL"))
        self.assertEqual(problem["key_heads"], 2)
        self.assertEqual(problem["scale"], 1 / np.sqrt(3))
        self.assert_tensor(problem["v"], self.v.astype(np.float32))
        rule = np.log1p(-(2.0 ** (-5 - np.arange(4))))
        np.testing.assert_allclose(problem["log_decay"]["values"], rule, rtol=2**-23)

    def test_what_belongs_elsewhere_is_refused(self):
        self.write(np.float32, module="gla")
        self.assertIn('attribute "module"; allowed with attention = "softmax"', self.refusal())
        self.write(np.float32, attention="linear", module="gla")
        self.assertIn("log_decay is missing", self.refusal())
        self.add(log_decay=np.full((2, 5, 4, 3), -np.inf))
        self.assertIn("segment_ids", self.refusal())
        self.write(np.float32, attention="linear", module="basic", layers="LN")
        self.assertIn('attribute "layers"; allowed with attention = "linear"', self.refusal())

    def test_examples_of_the_documentation(self):
        text = (pathlib.Path(__file__).parents[2] / "data/README.md").read_text()
        blocks = re.findall(r"```python\n(.*?)```", text, re.S)
        code = "\n".join(block for block in blocks if "h5py.File" in block)
        directory = self.path.parent
        subprocess.run([sys.executable, "-c", code], cwd=directory, check=True)
        expected = {
            "problem.h5": ("", ""),
            "gla.h5": ("gla", ""),
            "hybrid.h5": ("retention", "LLLN"),
        }
        self.assertEqual({path.name for path in directory.iterdir()}, set(expected))
        for name, (module, layers) in expected.items():
            with self.subTest(name):
                self.path = directory / name
                problem = self.read()
                self.assertEqual((problem["module"], problem["layers"]), (module, layers))
                self.assertEqual(problem["key_heads"], 2)


class NumpyResults(Files):
    def test_out_alone_is_enough(self):
        for code in ("f8", "f4", "f2"):
            with h5py.File(self.path, "w") as file:
                file["out"] = self.q.astype(code)
            result = dump("result", self.path)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assert_tensor(json.loads(result.stdout)["out"], self.q.astype(code))

    def test_gradients_of_decays_and_parameters(self):
        for shape in ((4,), (2, 5, 4, 3)):
            gradient = np.ones(shape)
            with h5py.File(self.path, "w") as file:
                file["out"], file["d_log_decay"] = self.q, gradient
                file["d_gamma"] = file["d_beta"] = np.arange(3.0)
            result = dump("result", self.path)
            self.assertEqual(result.returncode, 0, result.stderr)
            outputs = json.loads(result.stdout)
            self.assert_tensor(outputs["d_log_decay"], gradient)
            self.assert_tensor(outputs["d_beta"], np.arange(3.0))


class OurFiles(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.path = pathlib.Path(cls.directory.name)
        subprocess.run([WRITE_SAMPLES, cls.directory.name], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def expected(self, shape, step):
        count = int(np.prod(shape))
        return (step * (np.arange(count) % 61 - 30)).reshape(shape)

    def test_problems_open_in_h5py(self):
        codes = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "uint16"}
        for name, numpy_name in codes.items():
            with h5py.File(self.path / f"masked_{name}.h5") as file:
                self.assertEqual(file.attrs["schema"], "seqpar.problem")
                self.assertEqual(file.attrs["schema_version"], 1)
                self.assertEqual(file.attrs["causal"], 1)
                self.assertEqual(file.attrs["scale"], 0.375)
                values = file["q"][...]
                self.assertEqual(values.dtype, numpy_name)
                if name == "bf16":
                    self.assertEqual(file["q"].attrs["encoding"], "bfloat16")
                    values = from_bfloat16(values)
                np.testing.assert_array_equal(values, self.expected((2, 7, 4, 3), 0.25))
                self.assertEqual([axis.label for axis in file["q"].dims], ["B", "N", "H", "D"])
                self.assertEqual(file["segment_ids"].dtype, "int32")

    def test_linear_problems_open_in_h5py(self):
        for module in ("basic", "lightning", "retention", "gla", "based", "rebased"):
            with h5py.File(self.path / f"{module}_bf16.h5") as file:
                self.assertEqual(file.attrs["attention"], "linear")
                self.assertEqual(file.attrs["module"], module)
                self.assertEqual("epsilon" in file.attrs, module in ("based", "rebased"))
                self.assertEqual("gamma" in file, module == "rebased")
                self.assertEqual(
                    "log_decay" in file, module in ("lightning", "retention", "gla"), module
                )
        for module, labels in (("lightning", ["H"]), ("gla", ["B", "N", "H", "D"])):
            with h5py.File(self.path / f"{module}_f16.h5") as file:
                self.assertEqual(file["log_decay"].dtype, "float32")
                self.assertEqual([axis.label for axis in file["log_decay"].dims], labels)
            with h5py.File(self.path / f"{module}_result_f64.h5") as file:
                self.assertEqual(file["d_log_decay"].dtype, "float64")
                self.assertEqual([axis.label for axis in file["d_log_decay"].dims], labels)
                self.assertNotIn("lse", file)
        with h5py.File(self.path / "hybrid_f32.h5") as file:
            self.assertEqual(file.attrs["attention"], "hybrid")
            self.assertEqual(file.attrs["layers"], "LNLL")
            self.assertEqual(file["k"].shape, (2, 7, 8, 3))

    def test_results_open_in_h5py(self):
        with h5py.File(self.path / "result_f32.h5") as file:
            self.assertEqual(file.attrs["algorithm"], "ring/zigzag")
            self.assertEqual(file.attrs["bytes_sent_per_rank"].tolist(), [10, 20])
            self.assertEqual(file["lse"][0, 0, 0], -np.inf)
            self.assertEqual(file["out"].shape, (2, 7, 4, 5))
            self.assertIn("compiler", file["environment"].attrs)

    def test_runs_open_in_h5py(self):
        with h5py.File(self.path / "run.h5") as file:
            self.assertEqual(file.attrs["kind"], "measured")
            self.assertEqual(file["config"].attrs["command_line"], "seqpar verify --seed 7")
            cases = file["verification/cases"]
            self.assertEqual(cases.dims[0].label, "variant")
            axis = cases.dims[0][0].asstr()[...].tolist()
            self.assertEqual(axis, ["ring/zigzag/thread", "rsa/thread"])
            verdicts = file["verification/verdict"].asstr()[...].tolist()
            self.assertEqual(verdicts, ["passed", "failed"])

    def test_runs_open_in_xarray(self):
        try:
            import h5netcdf  # noqa: F401
            import xarray
        except ImportError as missing:
            self.skipTest(f"{missing}; install python3-xarray and python3-h5netcdf")
        path = self.path / "run.h5"
        with xarray.open_dataset(path, engine="h5netcdf") as run:
            self.assertEqual(run.attrs["schema_name"], "seqpar.run")
            self.assertEqual(run["variant"].values.tolist(), ["ring/zigzag/thread", "rsa/thread"])
        with xarray.open_dataset(path, engine="h5netcdf", group="verification") as table:
            self.assertEqual(table["cases"].dims, ("variant",))
            self.assertEqual(table["cases"].values.tolist(), [5, 4])
            self.assertEqual(table["max_error"].attrs["units"], "1")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
