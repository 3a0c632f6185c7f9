# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of split VMs share: messages at which something happens, and second copies."""

import os
import shutil

from godwit_lab import check, kill, wait_for
from godwit_wire import Proxy


class AtMessages:
    """For a group that has start_to(peer, *options): a migration whose messages it meets."""

    def at(self, peer, name, action, *options):
        """The command, whose connections to @peer meet @action at that message."""
        proxy = self.lab.closing(Proxy(peer.address))
        rule = proxy.at(name, lambda _frame: action())
        command = self.start_to(proxy, *options)
        proxy.reached(rule, 60)
        return command

    def killed_at(self, peer, name, host, verdict=None):
        def act():
            kill(host.worker())
            return verdict
        return self.at(peer, name, act).finish(100)


def all_of_it_ends(source, main, vm, command):
    """Who moves it and its QEMU die at once, while nobody looks: it runs nowhere any more."""
    worker, qemu = source.worker(), vm.pid()
    source.kill()
    kill(worker)
    kill(qemu)
    command.finish().failed("godwitd")
    source.start()
    wait_for("the records' end", lambda: not source.list() and not main.list(), 20)
    vm.gone()


def await_two_copies(main):
    """Until each page of the VM that is away from host @main is at two sub-hosts."""
    def is_so():
        status = main.status("t")
        split = status.get("godwit", {}).get("split")
        if not split:
            return False  # its keeper has just begun
        copies = sum(one["pages"] for one in split["holders"])
        check(split["replicas"] == 2, split)
        return (status["status"] == "split-active" and not split["single-pages"] and
                copies >= 2 * split["away-pages"] > 0)
    wait_for("each page to be stored twice", is_so, 60)


def sub_host_dies(host, main, loses=False):
    """Nothing of it is left but what it holds in files, or not even that; @main misses it."""
    worker = host.worker()
    host.kill()
    kill(worker)
    if loses:
        for folder in ("held", "ram/held", "ram-small/held"):
            shutil.rmtree(os.path.join(host.run, folder), ignore_errors=True)
    wait_for("it to be missed", lambda: main.status("t")["status"] == "split-degraded", 20)
    text = main.godwit("status", "t").ok().out
    check("split-degraded" in text and "one copy only" in text, text)
