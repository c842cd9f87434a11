"""What ptxas says of every kernel: nothing spills, and registers are what resources.csv states.

Usage: ptxas_test.py FOLDER RESOURCES.csv [--write]. FOLDER is searched for the *.ptxas files that the
build keeps beside its objects. Registers differ from one release of the toolkit to the next: they
are compared only under the release that the table names, spills always. --write writes it anew.

SPDX-License-Identifier: Apache-2.0
"""

import csv
import io
import pathlib
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
LEAST_KERNELS = 20  # fewer: the logs are not there


def demangled(names):
    text = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout
    return dict(zip(names, text.splitlines()))


def kernels_of(folder):
    """(kernel, architecture) -> (registers, stack, spilled)."""
    found, stack, entry = {}, None, None
    for log in sorted(pathlib.Path(folder).rglob("*.ptxas")):
        for line in log.read_text().splitlines():
            if match := ENTRY.search(line):
                entry = match.groups()
            elif match := STACK.search(line):
                stack = [int(number) for number in match.groups()]
            elif (match := USED.search(line)) and entry:
                found[entry] = (int(match[1]), stack[0], stack[1] + stack[2])
                entry = None
    names = demangled(sorted({mangled for mangled, _ in found}))
    # "void sp::cuda::merge_kernel<float>(...)" is "merge<float>"
    short = {}
    for mangled, name in names.items():
        name = re.sub(r"^void ", "", name)
        name = re.sub(r"\(.*$", "", name) if "<" not in name else re.sub(r">\(.*$", ">", name)
        name = re.sub(r"sp::cuda::|\(anonymous namespace\)::", "", name)
        for old, new in (("__nv_bfloat16", "bf16"), ("__half", "f16"), ("_kernel", "")):
            name = name.replace(old, new)
        short[mangled] = name
    return {(short[mangled], arch): what for (mangled, arch), what in found.items()}


def toolkit():
    return re.search(
        r"release ([\d.]+)", subprocess.check_output(["nvcc", "--version"], text=True)
    )[1]


def table(kernels, release):
    architectures = sorted({arch for _, arch in kernels}, key=lambda arch: int(arch[3:]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kernel", *architectures, f"registers per thread under CUDA {release}"])
    for kernel in sorted({kernel for kernel, _ in kernels}):
        writer.writerow([kernel, *(kernels[kernel, arch][0] for arch in architectures)])
    return out.getvalue()


def main():
    folder, resources = sys.argv[1:3]
    kernels = kernels_of(folder)
    if len({kernel for kernel, _ in kernels}) < LEAST_KERNELS:
        sys.exit(f"only {len(kernels)} kernels found in {folder}: is this a build with CUDA?")
    spilling = [f"{k} on {a}: stack {s}, spills {b}" for (k, a), (_, s, b) in kernels.items() if b]
    if spilling:
        sys.exit("registers spill:\n" + "\n".join(sorted(spilling)))
    release = toolkit()
    new = table(kernels, release)
    if "--write" in sys.argv:
        pathlib.Path(resources).write_text(new)
    old = pathlib.Path(resources).read_text()
    if f"CUDA {release}" not in old.splitlines()[0]:
        print(f"CUDA {release} is not what {resources} was written under: registers not compared")
    elif old != new:
        changed = sorted(set(new.splitlines()) ^ set(old.splitlines()))
        sys.exit("\n".join(changed) + f"\nrun: python3 {sys.argv[0]} {folder} {resources} --write")
    print(f"{len({k for k, _ in kernels})} kernels on {len({a for _, a in kernels})} architectures")


main()
