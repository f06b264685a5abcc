"""How environments are stepped: the interface (base.py), the backends, and the choice of the fastest (choice.py)."""

from AsyncPPO.backends import apply
from AsyncPPO.backends.base import (
    Backend,
    EnvError,
    EnvFactory,
    FaultPolicy,
    Infos,
    Layout,
)
from AsyncPPO.backends.block import ENV_ERROR, FINAL_INFO, EnvBlock, close_env
from AsyncPPO.backends.choice import BackendName, OnEnvError, available_cores, choose_backend
from AsyncPPO.backends.elements import Actions
from AsyncPPO.backends.gradients import GradientWorkers
from AsyncPPO.backends.infos import SUCCESS, numbers_in, with_success
from AsyncPPO.backends.inline import InlineBackend
from AsyncPPO.backends.outcomes import check_finite, check_results
from AsyncPPO.backends.process import ProcessBackend
from AsyncPPO.backends.replicas import Replicas
from AsyncPPO.backends.rollout import Plan, Replica
from AsyncPPO.backends.snapshot import check_saved
from AsyncPPO.backends.vector import EnvPool, PoolBlock, make_pool
from AsyncPPO.backends.vector_env import VectorEnvPool
from AsyncPPO.workers import CLOSE_SECONDS, RESTART_LIMIT, StartMethod, choose_start_method, why_no_children

__all__ = [
    "CLOSE_SECONDS",
    "ENV_ERROR",
    "FINAL_INFO",
    "RESTART_LIMIT",
    "SUCCESS",
    "Actions",
    "Backend",
    "BackendName",
    "EnvBlock",
    "EnvError",
    "EnvFactory",
    "EnvPool",
    "FaultPolicy",
    "GradientWorkers",
    "Infos",
    "InlineBackend",
    "Layout",
    "OnEnvError",
    "Plan",
    "PoolBlock",
    "ProcessBackend",
    "Replica",
    "Replicas",
    "StartMethod",
    "VectorEnvPool",
    "apply",
    "available_cores",
    "check_finite",
    "check_results",
    "check_saved",
    "choose_backend",
    "choose_start_method",
    "close_env",
    "make_pool",
    "numbers_in",
    "why_no_children",
    "with_success",
]
