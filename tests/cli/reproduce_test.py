"""Replays on the command line: one item, a paper, a broken sweep, resuming, the quick tour.

Usage: reproduce_test.py SEQPAR SOURCE_DIR. Needs h5py; the xarray part is skipped, with the reason,
where xarray or h5netcdf is missing. SPDX-License-Identifier: Apache-2.0
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import h5py

SEQPAR, SOURCE, SANITIZED = "", pathlib.Path(), ""
ITEM = "ring_attention/table2"
VERDICTS = {"reproduced", "not reproduced", "not checkable here", "context"}


def seqpar(*words, **more):
    words = map(str, (SEQPAR, "reproduce", *words))
    return subprocess.run(words, capture_output=True, text=True, timeout=280, **more)


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.results = self.folder / "results"

    def answer(self, *words, code=0):
        done = seqpar(*words, "--out-dir", self.results, "--json")
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def refused(self, *words, code=2):
        done = seqpar(*words, "--out-dir", self.results)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertRegex(done.stderr, r"\Aseqpar: [^\n]+\n\Z")
        return done.stderr


class OneItem(Case):
    def test_shows_every_row_and_what_decides(self):
        done = seqpar(ITEM, "--out-dir", self.results)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, rf"\A# {ITEM}: ")
        for said in (r"^# paper: .*arXiv", r"^# assumption: .", r"^# verdict: (not )?reproduced"):
            self.assertRegex(done.stdout, re.compile(said, re.M))
        rows = self.answer(ITEM)["items"][0]["rows"]
        self.assertEqual(len(re.findall(r"^  \S", done.stdout, re.M)), len(rows))
        self.assertNotRegex(done.stdout, r"[\x00-\x09\x0b-\x1f]")

    def test_in_json_has_what_the_file_has(self):
        answer = self.answer(ITEM)
        (item,) = answer["items"]
        self.assertEqual(answer["summary"]["items"], 1)
        self.assertIn(item["verdict"], VERDICTS)
        with h5py.File(item["stored"]) as file:
            self.assertEqual(file.attrs["schema_name"], "seqpar.replay")
            self.assertEqual(file.attrs["item"], ITEM)
            self.assertEqual(file.attrs["verdict"], item["verdict"])
            labels = file["label"].asstr()[...].tolist()
            self.assertEqual(labels, [row["label"] for row in item["rows"]])
            self.assertEqual(file["ours"][...].tolist(), [row["ours"] for row in item["rows"]])
            config = SOURCE / "experiments" / "configs" / f"{ITEM}.toml"
            self.assertEqual(file["config/toml"].asstr()[()], config.read_text())
            self.assertIn("cpu", file["environment"].attrs)

    def test_opens_in_xarray(self):
        try:
            import h5netcdf  # noqa: F401
            import xarray
        except ImportError as missing:
            self.skipTest(f"{missing}; install python3-xarray and python3-h5netcdf")
        (item,) = self.answer(ITEM)["items"]
        with xarray.open_dataset(item["stored"], engine="h5netcdf") as data:
            self.assertEqual(data["ours"].dims, ("row",))
            self.assertEqual(data.sizes["row"], len(item["rows"]))
            self.assertEqual(data["findings"].dims, ("finding",))


class Sweep(Case):
    def test_of_a_paper_ends_with_a_verdict_for_each_item(self):
        answer = self.answer("ring_attention", "rsa/memory", "rsa/memory")
        ids = [item["item"] for item in answer["items"]]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertEqual(ids.count("rsa/memory"), 1)
        self.assertGreater(len(ids), 2)
        self.assertTrue(all(item["verdict"] in VERDICTS for item in answer["items"]))
        counts = answer["summary"]
        self.assertEqual(counts["items"], len(ids))
        self.assertEqual(sum(counts.values()), 2 * len(ids))
        self.assertEqual(len(list(self.results.glob("*.h5"))), len(ids))

    def test_goes_on_past_a_broken_item_and_names_it(self):
        configs = self.folder / "configs"
        shutil.copytree(SOURCE / "experiments" / "configs" / "rsa", configs / "rsa")
        config = configs / "rsa" / "memory.toml"
        config.write_text("frobnicate = 3\n" + config.read_text())
        answer = self.answer("rsa", "--config", configs, code=1)
        broken = {item["item"]: item["broken"] for item in answer["items"] if "broken" in item}
        self.assertEqual(list(broken), ["rsa/memory"])
        self.assertRegex(broken["rsa/memory"], r"memory\.toml:1: frobnicate")
        self.assertEqual(answer["summary"]["broken"], 1)
        self.assertEqual(len(list(self.results.glob("*.h5"))), len(answer["items"]) - 1)
        done = seqpar("rsa", "--config", configs, "--out-dir", self.results)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"\n  rsa/memory +BROKEN\n")

    def test_resumed_reads_what_is_done(self):
        first = self.answer("rsa")
        again = self.answer("rsa", "--resume")
        self.assertTrue(all(item["resumed"] for item in again["items"]))
        for a, b in zip(first["items"], again["items"]):
            self.assertEqual((a["stored"], a["rows"]), (b["stored"], b["rows"]))
        self.assertEqual(again["summary"], first["summary"])
        self.assertFalse(any(item["resumed"] for item in self.answer("rsa")["items"]))

    def test_resumed_runs_again_what_was_asked_otherwise_or_damaged(self):
        first = self.answer("ring_attention")
        configs = self.folder / "configs"
        shutil.copytree(SOURCE / "experiments" / "configs", configs)
        with open(configs / f"{ITEM}.toml", "a") as file:
            file.write("\n# another text\n")
        again = self.answer("ring_attention", "--resume", "--config", configs)
        fresh = [item["item"] for item in again["items"] if not item["resumed"]]
        self.assertEqual(fresh, [ITEM])

        damaged = pathlib.Path(first["items"][0]["stored"])
        damaged.write_bytes(damaged.read_bytes()[:3000])
        done = seqpar("ring_attention", "--resume", "--out-dir", self.results, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"skipped: {damaged}", done.stderr)
        items = json.loads(done.stdout)["items"]
        self.assertEqual([item["resumed"] for item in items].count(False), 1)
        self.assertFalse(items[0]["resumed"])

    def test_killed_loses_nothing_that_was_done(self):
        words = map(str, (SEQPAR, "reproduce", "rsa", "--out-dir", self.results))
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while not list(self.results.glob("*.h5")) and time.monotonic() < until:
            time.sleep(0.001)
        child.kill()
        child.wait()
        done = {path.name for path in self.results.glob("*.h5")}
        self.assertGreater(len(done), 0)
        again = self.answer("rsa", "--resume")
        kept = {pathlib.Path(i["stored"]).name for i in again["items"] if i["resumed"]}
        self.assertEqual(kept, done)


class WrongWords(Case):
    def test_every_line_of_the_table(self):
        config = self.folder / "item.toml"
        config.write_text("frobnicate = 3\n")
        for words, said in (
            ((), "allowed: quick"),
            (("rsa/memoryy",), "did you mean 'rsa/memory'"),
            (("rsb",), "allowed: quick"),
            (("--all", "rsa"), "allowed: one of them"),
            (("quick", "rsa"), "allowed: it alone"),
            (("lasp2/real-2048k", "rsa"), "allowed: it alone"),
            (("lasp2/real-2048k", "--resume"), "allowed: its own options"),
            (("rsa", "--tokens", "4K"), "--tokens is for lasp2/real-2048k alone"),
            (("rsa", "--config", config), "allowed: a folder with PAPER/ITEM.toml"),
            (("rsa/memory", "--config", config), "item.toml"),
            (("rsa/memory", "--config", self.folder / "none.toml"), "none.toml"),
            (("quick", "--config", config), "name an item"),
        ):
            with self.subTest(words):
                self.assertIn(said, self.refused(*words))
        self.assertFalse(list(self.results.glob("*.h5")))

    def test_a_folder_that_cannot_be_made_is_the_environments_fault(self):
        self.results = self.folder / "file" / "results"
        (self.folder / "file").write_text("in the way")
        self.assertIn("--out-dir", self.refused("rsa/memory", code=3))


class Quick(Case):
    def test_verifies_compares_and_reports_within_a_minute(self):
        begin = time.monotonic()
        answer = self.answer("quick")
        took = time.monotonic() - begin
        self.assertGreaterEqual(len(answer["verification"]), 8)
        self.assertTrue(all(row["passed"] and row["cases"] for row in answer["verification"]))
        layer = answer["items"][0]
        self.assertEqual(layer["item"], "lasp2/layer-2048k")
        simulated = {row["label"] for row in layer["rows"] if row["provenance"] == "simulated"}
        self.assertLessEqual({"lasp2", "lasp1", "ring/contiguous"}, simulated)
        self.assertTrue(pathlib.Path(answer["report"]).read_text().startswith("<!"))
        self.assertEqual(len(list(self.results.glob("headline-*.trace.json"))), 3)
        if not SANITIZED:
            self.assertLess(took, 60)


if __name__ == "__main__":
    SEQPAR, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
    SANITIZED = json.loads(
        subprocess.run([SEQPAR, "env", "--json"], capture_output=True, text=True).stdout
    )["sanitizers"]
    unittest.main(argv=sys.argv[:1])
