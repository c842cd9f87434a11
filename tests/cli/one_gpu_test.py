"""one_gpu.sh on the emulator: its whole course, twice, and what a course that is ended leaves.

Usage: one_gpu_test.py ROOT SEQPAR KERNEL_TESTS. SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

ROOT = pathlib.Path(sys.argv[1])
SCRIPT = ROOT / "experiments" / "cluster" / "one_gpu.sh"
ENVIRONMENT = os.environ | {"SEQPAR": sys.argv[2], "KERNEL_TESTS": sys.argv[3]}


def start(*words, **more):
    return subprocess.Popen(
        [str(SCRIPT), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | more,
    )


def run(*words, **more):
    process = start(*words, **more)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def steps(results):
    lines = (results / "steps.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


class OneGpu(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        self.results = pathlib.Path(folder.name) / "results"

    def test_whole_course_twice_with_the_same_verdicts(self):
        verdicts = []
        for time_of_day in ("first", "second"):
            results = self.results / time_of_day
            code, out, err = run("--emulate", "--results", str(results))
            self.assertEqual(code, 0, out + err)
            verdicts.append([(step["name"], step["verdict"]) for step in steps(results)])
            page = (results / "page.md").read_text()
            for words in ("# One GPU: emulated A100", "| kernels twice | good |", "addends count"):
                self.assertIn(words, page)
            self.assertIn("## Measured beside predicted", page)
            self.assertNotIn("What did not agree", page)
            with tarfile.open(results / "one_gpu.tar.gz") as archive:
                self.assertIn("page.md", archive.getnames())
                self.assertIn("steps.jsonl", archive.getnames())
        self.assertEqual(verdicts[0], verdicts[1])
        names = [name for name, _ in verdicts[0]]
        for name in ("environment", "tensor cores", "many ranks", "attention 128", "modules"):
            self.assertIn((name, "good"), verdicts[0])
        self.assertEqual(len(names), len(set(names)))
        self.assertLessEqual(sum(step["limit"] for step in steps(results)), 480)

    def test_a_course_that_is_ended_leaves_what_it_had(self):
        for ending in (signal.SIGTERM, signal.SIGKILL):
            results = self.results / ending.name
            process = start("--emulate", "--results", str(results))
            deadline = time.monotonic() + 120
            page = results / "page.md"
            while not page.exists() or "| tensor cores | good |" not in page.read_text():
                self.assertIsNone(process.poll(), "it ended by itself")
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
            process.send_signal(ending)
            process.communicate(timeout=60)
            self.assertNotEqual(process.returncode, 0)
            self.assertEqual([s["verdict"] for s in steps(results)[:2]], ["good", "good"])
            self.assertIn("| tensor cores | good |", page.read_text())
            self.assertGreater((results / "01-environment.log").stat().st_size, 0)

    def test_a_step_that_fails_or_hangs_does_not_end_the_course(self):
        self.results.mkdir()
        fake = self.results / "kernel_tests"
        fake.write_text("#!/bin/sh\ncase $* in *TensorCore*) sleep 100 ;; esac\nexit 7\n")
        fake.chmod(0o755)
        results = self.results / "results"
        code, out, err = run("--emulate", "--results", str(results), KERNEL_TESTS=str(fake))
        self.assertEqual(code, 1, out + err)
        verdicts = {step["name"]: step["verdict"] for step in steps(results)}
        self.assertEqual(verdicts["tensor cores"], "too slow")
        self.assertEqual(verdicts["kernels twice"], "failed")
        self.assertEqual(verdicts["one rank"], "good")
        self.assertIn("## What did not agree: kernels twice", (results / "page.md").read_text())

    def test_it_refuses_what_it_does_not_understand(self):
        (self.results / "full").mkdir(parents=True)
        (self.results / "full" / "file").touch()
        blind = self.results / "blind"
        blind.write_text("#!/bin/sh\necho 'gpus              0'\n")
        blind.chmod(0o755)
        for words, more, expected, message in (
            (("--fast",), {}, 2, "unknown word '--fast'"),
            (("--results",), {}, 2, "--results needs a value"),
            (("--arch", "90"), {}, 2, "--arch goes with --pack"),
            (("--pack", "x", "--arch", "70"), {}, 2, "80, 86, 89, 90 or 100"),
            (("--pack", str(self.results)), {}, 2, "is there already"),
            (("--emulate", "--results", str(self.results / "full")), {}, 2, "is not empty"),
            (("--emulate", "--results", "/proc/no"), {}, 3, "cannot write to /proc/no"),
            (("--emulate",), {"SEQPAR": "/no/seqpar"}, 3, "there is no program /no/seqpar"),
            ((), {"SEQPAR": str(blind)}, 3, "no GPU here, or no driver"),
        ):
            code, out, err = run(*words, **more)
            self.assertEqual((code, out, len(err.splitlines())), (expected, "", 1), err)
            self.assertIn(message, err)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
