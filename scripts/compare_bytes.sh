#!/usr/bin/env bash
# Proof that a refactoring changes no result: the same short runs in two trees, and whether they write the same bytes.
#
#   bash scripts/compare_bytes.sh [options] A B    A and B: a commit, a branch, or the folder of a worktree
#
#   --only debug,tpe     these runs only
#   --results FOLDER     keep the run folders here; what a commit has run already is not run again
#   --list               print the names of the runs
#
# The interpreter is $PYTHON, or .venv/bin/python beside this folder. A and B run side by side, one thread each.
# Exit codes: 0 the same bytes, 1 a difference or a failed run, 2 bad input.
set -u

# Run, how, settings of train_search.py. How: search; retrain, train_final.py follows; resume, the search is killed
# after its first checkpoint and resumed.
small="scale=small search.epochs=1 final.epochs=1 data.split.train=256 data.split.validation=256 data.split.test=200"
runs="
debug            retrain  experiment=debug
darts            retrain  experiment=darts_first_order $small
darts_second     search   experiment=darts_second_order $small
nasbench201      search   experiment=nasbench201_darts $small
joint            search   $small search.epochs=2 search.warmup_epochs=0
joint_last_step  search   experiment=debug hypergradient=last_step hypergradient@hyperparameters.gradient=last_step
joint_forward    search   experiment=debug hypergradient@hyperparameters.gradient=forward_accumulation
joint_implicit   search   experiment=debug hypergradient=conjugate_gradient hypergradient@hyperparameters.gradient=by_kind
tuned            search   experiment=debug method=tuned method.epochs=2 method.trials=3
multi_start      search   experiment=debug method=multi_start search.epochs=2 method.start_epochs=1
random           search   experiment=debug method=random budget.evaluations=6 evaluation.epochs=2
tpe              search   experiment=debug method=tpe budget.evaluations=14 evaluation.epochs=1
resumed          resume   experiment=debug search.checkpoint_every=5
cheap            resume   experiment=debug search.epochs=6 search.checkpoint_every=7
"
# Where names have changed: run, a file, and the settings in a tree that has this file.
renamed="
debug            conf/experiment/exact.yaml  experiment=[debug,exact]
joint            conf/experiment/exact.yaml  experiment=exact $small search.epochs=2 search.warmup_epochs=0
joint_last_step  conf/experiment/exact.yaml  experiment=[debug,exact] hypergradient=last_step hypergradient@hyperparameters.gradient=last_step
joint_forward    conf/experiment/exact.yaml  experiment=[debug,exact] hypergradient@hyperparameters.gradient=forward_accumulation
joint_implicit   conf/experiment/exact.yaml  experiment=[debug,exact] hypergradient=conjugate_gradient hypergradient@hyperparameters.gradient=by_kind
tuned            conf/experiment/exact.yaml  experiment=[debug,exact] method=tuned method.epochs=2 method.trials=3
multi_start      conf/experiment/exact.yaml  experiment=[debug,exact] method=multi_start search.epochs=2 method.start_epochs=1
resumed          conf/experiment/exact.yaml  experiment=[debug,exact] search.checkpoint_every=5
tuned        conf/method/rehearsed.yaml       experiment=debug method=rehearsed method.rehearsal.epochs=2 method.rehearsal.trials=3
multi_start  conf/method/several_starts.yaml  experiment=debug method=several_starts search.epochs=2 method.start_epochs=1
"
quiet="tracking.console=quiet tracking.tensorboard=false device=cpu"

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
python="${PYTHON:-$root/.venv/bin/python}"

refuse() {
    echo "compare_bytes.sh: $1" >&2
    exit 2
}

names() {
    awk 'NF { print $1 }' <<< "$runs"
}

settings_in() {  # RUN TREE SETTINGS: those of the run in this tree, where SETTINGS are the usual ones
    local run file other
    while read -r run file other; do
        [ "$run" = "$1" ] && [ -e "$2/$file" ] && { echo "$other"; return; }
    done <<< "$renamed"
    echo "$3"
}

