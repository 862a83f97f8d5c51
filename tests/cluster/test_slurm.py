"""docs/slurm.sh with the variables that SLURM sets and commands in the place of its own: two nodes are two processes
of this machine, on loopback. What stands in for DVC says how it was called, and runs a stage as DVC does."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs/slurm.sh"

COMMANDS = {
    # like SLURM's, one task a node with its number, each in a session of its own; SIGTERM kills them
    "srun": """
while [[ $1 == --* ]]; do shift; done
trap 'kill -KILL -- $(sed s/^/-/ "$FAKE/tasks"); exit 1' TERM
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
    SLURM_NODEID=$node SLURM_PROCID=$node setsid "$@" & tasks+=($!)
done
printf '%s\\n' "${tasks[@]}" > "$FAKE/tasks"
status=0
for task in "${tasks[@]}"; do wait "$task" || status=$?; done
rm -f "$FAKE/tasks"
exit $status
""",
    "scontrol": """
if [[ $1 == show ]]; then printf '127.0.0.1\\nelsewhere\\n'; else echo "$@" >> "$FAKE/requeued"; fi
""",
    # to every process of the tasks, the launcher's children too
    "scancel": """
[[ $1 == --signal=TERM ]] && python - $(cat "$FAKE/tasks") <<'END'
import psutil, sys
tasks = [psutil.Process(int(task)) for task in sys.argv[1:]]
for process in [*tasks, *(child for task in tasks for child in task.children())]:
    process.terminate()
END
""",
    "dvc": """
