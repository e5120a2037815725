#!/usr/bin/env python3
"""Compares results of meshbench with the targets: targets.py FILE...

Each figure is the median of all repetitions in the files, each ratio one of medians. Exits 1 if a target is missed.
"""
import collections
import json
import statistics
import sys

# What, our figure and theirs (profile, peer, scenario, metric), and the bound on ours ÷ theirs.
RATIOS = [
    ("requests/s, 64 connections", "lan starling-http http_c64 rps", "lan envoy-h2 http_c64 rps", ">=", 1.5),
    ("proxy CPU, s per 100,000 requests, 64 connections", "lan starling-http http_c64 proxy_cpu_s_per_100k",
     "lan envoy-h2 http_c64 proxy_cpu_s_per_100k", "<=", 0.6),
    ("requests/s, a connection each", "lan starling-http http_close rps", "lan envoy-h2 http_close rps", ">=", 1.0),
    ("requests/s with all telemetry, 64 connections", "lan starling-told http_c64 rps", "lan starling-http http_c64 rps",
     ">=", 0.95),
    ("Mbit/s down, one connection, tcp", "lan starling-tcp pull_1 mbit_s", "lan dumbpipe pull_1 mbit_s", ">=", 1.3),
    ("Mbit/s down, one connection, http", "lan starling-http pull_1 mbit_s", "lan dumbpipe pull_1 mbit_s", ">=", 1.3),
    ("Mbit/s up, one connection, tcp", "lan starling-tcp iperf_1 mbit_s", "lan dumbpipe iperf_1 mbit_s", ">=", 1.3),
    ("p99 in µs, 32 connections, 1 % loss", "wan-loss1 starling-http http_c32 p99_us",
     "wan-loss1 direct http_c32 p99_us", "<=", 0.5),
]
# Both agents together, so twice what one may have.
BOUNDS = [
    ("MiB of two idle agents, http", "lan starling-http memory idle_rss_mib", 2 * 20e6 / 2**20),
    ("MiB of two idle agents, tcp", "lan starling-tcp memory idle_rss_mib", 2 * 20e6 / 2**20),
    ("KiB more per idle connection, http", "lan starling-http memory kib_per_connection", 15e3 / 2**10),
    ("KiB more per idle connection, tcp", "lan starling-tcp memory kib_per_connection", 2 * 15e3 / 2**10),
]




class Results:
    def __init__(self, paths):
        self.values = collections.defaultdict(list)
        self.foreign, self.stolen = [0.0], [0.0]
        for path in paths:
            with open(path) as file:
                for line in file:
                    self.add(json.loads(line))

    def add(self, record):
        if record["kind"] != "result":
            return
        metrics = record["metrics"]
        self.foreign.append(metrics.get("foreign_cores", 0.0))
        self.stolen.append(metrics.get("steal_cores", 0.0))
        for metric, value in metrics.items():
            if isinstance(value, (int, float)):
                self.values[f"{record['profile']} {record['peer']} {record['scenario']} {metric}"].append(value)

    def median(self, key):
        return statistics.median(self.values[key])

    def show(self, key):
        """The median, and how far the repetitions went to either side of it."""
        values, median = self.values[key], self.median(key)
        spread = max(max(values) - median, median - min(values)) / median
        return f"{median:,.{0 if median >= 100 else 1}f} (±{spread:.0%}, {len(values)}×)"


def show_ratio(results, what, ours, theirs, way, bound):
    ratio = results.median(ours) / results.median(theirs)
    reached = ratio >= bound if way == ">=" else ratio <= bound
    print(f"| {what} | {results.show(ours)} | {results.show(theirs)} {theirs.split()[1]} | {ratio:.2f} "
          f"| {'≥' if way == '>=' else '≤'} {bound} | {'reached' if reached else 'MISSED'} |")
    return reached


def show_bound(results, what, ours, bound):
    reached = results.median(ours) <= bound
    print(f"| {what} | {results.show(ours)} | | | ≤ {bound:.1f} | {'reached' if reached else 'MISSED'} |")
    return reached


def main(paths):
    results = Results(paths)
    print("| what | ours | theirs | ratio | target | |\n|---|---|---|---|---|---|")
    verdicts = [show_ratio(results, *row) for row in RATIOS if row[1] in results.values and row[2] in results.values]
    verdicts += [show_bound(results, *row) for row in BOUNDS if row[1] in results.values]
    print(f"\nNoise: at most {max(results.foreign):.2f} cores used by others and {max(results.stolen):.2f} "
          "taken by the hypervisor during a scenario.")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
