#!/usr/bin/env bash
# Lint, types and tests, one process per core: bash scripts/test.sh [arguments of pytest]
set -u
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment "dev"
cd "$root" || exit 1
"$python" -m ruff check . || exit 1
"$python" -m ruff format --check . || exit 1
"$python" -m mypy || exit 1
# worksteal: neighbours, which share fixtures, stay in one process until another one has nothing left to do
exec "$python" -m pytest --numprocesses=auto --dist=worksteal "$@"
