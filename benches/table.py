"""Turns what scripts/bench measured into a table, its data, and a chart. Standard library only."""

import json
import pathlib
import statistics
import sys
from html import escape

TREE_PEERS = ["restic", "borg", "rustic"]


class Missing(Exception):
    """A row has no measurement."""


class Results:
    """The values of all rows, by program and measure."""

    def __init__(self, folder):
        self.values = {}
        self.heads = {}
        for path in sorted((folder / "runs").glob("*.jsonl")):
            head, *lines = [json.loads(line) for line in path.read_text().splitlines()]
            self.heads[path.stem] = head
            for line in lines:
                key = (path.stem, line["program"], line["measure"])
                self.values.setdefault(key, []).append(line["value"])

    def median(self, group, program, measure):
        try:
            return statistics.median(self.values[(group, program, measure)])
        except KeyError:
            raise Missing(measure) from None

    def fastest(self, group, programs, measure):
        """The least median among the programs that ran, with its name."""
        ran = [(self.median(group, name, measure), name) for name in programs if (group, name, measure) in self.values]
        if not ran:
            raise Missing
        return min(ran)

    def all_of(self, group, programs, measure):
        """Every program that ran with its median, as text."""
        ran = [(name, self.median(group, name, measure)) for name in programs if (group, name, measure) in self.values]
        return ", ".join(f"{name} {seconds(value)}" for name, value in ran)


def seconds(value):
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def mebibytes(kib):
    return f"{kib / 1024:.1f} MiB"


def against_fastest(title, measure, target):
    def row(results):
        ours = results.median("tree", "refuge", measure)
        fastest, name = results.fastest("tree", TREE_PEERS, measure)
        return {
            "work": title,
            "refuge": seconds(ours),
            "peers": results.all_of("tree", TREE_PEERS, measure),
            "got": fastest / ours,
            "text": f"{fastest / ours:.2f}× {name}",
            "target": target,
            "better": "more",
            "bound": f"{target:g}× the fastest",
        }

    return "tree", row


def disk_space(results):
    ours = results.median("tree", "refuge", "disk_bytes")
    restic = results.median("tree", "restic", "disk_bytes")
    return {
        "work": "disk space of the tree",
        "refuge": f"{ours / 2**20:.0f} MiB",
        "peers": f"restic {restic / 2**20:.0f} MiB",
        "got": ours / restic,
        "text": f"{ours / restic:.2f}× restic",
        "target": 1.15,
        "better": "less",
        "bound": "1.15× restic",
    }


def one_file(results):
    ours = results.median("file", "refuge", "seconds")
    hashed = results.median("file", "b3sum", "seconds")
    copied = results.median("file", "cp+sync", "seconds")
    ratio = ours / (hashed + copied)
    return {
        "work": "1 GiB in by HTTP",
        "refuge": seconds(ours),
        "peers": f"b3sum {seconds(hashed)} + cp, sync {seconds(copied)}",
        "got": ratio,
        "text": f"{ratio:.2f}× the sum",
        "target": 1.5,
        "better": "less",
        "bound": "1.5× the sum",
    }


def small_blobs(peer, called, target, bound):
    def row(results):
        ours = results.median("small-blobs", "refuge", "blobs_per_second")
        theirs = results.median("small-blobs", peer, "blobs_per_second")
        return {
            "work": "100,000 × 4 KiB in by HTTP, 16 connections",
            "refuge": f"{ours:,.0f} /s",
            "peers": f"{called} {theirs:,.0f} /s",
            "got": ours / theirs,
            "text": f"{ours / theirs:.2f}× {called}",
            "target": target,
            "better": "more",
            "bound": bound,
        }

    return "small-blobs", row


def alone(group, title, measure, target, show, bound):
    def row(results):
        ours = results.median(group, "refuge", measure)
        return {
            "work": title,
            "refuge": show(ours),
            "peers": "",
            "got": ours,
            "text": show(ours),
            "target": target,
            "better": "less",
            "bound": bound,
        }

    return group, row


