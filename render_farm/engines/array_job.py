"""What is asked of a SLURM cluster. Light: these are flags of `turntable-farm slurm` as well."""

from dataclasses import dataclass

from engine.command_line import Unset


@dataclass(frozen=True)
class ArrayJob:
    """What is asked of the cluster."""

    array: int = 16
    """Jobs in the array."""
    at_a_time: int = 0
    """Jobs that run at a time; 0: as many as the cluster gives."""
    cpus: int = 16
    """Cores of each job."""
    gpus: int = 0
    """GPUs of each job; one Blender for each."""
    memory_gb: int = 64
    """Memory of each job."""
    time: str = "24:00:00"
    """Time limit of each job, as sbatch takes it; a job that meets it is not started again by itself."""
    partition: Unset[str] = None
    """Partition of the cluster; by default the cluster's own choice."""
    setup: str = ""
    """Shell line that makes `turntable-farm` available, such as 'source /shared/venv/bin/activate'."""
