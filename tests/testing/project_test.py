"""The project of examples/regression_tests, which is built with an installed lockstep."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

import report
from installation import Installation, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH, BUILD, COMPILER = sys.argv[1:4]
del sys.argv[1:]
# Of the tests that are asked for, which are none of those that it starts.
os.environ.pop("LOCKSTEP_TEST_ONLY", None)


class Project(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.installation = Installation(BUILD, cls.folder)
        cls.project = pathlib.Path(shutil.copytree(ROOT / "examples" / "regression_tests", cls.folder / "project"))
        cls.stored = cls.project / "fit.json"
        cls.build = cls.folder / "build"
        # As scripts/launch has it, of which CMake knows nothing.
        cls.environment = {**os.environ, "CXX": COMPILER, "OMPI_ALLOW_RUN_AS_ROOT": "1",
                           "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
                           "OMPI_MCA_hwloc_base_binding_policy": "none",
                           "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}
        run("cmake", "-G", "Ninja", "-S", cls.project, "-B", cls.build, "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror",
            f"-DCMAKE_PREFIX_PATH={cls.installation.prefix}", env=cls.environment)
        run("cmake", "--build", cls.build)

    def setUp(self):
        self.addCleanup(self.stored.write_text, self.stored.read_text())

    def fit(self, *options, ranks=2, **variables):
        return subprocess.run([LAUNCH, "-n", str(ranks), self.build / "fit_test", *options], capture_output=True,
                              text=True, timeout=100, env={**os.environ, **variables})

    def test_has_a_test_for_each_number_of_ranks_that_its_sources_declare(self):
        output = run("ctest", "--test-dir", self.build, "-N", env=self.environment)
        self.assertEqual(re.findall(r"Test +#\d: (.*)", output),
                         ["fit_test @ 1 rank", "fit_test @ 2 ranks", "fit_test @ 4 ranks"])

    def test_passes(self):
        output = run("ctest", "--test-dir", self.build, "--output-on-failure", env=self.environment)
        self.assertIn("100% tests passed, 0 tests failed out of 3", output)

    def test_that_goes_another_way_says_where_and_is_stored_on_request(self):
        text = self.stored.read_text()
        before, third, after = re.split(r'(?<="step": 3)(.*?)(?="step": 4)', text, flags=re.DOTALL)
        loss = re.search(r'"loss": ([\d.]+)', third)[1]
        self.stored.write_text(before + third.replace(f'"loss": {loss}', '"loss": 7.5') + after)
        results = self.folder / "results.xml"
        job = self.fit(f"--gtest_output=xml:{results}")
        self.assertEqual(job.returncode, 1, job.stdout)
        self.assertIn("fit.json on rank 0: step 3 is the first that differs, in 1 of ", job.stdout)
        self.assertIn("\n[rank 0]   loss: 7.5 is stored, 0.", job.stdout)
        self.assertIn("LOCKSTEP_TEST_UPDATE=1", job.stdout)
        failed = [case.get("name") for case in xml.etree.ElementTree.parse(results).iter("testcase")
                  if case.find("failure") is not None]
        self.assertEqual(failed, ["goes_as_it_did_when_it_was_stored"])

        job = self.fit(LOCKSTEP_TEST_UPDATE="1")
        self.assertEqual(job.returncode, 0, job.stdout)
        self.assertIn("fit.json: 5 steps are stored\n", job.stdout)
        self.assertNotIn('"loss": 7.5', self.stored.read_text())
        for ranks in 1, 4:
            self.assertEqual(self.fit("Fit.goes", ranks=ranks).returncode, 0)

    def test_is_what_the_manual_shows(self):
        source = (self.project / "fit_test.cpp").read_text()
        blocks = re.findall(r"```cpp\n(.*?)```", (ROOT / "docs" / "testing.md").read_text(), re.DOTALL)
        self.assertEqual(len(blocks), 3)
        for block in blocks:
            self.assertIn(block, source)

    def test_links_by_pkg_config(self):
        flags = run("pkg-config", "--cflags", "--libs", "lockstep-testing", env=self.installation.environment).split()
        program = self.folder / "by_pkg_config"
        run(*COMPILER.split(), "-std=c++20", f'-DTRAJECTORIES="{self.project}"', self.project / "fit_test.cpp",
            "-o", program, *flags)
        path = f"{self.installation.libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        output = run(LAUNCH, "-n", 2, program, env={**os.environ, "LD_LIBRARY_PATH": path})
        self.assertTrue(output.endswith("2 passed, 0 failed, 0 skipped\n"), output)


report.main()
