# Sourced by search.sh and test.sh: makes .venv beside this folder if it is missing, and installs the package into it.
# Usage: prepare_environment <extra or empty>; leaves $root and $python set.

prepare_environment() {
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    python="$root/.venv/bin/python"
    local requirement="$root${1:+[$1]}"
    if [ ! -x "$python" ]; then
        local system="${PYTHON:-python3}"
        "$system" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "Python 3.11 or newer is needed; name one with PYTHON=<path>." >&2
            exit 2
        }
        "$system" -m venv "$root/.venv" || exit 1
    fi
    # Installed already, with these dependencies and this extra? Then pip, which takes seconds, has nothing to do.
    local wanted
    wanted="$(cat "$root/pyproject.toml"; echo "$requirement")"
    local marker="$root/.venv/installed${1:+-$1}"
    if [ "$(cat "$marker" 2>/dev/null)" != "$wanted" ]; then
        "$python" -m pip install -qq --disable-pip-version-check --editable "$requirement" || exit 1
        printf '%s\n' "$wanted" > "$marker"
    fi
}