# In a subshell: the script of a tree, which imports nas from there, with all that could change digits held fixed.
call() {  # TREE SCRIPT SETTINGS...
    cd "$work" || exit 1
    export PYTHONPATH="$1" PYTHONHASHSEED=0 CUDA_VISIBLE_DEVICES=
    export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    exec "$python" "$1/$2" "${@:3}"
}

kill_after_checkpoint() {  # PROCESS FOLDER
    until compgen -G "$2/checkpoints/*.pt" > /dev/null; do
        kill -0 "$1" 2> /dev/null || return 1
        sleep 0.02
    done
    kill -KILL "$1"
    wait "$1" 2> /dev/null
    [ ! -e "$2/candidate.json" ] || { echo "the search ended before it could be killed" >&2; return 1; }
}

execute() {  # TREE FOLDER HOW SETTINGS...
    local tree="$1" folder="$2" how="$3"
    call "$tree" train_search.py "hydra.run.dir=$folder" "${@:4}" &
    if [ "$how" = resume ]; then
        kill_after_checkpoint $! "$folder" || return 1
        (call "$tree" train_search.py "resume=$folder") || return 1
    else
        wait $! || return 1
    fi
    [ -s "$folder/candidate.json" ] && [ -s "$folder/metrics.csv" ] || return 1
    [ "$how" = retrain ] || return 0
    (call "$tree" train_final.py "candidate=$folder") && [ -s "$folder/final/result.json" ]
}

# The run in RESULTS/RUN, with a file "command" where it succeeded. Made unless the same command succeeded before.
make_run() {  # TREE RESULTS RUN HOW SETTINGS
    local folder="$2/$3" settings command made
    read -ra settings <<< "$(settings_in "$3" "$1" "$5") $quiet"
    command="$4 ${settings[*]}, $environment"
    [ "$(cat "$folder/command" 2> /dev/null)" = "$command" ] && return
    made="$unfinished/$3-$BASHPID"
    mkdir -p "$made"
    execute "$1" "$made/run" "$4" "${settings[@]}" > "$made/stdout" 2> "$made/stderr" && echo "$command" > "$made/command"
    rm -rf "$folder"
    mv -T "$made" "$folder"
}

compared() {  # FOLDER FOLDER: "same", or the first difference
    "$python" - "$1/run" "$2/run" <<'END'
import sys
from itertools import zip_longest
from pathlib import Path

folders = [Path(argument) for argument in sys.argv[1:]]
names = ("candidate.json", "metrics.csv", "result.json")
files = sorted({path.relative_to(folder) for folder in folders for name in names for path in folder.rglob(name)})
for file in files:
    missing = [side for side, folder in zip("AB", folders) if not (folder / file).exists()]
    if missing:
        sys.exit(print(f"differs: {file}, missing in {missing[0]}"))
    lines = [(folder / file).read_bytes().splitlines(keepends=True) for folder in folders]
    for number, pair in enumerate(zip_longest(*lines, fillvalue=b""), start=1):
        if pair[0] != pair[1]:
            a, b = (repr(line.decode(errors="replace").strip(" ")[:100]) for line in pair)
            sys.exit(print(f"differs: {file}, line {number}: A {a}, B {b}"))
print("same" if files else "failed: no results")
END
}

last_words() {  # FILE: its last line, or the first one where Hydra ends with a hint about itself
    if tail -n 1 "$1" | grep -q HYDRA_FULL_ERROR; then head -n 1 "$1"; else tail -n 1 "$1"; fi
}

outcome() {  # FOLDER FOLDER: that of a run in both trees, in words
    local failed=()
    [ -e "$1/command" ] || failed+=("failed in A: $(last_words "$1/stderr")")
    [ -e "$2/command" ] || failed+=("failed in B: $(last_words "$2/stderr")")
    case ${#failed[@]} in
        0) compared "$1" "$2" ;;
        1) echo "${failed[0]}" ;;
        2) echo "${failed[0]}; ${failed[1]}" ;;
    esac
}

