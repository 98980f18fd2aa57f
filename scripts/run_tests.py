#!/usr/bin/env python3
"""Runs the tests of some packages as the whole workspace was built.

`cargo test -p PACKAGE` chooses the features of dependencies for that package alone and builds them again, which takes
minutes. This builds the workspace's tests once and runs the programs of the packages that are named.

  scripts/run_tests.py carbon-log -- --ignored
  scripts/run_tests.py carbon-store carbon-read-models -- --include-ignored

exit: 0 all passed, 1 a test failed or nothing was run, 2 wrong usage
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def programs(packages):
    """The test programs of the packages, each with the folder that cargo would run it in."""
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
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    if ran == 0:
        print(f"no tests of {', '.join(sorted(packages))}", file=sys.stderr)
    return 1 if failed or ran == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
