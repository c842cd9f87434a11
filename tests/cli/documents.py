"""Writes what documents show of the program: tables between `begin` and `end`, outputs of commands.

Usage: documents.py ROOT SEQPAR [PROPERTY_TESTS]. Changes README.md and optimized/README.md in
place; with the third argument also the lines of new algorithms in the record of traffic.
readme_test.py checks what this writes. SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

DOCUMENTS = ("README.md", "optimized/README.md")
GENERATED = re.compile(
    r"(<!-- begin: seqpar (?P<words>.*?) -->\n)(?P<text>.*?)(<!-- end -->)", re.S
)
FORMULAS = re.compile(
    r"(<!-- begin: formulas (?P<family>\w+) -->\n)(?P<text>.*?)(<!-- end -->)", re.S
)
PARAGRAPH = re.compile(r"^\*\*(?P<ids>`.*?)\*\*.*?(?=\n\n)", re.M | re.S)
SENDS = re.compile(r"\*Sends\* (.+?); backward (.+?)\.\s\*Keeps\* (.+?)\.$", re.M | re.S)
SENDS_AS = re.compile(r"\*Sends\* and \*keeps\* what `(.+?)` does\.$", re.M)
SHOWN = re.compile(
    r"(<!-- run, same output[^>]*-->\n```console\n)(?P<text>\$ \./seqpar [^`]*?)(```)", re.S
)


def output_of(seqpar, words):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([seqpar, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"seqpar {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def without_numbers(text):
    """Words and columns stay; a number may be another one, or wider."""
    text = re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def paragraphs_of(text):
    """Of every algorithm its paragraph, which starts with the algorithm's id in bold."""
    return {
        id: match[0]
        for match in PARAGRAPH.finditer(text)
        for id in re.findall(r"`(.+?)`", match["ids"])
    }


def formulas_of(id, paragraphs):
    """(bytes forward, bytes backward, memory) as the paragraph's last line says."""
    paragraph = paragraphs.get(id, "")
    if match := SENDS_AS.search(paragraph):
        return (f"as `{match[1]}`", "the same", formulas_of(match[1], paragraphs)[2])
    if match := SENDS.search(paragraph):
        return match.groups()
    raise SystemExit(
        f"optimized/README.md: no paragraph on `{id}` that ends with "
        "'*Sends* ...; backward .... *Keeps* $O(...)$.'"
    )


def table_of_formulas(text, family, seqpar):
    """One row for each algorithm: what the program says of it, and what its paragraph says."""
    linear = family == "linear"
    last = "modules" if linear else "sharding"
    head = ("id", "paper", "what travels", "bytes forward", "bytes backward", "memory", last)
    rows = [head, ["---"] * len(head)]
    paragraphs = paragraphs_of(text)
    for each in json.loads(output_of(seqpar, ["list", "--json"]))["algorithms"]:
        if ("modules" in each) != linear:
            continue
        arxiv = re.search(r"arXiv:([\d.]+)", each["paper"])
        paper = f"[{arxiv[1]}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else each["paper"]
        what = ", ".join(each[last]) if linear else each[last]
        formulas = formulas_of(each["id"], paragraphs)
        rows.append((f"`{each['id']}`", paper, each["pattern"], *formulas, what))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def with_tables(text, seqpar):
    """The document with the tables that the program prints now."""
    text = GENERATED.sub(lambda m: m[1] + output_of(seqpar, m["words"].split()) + m[4], text)
    return FORMULAS.sub(lambda m: m[1] + table_of_formulas(text, m["family"], seqpar) + m[4], text)


def with_outputs(text, seqpar):
    """The document with commands whose outputs differ in more than numbers run again."""

    def fresh(match):
        command, shown = match["text"].split("\n", 1)
        if "\n$ " in "\n" + shown:  # several commands share a folder: they are left to their reader
            return match[0]
        output = output_of(seqpar, shlex.split(command)[2:])
        if without_numbers(output) == without_numbers(shown):
            return match[0]
        return f"{match[1]}{command}\n{output}{match[3]}"

    return SHOWN.sub(fresh, text)


def main(root, seqpar, property_tests=None):
    for name in DOCUMENTS:
        path = pathlib.Path(root) / name
        text = path.read_text()
        now = with_outputs(with_tables(text, seqpar), seqpar)
        if now != text:
            path.write_text(now)
            print("written:", name)
    if property_tests:
        words = [property_tests, "--gtest_filter=Traffic.*"]
        subprocess.run(words, env={**os.environ, "SP_RECORD_NEW": "1"}, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(*sys.argv[1:])