only= results= sides=()
while [ $# -gt 0 ]; do
    case "$1" in
        --list) names; exit 0 ;;
        --only | --results)
            [ -n "${2:-}" ] || refuse "$1 needs a value."
            if [ "$1" = --only ]; then only="$2"; else results="$2"; fi
            shift ;;
        -*) refuse "$1 is no option: --only RUN,RUN, --results FOLDER and --list are." ;;
        *) sides+=("$1") ;;
    esac
    shift
done
[ ${#sides[@]} -eq 2 ] || refuse "it takes two trees, A and B: each a commit, a branch or the folder of a worktree."
for run in ${only//,/ }; do
    names | grep -qxF -- "$run" || refuse "--only=$run is not allowed: it must be among $(names | paste -sd, | sed 's/,/, /g')."
done
python="$(realpath -s "$(command -v "$python")" 2> /dev/null)" || refuse "there is no interpreter ${PYTHON:-$root/.venv/bin/python}; name one with PYTHON=<path>."
# What else decides about digits; it is part of what a kept run is known by.
environment="$("$python" -c '
import sys
from importlib.metadata import version
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("torch", "numpy", "scikit-learn")))
' 2> /dev/null), $(grep -m 1 "model name" /proc/cpuinfo)" || refuse "$python has no PyTorch."

work="$(mktemp -d)"
clean_up() {
    [ -e "$work/tree_A" ] && git -C "$root" worktree remove --force "$work/tree_A"
    [ -e "$work/tree_B" ] && git -C "$root" worktree remove --force "$work/tree_B"
    rm -rf "$work" "${unfinished:-}"
}
trap clean_up EXIT
set -m  # a process group for each run, so that a stop ends all of it
stop() {
    for job in $(jobs -p); do kill -KILL -- "-$job"; done
    exit 1
}
trap stop INT TERM

mkdir -p "${results:=$work/results}" || refuse "--results=$results is not allowed: it must be a folder that can be written."
results="$(cd "$results" && pwd -P)"
unfinished="$results/.unfinished-$$"
trees=() folders=() labels=()
for index in 0 1; do
    side="${sides[index]}"
    if [ -f "$side/train_search.py" ]; then
        tree="$(cd "$side" && pwd -P)"
    elif git -C "$root" rev-parse --verify --quiet "$side^{commit}" > /dev/null; then
        tree="$work/tree_$([ "$index" = 0 ] && echo A || echo B)"
        git -C "$root" worktree add --quiet --detach "$tree" "$side" || exit 1
    else
        refuse "$side is neither a commit nor a folder with train_search.py."
    fi
    if [ "$(git -C "$tree" rev-parse --show-toplevel 2> /dev/null)" = "$tree" ] \
        && [ -z "$(git -C "$tree" status --porcelain)" ]; then
        label="$(git -C "$tree" rev-parse --short=12 HEAD)"
        # A commit against itself is run twice: does it write the same bytes each time?
        [ "${labels[*]}" != "$label" ] || label+="-again"
    else
        label="changed-${tree##*/}-$index"
        rm -rf "${results:?}/$label"
    fi
    mkdir -p "$results/$label" || exit 1
    trees+=("$tree") folders+=("$results/$label") labels+=("$label")
done

same=0 all=0
while read -r run how settings; do
    [ -n "$run" ] || continue
    [ -z "$only" ] || [[ ",$only," == *",$run,"* ]] || continue
    for index in 0 1; do
        make_run "${trees[index]}" "${folders[index]}" "$run" "$how" "$settings" &
    done
    wait
    said="$(outcome "${folders[0]}/$run" "${folders[1]}/$run")"
    printf '%-16s %s\n' "$run" "${said:-failed: no comparison}"
    all=$((all + 1))
    [ "$said" != same ] || same=$((same + 1))
done <<< "$runs"
echo "compare_bytes: $same of $all runs the same in $SECONDS s, A ${labels[0]}, B ${labels[1]}"
[ "$same" -eq "$all" ] && [ "$all" -gt 0 ]
