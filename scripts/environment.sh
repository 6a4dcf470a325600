# Sourced by search.sh and test.sh: makes .venv beside this folder if it is missing, and installs the package into it.
# Usage: prepare_environment <extra or empty>; leaves $root and $python set.
#
# The versions are those of constraints.txt, with which the package was tested. NAS_CONSTRAINTS=<file> takes another
# file of constraints, NAS_CONSTRAINTS= (empty) the newest versions that there are when it installs.
#
# lowest.txt holds the lower bounds of pyproject.toml, for Python 3.11. This runs the tests with them in a clone of
# their own (ruff and mypy are left out: their findings depend on their version, and on PyTorch's type hints):
#
#   NAS_CONSTRAINTS=scripts/lowest.txt bash -c '. scripts/environment.sh; prepare_environment dev; $python -m pytest -n auto'
#
# This renews constraints.txt, once the tests pass with the newest versions. It leaves out what PyTorch itself names
# exactly (CUDA, Triton), since platforms differ in it:
#
#   NAS_CONSTRAINTS= bash scripts/test.sh && {
#       echo "# Made by the command in environment.sh"
#       .venv/bin/python -m pip freeze --all --exclude-editable | grep -Eiv '^(pip|wheel|nvidia-.*|cuda-.*|triton)=='
#   } > scripts/constraints.txt

prepare_environment() {
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    python="$root/.venv/bin/python"
    local requirement="$root${1:+[$1]}"
    local constraints="${NAS_CONSTRAINTS-$root/scripts/constraints.txt}"
    if [ -n "$constraints" ] && [ ! -r "$constraints" ]; then
        echo "NAS_CONSTRAINTS=$constraints is not a file that can be read." >&2
        exit 2
    fi
    if [ ! -x "$python" ]; then
        local system="${PYTHON:-python3}"
        "$system" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "Python 3.11 or newer is needed; name one with PYTHON=<path>." >&2
            exit 2
        }
        "$system" -m venv "$root/.venv" || exit 1
    fi
    # Installed already, with these dependencies and this extra? Then pip, which takes seconds, has nothing to do.
    local versions=(--upgrade --upgrade-strategy eager)
    [ -n "$constraints" ] && versions=(--constraint "$constraints")
    local wanted
    wanted="$(echo "$root"; cat "$root/pyproject.toml"; [ -z "$constraints" ] || cat "$constraints")"
    local marker="$root/.venv/installed${1:+-$1}"
    if [ "$(cat "$marker" 2>/dev/null)" != "$wanted" ]; then
        # pip is about to change the versions below the other extra, too: what was installed for others is void.
        local other
        for other in "$root"/.venv/installed*; do
            [ "$(cat "$other" 2>/dev/null)" = "$wanted" ] || rm -f "$other"
        done
        echo "Installing into $root/.venv, once; PyTorch and CUDA are gigabytes, which takes minutes ..." >&2
        "$python" -m pip install -qq --disable-pip-version-check "${versions[@]}" --editable "$requirement" || exit 1
        printf '%s\n' "$wanted" > "$marker"
    fi
}
