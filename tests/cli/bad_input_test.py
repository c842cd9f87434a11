"""Bad platforms, configs, outputs and results, and sweeps that are cut short.

Every refusal is one line on stderr with what is allowed, and leaves no file.

Usage: bad_input_test.py SEQPAR SOURCE_DIR. Needs what `seqpar report` needs.
SPDX-License-Identifier: Apache-2.0
"""

import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest

SEQPAR, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
PLATFORM = (SOURCE / "experiments/platforms/dgx_a100.toml").read_text()
CONFIG = (SOURCE / "experiments/configs/lasp2/chain-vs-gather.toml").read_text()
ONE_RUN = "--algorithm lasp2 --ranks 2 --tokens 4K".split()


def seqpar(*words, **more):
    return subprocess.run(
        (SEQPAR, *map(str, words)), capture_output=True, text=True, timeout=60, **more
    )


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def refused(self, code, *parts, words):
        done = seqpar(*words)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for part in parts:
            self.assertIn(part, done.stderr)

    def edited(self, text, old, new):
        """A file with the first occurrence replaced, and the line of it."""
        self.assertIn(old, text)
        path = self.folder / "edited.toml"
        path.write_text(text.replace(old, new, 1))
        return path, text[: text.index(old)].count("\n") + 1


class Platforms(Case):
    def test_is_refused_with_file_line_key_and_what_is_allowed(self):
        for old, new, key, complaint in (
            ("query_tile", "query_tyle", "query_tile", "is 'query_tyle' in line 22 meant for it?"),
            ("nodes = 16", "nodes = 16\nspeed = 1", "fabric.speed", "unknown key"),
            ('25, unit = "GB/s"', '25, unit = "GB"', "adapter_bandwidth.unit", "'GB'"),
            ('{ value = 25, unit = "GB/s"', '{ value = 0, unit = "GB/s"', "value", "it is 0 GB/s"),
            ("value = 25,", "value = nan,", "value", "it is the number nan"),
            ("value = 25,", "value = -1,", "value", "it is -1 GB/s"),
            ("nodes = 16", "nodes = 1", "fabric.nodes", "from 2 to 512"),
            ("adapters = 8", "adapters = 3", "fabric.adapters", "do not divide"),
            ("devices = 8", "devices = 4096", "fabric.nodes", "4096 devices at most"),
            (', source = "NVIDIA A100 80GB', ', sauce = "NVIDIA A100 80GB', "source", "'sauce'"),
        ):
            with self.subTest(new=new):
                path, _ = self.edited(PLATFORM, old, new)
                words = ("simulate", *ONE_RUN, "--platform", path)
                self.refused(2, f"{path}:", f"{key}: ", complaint, "allowed", words=words)

    def test_pipes_and_folders_are_not_read(self):
        os.mkfifo(self.folder / "pipe.toml")
        for path in (self.folder / "pipe.toml", self.folder, "/dev/zero"):
            words = ("simulate", *ONE_RUN, "--platform", path)
            self.refused(2, "it is not a regular file", words=words)


class Configs(Case):
    def test_is_refused_with_file_line_and_key(self):
        os.mkfifo(self.folder / "pipe.csv")
        table, platform = 'table = "lasp2_figures_stated"', 'platform = "dgx_a100"'
        tokens = next(line for line in CONFIG.splitlines() if line.startswith("tokens"))
        for old, new, complaint in (
            (tokens, "tokens = []", "tokens: it is empty"),
            (table, 'table = "nope"', "table: cannot read"),
            (table, f'table = "{self.folder}/pipe.csv"', "table: cannot read"),
            (table, f'table = "{self.folder}"', "table: cannot read"),
            (platform, 'platform = "dgx_a10"', "platform: unknown platform 'dgx_a10' (did you"),
        ):
            with self.subTest(new=new):
                path, line = self.edited(CONFIG, old, new)
                words = ("reproduce", "lasp2/chain-vs-gather", "--config", path)
                words += ("--out-dir", self.folder / "out")
                self.refused(2, f"{path}:{line}: {complaint}", "allowed", words=words)
                self.assertEqual(list((self.folder / "out").iterdir()), [])

    def test_what_only_the_replay_finds_names_the_file_too(self):
        tokens = next(line for line in CONFIG.splitlines() if line.startswith("tokens"))
        path, _ = self.edited(CONFIG, tokens, 'tokens = ["9999999G"]')
        words = ("reproduce", "lasp2/chain-vs-gather", "--config", path, "--out-dir", self.folder)
        self.refused(2, f"{path}: ", "out of range", words=words)


