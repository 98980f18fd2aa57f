#!/usr/bin/env python3
"""Measures servers that speak MLflow's tracking API by the same calls: throughput and latency of each operation.

  log_batch    100 metrics of one run; each worker has a run of its own
  log_metric   one metric
  create_run   as mlflow.start_run does it
  get_run      any of the seeded runs
  search_runs  the best 100 of the seeded runs by a metric, above a bound of that metric that changes

A target is a server that runs (--target NAME=URL), one that a command starts (and --command NAME=COMMAND), or MLflow's
own server on SQLite or Postgres (--mlflow). Each is seeded by the API with the same code, and asked whether a search
finds exactly what it should before anything is measured; what log calls acknowledged must be there after them.
Started ones are also timed until they answer, empty and again with all data, and their memory and CPU are read.

With --rounds, the targets take turns at each operation, so that a machine whose speed drifts slows them alike.

Workers are processes with one kept connection each. First their ceiling is measured against servers that do nothing, on
the same machine: a result near it says more of the generator than of the server. At --rate, latency counts from
when a request was due.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

from mlflow_bench import drive, servers, workload
from mlflow_bench.wire import Connection, Refused

EXAMPLES = """
examples:
  load/mlflow_compare.py --target carbon=http://127.0.0.1:5000
  load/mlflow_compare.py --target carbon=http://127.0.0.1:5000 --command 'carbon=target/release/carbon-ml up'
  python="$(scripts/python_env.sh -r scripts/foreign/mlflow.txt)"   # for MLflow's own server; else any Python 3.9 does
  $python load/mlflow_compare.py --mlflow sqlite --mlflow postgres --target carbon=http://127.0.0.1:5000 --json out.json
  load/mlflow_compare.py --target carbon=http://127.0.0.1:5000 --op search_runs --rate 100 --duration 60
  load/mlflow_compare.py --target before=http://127.0.0.1:5001 --target after=http://127.0.0.1:5002 --rounds 6 --duration 4