def documents(title, measure, of, target, better, bound):
    """Refuge against plain SQLite, or against itself by another measure."""

    def row(results):
        ours = results.median("blanket", "refuge", measure)
        other, other_measure, called = of
        theirs = results.median("blanket", other, other_measure)
        show = (lambda value: f"{value:,.0f} /s") if better == "more" else (lambda value: f"{value:.2f} per byte")
        return {
            "work": title,
            "refuge": show(ours),
            "peers": f"{called} {show(theirs)}",
            "got": ours / theirs,
            "text": f"{ours / theirs:.2f}× {called}",
            "target": target,
            "better": better,
            "bound": bound,
        }

    return "blanket", row


def by_http(title, measure, target):
    """Refuge against pouchdb-server, both by HTTP."""

    def row(results):
        ours = results.median("blanket", "refuge", measure)
        theirs = results.median("blanket", "pouchdb", measure)
        return {
            "work": title,
            "refuge": f"{ours:,.0f} /s",
            "peers": f"pouchdb-server {theirs:,.0f} /s",
            "got": ours / theirs,
            "text": f"{ours / theirs:.2f}× pouchdb-server",
            "target": target,
            "better": "more",
            "bound": f"{target:g}× pouchdb-server",
        }

    return "blanket", row


ROWS = [
    against_fastest("first backup of the Linux source", "first_backup_seconds", 2.0),
    against_fastest("second backup, nothing changed", "second_backup_seconds", 4.0),
    against_fastest("restore of the tree", "restore_seconds", 1.5),
    ("tree", disk_space),
    ("file", one_file),
    small_blobs("iroh", "iroh-blobs", 2.0, "2× iroh-blobs"),
    small_blobs("bare", "the bare loop", 0.6, "0.6× the bare loop"),
    alone("million", "LIST of 1,000,000 ids", "list_seconds", 1.0, seconds, "1 s"),
    alone("million", "memory added by that LIST", "list_added_kib", 1024.0, mebibytes, "1 MiB (flat)"),
    alone("million", "start with 1,000,000 blobs", "ready_seconds", 2.0, seconds, "2 s"),
    alone("million", "resident with 1,000,000 blobs, after a LIST", "resident_kib", 40 * 1024.0, mebibytes, "40 MiB"),
    alone("upload", "memory added by a 4 GiB upload", "added_kib", 8 * 1024.0, mebibytes, "8 MiB"),
    alone("arm-size", "armv7 binary", "armv7_bytes", 6.0 * 2**20, lambda size: f"{size / 2**20:.2f} MiB", "6 MiB"),
    alone(
        "device",
        "written to the device per byte, 100,000 × 4 KiB, 16 connections",
        "written_per_byte_16",
        1.5,
        lambda ratio: f"{ratio:.3f}",
        "1.5",
    ),
    alone(
        "device",
        "the same, 64 connections",
        "written_per_byte_64",
        1.2,
        lambda ratio: f"{ratio:.3f}",
        "1.2",
    ),
    alone("device", "the same, 1 GiB", "written_per_byte_1g", 1.05, lambda ratio: f"{ratio:.3f}", "1.05"),
    by_http("10,000 documents of 1 KiB, one request each, by HTTP", "http_one_per_second", 5.0),
    documents(
        "the same from 32 writers",
        "http_many_per_second",
        ("refuge", "http_one_per_second", "one writer"),
        4.0,
        "more",
        "4× one writer",
    ),
    by_http("200,000 documents in batches of 500, by HTTP", "http_batched_per_second", 8.0),
    by_http("read by id, warm", "http_read_per_second", 10.0),
    by_http("`_changes` from 0 over 200,000 documents", "changes_per_second", 10.0),
    alone("blanket", "memory added by that", "changes_added_kib", 1024.0, mebibytes, "1 MiB (flat)"),
    by_http("`_find` with an index over 200,000 documents", "find_per_second", 10.0),
    by_http("pull of 50,000 documents", "pull_per_second", 5.0),
    alone("blanket", "added by 100,000 documents, idle", "documents_idle_kib", 8 * 1024.0, mebibytes, "8 MiB"),
    documents(
        "10,000 documents of 1 KiB, durable one by one, without HTTP",
        "one_per_second",
        ("floor", "one_per_second", "plain SQLite"),
        1 / 2,
        "more",
        "half of plain SQLite",
    ),
    documents(
        "the same from 32 writers",
        "many_per_second",
        ("refuge", "one_per_second", "one writer"),
        4.0,
        "more",
        "4× one writer",
    ),
    documents(
        "32 writers, every flush 10 ms late",
        "slow_many_per_second",
        ("refuge", "slow_one_per_second", "one writer"),
        20.0,
        "more",
        "20× one writer",
    ),
    documents(
        "200,000 documents in batches of 500, without HTTP",
        "batched_per_second",
        ("floor", "batched_per_second", "plain SQLite"),
        1 / 3,
        "more",
        "a third of plain SQLite",
    ),
    documents(
        "written to the device, documents at 50 a second, one by one",
        "written_per_byte_1",
        ("floor", "written_per_byte_1", "plain SQLite"),
        1.25,
        "less",
        "1.25× plain SQLite",
    ),
    documents(
        "the same, 16 together",
        "written_per_byte_16",
        ("floor", "written_per_byte_16", "plain SQLite"),
        1.25,
        "less",
        "1.25× plain SQLite",
    ),
    alone(
        "blanket",
        "the same, 16 together, by itself",
        "written_per_byte_16",
        11.0,
        lambda ratio: f"{ratio:.2f} per byte",
        "11 per byte",
    ),
]