class Outputs(Case):
    def test_are_refused_before_the_work(self):
        missing = self.folder / "missing" / "file"
        simulate = ("simulate", *ONE_RUN)
        bench = ("bench", "-n", 1, *ONE_RUN)
        for words in (
            (*simulate, "--out", missing),
            (*simulate, "--trace", missing),
            (*simulate, "--out", self.folder),
            (*bench, "--out", missing),
            (*bench, "--trace", missing),
            ("reproduce", "lasp2/real-2048k", "--out", missing),
            ("reproduce", "--all", "--out-dir", "/proc"),
            ("reproduce", "quick", "--out-dir", "/proc"),
        ):
            with self.subTest(words=words):
                self.refused(3, words=words)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_file_is_not_written_twice(self):
        path = self.folder / "both"
        words = ("simulate", *ONE_RUN, "--out", path, "--trace", path)
        self.refused(2, "two files", words=words)

    def test_says_that_there_is_no_timeline(self):
        path = self.folder / "trace.json"
        words = "--algorithm rsa --ranks 2 --tokens 2M --trace".split()
        done = seqpar("simulate", *words, path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("was not written: the run ended with status oom", done.stderr)
        self.assertFalse(path.exists())


class Report(Case):
    def setUp(self):
        super().setUp()
        done = seqpar("reproduce", "striped/theoretical", "--out-dir", self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_skips_what_is_no_result(self):
        os.mkfifo(self.folder / "pipe.h5")
        os.mkfifo(self.folder / "pipe.trace.json")
        (self.folder / "folder.h5").mkdir()
        (self.folder / "device.h5").symlink_to("/dev/zero")
        (self.folder / "nowhere.h5").symlink_to("nothing")
        (self.folder / "two\nlines.h5").write_text("text")
        pathlib.Path(os.fsdecode(bytes(self.folder) + b"/latin\xe4.h5")).write_text("text")
        page = self.folder / "page.html"
        done = seqpar("report", "--out", page, self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 7, done.stderr)
        for line in lines:
            self.assertTrue(line.startswith(f"seqpar: skipped {self.folder}/"), line)
        self.assertIn("striped/theoretical", page.read_text())

    def test_does_not_replace_a_device(self):
        done = seqpar("report", "--out", "/dev/full", self.folder)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn(
            "/dev/full: cannot write it: it exists and is not a regular file", done.stderr
        )
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/full").st_mode))


class Interrupted(Case):
    def test_keeps_what_was_done_and_goes_on(self):
        items = ("token_ring/traffic", "lasp2/chain-vs-gather", "lasp2/layer-2048k")
        for ended_by in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with self.subTest(signal=ended_by.name):
                results = self.folder / ended_by.name
                words = (SEQPAR, "reproduce", *items, "--out-dir", results)
                sweep = subprocess.Popen(
                    words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                self.addCleanup(sweep.kill)
                limit = time.monotonic() + 30
                while not (results.is_dir() and list(results.glob("*.h5"))):
                    self.assertLess(time.monotonic(), limit, "no first result")
                    time.sleep(0.005)
                sweep.send_signal(ended_by)
                self.assertEqual(sweep.wait(30), -ended_by)
                before = {path.name: path.read_bytes() for path in results.glob("*.h5")}
                self.assertLess(len(before), len(items), "the sweep was over before the signal")
                for name in before:
                    done = seqpar("compare", results / name, results / name)
                    self.assertEqual(done.returncode, 0, done.stderr)
                done = seqpar("reproduce", *items[:1], "--out-dir", results, "--resume")
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertIn("# read from: ", done.stdout)
                after = {path.name: path.read_bytes() for path in results.glob("*.h5")}
                self.assertEqual(after, before)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
