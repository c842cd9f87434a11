"""The launch scripts of experiments/cluster, and what their README promises.

Usage: cluster_test.py ROOT SEQPAR [MPIEXEC]. Real ranks under mpirun; for SLURM a stand-in for srun
that starts them with SLURM's variables. SPDX-License-Identifier: Apache-2.0
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv[1])
SEQPAR = sys.argv[2]
MPIEXEC = sys.argv[3] if len(sys.argv) > 3 else None
CLUSTER = ROOT / "experiments" / "cluster"
VERIFY = "verify --backend mpi --algorithm ring/zigzag --ranks 3 --cases 3 --tokens 40".split()

# Starts --ntasks processes; notes its own words.
SRUN = r"""#!/bin/bash
printf '%s\n' "$*" >"$NOTES"
while [[ $1 == --* ]]; do
  case $1 in --ntasks=*) tasks=${1#*=} ;; esac
  shift
done
exec env -u SLURM_JOB_ID -u SLURM_JOB_NUM_NODES "$MPIEXEC" -np "$tasks" --oversubscribe bash -c '
  export SLURM_PROCID=$OMPI_COMM_WORLD_RANK SLURM_STEP_NUM_TASKS=$OMPI_COMM_WORLD_SIZE
  exec "$@"' rank "$@"
"""


def environment(**more):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "SLURM_"))}
    return (
        clean
        | {
            "SEQPAR": SEQPAR,
            "MPIRUN": MPIEXEC or "mpirun",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
            "OMPI_MCA_rmaps_base_oversubscribe": "1",
            "ASAN_OPTIONS": "detect_leaks=0",  # MPI leaks by design
        }
        | more
    )


def run(script, *words, **more):
    return subprocess.run(
        [str(CLUSTER / script), *words],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment(**more),
    )


class Usage(unittest.TestCase):
    def expect_refusal(self, done, code, words):
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(words, done.stderr)

    def test_mpi_refuses_what_it_does_not_understand(self):
        for words, message in (
            ((), "-n RANKS is missing"),
            (("verify",), "-n RANKS is missing"),
            (("-n",), "-n needs a value"),
            (("-n", "0", "verify"), "not '0'"),
            (("-n", "many", "verify"), "not 'many'"),
            (("-n", "2", "--per-node", "-1", "verify"), "not '-1'"),
            (("-n", "2", "--hosts", "/no/such", "verify"), "no host file '/no/such'"),
            (("-n", "2", "--fast", "verify"), "unknown option --fast"),
            (("-n", "2"), "which subcommand?"),
        ):
            self.expect_refusal(run("mpi.sh", *words), 2, message)

    def test_mpi_says_what_is_missing(self):
        self.expect_refusal(run("mpi.sh", "-n", "1", "env", SEQPAR="/no/seqpar"), 3, "/no/seqpar")
        self.expect_refusal(run("mpi.sh", "-n", "1", "env", MPIRUN="no-mpirun"), 3, "no-mpirun")

    def test_slurm_needs_a_subcommand_a_job_and_gpus(self):
        self.expect_refusal(run("slurm.sh"), 2, "which subcommand?")
        self.expect_refusal(run("slurm.sh", "env"), 2, "no SLURM job")
        self.expect_refusal(run("slurm.sh", "env", SLURM_JOB_ID="7"), 2, "no GPUs")
        job = {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "8", "SEQPAR": "/no/seqpar"}
        self.expect_refusal(run("slurm.sh", "env", **job), 3, "/no/seqpar")

    def test_help_shows_an_example(self):
        done = run("mpi.sh", "--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("Example: ", done.stdout)


@unittest.skipUnless(MPIEXEC, "no mpirun")
class Ranks(unittest.TestCase):
    def test_mpi_starts_them(self):
        done = run("mpi.sh", "-n", "3", "--per-node", "3", *VERIFY)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("-np 3", done.stderr)
        self.assertIn("ring/zigzag", done.stdout)

    def test_exit_codes_of_the_program_pass_through(self):
        self.assertEqual(run("mpi.sh", "-n", "2", "verify", "--nonsense").returncode, 2)

    def test_slurm_starts_one_per_gpu(self):
        with tempfile.TemporaryDirectory() as folder:
            srun = pathlib.Path(folder) / "srun"
            srun.write_text(SRUN)
            srun.chmod(0o755)
            notes = pathlib.Path(folder) / "notes"
            done = run(
                "slurm.sh",
                *VERIFY,
                PATH=f"{folder}:{os.environ['PATH']}",
                NOTES=str(notes),
                MPIEXEC=MPIEXEC,
                SLURM_JOB_ID="7",
                SLURM_JOB_NUM_NODES="1",
                SLURM_GPUS_ON_NODE="3",
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("ring/zigzag", done.stdout)
            for words in ("--ntasks=3", "--ntasks-per-node=3", "--gpu-bind=none", "--mpi=pmix"):
                self.assertIn(words, notes.read_text())


class Readme(unittest.TestCase):
    def test_every_message_exists(self):
        text = (CLUSTER / "README.md").read_text()
        rows = re.findall(r"^\| (`.*?) \|", text.split("What a failure means")[1], re.M)
        self.assertGreater(len(rows), 5)
        folders = [ROOT / name for name in ("experiments", "harness", "optimized")]
        sources = "".join(p.read_text() for folder in folders for p in folder.rglob("*.cpp"))
        sources = re.sub(r'"\s*"', "", sources)  # literals in pieces
        for part in re.findall(r"`([^`]+)`", " ".join(rows)):
            known = part.removesuffix("out of memory").removesuffix(": ")
            self.assertIn(known, sources, part)

    def test_every_script_exists(self):
        text = (CLUSTER / "README.md").read_text()
        for name in set(re.findall(r"experiments/cluster/(\S+\.sh)", text)):
            self.assertTrue(os.access(CLUSTER / name, os.X_OK), name)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
