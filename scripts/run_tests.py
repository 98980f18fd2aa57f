#!/usr/bin/env python3
"""Runs the tests of the given packages with the workspace's build.

`cargo test -p PACKAGE` selects the features of dependencies for that package alone and compiles them again, which takes
minutes. This script builds the tests of the whole workspace and runs the test programs of the given packages.

usage: scripts/run_tests.py PACKAGE... [-- ARGUMENT...]     each ARGUMENT goes to each test program

examples:
  scripts/run_tests.py carbon-log -- --ignored
  scripts/run_tests.py carbon-store carbon-read-models -- --include-ignored

exit: 0 all tests passed, 1 a test failed or no test program was found, 2 wrong usage; the code of cargo if the build
fails
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def programs(packages):
    """Builds the tests; yields the test programs of the packages, each with the working folder that cargo would use."""
    command = ["cargo", "test", "--workspace", "--locked", "--no-run", "--message-format=json-render-diagnostics"]
    build = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if build.returncode != 0:
        sys.exit(build.returncode)
    for line in build.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") != "compiler-artifact" or not message["profile"]["test"]:
            continue
        folder = Path(message["manifest_path"]).parent
        package = message["package_id"].split("#")[-1].split("@")[0]
        name = package if package.startswith("carbon-") else f"carbon-{folder.name}"
        if message["executable"] and (name in packages or package in packages):
            yield message["executable"], folder


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip())
        return 0 if len(sys.argv) > 1 else 2
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    packages, arguments = set(sys.argv[1:split]), sys.argv[split + 1:]
    ran, failed = 0, []
    for program, folder in programs(packages):
        print(f"     Running {os.path.basename(program)} ({folder.name})", flush=True)
        environment = os.environ | {"CARGO_MANIFEST_DIR": str(folder)}
        ran += 1
        if subprocess.run([program, *arguments], cwd=folder, env=environment).returncode != 0:
            failed.append(os.path.basename(program))
    if failed:
        print(f"run_tests.py: failed: {', '.join(failed)}", file=sys.stderr)
    if ran == 0:
        print(f"run_tests.py: found no test programs of {', '.join(sorted(packages))}", file=sys.stderr)
    return 1 if failed or ran == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
