#!/usr/bin/env bash
# A preset on a SLURM cluster: one experiment, or an array of them over λ and training seeds, on one node or several.
#
#   sbatch --gpus=1 docs/slurm.sh table1
#   sbatch --gpus=1 --array=0-8 --dependency=afterok:JOB docs/slurm.sh table1   # LAMBDAS × SEEDS: index = λ · seeds + seed
#   LAMBDAS="0.5 1" SEEDS="0 1 2" sbatch --gpus=1 --array=0-5 --dependency=afterok:JOB docs/slurm.sh table1
#   sbatch --nodes=2 --gpus-per-node=8 docs/slurm.sh table1                     # heavy stages in 16 processes
#
# To be submitted from the root of a clone that all nodes see, with `dvc` and `torchrun` on the PATH. Each experiment
# runs in a temporary copy (`dvc exp run --temp`); `dvc exp show` has all of them. An array waits for JOB, the first
# line's: diffusion model and gradients are then in DVC's run cache, where every task would compute them for itself
# otherwise. A task whose experiment is there already ends at once.
# 60 s before a job's time is up SIGTERM comes: the running stage saves its state, the job goes back into the queue, and
# its next start goes on from there. At preemption it comes where the cluster says so (send_user_signal, GraceTime).
#SBATCH --job-name=pag
#SBATCH --output=slurm-%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --time=04:00:00
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -euo pipefail

preset=${1:?usage: sbatch [--array=…] [--nodes=…] docs/slurm.sh PRESET}
read -ra lambdas <<< "${LAMBDAS:-0.5 1 2}"
read -ra seeds <<< "${SEEDS:-0 1 2}"

experiment=()
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    count=$((${#lambdas[@]} * ${#seeds[@]}))
    if ((SLURM_ARRAY_TASK_ID >= count)); then
        echo "there is no experiment $SLURM_ARRAY_TASK_ID: LAMBDAS × SEEDS are $count, expected --array=0-$((count - 1))" >&2
        exit 2
    fi
    lambda=${lambdas[SLURM_ARRAY_TASK_ID / ${#seeds[@]}]} seed=${seeds[SLURM_ARRAY_TASK_ID % ${#seeds[@]}]}
    name=$preset-lambda-${lambda//./_}-seed-$seed
    commit=$(git rev-parse HEAD)
    if git show-ref --verify --quiet "refs/exps/${commit:0:2}/${commit:2}/$name"; then
        echo "$name is there already, for this commit: \`dvc exp remove $name\` to run it again"
        exit 0
    fi
    experiment=(--name "$name" -S "lambda=$lambda" -S "training_seed=$seed")
fi

nodes=${SLURM_JOB_NUM_NODES:-1} processes=${SLURM_GPUS_ON_NODE:-1}
export OMP_NUM_THREADS=$((${SLURM_CPUS_PER_TASK:-1} > processes ? ${SLURM_CPUS_PER_TASK:-1} / processes : 1))
if ((nodes > 1)); then
    head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
    endpoint=$head:$((20000 + SLURM_JOB_ID % 10000))
    # In a session of its own, since srun answers SIGTERM by killing its tasks: scancel below sends it to them.
    PAG_LAUNCHER="setsid --wait srun --ntasks-per-node=1 --cpus-per-task=${SLURM_CPUS_PER_TASK:-1} --kill-on-bad-exit=1"
    PAG_LAUNCHER+=" torchrun --nnodes=$nodes --nproc-per-node=$processes --rdzv-backend=c10d"
    PAG_LAUNCHER+=" --rdzv-endpoint=$endpoint --rdzv-id=$SLURM_JOB_ID"
    export PAG_LAUNCHER
elif ((processes > 1)); then
    export PAG_LAUNCHER="torchrun --standalone --nproc-per-node=$processes"
fi

arguments=$(python -m stages.preset "$preset")
read -ra values <<< "$arguments"
stopped=
trap 'stopped=yes' TERM
log=$(mktemp)
trap 'rm -f "$log"' EXIT

run() {
    set -m # a process group of its own, in which DVC ignores the signal and waits for its stage, which does not
    (trap '' TERM && dvc exp run --temp "${values[@]}" "${experiment[@]}" 2>&1 | tee "$log") &
    job=$! status=0
    wait "$job" || status=$?
}
locked() { # by another task: at the beginning, or at the end, when all stages are up to date
    tail -n 10 "$log" | grep -qE "Unable to acquire lock|is busy, it is being blocked"
}

run
while [[ -z $stopped ]] && ((status)) && locked; do
    sleep $((5 + RANDOM % 20)) &
    wait $! || true # until then, or until the signal
    [[ -n $stopped ]] || run
done
if [[ -n $stopped ]]; then # the signal ended `wait`
    echo "told to stop: the running stage saves its state"
    while kill -0 "$job" 2> /dev/null; do # more than once: a stage may have been about to start
        ((nodes == 1)) || scancel --signal=TERM "$SLURM_JOB_ID" || true
        kill -TERM -- "-$job" || true
        sleep 5
    done
    status=0
    wait "$job" || status=$?
    ((status == 0)) || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
