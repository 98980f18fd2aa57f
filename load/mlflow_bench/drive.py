"""Workers: processes, each with one connection, so that Python's lock is in nobody's way."""

import multiprocessing
import os
import socket
import time
import traceback
from array import array
from collections import Counter

from . import workload
from .wire import Connection

FORK = multiprocessing.get_context("fork")


def all_of(function, arguments):
    """Calls it in a process for each tuple of arguments, and returns what they return; fails where one does."""
    def child(pipe, values):
        try:
            pipe.send((True, function(*values)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))

    children = []
    for values in arguments:
        ours, theirs = FORK.Pipe(duplex=False)
        process = FORK.Process(target=child, args=(theirs, values), daemon=True)
        process.start()
        theirs.close()
        children.append((process, ours))
    results, failure = [], None
    for process, pipe in children:
        try:
            good, result = pipe.recv()
        except EOFError:
            good, result = False, "a worker died"
        process.join()
        if good:
            results.append(result)
        else:
            failure = result
    if failure:
        raise RuntimeError(failure)
    return results


def seed(url, experiment_id, count, concurrency):
    def part(first):
        return workload.seed(Connection(url), experiment_id, range(first, count, concurrency), count)

    return [each for ids in all_of(part, [(first,) for first in range(concurrency)]) for each in ids]


def one_worker(url, operation, context, plan, worker, barrier):
    """Latencies in seconds of what was answered 200, errors, this process's CPU seconds, when it began and ended."""
    connection = Connection(url)
    # Before the start, and not counted: the worker's run is made, its requests are prepared.
    calls = workload.OPERATIONS[operation](connection, context, worker)
    clock, send = time.perf_counter, connection.send
    latencies, errors, acknowledged = array("d"), Counter(), 0
    barrier.wait()
    counted_from = clock() + plan["warmup"]
    end = counted_from + plan["duration"]
    gap = plan["concurrency"] / plan["rate"] if plan["rate"] else 0
    due = clock() + gap * worker / plan["concurrency"]
    cpu = began = None
    while True:
        now = clock()
        if gap:
            # The clock runs from when a request was due: one that had to wait for the one before it was late.
            if due > now:
                time.sleep(due - now)
            start, due = due, due + gap
        else:
            start = now
        if start >= end:
            break
        if began is None and start >= counted_from:
            cpu, began = sum(os.times()[:2]), start
        try:
            status, body = send(*calls.next())
            complaint = None if status == 200 else f"{status} {body[:200].decode(errors='replace')}"
        except OSError as error:
            connection.close()
            complaint = f"{type(error).__name__}: {error}"
        finish = clock()
        if complaint is None:
            acknowledged += 1
            if start >= counted_from:
                latencies.append(finish - start)
        else:
            errors[complaint] += 1
            if len(errors) > 100:
                break
    ended = clock()
    used = sum(os.times()[:2]) - cpu if cpu is not None else 0.0
    check = getattr(calls, "check", None)
    if check and plan["check"]:
        check(acknowledged)
    return latencies, errors, used, began or counted_from, ended


def measure(url, operation, context, plan):
    """One operation at the plan's concurrency."""
    barrier = FORK.Barrier(plan["concurrency"])
    workers = range(plan["concurrency"])
    parts = all_of(one_worker, [(url, operation, context, plan, worker, barrier) for worker in workers])
    times = sorted(each for part in parts for each in part[0])
    errors = sum((part[1] for part in parts), Counter())
    wall = max(part[4] for part in parts) - min(part[3] for part in parts)

    def at(share):
        return 1000 * times[max(1, -int(-share * len(times) // 1)) - 1] if times else float("nan")

    return {
        "operation": operation, "requests": len(times), "seconds": wall, "per_second": len(times) / wall,
        "rate": plan["rate"], "mean_ms": 1000 * sum(times) / len(times) if times else float("nan"),
        "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": at(1.0),
        "errors": sum(errors.values()), "error_samples": dict(errors.most_common(3)),
        "generator_cores": sum(part[2] for part in parts) / wall,
    }


CANNED = {
    "log_batch": b"{}", "log_metric": b"{}", "create_run": b'{"run": {"info": {"run_id": "%s"}}}' % (b"0" * 32),
    "get_run": b"x" * 1500, "search_runs": b"x" * 120_000,
}


def canned_server(listener, answer):
    """Reads requests and answers each with the same bytes."""
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = b""
        with connection:
            while True:
                received = connection.recv(262144)
                if not received:
                    break
                buffer += received
                head = buffer.find(b"\r\n\r\n")
                if head < 0:
                    continue
                at = buffer.find(b"Content-Length: ", 0, head)
                length = int(buffer[at + 16 : buffer.index(b"\r\n", at)]) if at >= 0 else 0
                if len(buffer) < head + 4 + length:
                    continue
                # Making a run, which workers do before the start, needs an id.
                body = CANNED["create_run"] if b"/runs/create" in buffer[:200] else answer
                buffer = buffer[head + 4 + length :]
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def ceiling(operation, plan):
    """As `measure`, against servers that do nothing, one a worker; they take CPU beside it, so it is a lower bound."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    servers = [FORK.Process(target=canned_server, args=(listener, CANNED[operation]), daemon=True)
               for _ in range(plan["concurrency"])]
    for server in servers:
        server.start()
    try:
        context = {"scratch": "1", "experiment": "1", "ids": ["0" * 32] * 100, "search_results": 100}
        return measure(url, operation, context, {**plan, "rate": None, "check": False})
    finally:
        for server in servers:
            server.kill()
            server.join()
        listener.close()
