"""The report in a browser: on a phone and on a desk, light and dark.

Usage: report_browser_test.py SEQPAR. Needs Chromium; skipped, with the reason, without it. Nothing
may be wider than the window, and all text must stand out from its ground.
SPDX-License-Identifier: Apache-2.0
"""

import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import matplotlib.image
    import sample_results as sample
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

SEQPAR = sys.argv[1]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if not CHROMIUM:
    print("skipped: no Chromium here; install chromium")
    sys.exit(77)

LONG = "a_name_without_any_place_to_break_it/that_goes_on_and_on_and_on_for_ever_and_ever"
# Measures the page: what is wider than its window, and the least contrast of any text.
PROBE = """
<script>
function luminance(c) {
  const f = x => (x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  return 0.2126 * f(c[0]) + 0.7152 * f(c[1]) + 0.0722 * f(c[2]);
}
const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
function ground(node) {
  for (; node; node = node.parentElement) {
    const c = numbers(getComputedStyle(node).backgroundColor);
    if (c.length >= 3 && (c.length < 4 || c[3] > 0.99)) return c;
  }
  return [255, 255, 255];
}
addEventListener("load", () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  const wide = [], texts = [];
  for (const node of document.body.querySelectorAll("*")) {
    if (node.getBoundingClientRect().right > innerWidth + 0.5 && !node.closest("svg"))
      wide.push(node.tagName + " " + node.textContent.slice(0, 40));
    const own = [...node.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
    if (!own || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const colour = numbers(node.closest("svg") ? style.fill : style.color);
    const [a, b] = [luminance(colour), luminance(ground(node))];
    const size = parseFloat(style.fontSize) * (node.closest("svg") ? scale(node) : 1);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    texts.push([contrast, size, node.textContent.trim()]);
  }
  function scale(node) {
    const matrix = node.getScreenCTM();  // of text that may stand upright
    return Math.hypot(matrix.a, matrix.b);
  }
  const least = texts.reduce((x, y) => x[0] < y[0] ? x : y);
  const smallest = texts.reduce((x, y) => x[1] < y[1] ? x : y);
  parent.postMessage({wide, least, smallest, texts: texts.length, width: innerWidth,
                      scroll: document.documentElement.scrollWidth}, "*");
});
</script>
"""
FRAME = """<body style="margin:0">
<iframe src="probe.html" style="border:0;width:WIDTHpx;height:9000px"></iframe>
<pre id="answer"></pre><script>
addEventListener("message", e =>
  document.getElementById("answer").textContent = "ANSWER" + JSON.stringify(e.data) + "END");
</script></body>"""


class Browser(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.directory = pathlib.Path(cls.temporary.name)
        cls.results = cls.directory / "results"
        cls.results.mkdir()
        write_results(cls.results)
        cls.page = cls.directory / "page.html"
        words = [SEQPAR, "report", "--out", str(cls.page), str(cls.results)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        page = cls.page.read_text().replace("</body>", PROBE + "</body>")
        (cls.directory / "probe.html").write_text(page)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def chromium(self, scheme, *words):
        words = [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            f"--user-data-dir={self.directory}/profile",
            f"--blink-settings=preferredColorScheme={ {'dark': 0, 'light': 1}[scheme] }",
            *words,
        ]
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    def frame(self, width):
        path = self.directory / f"frame-{width}.html"
        path.write_text(FRAME.replace("WIDTH", str(width)))
        return path.as_uri()

    def test_nothing_is_too_wide_and_all_text_is_legible(self):
        for width in (380, 1280):
            for scheme in ("light", "dark"):
                with self.subTest(width=width, scheme=scheme):
                    done = self.chromium(
                        *(scheme, "--window-size=1400,1000", "--virtual-time-budget=5000"),
                        *("--dump-dom", self.frame(width)),
                    )
                    answer = re.search("ANSWER(.*?)END</pre>", done.stdout, re.S)
                    self.assertTrue(answer, done.stderr[-2000:])
                    measured = json.loads(answer[1].replace("&lt;", "<").replace("&amp;", "&"))
                    self.assertEqual(measured["wide"], [])
                    self.assertEqual((measured["width"], measured["scroll"]), (width, width))
                    self.assertGreater(measured["texts"], 100)
                    self.assertGreaterEqual(measured["least"][0], 4.5, measured["least"])
                    self.assertGreaterEqual(measured["smallest"][1], 9, measured["smallest"])

    def test_light_is_light_and_dark_is_dark(self):
        means = {}
        for scheme in ("light", "dark"):
            for width in (500, 1280):
                picture = self.directory / f"{scheme}-{width}.png"
                size = f"--window-size={width},1500"
                self.chromium(scheme, size, f"--screenshot={picture}", self.page.as_uri())
                pixels = matplotlib.image.imread(picture)[..., :3]
                self.assertEqual(pixels.shape[:2], (1500, width))
                self.assertGreater(pixels.std(), 0.05, "something is drawn")
                means[scheme, width] = pixels.mean()
        for width in (500, 1280):
            self.assertGreater(means["light", width], 0.8)
            self.assertLess(means["dark", width], 0.25)


def write_results(directory):
    lengths = [2048 << n for n in range(8)]
    times = [1e-6 * n for n in lengths]
    claims = [
        sample.row("2048K", "speed over lasp1", "1", 1.152, 1.13, "reproduced", fitted=1),
        sample.row("2048K", LONG, "1/s", 1.366, 2.9, "not reproduced", reason="Because. " * 20),
        sample.row("a model", "rate", "1/s", 486183, math.nan, "not checkable here"),
        sample.row("2K", "sent", "byte", 1 << 39, 1 << 39, "reproduced", provenance="counted"),
        sample.row("2K", "time", "s", 1, 1.01, "reproduced", provenance="measured"),
        sample.row("2K", "size", "1", 1, 1, "reproduced", provenance="formula", grade="picture"),
        sample.row("4K", "time", "s", math.nan, 2, "context"),
    ]
    curves = [
        sample.curve("Time against length", "lasp2", lengths, times),
        sample.curve("Time against length", LONG, lengths, times[:-2] + [math.nan] * 2),
        sample.curve("Time against length", "lasp2", lengths, times, from_paper=1),
        sample.curve("Memory", "lasp2", [16, 32, 64], [3, 2, 1], "GPUs", "memory (GiB)"),
    ]
    about = {"findings": ["One all-gather beats a chain."], "assumption": "The state is f32."}
    sample.write_replay(directory / "a.h5", "lasp2/figure3", claims, curves, **about)
    sample.write_replay(directory / "b.h5", f"long/{LONG}", claims * 4, title=LONG)
    times = {("ring/zigzag/thread", 65536, 2): [0.1], ("lasp2/thread", 65536, 2): [0.01]}
    sample.write_bench(directory / "m.h5", times)
    sample.write_bench(directory / "s.h5", times, "simulated")
    sample.write_trace(directory / "ring.json", "ring/zigzag, 64 ranks", ranks=64, steps=63)
    sample.write_trace(directory / "lasp2.json", LONG, ranks=64, steps=9)
    (directory / "damaged.h5").write_bytes(b"x" * 100)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
