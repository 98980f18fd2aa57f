#!/usr/bin/env bash
# Prints the path of a Python that has these packages, in a folder of its own that later calls take again.
# Unless said, what scripts/foreign needs.
#
# usage: scripts/python_env.sh [REQUIREMENT... | -r FILE...]
#
# A FILE holds one requirement a line; a # begins a comment. What it says makes the folder, not its name.
#
# The folder lies under ${XDG_CACHE_HOME:-~/.cache}/carbon-ml/python; it may be deleted at any time.
set -euo pipefail

[ $# -gt 0 ] || set -- 'confluent-kafka[avro]==2.16.*'
wanted=()
while [ $# -gt 0 ]; do
    if [ "$1" = -r ]; then
        [ -r "${2:-}" ] || { echo "python_env.sh: cannot read ${2:-a file: none is named}" >&2; exit 1; }
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
    { echo "python_env.sh: $python is not there, or older than 3.9" >&2; exit 1; }

# Another Python makes another environment.
of="$("$python" -c 'import hashlib, platform, sys
parts = [platform.python_version(), sys.base_prefix, *sorted(sys.argv[1:])]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16])' "$@")"
home="${XDG_CACHE_HOME:-$HOME/.cache}/carbon-ml/python/$of"
whole() { [ -e "$home/whole" ] && "$home/bin/python" -c '' 2>/dev/null; }

if ! whole; then
    mkdir -p "$(dirname "$home")"
    exec 9>"$home.lock"
    flock 9 # of two that start at once, one makes it
    if ! whole; then
        # The mark comes last: without it, what lies there is half of one.
        rm -f "$home/whole"
        echo "python_env.sh: installing $*" >&2
        # Neither may keep the lock for longer than this script lives.
        "$python" -m venv --clear "$home" >&2 9>&-
        "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@" >&2 9>&-
        touch "$home/whole"
    fi
fi
echo "$home/bin/python"
