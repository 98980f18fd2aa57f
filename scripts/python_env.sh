#!/usr/bin/env bash
# Creates a Python virtual environment with the given packages and prints the path of its Python. Later calls with the
# same requirements use the same environment. Without arguments it installs what the clients in scripts/foreign need.
#
# usage: scripts/python_env.sh [REQUIREMENT... | -r FILE...]
#
# A FILE contains one requirement per line; # starts a comment. The environment depends on the requirements, not on the
# file's name.
#
# Environments are in ${XDG_CACHE_HOME:-~/.cache}/carbon-ml/python and can be deleted at any time.
set -euo pipefail

[ $# -gt 0 ] || set -- 'confluent-kafka[avro]==2.16.*'
wanted=()
while [ $# -gt 0 ]; do
    if [ "$1" = -r ]; then
        [ -r "${2:-}" ] || { echo "python_env.sh: cannot read ${2:-the file: -r needs a file name}" >&2; exit 1; }
        while read -r requirement; do wanted+=("$requirement"); done < <(sed 's/ *#.*//; /^ *$/d' "$2")
        shift
    else
        wanted+=("$1")
    fi
    shift
done
set -- "${wanted[@]}"
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
    { echo "python_env.sh: $python is missing or older than Python 3.9; set PYTHON to another one" >&2; exit 1; }

# The environment depends on the Python version too.
key="$("$python" -c 'import hashlib, platform, sys
parts = [platform.python_version(), sys.base_prefix, *sorted(sys.argv[1:])]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16])' "$@")"
home="${XDG_CACHE_HOME:-$HOME/.cache}/carbon-ml/python/$key"
# Environments of earlier calls have the marker file `whole`, so its name must stay.
is_complete() { [ -e "$home/whole" ] && "$home/bin/python" -c '' 2>/dev/null; }

if ! is_complete; then
    mkdir -p "$(dirname "$home")"
    exec 9>"$home.lock"
    flock 9 # only one of several concurrent calls creates the environment
    if ! is_complete; then
        # The marker is written last: without it, the installation is incomplete.
        rm -f "$home/whole"
        echo "python_env.sh: installing $*" >&2
        # Child processes must not inherit the lock (9>&-): it must end with this script.
        "$python" -m venv --clear "$home" >&2 9>&-
        "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@" >&2 9>&-
        touch "$home/whole"
    fi
fi
echo "$home/bin/python"
