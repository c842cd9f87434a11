"""What ptxas says of every kernel: nothing spills, and registers are what the table states.

Usage: ptxas_test.py FOLDER README.md [--write]. FOLDER is searched for the *.ptxas files that the
build keeps beside its objects. README.md has one row per kernel; its columns sm_... hold the most
registers per thread over all instances of the kernel, the last ones the blocks that fit on a
multiprocessor for threads, registers and the largest shared memory; --write fills them in.
Registers differ from one release of the toolkit to the next: they are compared only under the
release that the README names, spills always.

SPDX-License-Identifier: Apache-2.0
"""

import pathlib
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
BLOCKS = {"A100": ("sm_80", 164), "H100": ("sm_90", 228), "B200": ("sm_100", 228)}  # KiB
ROW = re.compile(r"^\| `([\w:]+)` \|")


def demangled(names):
    text = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout
    return dict(zip(names, text.splitlines()))


def instances_of(folder):
    """(mangled name, architecture) -> (registers, spilled bytes)."""
    found, spilled, entry = {}, 0, None
    for log in sorted(pathlib.Path(folder).rglob("*.ptxas")):
        for line in log.read_text().splitlines():
            if match := ENTRY.search(line):
                entry = match.groups()
            elif match := STACK.search(line):
                spilled = int(match[2]) + int(match[3])
            elif (match := USED.search(line)) and entry:
                found[entry] = (int(match[1]), spilled)
                entry = None
    return found


def kernel_of(demangled_name):
    """void sp::cuda::(anonymous namespace)::merge_rows<float>(...) is merge_rows."""
    name = re.sub(r"^void |sp::cuda::|\(anonymous namespace\)::", "", demangled_name)
    return re.match(r"[\w:]+", name)[0]


def registers_of(instances, names):
    most = {}
    for (mangled, arch), (registers, _) in instances.items():
        key = kernel_of(names[mangled]), arch
        most[key] = max(registers, most.get(key, 0))
    return most


def toolkit():
    for nvcc in ("nvcc", "/usr/local/cuda/bin/nvcc"):
        try:
            text = subprocess.check_output([nvcc, "--version"], text=True)
        except FileNotFoundError:
            continue
        return re.search(r"release ([\d.]+)", text)[1]
    sys.exit("no nvcc here")


def blocks_per_processor(threads, shared_kib, registers, processor_kib):
    """Registers come in units of 8 per thread, and a block reserves 1 KiB of shared memory."""
    by_registers = 65536 // (-(-registers // 8) * 8 * threads)
    by_shared = int(processor_kib // (shared_kib + 1))
    return min(2048 // threads, by_registers, by_shared)


def filled(lines, registers):
    """The README's lines with the numbers of this build; every kernel must have its row."""
    columns, seen, result = {}, set(), []
    for line in lines:
        cells = line.split("|")
        if not line.startswith("|"):
            columns = {}  # the table has ended
        if any(cell.strip() == "sm_80" for cell in cells):
            columns = {cell.strip(): i for i, cell in enumerate(cells)}
        if (row := ROW.match(line)) and columns:
            seen.add(row[1])
            threads = int(cells[columns["threads"]])
            shared = max(
                float(size) for size in re.findall(r"[\d.]+", cells[columns["shared KiB"]])
            )
            for model, (arch, kib) in BLOCKS.items():
                used = registers.get((row[1], arch), 0)
                blocks = blocks_per_processor(threads, shared, used, kib)
                if blocks < 1:
                    sys.exit(f"{row[1]}: no block fits on {model}")
                cells[columns[arch]] = f" {used} "
                cells[columns[model]] = f" {blocks} "
            line = "|".join(cells)
        result.append(line)
    kernels = {kernel for kernel, _ in registers if not kernel.startswith("reference::")}
    if kernels != seen:
        sys.exit(f"kernels and rows of the table differ: {sorted(kernels ^ seen)}")
    return result


def main():
    folder, readme = sys.argv[1], pathlib.Path(sys.argv[2])
    instances = instances_of(folder)
    if not instances:
        sys.exit(f"no *.ptxas below {folder}: is this a build with CUDA?")
    names = demangled(sorted({mangled for mangled, _ in instances}))
    spilling = [f"{names[m]} on {a}: {s} bytes" for (m, a), (_, s) in instances.items() if s]
    if spilling:
        sys.exit("registers spill:\n" + "\n".join(sorted(spilling)))
    lines = readme.read_text().splitlines()
    new = filled(lines, registers_of(instances, names))
    if "--write" in sys.argv:
        readme.write_text("\n".join(new) + "\n")
    elif f"CUDA {toolkit()}" not in readme.read_text():
        print(f"{readme} was not written under CUDA {toolkit()}: registers are not compared")
    elif new != lines:
        wrong = [line for line, old in zip(new, lines) if line != old]
        sys.exit("\n".join(wrong) + f"\nrun: python3 {' '.join(sys.argv)} --write")
    print(f"{len(instances)} instances of kernels, none spills")


main()
