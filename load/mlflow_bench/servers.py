"""Servers that are started for the measurement, and stopped after it."""

import importlib.metadata
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from .wire import Connection

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from postgres import Postgres, free_port  # noqa: E402

READY_WITHIN_S = 180
STOP_WITHIN_S = 20


def is_ready(url):
    """It answers a question about its data, and not only that it is there."""
    connection = Connection(url)
    try:
        connection.call("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")
        return True
    except Exception:
        return False
    finally:
        connection.close()


def members(session):
    """The processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append((int(folder.name), int(fields[11]) + int(fields[12])))
    return found


class Server:
    """A command in a session of its own."""

    def __init__(self, name, url, command, folder, settings=(), others=(), stop_signal=signal.SIGTERM):
        self.name, self.url, self.command, self.settings = name, url, command, dict(settings)
        self.log = Path(folder, f"{name}.log")
        # Sessions of what it needs beside it.
        self.others = others
        self.process, self.stop_signal = None, stop_signal

    def start(self):
        """Seconds until it was ready."""
        if is_ready(self.url):
            raise RuntimeError(f"{self.url} answers before {self.name} is started")
        began = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, env={**os.environ, **self.settings}, start_new_session=True,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while not is_ready(self.url):
            if self.process.poll() is not None or time.monotonic() - began > READY_WITHIN_S:
                raise RuntimeError(f"{self.name} is not ready:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.02)
        return time.monotonic() - began

    def stop(self):
        """Its whole session ends: MLflow's server has workers and consumers beside it."""
        if self.process is None:
            return
        session, deadline = self.process.pid, time.monotonic() + STOP_WITHIN_S
        for sign in (self.stop_signal, signal.SIGKILL):
            for pid, _ in members(session):
                try:
                    os.kill(pid, sign)
                except ProcessLookupError:
                    pass
            while members(session) and time.monotonic() < deadline:
                self.process.poll()
                time.sleep(0.05)
            deadline = time.monotonic() + STOP_WITHIN_S
        self.process.wait()
        self.process = None

    def sessions(self):
        return [self.process.pid, *self.others] if self.process else []

    def cpu_seconds(self):
        ticks = sum(used for session in self.sessions() for _, used in members(session))
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_mib(self):
        """Shared pages once: what is shared by n processes counts 1/n in each."""
        total = 0
        for pid, _ in (each for session in self.sessions() for each in members(session)):
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return total / 1024


def mlflow_server(kind, folder, stack, workers):
    """MLflow's own server on `sqlite` or `postgres`, as `mlflow server` starts it."""
    if importlib.util.find_spec("mlflow") is None:
        sys.exit("mlflow_compare.py: this Python has no mlflow; scripts/python_env.sh -r scripts/foreign/mlflow.txt prints "
                 "one that has")
    name, port, details, others = f"mlflow-{kind}", free_port(), {}, []
    home = Path(folder, name)
    home.mkdir()
    if kind == "postgres":
        postgres = Postgres(home)
        stack.callback(postgres.stop)
        postgres.start()
        store = f"postgresql+psycopg2://postgres@127.0.0.1:{postgres.port}/postgres"
        details, others = {"postgres": postgres.version()}, [postgres.session()]
    else:
        store = f"sqlite:///{home}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
               "--backend-store-uri", store, "--artifacts-destination", str(home / "artifacts")]
    if workers:
        command += ["--workers", str(workers)]
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    server = Server(name, f"http://127.0.0.1:{port}", command, home, settings, others)
    details |= {each: importlib.metadata.version(each) for each in ("mlflow", "SQLAlchemy", "uvicorn")}
    stack.callback(server.stop)
    return server, details


def command_server(name, url, command, folder, stack):
    """A server that a command line starts."""
    server = Server(name, url, shlex.split(command), folder, stop_signal=signal.SIGINT)
    stack.callback(server.stop)
    return server
