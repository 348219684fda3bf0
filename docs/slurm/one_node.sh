#!/bin/bash
#SBATCH --job-name=ddray
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=4
#SBATCH --mem=128G
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append

# One node of a batch system: sbatch docs/slurm/one_node.sh sweeps/full_grid.yaml
# Three minutes before its time is over SLURM sends SIGTERM; jobs then write checkpoints, and the sweep ends with 130.
# It queues itself again until a run ends otherwise.

srun ddray sweep "$@" --cpus "$SLURM_CPUS_PER_TASK"
code=$?
if [ "$code" -eq 130 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
