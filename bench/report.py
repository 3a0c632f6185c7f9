# SPDX-License-Identifier: GPL-2.0-or-later
"""Results: a table for people, JSON for machines, a plot for both to be shown with."""
import json
import shutil
import subprocess
import sys


class Target:
    """Met if what was measured is not above the limit, or, at_least, not below it."""

    def __init__(self, text, limit, at_least=False):
        self.text = text
        self.limit = limit
        self.at_least = at_least
        self.measured = None
        self.measured_text = "not measured"
        self.missed = False     # without a number: it did not even end

    @property
    def met(self):
        if self.missed:
            return False
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def as_json(self):
        return {"target": self.text, "limit": self.limit, "measured": self.measured,
                "measured-text": self.measured_text, "met": self.met}


class Result:
    """What a scenario found."""

    def __init__(self, name, title):
        self.name = name
        self.title = title
        self.targets = []
        self.columns = []
        self.rows = []
        self.notes = []
        self.bars = []      # (label, value) for the plot
        self.series = []    # or (label, [(seconds, value)]) for one of lines
        self.unit = ""      # of the bars, or of the lines
        self.axis = "seconds since the guest resumed"
        self.parts = []     # more plots: results of their own, of which only these are shown
        self.runs = []      # everything, for machines

    def target(self, text, limit, at_least=False):
        self.targets.append(Target(text, limit, at_least))
        return self.targets[-1]

    def as_json(self):
        return {"name": self.name, "title": self.title,
                "targets": [target.as_json() for target in self.targets],
                "columns": self.columns, "rows": self.rows, "notes": self.notes,
                "runs": self.runs}

    def text(self):
        lines = [f"{self.name}: {self.title}"]
        if self.rows:
            table = [self.columns] + self.rows
            widths = [max(len(row[i]) for row in table) for i in range(len(self.columns))]
            for row in table:
                cells = [cell.ljust(width) if i == 0 else cell.rjust(width)
                         for i, (cell, width) in enumerate(zip(row, widths))]
                lines.append("    " + "  ".join(cells).rstrip())
        lines += [f"    {note}" for note in self.notes]
        for target in self.targets:
            verdict = {True: "met", False: "MISSED", None: ""}[target.met]
            lines.append(f"    target {target.text}: {target.measured_text}  {verdict}".rstrip())
        return "\n".join(lines)


PLOT = """\
set terminal svg size 640,360 noenhanced font 'sans,13'
set output '{name}.svg'
set title '{title}'
set ylabel '{unit}'
set style fill solid 0.8 border -1
set boxwidth 0.6
set yrange [0:*]
set grid ytics
plot '{name}.dat' using 0:2:xtic(1) with boxes notitle linecolor rgb '#3b6ea5', \\
     '' using 0:2:(sprintf('%.2f', column(2))) with labels offset 0,0.7 notitle
"""

LINES = """\
set terminal svg size 960,480 noenhanced font 'sans,13'
set output '{name}.svg'
set title '{title}'
set ylabel '{unit}'
set xlabel '{axis}'
set yrange [0:*]
set grid
set key below
plot for [i=0:{last}] '{name}.dat' index i using 1:2 with lines title columnheader(1)
"""


def data_of(result):
    """What gnuplot is to read."""
    if result.bars:
        return "".join(f'"{label}" {value}\n' for label, value in result.bars)
    return "\n\n".join(f'"{label}"\n' + "".join(f"{x:.2f} {y:.1f}\n" for x, y in points)
                       for label, points in result.series)


def plot(results, folder):
    """One SVG for each scenario, if gnuplot is there."""
    if not shutil.which("gnuplot"):
        print("  no plots: gnuplot is not installed (Debian: gnuplot-nox)", file=sys.stderr)
        return
    for result in [part for result in results for part in (result, *result.parts)]:
        if not result.bars and not result.series:
            continue
        (folder / f"{result.name}.dat").write_text(data_of(result))
        script = folder / f"{result.name}.gnuplot"
        script.write_text((PLOT if result.bars else LINES).format(
            name=result.name, title=result.title, unit=result.unit, axis=result.axis, last=len(result.series) - 1))
        subprocess.run(["gnuplot", script.name], cwd=folder, check=False)


def write(facts, results, folder):
    """results.json, results.txt and plots; returns the text."""
    head = [f"{facts['date']}  godwit {facts['commit']}  {facts['qemu']}",
            f"{facts['cpus']} x {facts['cpu']}, {facts['memory-gib']} GiB, Linux {facts['kernel']}",
            *facts["notes"]]
    text = "\n\n".join(["\n".join(head)] + [result.text() for result in results]) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.txt").write_text(text)
    document = {"facts": facts, "scenarios": [result.as_json() for result in results]}
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    plot(results, folder)
    return text
