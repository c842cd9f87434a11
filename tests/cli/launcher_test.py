"""The launcher, in a copy of the top folder with a space in its name and with stand-ins for tools.

Usage: launcher_test.py ROOT. The stand-ins are a few lines of shell that note how they were called:
nothing is installed and nothing is compiled. SPDX-License-Identifier: Apache-2.0
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv[1])

# A build makes a program that shows its words, its name, and ends with 7.
CMAKE = r"""#!/bin/bash
echo "cmake $*" >>"$NOTES"
if [[ $1 == --preset || $1 == --fresh ]]; then
  if [[ -n ${BROKEN:-} ]]; then echo "$BROKEN"; exit 1; fi
  mkdir -p build/release/experiments
  echo "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" >build/release/CMakeCache.txt
  for word in "$@"; do
    if [[ $word == -D* ]]; then echo "${word#-D}" >>build/release/CMakeCache.txt; fi
  done
  touch build/release/build.ninja
elif [[ $1 == --install ]]; then
  if [[ -n ${BROKEN_INSTALL:-} ]]; then echo "no room"; exit 1; fi
else
  if [[ -n ${BROKEN_SOURCE:-} ]]; then echo "error: expected ';'"; exit 1; fi
  mkdir -p "$2/experiments"
  printf '#!/bin/bash\nprintf "<%%s>" "$@"\nexit 7\n' >"$2/experiments/seqpar"
  chmod +x "$2/experiments/seqpar"
  sleep "${SLOW:-0}"
  if [[ -n ${COMPILED:-} ]]; then printf '%s\n' $COMPILED >"$CCACHE_STATSLOG"; fi
  echo "[1/1] Linking it"
fi
"""
DPKG_QUERY = r"""#!/bin/bash
echo dpkg-query >>"$NOTES"
for name in "$@"; do
  case $name in -*|'${'*) ;; *) [[ " $ABSENT " == *" $name "* ]] || echo "$name installed" ;; esac
done
"""
APT_GET = r"""#!/bin/bash
echo "apt-get $*" >>"$NOTES"
if [[ -n ${UNKNOWN:-} && " $* " == *" $UNKNOWN "* ]]; then
  echo "E: Unable to locate package $UNKNOWN"
  exit 100
