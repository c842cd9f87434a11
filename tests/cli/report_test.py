"""seqpar report: what is on the page, what is skipped, and how it ends.

Usage: report_test.py SEQPAR. Needs h5py, NumPy, Matplotlib and Jinja2.
SPDX-License-Identifier: Apache-2.0
"""

import html.parser
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

try:
    import jinja2  # noqa: F401
    import matplotlib  # noqa: F401
    import sample_results as sample
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

SEQPAR = sys.argv[1]


def report(*words, **more):
    words = [SEQPAR, "report", *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, **more)


class Tables(html.parser.HTMLParser):
    """Every table as rows of cell texts; every tag with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.tags, self.cell = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append(" ".join("".join(self.cell).split()))
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell.append(data)

    def with_heading(self, *words):
        return [table for table in self.tables if set(words) <= set(table[0])]


class Report(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = pathlib.Path(self.temporary.name)
        self.page = self.directory / "page.html"

    def tearDown(self):
        self.temporary.cleanup()

    def write(self, name, item="paper/item", rows=(), curves=(), **more):
        sample.write_replay(self.directory / name, item, list(rows), list(curves), **more)

    def read(self, *paths):
        done = report("--out", self.page, *(paths or [self.directory]))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout, f"{self.page}\n")
        return self.page.read_text()


class Page(Report):
    def test_a_claim_has_all_that_decides_it(self):
        self.write(
            "a.h5",
            rows=[
                sample.row("64 GPUs", "speed", "1/s", 100, 110, "reproduced", band=0.15),
                sample.row(
                    *("64 GPUs", "memory", "GiB", 20, 30, "not reproduced"),
                    reason="The paper counts one copy less.",
                    grade="picture",
                ),
                sample.row("model", "loss", "1", 2.5, math.nan, "not checkable here"),
            ],
            findings=["Something <surprising>."],
            assumption="All links are equal & idle.",
            verdict="not reproduced",
        )
        page = self.read()
        (table,) = Tables(page).with_heading("claim")
        self.assertEqual(
            table[0], ["claim", "paper", "simulated", "error", "band", "verdict"], "columns"
        )
        self.assertEqual(
            table[1],
            ["64 GPUs · speed, 1/s", "100", "110", "+10.0 %", "15.0 %", "✓ reproduced"],
        )
        self.assertEqual(table[2][1:], ["picture 20", "30", "+50.0 %", "8.0 %", "✗ not reproduced"])
        self.assertEqual(table[3], ["The paper counts one copy less."])
        self.assertEqual(table[4][2:], ["–", "–", "–", "? not checkable here"])
        self.assertIn("Something &lt;surprising&gt;.", page)
        self.assertIn("All links are equal &amp; idle.", page)
        self.assertIn("a &lt;fast&gt; CPU &amp; more", page)
        (overview,) = Tables(page).with_heading("item")
        self.assertEqual(overview[1], ["paper 0 of 1 reproduced"])
        self.assertEqual(overview[2][2:5], ["1 of 3", "30.0 %", "50.0 %"])

    def test_measured_and_simulated_never_share_a_column(self):
        provenances = ("simulated", "measured", "formula", "counted")
        rows = [
            sample.row(name, "time", "s", index + 1, index + 1, "reproduced", provenance=name)
            for index, name in enumerate(provenances)
        ]
        self.write("a.h5", rows=rows)
        sample.write_bench(self.directory / "m.h5", {("ring/thread", 64, 2): [1.0, 1.5, 9.0]})
        sample.write_bench(self.directory / "s.h5", {("ring/sim", 64, 2): [7.0]}, "simulated")
        page = self.read()
        (table,) = Tables(page).with_heading("claim")
        columns = table[0][2:6]
        self.assertEqual(columns, ["formula", "counted", "simulated", "measured"])
        for index, name in enumerate(provenances):
            cells = dict(zip(columns, table[index + 1][2:6]))
            self.assertEqual(cells, {c: str(index + 1) if c == name else "" for c in columns})
        measured, simulated = Tables(page).with_heading("% of ideal")
        self.assertEqual((measured[1][0], measured[1][3]), ("ring/thread", "1.5 s"))
        self.assertEqual((simulated[1][0], simulated[1][3]), ("ring/sim", "7 s"))
        self.assertNotIn("band", measured[0])
        self.assertEqual(simulated[1][simulated[0].index("band")], "30.0 %")
        self.assertLess(page.index("Measured runs"), page.index("Simulated runs"))

    def test_statements_hold_or_do_not(self):
        claims = [sample.row("LASP-2", "is faster", "holds", 1, 1, "reproduced")]
        claims += [sample.row("LASP-2", "sends less", "holds", 1, 0, "not reproduced")]
        claims += [sample.row("LASP-2", "state", "MiB", 4, 100, "not reproduced")]
        self.write("a.h5", rows=claims)
        (table,) = Tables(self.read()).with_heading("claim")
        self.assertEqual(table[1][1:4], ["holds", "holds", "–"])
        self.assertEqual(table[2][1:4], ["holds", "does not hold", "–"])
        self.assertEqual(table[3][1:4], ["4", "100", "×25"])

    def test_a_row_without_a_verdict_is_context(self):
        self.write(
            "a.h5",
            rows=[sample.row("8K", "time", "s", math.nan, 3, "context")],
            verdict="context",
        )
        tables = Tables(self.read())
        self.assertEqual(tables.with_heading("claim"), [])
        self.assertEqual(tables.with_heading("row")[0][1], ["8K · time, s", "3", "8.0 %"])

    def test_plots_tell_paper_from_ours_and_simulated_from_measured(self):
        x, y = [1024, 2048, 4096], [1, 2, math.nan]
        self.write(
            "a.h5",
            curves=[
                sample.curve("A <plot>", "lasp2", x, y),
                sample.curve("A <plot>", "lasp1", x, y, provenance="measured"),
                sample.curve("A <plot>", "lasp2", x, y, from_paper=1),
            ],
        )
        page = self.read()
        figure = re.search(r"<figure>.*?</figure>", page, re.S)[0]
        drawing, legend = figure.split("</svg>", 1)
        self.assertIn("A &lt;plot&gt;", drawing)
        self.assertIn(">length (tokens)</text>", drawing, "text is text")
        self.assertNotIn("<path d", legend.replace('<path d="M', ""), "legend has simple marks")
        lines = re.findall(r'<path[^>]*clip-path[^>]*style="fill: none; stroke[^"]*"', drawing)
        self.assertEqual(sum("stroke-dasharray" in line for line in lines if "series" in line), 1)
        self.assertEqual(sum("series" in line for line in lines), 2, "the paper has points only")
        self.assertIn("fill: var(--surface)", drawing, "hollow")
        for text in ("lasp2 (simulated)", "lasp1 (measured)", "lasp2 (paper)"):
            self.assertIn(text, legend)
        self.assertNotRegex(drawing, r"#[0-9a-f]{6}", "colours follow light and dark")

    def test_papers_have_names_and_an_order(self):
        for name, item in (("a", "lasp2/x"), ("b", "another/x"), ("c", "rsa/y"), ("d", "rsa/x")):
            self.write(f"{name}.h5", item)
        page = self.read()
        (overview,) = Tables(page).with_heading("item")
        firsts = [row[0] for row in overview[1:]]
        papers = ("RSA 2 of 2", "LASP-2 1 of 1", "another 1 of 1")
        rsa, lasp2, another = (f"{paper} reproduced" for paper in papers)
        self.assertEqual(firsts, [rsa, "rsa/x", "rsa/y", lasp2, "lasp2/x", another, "another/x"])
        self.assertIn('<h2 id="paper/lasp2">LASP-2</h2>', page)

    def test_what_is_long_is_folded(self):
        findings = [f"Finding {i}." for i in range(9)]
        curves = [sample.curve(f"plot {i}", "lasp2", [1, 2], [1, 2]) for i in range(5)]
        claims = [sample.row("a", "b", "1", 1, 1, "reproduced")] * 20
        self.write("a.h5", rows=claims, findings=findings, curves=curves)
        times = {("ring/thread", 64, ranks): [1.0] for ranks in range(1, 21)}
        sample.write_bench(self.directory / "m.h5", times)
        page = self.read()
        for folded in ("4 more findings", "2 more plots", "20 claims: 20 reproduced", "20 rows"):
            self.assertRegex(page, rf"<details>\s*<summary>{folded}</summary>")
        self.assertEqual((page.count("<figure>"), page.count("<li>Finding")), (5, 9))
        self.assertLess(page.index("plot 2<"), page.index("2 more plots"))
        self.assertLess(page.index("2 more plots"), page.index("plot 3<"))

    def test_timelines_have_lanes(self):
        self.write("a.h5")
        sample.write_trace(self.directory / "short.json", "lasp2 & co", ranks=3, steps=2)
        sample.write_trace(self.directory / "long.json", "ring", ranks=20)
        (self.directory / "other.json").write_text('{"answer": 42}')
        page = self.read()
        self.assertLess(page.index("lasp2 &amp; co"), page.index("<h3>ring</h3>"))
        for lane in ("compute", "wait", "send", "receive"):
            self.assertEqual(page.count(f'<path class="{lane}"'), 3 + 8)
        self.assertIn("8 of 20 ranks", page)
        self.assertIn("rank 19<", page)
        self.assertIn("500 ms", page)

    def test_is_offline_and_has_unique_identifiers(self):
        curves = [sample.curve(f"plot {i}", "ring/zigzag", [1, 2], [1, 2]) for i in range(3)]
        self.write("a.h5", curves=curves)
        tables = Tables(self.read())
        for tag, attributes in tables.tags:
            self.assertNotIn(tag, ("script", "link", "iframe", "object", "img"))
            for name, value in attributes.items():
                if name in ("src", "href", "xlink:href"):
                    self.assertRegex(value, r"\A#", f"{tag} {name}")
        self.assertNotRegex(self.page.read_text(), r"url\((?!#)|@import")
        identifiers = [a["id"] for _, a in tables.tags if "id" in a]
        self.assertEqual(len(identifiers), len(set(identifiers)))
        used = re.findall(r'(?:href="#|url\(#)([^")]+)', self.page.read_text())
        self.assertLessEqual(set(used), set(identifiers))

    def test_same_input_same_bytes(self):
        curves = [sample.curve("plot", "ring/zigzag", [1, 2], [1, 2])]
        self.write("a.h5", curves=curves)
        sample.write_trace(self.directory / "t.json", "a timeline")
        first = self.read()
        self.assertEqual(self.read(), first)

    def test_the_newest_file_of_an_item_wins(self):
        for name, year in (("a.h5", 2024), ("b.h5", 2026), ("c.h5", 2025)):
            moment = f"{year}-01-01T00:00:00Z"
            self.write(name, title=f"Title of {year}", created_utc=moment)
        page = self.read()
        self.assertIn("Title of 2026", page)
        self.assertNotIn("Title of 2025", page)
        self.assertIn("2 older files", page)


class Ends(Report):
    def test_a_damaged_file_is_named_and_skipped(self):
        self.write("good.h5", rows=[sample.row("a", "b", "1", 1, 1, "reproduced")] * 20)
        whole = (self.directory / "good.h5").read_bytes()
        damaged = {"empty.h5": b"", "text.h5": b"hello", "half.h5": whole[: len(whole) // 2]}
        damaged["flipped.h5"] = whole.replace(b"reproduced", b"reproduccd")
        damaged["zeros.h5"] = whole[:2000] + bytes(len(whole) - 2000)
        damaged["cut.json"] = b'{"traceEvents": ['
        for name, data in damaged.items():
            (self.directory / name).write_bytes(data)
        done = report("--out", self.page, self.directory)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), len(damaged), done.stderr)
        page = self.page.read_text()
        for name in damaged:
            self.assertEqual(sum(name in line for line in lines), 1, done.stderr)
            self.assertIn(name, page)
        self.assertIn(f"{len(damaged)} damaged files were skipped", page)
        self.assertIn("Title of paper/item", page)

    def test_no_file_of_another_kind_passes(self):
        self.write("good.h5")
        for change in ({"schema_name": "seqpar.problem"}, {"schema_version": "2.0.0"}):
            self.write("other.h5", **change)
            done = report("--out", self.page, self.directory)
            self.assertEqual(done.returncode, 0)
            self.assertRegex(done.stderr, r"\Aseqpar: skipped \S*other.h5: .*allowed: [^\n]+\n\Z")

    def assert_refused(self, done, code, said):
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertRegex(done.stderr, r"\Aseqpar: [^\n]+\n\Z")
        self.assertIn(said, done.stderr)
        self.assertFalse(self.page.exists())

    def test_nothing_to_report(self):
        done = report("--out", self.page, self.directory)
        self.assert_refused(done, 2, "no results in")
        done = report("--out", self.page, self.directory / "absent")
        self.assert_refused(done, 2, "absent: no such file or directory")
        self.assert_refused(report("--ou", self.page), 2, "did you mean '--out'")

    def test_a_page_that_cannot_be_written(self):
        self.write("a.h5")
        done = report("--out", self.directory / "absent" / "page.html", self.directory)
        self.assert_refused(done, 3, "cannot write it")

    def test_a_machine_without_the_modules(self):
        self.write("a.h5")
        lame = {**os.environ, "PYTHONHOME": str(self.directory)}
        self.assert_refused(report("--out", self.page, self.directory, env=lame), 3, "needs Python")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
