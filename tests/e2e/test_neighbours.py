# SPDX-License-Identifier: GPL-2.0-or-later
"""
Moves between this release and the one before, which is built from the
repository's history: both directions, with what either lacks left out.
"""

import fcntl
import os
import shutil
import subprocess
import tarfile

from godwit_lab import BUILD, REPO, Failure, Skip, check
from godwit_runner import Group

# The last commit that speaks version 1 of the protocol and nothing newer.
BEFORE = "d2422fb17c89"


def run(*args):
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise Failure(f"{' '.join(args)}: {done.stdout.decode(errors='replace')[-2000:]}")


def build_before():
    """Its build folder, made at the first need; one process makes it."""
    known = subprocess.run(["git", "-C", REPO, "cat-file", "-e", BEFORE + "^{commit}"],
                           stderr=subprocess.DEVNULL, check=False)
    if known.returncode:
        raise Skip(f"no commit {BEFORE} here: the history is not complete")
    folder = os.path.join(BUILD, "before-" + BEFORE)
    with open(folder + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(os.path.join(folder, "done")):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            archive = os.path.join(folder, "source.tar")
            run("git", "-C", REPO, "archive", "-o", archive, BEFORE)
            with tarfile.open(archive) as tar:
                tar.extractall(os.path.join(folder, "source"))
            run("meson", "setup", os.path.join(folder, "build"), os.path.join(folder, "source"))
            run("ninja", "-C", os.path.join(folder, "build"), "src/godwit", "src/godwitd")
            with open(os.path.join(folder, "done"), "w", encoding="ascii"):
                pass
    return os.path.join(folder, "build")


class Neighbours(Group):
    """A host of this release, one of the release before, and a guest."""

    timeout = 600  # the first test builds the other release
    weight = 120

    def setup(self):
        self.old = self.new = None

    def hosts(self):
        """Not in setup: each test is to say why it is skipped, if it is."""
        if not self.old:
            self.old = self.lab.host("old", images="256M", build=build_before())
            self.new = self.lab.host("new", images="256M")

    def test_from_before(self):
        self.hosts()
        vm = self.lab.vm().boot(self.old)
        result = vm.move(self.new)
        check(result["godwit"]["pages"]["reused"] == 0, "reused what nobody kept")
        # From here on it is a VM as any other: it has a secret, and what it left is of use.
        there = self.lab.host("there", images="256M")
        vm.move(there)
        result = vm.move(self.new)
        check(result["godwit"]["pages"]["reused"] > 1000,
              f"{result['godwit']['pages']['reused']} pages reused")
        vm.stop()

    def test_to_before(self):
        """What that release kept goes by digests that a guest can forge: it is not used."""
        self.hosts()
        vm = self.lab.vm().boot(self.new)
        vm.move(self.old)
        result = vm.move(self.new)
        check(result["godwit"]["pages"]["reused"] == 0, "reused what has no key")
        result = vm.move(self.old)
        check(result["godwit"]["pages"]["reused"] == 0, "had the other side reuse what has no key")
        vm.stop()