exit: 0 done, 1 a request failed or an answer was wrong, 2 wrong usage
"""
COLUMNS = [("target", "<16"), ("operation", "<12"), ("req/s", ">9"), ("p50 ms", ">9"), ("p95 ms", ">9"),
           ("p99 ms", ">9"), ("max ms", ">9"), ("requests", ">9"), ("errors", ">7"), ("server CPU ms", ">14"),
           ("generator cores", ">16")]


def row(*values):
    print("  ".join(f"{value:{form}}" for value, (_, form) in zip(values, COLUMNS)), flush=True)


def result_row(name, result):
    cpu = result.get("server_cpu_ms")
    row(name, result["operation"], f"{result['per_second']:.1f}", *(f"{result[key]:.2f}" for key in
        ("p50_ms", "p95_ms", "p99_ms", "max_ms")), result["requests"], result["errors"],
        "" if cpu is None else f"{cpu:.2f}", f"{result['generator_cores']:.2f}")
    for complaint, times in result["error_samples"].items():
        print(f"    {times} times: {complaint}", flush=True)


def machine():
    def first(path, key):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            return None
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)

    return {
        "system": platform.platform(), "cpu": first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": first("/proc/meminfo", "MemTotal"), "python": platform.python_version(),
        "load_before": os.getloadavg(),
    }


def version(url):
    connection = Connection(url)
    status, body = connection.send(connection.prepare("GET", "/version", compressed=False))
    return body.decode(errors="replace").strip()[:100] if status == 200 else f"unknown ({status})"


def seeded(url, plan, reuse):
    """What the operations need to know of a target: its experiments, and its runs."""
    connection, count = Connection(url), plan["seed_runs"]
    name, facts = f"mlflow-compare-{count}", {}
    known = workload.seeded_already(connection, name, count) if reuse else None
    if not known:
        # A name that earlier calls took is no reason to stop.
        name = name if reuse else f"{name}-{uuid.uuid4().hex[:8]}"
        experiment, began = workload.experiment(connection, name), time.monotonic()
        ids = drive.seed(url, experiment, count, plan["concurrency"])
        facts = {"seed_seconds": time.monotonic() - began, "seed_runs_per_second": count / (time.monotonic() - began)}
        known = experiment, ids
    workload.check_seed(connection, known[0], count)
    scratch = workload.experiment(connection, f"mlflow-compare-scratch-{uuid.uuid4().hex[:8]}")
    context = {"experiment": known[0], "ids": known[1], "scratch": scratch, "search_results": plan["search_results"]}
    return context, facts


class Target:
    """A server that is measured, and what was found of it."""

    def __init__(self, name, url, server, packages):
        self.name, self.url, self.server = name, url, server
        self.facts = {"name": name, "url": url, "results": [], "packages": packages}
        self.context = None

    def start(self, plan, reuse):
        facts, server = self.facts, self.server
        if server:
            facts["ready_seconds_first"] = server.start()
        facts["version"] = version(self.url)
        print(f"{self.name}: {self.url}, version {facts['version']}"
              + (f", ready {facts['ready_seconds_first']:.2f} s after its start" if server else ""), flush=True)
        self.context, seeding = seeded(self.url, plan, reuse)
        facts |= seeding
        if seeding:
            print(f"{self.name}: {plan['seed_runs']} runs seeded in {seeding['seed_seconds']:.1f} s, "
                  f"{seeding['seed_runs_per_second']:.1f} a second", flush=True)

    def measure(self, operation, plan):
        before = self.server.cpu_seconds() if self.server else 0
        result = drive.measure(self.url, operation, self.context, plan)
        if self.server and result["requests"]:
            # Also what the warm-up cost: the share that is counted.
            share = plan["duration"] / (plan["duration"] + plan["warmup"])
            result["server_cpu_ms"] = 1000 * (self.server.cpu_seconds() - before) * share / result["requests"]
        self.facts["results"].append(result)
        result_row(self.name, result)

    def stop(self, plan):
        """Reads its memory, and how soon it is ready again with all data."""
        facts, server = self.facts, self.server
        if server:
            facts["memory_mib"] = server.memory_mib()
            server.stop()
            facts["ready_seconds_again"] = server.start()
            workload.check_seed(Connection(self.url), self.context["experiment"], plan["seed_runs"])
            server.stop()
            print(f"{self.name}: {facts['memory_mib']:.0f} MiB; started again, with all data, it is ready after "
                  f"{facts['ready_seconds_again']:.2f} s", flush=True)

    def rates(self, operation):
        return [each["per_second"] for each in self.facts["results"] if each["operation"] == operation]


def measure_in_turn(targets, operations, plan, rounds):
    """All targets run; each operation is measured on each in turn, and the order is reversed every other round."""
    for operation in operations:
        for number in range(rounds):
            for target in targets if number % 2 == 0 else reversed(targets):
                target.measure(operation, plan)


def compared(first, target, operation):
    """The rates of a target as a share of the first one's, round by round."""
    ratios = [ours / theirs for ours, theirs in zip(target.rates(operation), first.rates(operation))]
    return {"operation": operation, "target": target.name, "of": first.name, "median": statistics.median(ratios),
            "lowest": min(ratios), "highest": max(ratios), "rounds": len(ratios)}


