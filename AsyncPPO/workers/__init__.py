"""Child processes: a pool of workers that run any tasks."""

from AsyncPPO.workers.channel import CLOSE_SECONDS, RESTART_LIMIT, Channel, Pickled, Pulse, SharedBuffers, WorkerError
from AsyncPPO.workers.handle import Job, Worker
from AsyncPPO.workers.pool import Supervisor, Tasks, WorkerPool, WorkerSpec
from AsyncPPO.workers.processes import StartMethod, choose_start_method, why_no_children

__all__ = [
    "CLOSE_SECONDS",
    "RESTART_LIMIT",
    "Channel",
    "Job",
    "Pickled",
    "Pulse",
    "SharedBuffers",
    "StartMethod",
    "Supervisor",
    "Tasks",
    "Worker",
    "WorkerError",
    "WorkerPool",
    "WorkerSpec",
    "choose_start_method",
    "why_no_children",
]
