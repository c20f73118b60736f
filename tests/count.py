#!/usr/bin/env python3
"""Adds up the results of a test run, the last step of scripts/test.

    count.py RESULTS_FOLDER MORE_FAILURES

Reads unit*.xml (ctest's JUnit file: each program's output holds cmocka's cases), every other *.xml (pytest's)
and lint.txt (one word). Names what failed, prints `N passed, N failed[, N skipped]` as the last line; exit
status 1 on a failure or when nothing ran.
"""

import glob
import os
import re
import sys
import xml.etree.ElementTree as ElementTree

CMOCKA = {word: re.compile(r"^\[ *%s *\] (?:[^\n]*?: )?(\d+) test\(s\)" % word, re.MULTILINE)
          for word in ("PASSED", "FAILED", "SKIPPED")}


class Count:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.names = []

    def add(self, passed, failed, skipped, names=()):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped
        self.names += names


def cmocka_cases(output):
    """(passed, failed, skipped) cases that cmocka's closing lines tell."""
    return tuple(sum(int(n) for n in pattern.findall(output)) for pattern in CMOCKA.values())


def read_unit(path, count):
    for program in ElementTree.parse(path).iter("testcase"):
        passed, failed, skipped = cmocka_cases(program.findtext("system-out") or "")
        if program.get("status") != "run":
            failed = max(failed, 1)  # a crash, or a sanitizer's report after the last case
        elif passed + failed + skipped == 0:
            passed = 1  # no cmocka program
        count.add(passed, failed, skipped, ["unit: " + program.get("name")] if failed else [])


def read_pytest(path, count):
    label = os.path.basename(path)[:-len(".xml")]
    for suite in ElementTree.parse(path).iter("testsuite"):
        total, failures, errors, skipped = (int(suite.get(name))
                                            for name in ("tests", "failures", "errors", "skipped"))
        names = ["%s: %s::%s" % (label, case.get("classname"), case.get("name"))
                 for case in suite.iter("testcase")
                 if case.find("failure") is not None or case.find("error") is not None]
        # a test that passes and whose fixtures then find a fault counts as failed
        count.add(max(0, total - failures - errors - skipped), failures + errors, skipped, names)


def main(folder, more_failures):
    count = Count()
    for path in sorted(glob.glob(os.path.join(folder, "*.xml"))):
        (read_unit if os.path.basename(path).startswith("unit") else read_pytest)(path, count)
    lint = os.path.join(folder, "lint.txt")
    if os.path.exists(lint):
        with open(lint) as file:
            ok = file.read().strip() == "passed"
        count.add(int(ok), int(not ok), 0, [] if ok else ["lint"])
    if more_failures:
        count.add(0, more_failures, 0, ["a test runner that could not do its work"])
    if count.names:
        print("\nfailed:")
        for name in count.names:
            print("    " + name)
    line = "%d passed, %d failed" % (count.passed, count.failed)
    print(line + (", %d skipped" % count.skipped if count.skipped else ""))
    return 1 if count.failed or not count.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
