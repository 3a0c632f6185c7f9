# SPDX-License-Identifier: GPL-2.0-or-later
"""A registry for several hosts: names, plans, and its loss."""

import os
import signal
from contextlib import closing

from godwit_lab import MIB, Failure, Host, check, read_text, wait_for
from godwit_runner import Group


class Registry(Group):
    """One host keeps the registry, two use it, and a guest goes to and fro."""

    weight = 40
    timeout = 120  # a report comes every 10 s

    def setup(self):
        self.r = self.lab.host("r")
        url = f"godwit://{self.r.address}"
        self.a = self.lab.host("a", "--registry", url)
        self.b = self.lab.host("b", "--registry", url, "--memory-server-limit", "256M",
                               "--swap-dir", self.lab.disk(), "--swap-limit", "1G")
        self.vm = self.lab.vm().boot(self.a)

    def other(self):
        return self.b if self.vm.host is self.a else self.a

    def run_on(self, host):
        """Try to start another VM of the same name there."""
        return host.godwit("run", "t", "--memory", "128M", "--", *self.vm.args)

    def has_none(self, host):
        check(host.list() == {} and not os.path.exists(host.dir("t")), f"a VM on {host.name}")

    def plan(self, host, *options):
        """host -> prediction of `godwit plan` on @host, and the order."""
        plan = host.godwit("plan", "t", "--json", *options).ok().json()
        return plan, {entry["host"]: entry for entry in plan["hosts"]}, \
            [entry["host"] for entry in plan["hosts"]]

    def knows(self, host, *names):
        """Wait until @host's plan has all of these."""
        wait_for(f"the registry to know {names}",
                 lambda: set(names) <= set(self.plan(host)[1]), 30)

    def hosts(self):
        """name -> what `godwit hosts` says of it."""
        return {host["name"]: host
                for host in self.a.godwit("hosts", "--json").ok().json()["hosts"]}

    def test_hosts(self):
        """Which there are, and what one holds for a VM of another."""
        def server():
            return self.hosts().get("b", {}).get("memory-server", {})
        if self.vm.host is not self.a:
            self.vm.move(self.a)
        said = wait_for("b to have reported", server, 30)
        check(said["limit"] == 256 * MIB and 0 < said["free"] <= 256 * MIB, said)
        check(said["vms"] == 0 and not said["held"], said)
        check(said["swap-limit"] == said["swap-free"] == 1024 * MIB, said)
        check(self.hosts()["b"]["address"] == self.b.address, self.hosts()["b"])
        self.a.godwit("split", "t", "--to", f"{self.b.address}=100M", "--main-memory",
                      "40M").ok()
        wait_for("b to tell what it holds",
                 lambda: any(one["here"] for one in server()["held"]), 30)
        said = server()
        held = said["held"][0]
        check(said["vms"] == 1 and said["free"] <= 156 * MIB, said)
        check(held["vm"] == "t" and held["host"] == "a" and held["promised"] == 100 * MIB and
              held["here"] <= 100 * MIB and held["where"] == "memory", held)
        text = self.a.godwit("hosts").ok().out
        check("t of a has" in text and "of 100 MiB promised" in text, text)
        self.a.godwit("merge", "t").ok()
        wait_for("b to hold nothing", lambda: not server()["vms"], 30)
        # Of those that report one holds memory for others, and it is where the VM is not.
        self.a.godwit("split", "t", "--to", "auto:2", "--main-memory",
                      "40M").failed("1 other host holds memory")
        result = self.a.godwit("split", "t", "--to", "auto:1", "--main-memory", "40M",
                               "--json").ok().json()
        holders = result["godwit"]["split"]["holders"]
        check([one["address"] for one in holders] == [self.b.address], holders)
        self.a.godwit("merge", "t").ok()

    def test_name_is_refused(self):
        self.run_on(self.b).failed("VM 't' on host 'a'")
        self.has_none(self.b)
        self.vm.move(self.b)
        self.run_on(self.a).failed("VM 't' on host 'b'")
        self.has_none(self.a)
        self.vm.move(self.a)
        # A name is free once its VM was stopped, or its QEMU ended by itself.
        second = self.lab.vm("second").boot(self.a)
        second.stop()
        second = self.lab.vm("second").boot(self.b)
        os.kill(second.pid(), signal.SIGKILL)
        second.gone()
        third = self.lab.vm("second")
        wait_for("the name to be free again",
                 lambda: self.a.godwit("run", "second", "--memory", "128M", "--",
                                       *third.args).status == 0, 30, 0.2)
        third.settle(self.a)
        third.lives()
        third.stop()

    def test_names_of_hosts(self):
        """A registry's are narrower than messages', and a host with another does not begin."""
        for name, refused in (("two words", True), ("h\u00f4te", True), ("x" * 64, True),
                              ("x" * 63, False)):
            host = Host(self.lab, "named", self.lab.address(),
                        options=("--name", name, "--registry", f"godwit://{self.r.address}"))
            try:
                host.start().stop()
                check(not refused, f"'{name}' was taken for a registry's")
            except Failure as e:
                check(refused and "a registry knows hosts only by names" in str(e) and
                      "--name" in str(e), f"{e}")
                check(host.daemon.wait() == 1, f"status {host.daemon.returncode}")
        Host(self.lab, "named", self.lab.address(), options=("--name", "two words")).start().stop()

    def test_attach_claims_too(self):
        """What has a name elsewhere is not taken over under it."""
        other = self.lab.vm("own").boot(self.a)
        result = self.b.godwit("attach", "own", "--qmp", os.path.join(self.a.dir("own"),
                                                                     "user.qmp"))
        result.failed("VM 'own' on host 'a'")
        check(self.b.list() == {}, "attached")
        other.stop()

    def test_plan(self):
        here, there = self.vm.host, self.other()
        self.knows(here, "r", there.name)
        plan = self.plan(here)[0]
        check(plan["host"] == here.name and plan["name"] == "t", f"plan {plan}")
        check(0 < plan["pages"] <= 128 * MIB // 4096, f"{plan['pages']} pages")
        # One that writes may well do so faster than a busy machine sends.
        with closing(self.vm.qmp()) as monitor:
            monitor.call("stop")
        self.vm.paused = True
        self.vm.move(there)
        self.vm.move(here)
        with closing(self.vm.qmp()) as monitor:
            monitor.call("cont")
        self.vm.paused = False
        plan, hosts, order = self.plan(here)
        check(plan["dirty-pages-rate"] == 0, f"it was paused: {plan}")
        check(plan["measured"] and plan["wire-per-page"] > 0, f"nothing measured: {plan}")
        entry = hosts[there.name]
        check(entry["address"] == there.address, f"address {entry}")
        check(not entry["assumed"] and entry["possible"] and entry["note"] == "", f"{entry}")
        check(entry["bandwidth"] > 0, f"bandwidth {entry['bandwidth']}")
        check(entry["pages"] + entry["reused"] >= plan["pages"], f"pages {entry} of {plan}")
        check(entry["wire-bytes"] > 0 and entry["total-time"] > 25 and entry["downtime"] >= 25,
              f"{entry}")
        check(hosts["r"]["assumed"] and "assumed" in hosts["r"]["note"], f"{hosts['r']}")
        check(here.name not in order, f"{here.name} is planned to move to itself")
        # What was told of it is known elsewhere too.
        plan = self.plan(there)[0]
        check(plan["host"] == here.name and plan["measured"], f"plan elsewhere: {plan}")
        text = here.godwit("plan", "t").ok().out
        lines = text.splitlines()
        check(lines[0].split() == ["HOST", "ADDRESS", "REUSE", "SEND", "TIME", "DOWNTIME", "FREE",
                                   "NOTE"], f"table {text}")
        check([line.split()[0] for line in lines[1:]] == order, f"table {text}, order {order}")
        here.godwit("plan", "nobody").failed("no VM 'nobody'")

    def test_plan_ranks(self):
        """A host without room comes last, and says why."""
        small = self.lab.host("small", "--registry", f"godwit://{self.r.address}",
                              "--memory-limit", "1M")
        self.knows(self.vm.host, "small", "r")
        _, hosts, order = self.plan(self.vm.host)
        check(order[-1] == "small" and not hosts["small"]["possible"], f"order {order}")
        check("memory" in hosts["small"]["note"], f"note {hosts['small']}")
        check(hosts["small"]["memory"] == MIB, f"memory {hosts['small']}")
        self.lab.drop(small)

    def test_registry_is_lost(self):
        """VMs start and move without it; it is put right when it is there again."""
        source, to = self.vm.host, self.other()
        self.r.kill()
        self.vm.host.godwit("plan", "t").failed("nothing can be planned")
        second = self.lab.vm("lost").boot(source)
        self.vm.move(to)
        check("cannot tell" in read_text(source.log), "no warning")
        self.r.start()
        wait_for("the registry to know where it is",
                 lambda: f"host '{to.name}'" in self.r.godwit("plan", "t").err, 30, 0.2)
        self.run_on(source).failed(f"VM 't' on host '{to.name}'")
        wait_for("the VM that started meanwhile to be claimed",
                 lambda: f"host '{source.name}'" in self.r.godwit("plan", "lost").err, 30, 0.2)
        check(read_text(source.log).count("Nothing but predictions depends on it") <= 1,
              "told more than once")
        second.stop()

    def test_registry_is_silent(self):
        """One that does not answer costs moments, not the move."""
        self.r.daemon.send_signal(signal.SIGSTOP)
        try:
            second = self.lab.vm("silent").boot(self.vm.host)
            result = self.vm.move(self.other())
            check(result["downtime"] < 5000, f"downtime {result['downtime']} ms")
            second.stop()
        finally:
            self.r.daemon.send_signal(signal.SIGCONT)


class Own(Group):
    """Hosts that were told of no registry have one each."""

    def setup(self):
        self.a = self.lab.host("a")
        self.b = self.lab.host("b")

    def test_own(self):
        vm = self.lab.vm().boot(self.a)
        check(os.path.exists(os.path.join(self.a.root, "lib", "registry.sqlite")), "no database")
        vm.move(self.b)
        vm.move(self.a)
        # The other one is not in it.
        result = self.a.godwit("plan", "t").ok()
        check(result.out == "" and "no other host" in result.err, f"plan {result}")
        vm.stop()
        # Neither registry takes the name for the other host's.
        vm = self.lab.vm().boot(self.b)
        vm.stop()
        vm = self.lab.vm().boot(self.a)
        vm.stop()
        for host in (self.a, self.b):
            check("is on this host, but" not in read_text(host.log), f"log of {host.name}")

    def test_served_by_its_keeper_only(self):
        """A host that uses another's registry does not pass it on."""
        c = self.lab.host("c", "--registry", f"godwit://{self.b.address}")
        d = self.lab.host("d", "--registry", f"godwit://{c.address}")
        wait_for("the refusal to be told", lambda: "keeps no registry" in read_text(d.log))
        self.lab.drop(d)
        self.lab.drop(c)
