#!/usr/bin/env bash
# One joint search, the retraining of what it found, and the test: bash scripts/search.sh [overrides of train_search.py]
set -u
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment ""

folder="runs/search/$(date +%Y-%m-%d_%H-%M-%S)-$$"
for argument in "$@"; do
    case "$argument" in
        hydra.run.dir=*) folder="${argument#hydra.run.dir=}" ;;
        resume=*) folder="${argument#resume=}" ;;
        -*) exec "$python" "$root/train_search.py" "$@" ;;  # --help, --multirun, --cfg: nothing to retrain
    esac
done
case " $* " in
    *" resume="*) "$python" "$root/train_search.py" "$@" || exit $? ;;
    *) "$python" "$root/train_search.py" "hydra.run.dir=$folder" "$@" || exit $? ;;
esac
# A retraining that was stopped goes on, too.
final="candidate=$folder"
[ -d "$folder/final/checkpoints" ] && [ ! -e "$folder/final/result.json" ] && final="resume=$folder/final"
exec "$python" "$root/train_final.py" "$final"
