"""A module that registers an environment: what `--env-id` takes before a colon."""

import gymnasium as gym

from tests.AsyncPPO.test_infos import Goal

gym.register("Goal-v0", Goal)