def rows_of(results):
    rows, missing = [], []
    for group, make in ROWS:
        try:
            row = make(results)
        except Missing as what:
            # Of a group that was measured, only what is not there.
            is_there = any(key[0] == group for key in results.values)
            missing.append(f"{group} ({what})" if is_there else group)
            continue
        row["group"] = group
        # How far beyond the bound: 1 just reaches it.
        row["margin"] = row["got"] / row["target"] if row["better"] == "more" else row["target"] / max(row["got"], 1e-9)
        row["reached"] = row["margin"] >= 1
        rows.append(row)
    return rows, sorted(set(missing))


def markdown(rows, missing, heads):
    lines = ["| work | Refuge | peers | ratio | bound | |", "|---|---|---|---|---|---|"]
    for row in rows:
        bound = ("at least " if row["better"] == "more" else "at most ") + row["bound"]
        mark = "reached" if row["reached"] else "**missed**"
        lines.append(f"| {row['work']} | {row['refuge']} | {row['peers']} | {row['text']} | {bound} | {mark} |")
    machines = sorted({head["machine"] for head in heads.values()})
    loads = [head["load"] for head in heads.values()]
    runs = sorted({head["runs"] for head in heads.values()})
    if loads:
        lines += ["", f"Medians of {' or '.join(map(str, runs))} runs in turns on: {'; '.join(machines)}."]
        lines.append(f"Load average before the rows: {min(loads):.1f} to {max(loads):.1f}.")
    if missing:
        lines.append(f"Not measured: {', '.join(missing)}.")
    return "\n".join(lines) + "\n"


def chart(rows):
    """One bar for each row: how far beyond its bound, on a scale cut at four times."""
    most, left, width, step = 4.0, 430, 380, 26
    height = 56 + step * len(rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 150} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-weight="bold">Refuge against its bounds: past the line is reached, longer is better</text>',
    ]
    for index, row in enumerate(rows):
        y = 40 + step * index
        length = width * min(row["margin"], most) / most
        colour = "#2b7a4b" if row["reached"] else "#b3402a"
        out.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(row["work"])}</text>')
        out.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="18" fill="{colour}"/>')
        out.append(f'<text x="{left + length + 6:.1f}" y="{y + 14}">{escape(row["text"])}</text>')
    line = left + width / most
    out.append(f'<line x1="{line}" y1="32" x2="{line}" y2="{height - 12}" stroke="#333" stroke-dasharray="4 3"/>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    folder = pathlib.Path(sys.argv[1])
    results = Results(folder)
    rows, missing = rows_of(results)
    table = markdown(rows, missing, results.heads)
    (folder / "table.md").write_text(table)
    (folder / "table.json").write_text(json.dumps({"rows": rows, "missing": missing, "heads": results.heads}, indent=2))
    (folder / "chart.svg").write_text(chart(rows))
    print(table)


main()
