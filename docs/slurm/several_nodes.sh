#!/bin/bash
#SBATCH --job-name=ddray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=4
#SBATCH --mem=128G
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append

# Several nodes as one Ray cluster: sbatch docs/slurm/several_nodes.sh sweeps/full_grid.yaml
# The store (DDRAY_STORE) and the data (DDRAY_DATA) lie where all nodes see them, DDRAY_CACHE on each node's own disk.

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" -- ddray sweep "$@" --address auto
code=$?
if [ "$code" -eq 130 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
