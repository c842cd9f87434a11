"""Files through the command line: what is read, what is refused, what is left behind.

Usage: cli_files_test.py SEQPAR. A refused file ends with exit code 2, a failing disk with 3, both
with one line on stderr that names the file, and no result file, whole or half. Needs h5py, NumPy.
SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import pathlib
import resource
import signal
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

SEQPAR = sys.argv[1]
SANITIZED = b"__asan_init" in pathlib.Path(SEQPAR).read_bytes()


def seqpar(*words, **more):
    words = [SEQPAR, *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, **more)


def tensors(tokens=20, dtype=np.float32):
    random = np.random.default_rng(3)
    shapes = {"q": (1, tokens, 4, 8), "k": (1, tokens, 2, 8), "v": (1, tokens, 2, 8)}
    shapes["d_out"] = (1, tokens, 4, 8)
    return {name: random.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def write_problem(path, change=None, **attributes):
    data = tensors()
    with h5py.File(path, "w") as file:
        file.attrs.update({"schema": "seqpar.problem", "schema_version": 1, **attributes})
        if change:
            change(data, file)
        for name, value in data.items():
            file[name] = value


def algorithms(*families):
    every = json.loads(seqpar("list", "--json").stdout)["algorithms"]
    chosen = [algorithm for algorithm in every if algorithm["family"] in families]
    assert chosen, f"no algorithm of the families {families}"
    return chosen


MODULES = ("basic", "lightning", "retention", "gla", "based", "rebased")


def gradients_of(module):
    """What a result has beside out, d_q, d_k and d_v. The decays of a rule are inputs too."""
    if module in ("lightning", "retention", "gla"):
        return ["d_log_decay"]
    return ["d_gamma", "d_beta"] if module == "rebased" else []


def add_linear_tensors(module):
    random = np.random.default_rng(4)

    def change(data, file):
        batch, tokens, heads, size = data["q"].shape
        if module == "gla":
            data["log_decay"] = -random.exponential(0.1, (batch, tokens, heads, size))
        if module == "rebased":
            data["gamma"] = random.standard_normal(size)
            data["beta"] = random.standard_normal(size)

    return change


def add_layers(count):
    """Keys and values of so many layers."""
    random = np.random.default_rng(5)

    def change(data, file):
        for name in ("k", "v"):
            batch, tokens, heads, size = data[name].shape
            shape = (batch, tokens, count * heads, size)
            data[name] = random.standard_normal(shape).astype(np.float32)

    return change


class Files(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = pathlib.Path(self.temporary.name)
        self.problem = self.directory / "problem.h5"
        self.result = self.directory / "result.h5"

    def tearDown(self):
        self.temporary.cleanup()

    def compute(self, algorithm="ring/zigzag", **more):
        return seqpar("compute", "--algorithm", algorithm, self.problem, self.result, **more)

    def assert_refused(self, done, code, name):
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertRegex(done.stderr, r"\Aseqpar: [^\n]+\n\Z")
        self.assertIn(name, done.stderr)
        left = {path.name for path in self.directory.rglob("*") if path.is_file()}
        self.assertLessEqual(left, {"problem.h5", "other.h5"}, "something was left behind")


class Good(Files):
    def assert_passes_its_own_check(self, algorithm, *outputs):
        done = self.compute(algorithm)
        self.assertEqual(done.returncode, 0, done.stderr)
        with h5py.File(self.result) as file:
            names = {name for name, item in file.items() if isinstance(item, h5py.Dataset)}
        self.assertEqual(names, {"out", "d_q", "d_k", "d_v", *outputs})
        done = seqpar("check", self.problem, self.result)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for name in names:
            self.assertRegex(done.stdout, rf"(?m)^  {name} .* ok$")

    def test_every_softmax_algorithm_passes_its_own_check(self):
        write_problem(self.problem, causal=True)
        for algorithm in algorithms("softmax"):
            with self.subTest(algorithm["id"]):
                self.result.unlink(missing_ok=True)
                if algorithm["id"] == "ulysses":  # four ranks, two key heads
                    self.assert_refused(self.compute("ulysses"), 2, "ulysses")
                else:
                    self.assert_passes_its_own_check(algorithm["id"], "lse")

    def test_every_linear_algorithm_passes_its_own_check_with_every_module(self):
        for algorithm in algorithms("linear"):
            for module in algorithm["modules"]:
                with self.subTest(algorithm["id"], module=module):
                    change, outputs = add_linear_tensors(module), gradients_of(module)
                    write_problem(
                        self.problem, change, attention="linear", module=module, causal=True
                    )
                    self.assert_passes_its_own_check(algorithm["id"], *outputs)

    def test_every_hybrid_algorithm_passes_its_own_check_with_every_module(self):
        for algorithm in algorithms("hybrid"):
            for module in algorithm["modules"]:
                with self.subTest(algorithm["id"], module=module):
                    write_problem(
                        *(self.problem, add_layers(2)),
                        **{"attention": "hybrid", "module": module, "layers": "LN", "causal": True},
                    )
                    self.assert_passes_its_own_check(algorithm["id"], *gradients_of(module))

    def test_the_papers_algorithms_serve_the_papers_modules(self):
        modules = {a["id"]: a.get("modules", []) for a in algorithms("linear", "hybrid")}
        self.assertEqual(set(modules["lasp2"]), set(MODULES))
        self.assertEqual(modules["lasp2h"], ["basic", "lightning", "retention"])

    def test_an_algorithm_of_another_family_refuses(self):
        write_problem(self.problem, attention="linear", module="basic", causal=True)
        self.assert_refused(self.compute("ring/zigzag"), 2, "ring/zigzag")
        write_problem(self.problem, causal=True)
        for algorithm in algorithms("linear", "hybrid"):
            with self.subTest(algorithm["id"]):
                self.assert_refused(self.compute(algorithm["id"]), 2, algorithm["id"])

    def test_a_wrong_gradient_of_decays_fails_the_check_and_is_named(self):
        write_problem(
            *(self.problem, add_linear_tensors("gla")),
            **{"attention": "linear", "module": "gla", "causal": True},
        )
        self.assertEqual(self.compute("lasp2").returncode, 0)
        with h5py.File(self.result, "r+") as file:
            file["d_log_decay"][0, 3, 0] *= -3.0
        done = seqpar("check", self.problem, self.result)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertRegex(done.stdout, r"(?m)^  d_log_decay .*FAILED$")
        self.assertEqual(done.stdout.count("FAILED\n"), 2, done.stdout)

    def test_a_wrong_tensor_fails_the_check_and_is_named(self):
        write_problem(self.problem)
        for name in ("out", "lse", "d_q", "d_k", "d_v"):
            with self.subTest(name):
                self.assertEqual(self.compute().returncode, 0)
                with h5py.File(self.result, "r+") as file:
                    file[name][0, 3, 0] *= -3.0
                done = seqpar("check", self.problem, self.result)
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertRegex(done.stdout, rf"(?m)^  {name} .*FAILED$")
                self.assertEqual(done.stdout.count("FAILED\n"), 2, done.stdout)

    def test_nan_in_a_result_fails_the_check(self):
        write_problem(self.problem)
        self.assertEqual(self.compute().returncode, 0)
        with h5py.File(self.result, "r+") as file:
            file["out"][0, 0, 0, 0] = np.nan
        self.assertEqual(seqpar("check", self.problem, self.result).returncode, 1)

    def test_a_run_file_opens_in_h5py(self):
        run = self.directory / "run.h5"
        done = seqpar("verify", "--algorithm", "ring/zigzag,rsa", "--cases", 4, "--out", run)
        self.assertEqual(done.returncode, 0, done.stderr)
        with h5py.File(run) as file:
            self.assertEqual(file.attrs["schema_name"], "seqpar.run")
            self.assertEqual(file["verification/cases"][:].tolist(), [4, 4])
            self.assertIn("--cases 4", file["config"].attrs["command_line"])
            self.assertIn(b"ring/zigzag/thread", file["variant"][:].tolist())

    def test_an_existing_result_is_replaced_only_by_a_whole_one(self):
        write_problem(self.problem)
        self.assertEqual(self.compute().returncode, 0)
        before = self.result.read_bytes()
        write_problem(self.problem, lambda data, file: data["q"].fill(np.nan))
        self.assertEqual(self.compute().returncode, 2)
        self.assertEqual(self.result.read_bytes(), before)

    def test_relative_and_odd_names(self):
        write_problem(self.directory / "a b'ü.h5")
        done = seqpar(*("compute", "--algorithm", "rsa", "a b'ü.h5", "-r.h5"), cwd=self.directory)
        self.assertEqual(done.returncode, 2, "a name that looks like an option")
        done = seqpar(
            *("compute", "--algorithm", "rsa", "--", "a b'ü.h5", "-r.h5"), cwd=self.directory
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue((self.directory / "-r.h5").exists())


def set_value(name, value):
    def change(data, file):
        data[name][0, 1, 0, 2] = value

    return change


def set_tensor(name, value):
    def change(data, file):
        data[name] = value

    return change


def drop(name):
    def change(data, file):
        del data[name]

    return change


BAD_PROBLEMS = {
    "NaN in q": (set_value("q", np.nan), {}),
    "Inf in v": (set_value("v", np.inf), {}),
    "-Inf in d_out": (set_value("d_out", -np.inf), {}),
    "no k": (drop("k"), {}),
    "k has fewer tokens": (set_tensor("k", np.zeros((1, 19, 2, 8), np.float32)), {}),
    "q has three axes": (set_tensor("q", np.zeros((20, 4, 8), np.float32)), {}),
    "three key heads for four": (set_tensor("k", np.zeros((1, 20, 3, 8), np.float32)), {}),
    "q is integer": (set_tensor("q", np.zeros((1, 20, 4, 8), np.int32)), {}),
    "q is complex": (set_tensor("q", np.zeros((1, 20, 4, 8), np.complex64)), {}),
    "v is double": (set_tensor("v", np.zeros((1, 20, 2, 8))), {}),
    "q is text": (set_tensor("q", "abc"), {}),
    "uint16 without encoding": (set_tensor("q", np.zeros((1, 20, 4, 8), np.uint16)), {}),
    "segment_ids of another length": (set_tensor("segment_ids", np.zeros((1, 7), np.int32)), {}),
    "an unknown data set": (set_tensor("mask", np.zeros(3)), {}),
    "a misspelt attribute": (None, {"casaul": 1}),
    "another schema": (None, {"schema": "seqpar.other"}),
    "a version to come": (None, {"schema_version": 99}),
    "causal is text": (None, {"causal": "yes"}),
    "window is negative": (None, {"window": -4}),
    "window is huge": (None, {"window": 2**63 - 1}),
    "scale is NaN": (None, {"scale": float("nan")}),
    "another attention": (None, {"attention": "quadratic"}),
    "linear without a module": (None, {"attention": "linear"}),
    "a module of softmax": (None, {"module": "basic"}),
    "an unknown module": (None, {"attention": "linear", "module": "mamba"}),
    "gla without decays": (None, {"attention": "linear", "module": "gla"}),
    "decays of basic": (
        set_tensor("log_decay", np.zeros(4)),
        {"attention": "linear", "module": "basic"},
    ),
    "a decay above 0": (
        set_tensor("log_decay", np.array([0, 0, 0.1, 0])),
        {"attention": "linear", "module": "retention"},
    ),
    "a decay of 0": (
        set_tensor("log_decay", np.array([0, 0, -np.inf, 0])),
        {"attention": "linear", "module": "retention"},
    ),
    "rebased without gamma": (
        set_tensor("beta", np.zeros(8)),
        {"attention": "linear", "module": "rebased"},
    ),
    "a scale of based": (None, {"attention": "linear", "module": "based", "scale": 0.5}),
    "a window of basic": (None, {"attention": "linear", "module": "basic", "window": 4}),
    "hybrid without layers": (None, {"attention": "hybrid", "module": "basic", "causal": 1}),
    "three layers in two heads": (
        None,
        {"attention": "hybrid", "module": "basic", "causal": 1, "layers": "LLN"},
    ),
    "a hybrid that is not causal": (
        None,
        {"attention": "hybrid", "module": "basic", "layers": "LN"},
    ),
}


class Bad(Files):
    def test_problems(self):
        for what, (change, attributes) in BAD_PROBLEMS.items():
            with self.subTest(what):
                write_problem(self.problem, change, **attributes)
                self.assert_refused(self.compute(), 2, "")
                self.assert_refused(seqpar("check", self.problem, self.result), 2, "")

    def test_truncated_and_scrambled_bytes(self):
        write_problem(self.problem)
        whole = self.problem.read_bytes()
        for length in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
            with self.subTest(f"first {length} bytes"):
                self.problem.write_bytes(whole[:length])
                self.assert_refused(self.compute(), 2, "problem.h5")
        random = np.random.default_rng(1)
        for trial in range(10):
            with self.subTest(f"scrambled {trial}"):
                bytes_ = bytearray(whole)
                for at in random.integers(0, 2048, 40):
                    bytes_[at] = random.integers(0, 256)
                self.problem.write_bytes(bytes_)
                done = self.compute()
                if done.returncode != 0:  # the damage may have hit unused bytes
                    self.assert_refused(done, 2, "problem.h5")
                self.result.unlink(missing_ok=True)

    def test_results_of_other_programs(self):
        write_problem(self.problem)
        other = self.directory / "other.h5"
        wrong = {
            "no out": {"lse": np.zeros((1, 4, 20), np.float32)},
            "another shape": {"out": np.zeros((1, 20, 4, 9), np.float32)},
            "an unknown data set": {"out": np.zeros((1, 20, 4, 8)), "outt": np.zeros(2)},
        }
        for what, data in wrong.items():
            with self.subTest(what):
                with h5py.File(other, "w") as file:
                    for name, value in data.items():
                        file[name] = value
                self.assert_refused(seqpar("check", self.problem, other), 2, "")

    def test_unreadable_directories_and_links(self):
        self.assert_refused(self.compute(), 2, "problem.h5")
        self.problem.symlink_to(self.directory / "nowhere")
        self.assert_refused(self.compute(), 2, "problem.h5")
        self.problem.unlink()
        os.mkfifo(self.problem)
        self.assert_refused(self.compute(), 2, "problem.h5")


class Disk(Files):
    def write_large_problem(self):
        with h5py.File(self.problem, "w") as file:
            file.attrs.update({"schema": "seqpar.problem", "schema_version": 1})
            for name, value in tensors(tokens=400).items():
                file[name] = value

    def test_missing_directory(self):
        write_problem(self.problem)
        target = self.directory / "none" / "result.h5"
        done = seqpar("compute", "--algorithm", "rsa", self.problem, target)
        self.assert_refused(done, 3, "result.h5")
        done = seqpar("verify", "--algorithm", "rsa", "--cases", 1, "--out", target)
        self.assert_refused(done, 3, "result.h5")

    def test_targets_that_are_no_files(self):
        write_problem(self.problem)
        for target in (self.directory, "/dev/full"):
            with self.subTest(target):
                done = seqpar("compute", "--algorithm", "rsa", self.problem, target)
                self.assert_refused(done, 3, str(target))

    @unittest.skipIf(SANITIZED, "sanitizers write files of their own")
    def test_limit_on_the_size_of_files(self):
        self.write_large_problem()

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        done = self.compute(preexec_fn=limit)
        self.assert_refused(done, 3, "result.h5")

    def test_full_disk(self):
        self.write_large_problem()
        small = self.directory / "small"
        small.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(small)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            self.skipTest("a small file system needs root")
        try:
            target = small / "result.h5"
            done = seqpar("compute", "--algorithm", "rsa", self.problem, target)
            self.assert_refused(done, 3, "result.h5")
        finally:
            subprocess.run(["umount", str(small)], check=True)

    def test_stdout_that_is_full_is_an_error(self):
        with open("/dev/full", "w") as full:
            for words in (("list",), ("list", "--json"), ("env",), ("verify", "--cases", "1")):
                with self.subTest(words):
                    done = subprocess.run(
                        [SEQPAR, *words], stdout=full, stderr=subprocess.PIPE, text=True
                    )
                    self.assertEqual(done.returncode, 3, done.stderr)
                    self.assertRegex(done.stderr, r"\Aseqpar: [^\n]+\n\Z")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