fi
exit "${APT_EXIT:-0}"
"""
CTEST = r"""#!/bin/bash
echo "ctest $*" >>"$NOTES"
while (($#)); do if [[ $1 == --output-junit ]]; then report=$2; fi; shift; done
if [[ -z $TESTS ]]; then echo "No tests were found!!!"; exit 8; fi
printf '\t%s\n' 'disabled="0"' >"$report"
printf '\ttests="%s"\n\tfailures="%s"\n\tskipped="%s"\n' $TESTS >>"$report"
mkdir -p "${report%/*}/Testing/Temporary"
printf 'mutants: 5 killed of 5\nmore\n' >"${report%/*}/Testing/Temporary/LastTest.log"
exit "${CTEST_EXIT:-0}"
"""


class Launcher(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.top = pathlib.Path(self.temporary.name).resolve() / "a copy of seqpar"
        tools = self.top / "tools"
        tools.mkdir(parents=True)
        for name in ("seqpar", "CMakePresets.json"):
            shutil.copy(ROOT / name, self.top)
        stand_ins = {"cmake": CMAKE, "dpkg-query": DPKG_QUERY, "apt-get": APT_GET, "ctest": CTEST}
        stand_ins["id"] = "#!/bin/bash\necho ${USER_ID:-0}\n"
        stand_ins["sudo"] = "#!/bin/bash\n[[ $1 == -n ]] && exit 1\n"
        for name, text in stand_ins.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        self.notes = self.top / "notes"
        mpi = ("OMPI_", "PMI", "SLURM_")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(mpi)}
        self.environment.update(PATH=f"{tools}:{os.environ['PATH']}", NOTES=str(self.notes))
        self.environment.update(ABSENT="", TESTS="12 0 0")

    def tearDown(self):
        self.temporary.cleanup()

    def run_launcher(self, *words, **environment):
        self.notes.write_text("")
        return subprocess.run(
            [str(self.top / "seqpar"), *words],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env={**self.environment, **environment},
        )

    def noted(self):
        return self.notes.read_text().splitlines()

    def test_builds_then_passes_words_and_exit_code(self):
        done = self.run_launcher("verify", "two words", "", "--x=*")
        self.assertEqual((done.returncode, done.stdout), (7, "<verify><two words><><--x=*>"))
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertRegex(done.stderr, "^seqpar: building release")

    def test_a_second_run_says_nothing_and_asks_no_package_manager(self):
        self.run_launcher("list")
        done = self.run_launcher("list")
        self.assertEqual((done.returncode, done.stdout), (7, "<list>"))
        self.assertNotIn("dpkg-query", self.noted())
        self.assertEqual([n for n in self.noted() if "--preset" in n], [])

    def test_through_a_link(self):
        link = pathlib.Path(self.temporary.name) / "link"
        link.symlink_to(self.top / "seqpar")
        done = subprocess.run([link, "list"], capture_output=True, text=True, env=self.environment)
        self.assertEqual((done.returncode, done.stdout), (7, "<list>"))

    def test_installs_only_what_is_missing(self):
        done = self.run_launcher("list", ABSENT="libfmt-dev mold")
        self.assertEqual(done.returncode, 7, done.stderr)
        self.assertIn("seqpar: installing libfmt-dev mold\n", done.stderr)
        installs = [n for n in self.noted() if n.startswith("apt-get install")]
        self.assertEqual(len(installs), 1)
        self.assertTrue(installs[0].endswith("--no-install-recommends libfmt-dev mold"))

    def test_missing_and_not_to_be_installed(self):
        for environment in ({"APT_EXIT": "100"}, {"USER_ID": "1000"}):
            with self.subTest(environment):
                done = self.run_launcher("list", ABSENT="libfmt-dev mold", **environment)
                self.assertEqual(done.returncode, 3)
                last = done.stderr.splitlines()[-1]
                self.assertRegex(last, "sudo apt-get install libfmt-dev mold$")
                self.assertEqual([n for n in self.noted() if n.startswith("cmake")], [])

    def test_optional_packages_may_be_missing(self):
        done = self.run_launcher("list", ABSENT="mold libopenmpi-dev", USER_ID="1000")
        self.assertEqual((done.returncode, done.stdout), (7, "<list>"))
        self.assertIn("sudo apt-get install libopenmpi-dev mold", done.stderr)

    def test_one_package_that_nobody_has_keeps_none_away(self):
        done = self.run_launcher("list", ABSENT="libfmt-dev mold", UNKNOWN="mold")
        self.assertEqual((done.returncode, done.stdout), (7, "<list>"), done.stderr)
        self.assertIn("going on without", done.stderr)
        self.assertIn("Unable to locate package mold", done.stderr)
        installs = [n for n in self.noted() if n.startswith("apt-get install")]
        self.assertTrue(installs[-1].endswith("--no-install-recommends libfmt-dev"), installs)
        done = self.run_launcher("test", ABSENT="libgtest-dev", UNKNOWN="libgtest-dev")
        self.assertEqual(done.returncode, 3)
        self.assertIn("Unable to locate package libgtest-dev", done.stderr.splitlines()[-1])

    def test_commands_do_without_what_only_tests_need(self):
        done = self.run_launcher("list", ABSENT="libgtest-dev python3-xarray")
        self.assertEqual(done.returncode, 7, done.stderr)
        self.assertNotIn("installing", done.stderr)
        done = self.run_launcher("test", ABSENT="libgtest-dev python3-xarray")
        self.assertIn("installing libgtest-dev python3-xarray", done.stderr)

    def test_builds_the_emulator_for_those_who_name_it(self):
        for words, targets in (
            (("verify",), "seqpar"),
            (("verify", "--backend", "emulated"), "seqpar seqpar-emulated"),
            (("verify", "--backend=emulated", "-x"), "seqpar seqpar-emulated"),
        ):
            self.run_launcher(*words)
            build = [n for n in self.noted() if n.startswith("cmake --build")][0]
            self.assertIn(f"--target {targets} --parallel", build)

    def test_the_cuda_half_on_request_and_then_for_good(self):
        self.run_launcher("list")
        done = self.run_launcher("--with-cuda", "list")
        self.assertEqual((done.returncode, done.stdout), (7, "<list>"))
        self.assertIn("cmake --preset release -DSP_ENABLE_CUDA:STRING=ON", self.noted())
        for words in (("list",), ("--with-cuda", "list")):
            self.run_launcher(*words)
            self.assertEqual([n for n in self.noted() if "--preset" in n], [])

    def test_tells_what_the_cache_had(self):
        compiled = "direct_cache_hit preprocessed_cache_hit cache_miss primary_storage_hit"
        done = self.run_launcher("list", COMPILED=compiled)
        self.assertIn("seqpar: 2 of 3 files came from the compiler's cache\n", done.stderr)

    def test_install(self):
        prefix = self.top / "a place"
        done = self.run_launcher("install", "--prefix", str(prefix))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stderr.endswith(f"installed {prefix}/bin/seqpar\n"), done.stderr)
        build = self.top / "build/release"
        self.assertIn(f"cmake --install {build} --prefix {prefix}", self.noted())
        done = self.run_launcher("install", f"--prefix={prefix}", BROKEN_INSTALL="1")
        self.assertEqual(done.returncode, 3)
        self.assertIn("no room", done.stderr.splitlines()[-1])
        for words in ((), ("--prefix",), ("there",)):
            done = self.run_launcher("install", *words)
            self.assertEqual((done.returncode, len(done.stderr.splitlines())), (2, 1))
        done = self.run_launcher("install", "--prefix", "/proc/nowhere")
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (3, 1), done.stderr)
        self.assertEqual(self.run_launcher("install", "--help").returncode, 0)

    def test_what_cmake_refuses_is_one_line(self):
        said = "CMake Error at a.cmake:3 (message):\n  No such\n  thing\nCall Stack:\n  else\n"
        done = self.run_launcher("list", BROKEN=said)
        self.assertEqual(done.returncode, 3)
        self.assertIn("the build failed: No such thing; the whole log", done.stderr)
        self.assertNotIn("else", done.stderr)

    def test_a_full_disk_is_named(self):
        done = self.run_launcher("list", BROKEN="fatal error: No space left on device")
        self.assertEqual(done.returncode, 3)
        self.assertIn("the build failed: no space left on device", done.stderr.splitlines()[-1])

    def test_a_failed_build_shows_its_log(self):
        for environment, said in (
            ({"BROKEN": "no such library"}, "no such library"),
            ({"BROKEN_SOURCE": "1"}, "error: expected ';'"),
        ):
            with self.subTest(said):
                done = self.run_launcher("list", **environment)
                self.assertEqual((done.returncode, done.stdout), (3, ""))
                self.assertIn(said, done.stderr)
                self.assertIn("build.log", done.stderr.splitlines()[-1])

    def test_two_at_once_build_one_after_the_other(self):
        one = subprocess.Popen(
            [str(self.top / "seqpar"), "list"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self.environment, "SLOW": "2"},
        )
        while "--build" not in (self.notes.read_text() if self.notes.exists() else ""):
            self.assertIsNone(one.poll())
        done = self.run_launcher("list")
        self.assertIn("waiting for another build", done.stderr)
        self.assertEqual(done.returncode, 7)
        self.assertEqual((one.communicate()[0], one.returncode), (b"<list>", 7))

    def test_a_moved_tree_is_configured_afresh(self):
        self.run_launcher("list")
        cache = self.top / "build/release/CMakeCache.txt"
        cache.write_text("CMAKE_HOME_DIRECTORY:INTERNAL=/elsewhere\n")
        self.assertEqual(self.run_launcher("list").returncode, 7)
        self.assertIn("cmake --preset release --fresh", self.noted())

    def test_a_changed_preset_is_configured_afresh(self):
        self.run_launcher("list")
        later = (self.top / "build/release/build.ninja").stat().st_mtime + 1
        os.utime(self.top / "CMakePresets.json", (later, later))
        self.assertEqual(self.run_launcher("list").returncode, 7)
        self.assertIn("cmake --preset release --fresh", self.noted())

    def test_ranks_neither_install_nor_build(self):
        ranks = (
            {"OMPI_COMM_WORLD_RANK": "0"},
            {"PMI_RANK": "3"},
            {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"},
        )
        for rank in ranks:
            with self.subTest(rank):
                shutil.rmtree(self.top / "build", ignore_errors=True)
                done = self.run_launcher("verify", **rank)
                self.assertEqual(done.returncode, 3)
                self.assertIn("run ./seqpar list once first", done.stderr)
                self.assertFalse((self.top / "build").exists())
                self.run_launcher("list")
                done = self.run_launcher("verify", "a b", **rank)
                self.assertEqual((done.returncode, done.stdout), (7, "<verify><a b>"))
                self.assertEqual(self.noted(), [])
                self.assertEqual(self.run_launcher("test", **rank).returncode, 2)

    def test_one_task_of_slurm_may_build(self):
        done = self.run_launcher("list", SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="1")
        self.assertEqual(done.returncode, 7, done.stderr)

    def test_test_counts_and_ends_with_the_mutants(self):
        done = self.run_launcher("test", "--label", "unit,cli", "-R", "a b", TESTS="12 0 2")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[-2], "12 tests: 10 passed, 0 failed, 2 skipped")
        self.assertEqual(lines[-1], "mutants: 5 killed of 5")
        called = [n for n in self.noted() if n.startswith("ctest")][0]
        self.assertTrue(called.endswith(" -L ^(unit|cli)$ -R a b"), called)
        self.assertIn("--no-tests=error", called)
        self.assertTrue(any("--target all" in n for n in self.noted()))

    def test_sanitized_builds_install_their_compiler_and_others_do_not(self):
        for preset, wanted in (("release", ""), ("dev", "clang-19"), ("tsan", "")):
            with self.subTest(preset):
                shutil.rmtree(self.top / "build", ignore_errors=True)
                done = self.run_launcher("test", "--preset", preset, ABSENT="clang-19")
                self.assertEqual(done.returncode, 0, done.stderr)
                installs = [n.split()[-1] for n in self.noted() if n.startswith("apt-get install")]
                self.assertEqual(installs, [wanted] if wanted else [])
        shutil.rmtree(self.top / "build")
        done = self.run_launcher("test", "--preset", "dev", ABSENT="clang-19 mold", APT_EXIT="1")
        self.assertEqual(done.returncode, 3)
        self.assertIn("sudo apt-get install clang-19 mold", done.stderr)

    def test_a_failed_test_fails_the_launcher(self):
        done = self.run_launcher("test", TESTS="12 3 0", CTEST_EXIT="8")
        self.assertEqual(done.returncode, 8)
        self.assertIn("12 tests: 9 passed, 3 failed, 0 skipped", done.stdout)

    def test_skipping_everything_is_an_error(self):
        done = self.run_launcher("test", TESTS="4 0 4")
        self.assertEqual(done.returncode, 1)
        self.assertIn("zero tests run", done.stderr)

    def test_finding_nothing_says_how_names_look(self):
        done = self.run_launcher("test", "-R", "nobody", TESTS="")
        self.assertEqual(done.returncode, 1)
        self.assertIn("names look like", done.stderr)

    def test_listing_names_is_no_failure(self):
        done = self.run_launcher("test", "-N", TESTS="0 0 0")
        self.assertEqual((done.returncode, done.stderr.count("zero tests")), (0, 0), done.stderr)

    def test_wrong_words_of_test(self):
        self.assertEqual(self.run_launcher("test", "--preset", "fast").returncode, 2)
        self.assertEqual(self.run_launcher("test", "--label").returncode, 2)
        self.assertEqual(self.run_launcher("test", "--help").returncode, 0)
        self.assertEqual(self.noted(), [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