def pairs(parser, texts, option):
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            parser.error(f"{option} {text}: not NAME=VALUE")
        if name in found:
            parser.error(f"{option} {name} is there twice")
        found[name] = value
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", default=[], metavar="NAME=URL", help="a server; may be repeated")
    parser.add_argument("--command", action="append", default=[], metavar="NAME=COMMAND",
                        help="what starts that target; stopped by SIGINT")
    parser.add_argument("--mlflow", action="append", default=[], choices=["sqlite", "postgres"],
                        help="MLflow's own server, started here; may be repeated")
    parser.add_argument("--mlflow-workers", type=int, metavar="N", help="its --workers; its own default unless said")
    parser.add_argument("--seed-runs", type=int, default=10_000, help="10000")
    parser.add_argument("--reuse", action="store_true",
                        help="take the runs that an earlier call with --reuse seeded, where there are as many")
    parser.add_argument("--op", action="append", choices=list(workload.OPERATIONS),
                        help="only this one; may be repeated")
    parser.add_argument("--concurrency", type=int, default=8, help="workers; 8")
    parser.add_argument("--duration", type=float, default=15, help="seconds an operation that count; 15")
    parser.add_argument("--warmup", type=float, default=3, help="seconds before them; 3")
    parser.add_argument("--rounds", type=int, default=1,
                        help="measure each operation so often, the targets in turn while all run; 1: one after the other")
    parser.add_argument("--rate", type=float, help="requests a second of all workers together; unless said, as fast as "
                                                   "answers come")
    parser.add_argument("--search-results", type=int, default=100, help="max_results of search_runs; 100")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there as well")
    parser.add_argument("--no-ceiling", action="store_true", help="do not measure the generator itself")
    arguments = parser.parse_args()
    targets = pairs(parser, arguments.target, "--target")
    commands = pairs(parser, arguments.command, "--command")
    kinds = list(dict.fromkeys(arguments.mlflow))
    if not targets and not kinds:
        parser.error("no --target and no --mlflow: nothing to measure")
    for name in commands.keys() - targets.keys():
        parser.error(f"--command {name}: there is no such --target")
    for name in ("seed_runs", "concurrency", "duration", "rounds"):
        if getattr(arguments, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be more than 0")
    plan = {key: getattr(arguments, key) for key in
            ("seed_runs", "concurrency", "duration", "warmup", "rate", "search_results", "rounds")} | {"check": True}
    operations = [name for name in workload.OPERATIONS if not arguments.op or name in arguments.op]
    # What was started must be stopped also where this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    report = {"machine": machine(), "plan": plan, "ceiling": [], "targets": []}
    print(" ".join(f"{key}: {value};" for key, value in report["machine"].items()))
    row(*(title for title, _ in COLUMNS))
    if not arguments.no_ceiling:
        for operation in operations:
            result = drive.ceiling(operation, {**plan, "duration": min(plan["duration"], 3), "warmup": 0.5})
            report["ceiling"].append(result)
            result_row("(generator)", result)
    with ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="mlflow-compare-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        os.chmod(folder, 0o755)  # Postgres may run as somebody else
        chosen = []
        for name, url in targets.items():
            server = None
            if name in commands:
                server = servers.command_server(name, url, commands[name], folder, stack)
            chosen.append(Target(name, url, server, {}))
        for kind in kinds:
            server, details = servers.mlflow_server(kind, folder, stack, arguments.mlflow_workers)
            chosen.append(Target(server.name, server.url, server, details))
        if arguments.rounds == 1:
            for target in chosen:
                target.start(plan, arguments.reuse)
                for operation in operations:
                    target.measure(operation, plan)
                target.stop(plan)
        else:
            for target in chosen:
                target.start(plan, arguments.reuse)
            measure_in_turn(chosen, operations, plan, arguments.rounds)
            for target in chosen:
                target.stop(plan)
        report["targets"] = [target.facts for target in chosen]
        report["compared"] = [compared(chosen[0], target, operation)
                              for operation in operations for target in chosen[1:]]
        for each in report["compared"]:
            print(f"{each['operation']}: {each['target']} at {each['median']:.3f} of {each['of']} (median of "
                  f"{each['rounds']}, {each['lowest']:.3f} to {each['highest']:.3f})", flush=True)
    report["machine"]["load_after"] = os.getloadavg()
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    limits = {each["operation"]: each["per_second"] for each in report["ceiling"]}
    near = [f"{target['name']} {result['operation']}" for target in report["targets"] for result in target["results"]
            if result["per_second"] > limits.get(result["operation"], float("inf")) / 2]
    if near:
        print(f"more than half of what the generator reaches against servers that do nothing: {', '.join(near)}")
    return 1 if any(result["errors"] for target in report["targets"] for result in target["results"]) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (AssertionError, OSError, RuntimeError, Refused) as error:
        sys.exit(f"mlflow_compare.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
