#!/usr/bin/env bash
# One joint search, the retraining of what it found, and the test: bash scripts/search.sh [overrides of train_search.py]
set -u
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment ""

default="runs/search/$(date +%Y-%m-%d_%H-%M-%S)-$$"
resumed=""
for argument in "$@"; do
    case "$argument" in
        resume=* | +resume=* | ++resume=*) resumed=yes ;;
        -*) exec "$python" "$root/train_search.py" "$@" ;;  # --help, --multirun, --cfg: nothing to retrain
    esac
done
# The folder of the search as Hydra reads it, and the arguments by which train_final.py takes and resumes it.
names="$("$python" - "$default" "$@" << 'END'
import re
import shlex
import sys

from nas.errors import InvalidValue
from nas.run.overrides import at_home, parse_overrides, typed, value_of

default, *arguments = map(at_home, sys.argv[1:])
try:
    folder = value_of(arguments, "resume") or value_of(arguments, "hydra.run.dir") or default
    named = [str(one.value()) for one in parse_overrides(arguments) if one.key_or_group in ("resume", "hydra.run.dir")]
except InvalidValue:  # train_search.py will tell it
    folder, named = default, []
if any(re.search(r"(?<!\\)(\\\\)*\$\{", one) for one in named):
    allowed = "the retraining has to know the folder: give it a name without interpolations, or none"
    sys.exit(print(f"search.sh: {InvalidValue('hydra.run.dir', folder, allowed)}", file=sys.stderr) or 2)
print(folder, *shlex.split(typed("candidate", folder)), *shlex.split(typed("resume", f"{folder}/final")), sep="\n")
END
)" || exit $?
{ read -r folder; read -r candidate; read -r retraining; } <<< "$names"

# A signal that is sent to this script alone, as docker stop and SLURM's --signal=B:TERM@60 do, would end bash and leave
# the search behind: it is handed on. So is Ctrl-C, which bash lets a command behind & ignore at first; to the search two
# signals at once are one.
search() {
    "$python" "$root/train_search.py" "$@" <&0 &
    local child=$! code number told=yes
    for number in TERM HUP USR1 USR2; do trap "told=yes; kill -$number $child 2> /dev/null" "$number"; done
    trap "told=yes; kill -TERM $child 2> /dev/null" INT
    while [ "$told" ]; do  # a signal ends bash's wait, and not the search
        told=""
        wait "$child"
        code=$?
    done
    trap - TERM HUP USR1 USR2 INT
    return "$code"
}

if [ "$resumed" ]; then
    search "$@" || exit $?
else
    search "hydra.run.dir=$default" "$@" || exit $?
fi
# A retraining that was stopped goes on, too.
[ -d "$folder/final/checkpoints" ] && [ ! -e "$folder/final/result.json" ] && candidate="$retraining"
exec "$python" "$root/train_final.py" "$candidate"
