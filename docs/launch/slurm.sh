#!/bin/bash
#SBATCH --job-name=digits-mlp
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@60
#SBATCH --requeue

# One process a node, which SLURM tells which one it is. A minute before the time is up the run is
# saved; when a node is lost all others end, and the same script goes on.
srun --kill-on-bad-exit=1 \
    python -m train run digits-mlp \
    --workdir=/shared/runs/digits-mlp \
    --parallel=shard_map \
    --distributed \
    --start-seconds=300