printf '%s\\n' "$@" > "$FAKE/arguments"
echo "${OMP_NUM_THREADS:-}" > "$FAKE/threads"
echo "${PAG_LAUNCHER:-}" > "$FAKE/launcher"
if [[ -n ${PAG_LAUNCHER:-} ]]; then $PAG_LAUNCHER -m tests.cluster.slurm.steps "$FAKE"; fi
""",
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    for name, text in COMMANDS.items():
        stand_in(tmp_path, name, text)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PAG_", "OMP_"))}
    return kept | {"PATH": path, "FAKE": str(tmp_path), "SLURM_JOB_ID": "7", "PYTHONPATH": str(ROOT)}


def submit(environment: dict[str, str], folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    task = environment | variables
    return subprocess.run([SCRIPT, "digits-lambda"], cwd=folder, env=task, capture_output=True, text=True, check=False)


def arguments(folder: Path) -> list[str]:
    return (folder / "arguments").read_text().splitlines()


@pytest.mark.parametrize(("index", "weight", "seed"), [(0, "0.5", "0"), (4, "1", "1"), (8, "2", "2")])
def test_an_array_goes_over_weights_and_seeds(
    index: int, weight: str, seed: str, environment: dict[str, str], tmp_path: Path
) -> None:
    done = submit(environment, SLURM_ARRAY_TASK_ID=str(index), SLURM_CPUS_PER_TASK="6")
    assert done.returncode == 0, done.stderr
    given = arguments(tmp_path)
    assert given[:3] == ["exp", "run", "--temp"] and "-S" in given[3:]
    assert given[-4:] == ["-S", f"lambda={weight}", "-S", f"training_seed={seed}"]
    assert (tmp_path / "threads").read_text().strip() == "6"
    assert (tmp_path / "launcher").read_text().strip() == ""


def test_lists_of_ones_own_and_an_index_beyond_them(environment: dict[str, str], tmp_path: Path) -> None:
    lists = {"LAMBDAS": "0.25", "SEEDS": "5 6"}
    assert submit(environment, **lists, SLURM_ARRAY_TASK_ID="1").returncode == 0
    assert arguments(tmp_path)[-3:] == ["lambda=0.25", "-S", "training_seed=6"]
    beyond = submit(environment, **lists, SLURM_ARRAY_TASK_ID="2")
    assert beyond.returncode == 2 and "expected --array=0-1" in beyond.stderr


def stand_in(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/usr/bin/env bash\n{text}")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    "lock",
    [
        "Unable to acquire lock. Most likely another DVC process is running",
        "'/clone/.dvc/tmp/rwlock' is busy, it is being blocked by:",
    ],
)
def test_a_task_waits_for_dvcs_locks_and_for_nothing_else(
    environment: dict[str, str], tmp_path: Path, lock: str
) -> None:
    """Tasks of an array start together, and DVC gives up after three seconds."""
    others = "failed to reproduce"
    stand_in(tmp_path, "sleep", "")
    stand_in(
        tmp_path, "dvc", 'echo >> "$FAKE/calls"; (($(wc -l < "$FAKE/calls") > 2)) || { echo "$SAID" >&2; exit 255; }'
    )
    waits = submit(environment, SAID=f"ERROR: {lock}", SLURM_ARRAY_TASK_ID="0")
    assert waits.returncode == 0 and waits.stdout.count(lock) == 2
    (tmp_path / "calls").unlink()
    assert submit(environment, SAID=f"ERROR: {others}", SLURM_ARRAY_TASK_ID="0").returncode != 0
    assert (tmp_path / "calls").read_text() == "\n"


def test_a_task_that_waits_for_the_lock_can_be_told_to_stop(environment: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, "dvc", 'echo >> "$FAKE/calls"; echo "Unable to acquire lock"; exit 255')
    stand_in(tmp_path, "sleep", "echo sleeps; exec /bin/sleep 90 > /dev/null")
    waiting = subprocess.Popen([SCRIPT, "digits-lambda"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    assert [waiting.stdout.readline() for _ in range(2)] == ["Unable to acquire lock\n", "sleeps\n"]
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(60) != 0
    assert (tmp_path / "requeued").read_text().split() == ["requeue", "7"]
    assert (tmp_path / "calls").read_text() == "\n"


def test_an_experiment_that_is_there_is_done(environment: dict[str, str], tmp_path: Path) -> None:
    """As DVC names it; a task that SLURM starts again would otherwise fail, and what waits for it."""
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    ref = f"refs/exps/{commit[:2]}/{commit[2:]}/digits-lambda-lambda-0_5-seed-0"
    subprocess.run(["git", "update-ref", ref, commit], cwd=tmp_path / "clone", check=True)
    for index, done in (("0", True), ("1", False)):
        found = submit(environment, tmp_path / "clone", SLURM_ARRAY_TASK_ID=index)
        assert found.returncode == 0 and ("is there already" in found.stdout) is done
        assert (tmp_path / "arguments").exists() is not done


def test_several_gpus_of_a_node_share_its_cores(environment: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, "torchrun", "")
    assert submit(environment, SLURM_GPUS_ON_NODE="4", SLURM_CPUS_PER_TASK="16").returncode == 0
    assert (tmp_path / "launcher").read_text().split() == ["torchrun", "--standalone", "--nproc-per-node=4"]
    assert (tmp_path / "threads").read_text().strip() == "4"


def test_a_task_of_several_nodes_has_all_cores_of_its_node(environment: dict[str, str], tmp_path: Path) -> None:
    """srun of SLURM 22.05 on gives a step one core unless told."""
    environment |= {"SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "6", "SLURM_GPUS_ON_NODE": "2"}
    stand_in(tmp_path, "srun", "")
    assert submit(environment, SLURM_JOB_NODELIST="n[1-2]").returncode == 0
    launcher = (tmp_path / "launcher").read_text().split()
    assert launcher[: launcher.index("torchrun")] == [
        "setsid", "--wait", "srun", "--ntasks-per-node=1", "--cpus-per-task=6", "--kill-on-bad-exit=1"
    ]  # fmt: skip
    assert (tmp_path / "threads").read_text().strip() == "3"


def test_the_directives_are_what_the_script_relies_on() -> None:
    directives = [line.split()[1] for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"--requeue", "--signal=B:TERM@60", "--open-mode=append", "--ntasks-per-node=1"} <= set(directives)


def free_port() -> int:
    """One of those that the script takes."""
    for port in range(20000, 30000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are taken")


@pytest.mark.slow
def test_a_job_of_two_nodes_goes_on_after_preemption(environment: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    variables = {"SLURM_JOB_ID": str(port - 20000), "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
    environment |= variables
    first = subprocess.Popen([SCRIPT, "digits-lambda"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    while "step 3 " not in (line := first.stdout.readline()):
        assert line, first.wait()
    first.send_signal(signal.SIGTERM)  # to the shell of the batch script alone
    assert first.wait(60) != 0
    states = {int((tmp_path / f"state-{node}").read_text()) for node in range(2)}
    assert len(states) == 1 and 3 < max(states) < 40
    assert (tmp_path / "requeued").read_text().split() == ["requeue", variables["SLURM_JOB_ID"]]
    second = submit(environment)
    assert second.returncode == 0, second.stderr
    assert [int((tmp_path / f"done-{node}").read_text()) for node in range(2)] == [*states, *states]
