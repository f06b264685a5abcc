"""AsyncPPO: its steps, its two modes, and equal runs for equal seeds on every backend."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from AsyncPPO import AsyncPPO, EnvError, evaluate
from AsyncPPO.callbacks import BackgroundEvaluation, Callback
from PPO import PPO
from tests.covering import rest_slow
from tests.envs import Counter, Faulty


def trainer(steps: int = 600, num_envs: int = 4, **kwargs: Any) -> AsyncPPO:
    ppo = PPO(False, 4, 2, batch_size=128, mini_batch_size=32, k_epochs=2, seed=0)
    defaults = {"seed": 0, "progress": False, "backend": "inline"}
    return AsyncPPO("CartPole-v1", ppo, num_envs, steps, **(defaults | kwargs))


def test_async_ppo_takes_the_positional_arguments_of_the_seed() -> None:
    ppo = PPO(False, 4, 2)
    run = AsyncPPO("CartPole-v1", ppo, 3, 500)
    assert (run.ppo, run.num_envs, run.steps) == (ppo, 3, 500)
    assert run.env.num_envs == run.buffer.num_envs == 3
    run.close()
    defaults = AsyncPPO("CartPole-v1", ppo)
    assert (defaults.num_envs, defaults.steps, defaults.mode) == (32, 100_000, "streaming")
    defaults.close()


@pytest.mark.covering
@pytest.mark.parametrize("mode", ["streaming", "mask"])
@pytest.mark.parametrize("num_envs", [1, 7])
def test_run_exceeds_its_steps_by_less_than_one_vector_step(mode: str, num_envs: int) -> None:
    with trainer(600, num_envs, mode=mode) as run:
        run.run()
        assert 600 <= run.steps_done < 600 + num_envs


def test_streaming_updates_as_soon_as_there_is_a_batch() -> None:
    with trainer(steps=512) as run:
        history = run.run()
        assert [row["steps"] for row in history] == [128, 256, 384, 512]
        assert len(run.buffer) == len(run.ppo.memory) == 0


def test_mask_mode_updates_when_all_environments_have_finished() -> None:
    updates = []
    with trainer(steps=2000, num_envs=8, mode="mask") as run:
        learn = run.ppo.learn

        def spy(*arguments: Any) -> dict[str, float]:
            updates.append((run.env.finished.all(), run.steps_done >= 2000))
            return learn(*arguments)

        run.ppo.learn = spy  # type: ignore[method-assign]
        history = run.run()
    assert all(finished or over for finished, over in updates)
    assert len(history) >= 2
    assert history[0]["episodes"] % 8 == 0


def test_the_fraction_done_is_zero_before_a_run_and_one_after_each() -> None:
    with trainer(steps=256) as run:
        assert run.fraction_done == 0
        run.run()
        assert run.fraction_done == 1
        next(run.updates())
        assert run.fraction_done == 0.5


def test_a_run_whose_one_vector_step_is_beyond_twice_its_end_updates_as_at_its_end() -> None:
    with trainer(steps=128, num_envs=300) as run:
        assert run.run()[-1]["steps"] == 300
        assert run.fraction_done == 1


def test_history_has_the_metrics_and_a_second_run_continues() -> None:
    with trainer(steps=600) as run:
        history = run.run()
        assert {"steps", "seconds", "episodes", "mean_return", "mean_length", "policy_loss", "lr"} <= history[0].keys()
        assert np.isfinite(run.mean_return)
        first = run.steps_done
        assert run.run() is run.history
        assert run.steps_done == first + 600


def test_updates_can_be_stopped_and_continued() -> None:
    with trainer(steps=512) as run:
        for update in run.updates():
            if update["steps"] >= 256:
                break
        assert [row["steps"] for row in run.history] == [128, 256]
        assert [row["steps"] for row in run.updates()] == [384, 512]
        assert [row["steps"] for row in run.updates()] == [640, 768, 896, 1024]
        assert len(run.history) == 8


def test_leftover_transitions_are_used_by_the_next_run() -> None:
    with trainer(steps=200) as run:
        run.run()
        assert [row["steps"] for row in run.history] == [128]
        assert len(run.buffer) == 72
        assert [row["steps"] for row in run.run()] == [128, 256, 384]


@pytest.mark.parametrize("mode", ["streaming", "mask"])
def test_config_and_seed_determine_a_run_on_every_backend(mode: str) -> None:
    weights = []
    for backend in ("inline", "inline", "process"):
        with trainer(mode=mode, backend=backend, num_workers=2, num_envs=5) as run:
            run.run()
            weights.append(torch.cat([parameter.flatten() for parameter in run.ppo.policy.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    with trainer(mode=mode, seed=1) as run:
        run.run()
        other = torch.cat([parameter.flatten() for parameter in run.ppo.policy.parameters()])
    assert not torch.equal(weights[0], other)


@pytest.mark.parametrize("env", rest_slow("Pendulum-v1", "CartPole-v1"))
def test_gradient_workers_give_the_weights_of_one_process_to_the_bit(env: str) -> None:
    """Bit for bit: minibatches of 700 rows, in three shards, in one, two and three processes."""
    weights = []
    for workers in (1, 2, 3):
        with gym.make(env) as single:
            ppo = PPO.for_env(
                single, batch_size=1400, mini_batch_size=700, k_epochs=2, seed=0, normalize_obs=True, target_kl=0.02,
                use_RND=True, entropy_coef=0.01, value_clip=0.2,
            )  # fmt: skip
        backend: Any = "inline" if workers == 1 else "process"
        with AsyncPPO(env, ppo, 6, 2820, backend=backend, num_workers=workers, seed=0, progress=False) as run:
            history = run.run()
        assert len(history) == 2
        weights.append(torch.cat([parameter.flatten() for parameter in run.ppo.policy.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_subclass_that_overrides_act_is_queried_centrally() -> None:
    class Stubborn(PPO):
        def act(self, *arguments: Any, **options: Any) -> Any:
            actions, extras = super().act(*arguments, **options)
            return np.ones_like(actions), extras

    with AsyncPPO("CartPole-v1", Stubborn(False, 4, 2, seed=0), 2, 50, backend="inline", progress=False) as run:
        assert run.acting == "central"
        run.run()
        assert all((trajectory.action == 1).all() for trajectory in run.buffer.take())


def test_batch_sizes_may_change_between_two_runs() -> None:
    with trainer(steps=256, backend="process", num_workers=2) as run:
        run.run()
        run.ppo.mini_batch_size = 128
        assert len(run.run()) == 4
        run.ppo.batch_size = run.ppo.mini_batch_size = 64
        assert [row["steps"] for row in run.run()][4:] == [576, 640, 704, 768]
        run.ppo.batch_size = 1000
        with pytest.raises(ValueError, match="was batch_size raised later"):
            run.run()


def test_acting_chooses_where_the_policy_acts() -> None:
    with trainer() as run:
        assert run.acting == "replicas"
    with trainer(acting="central") as run:
        assert run.acting == "central"
        assert len(run.run()) == 4
    with trainer(mode="mask") as run:
        assert run.acting == "central"
    with AsyncPPO("CartPole-v1", PPO(False, 4, 2, learner="torch"), 4, 100, backend="inline") as run:
        assert run.acting == "replicas"
    with pytest.raises(ValueError, match="acting='replicas' needs mode='streaming'"):
        trainer(mode="mask", acting="replicas")
    with pytest.raises(ValueError, match="two small MLPs in float32 on the CPU"):
        AsyncPPO("CartPole-v1", PPO(False, 4, 2, hidden_sizes=(1500, 1500)), acting="replicas")


def test_annealing_follows_the_fraction_of_the_steps() -> None:
    ppo = PPO(False, 4, 2, lr=0.1, batch_size=128, mini_batch_size=128, k_epochs=1, anneal_lr=True, seed=0)
    with AsyncPPO("CartPole-v1", ppo, 4, 512, progress=False, backend="inline") as run:
        assert [row["lr"] for row in run.run()] == pytest.approx([0.075, 0.05, 0.025, 0.0])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"num_envs": -2}, "num_envs must be at least 1"),
        ({"mode": "async"}, "mode must be 'streaming' or 'mask'"),
        ({"backend": "gpu"}, "backend must be"),
        ({"acting": "both"}, "acting must be one of auto, central, replicas, not 'both'"),
    ],
)
def test_trainer_with_a_wrong_argument_names_it(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(**bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"n_envs": 2}, r"AsyncPPO\(\) got an unexpected keyword argument 'n_envs': did you mean 'num_envs'\?"),
        ({"total_timesteps": 2}, r"unexpected keyword argument 'total_timesteps': did you mean 'steps'\?"),
        ({"callback": []}, "unexpected keyword argument 'callback': did you mean 'callbacks'"),
        ({"ppo": PPO}, "the agent must be an object such as .*, not <class"),
        ({"ppo": "CartPole-v1"}, "the agent must be an object such as .*, not 'CartPole-v1'"),
        ({"callbacks": Callback()}, r"callbacks must be a list of `Callback` objects, also for one: \[...\], not <"),
        ({"callbacks": [Callback]}, "callbacks must be a list of `Callback` objects, not of <class"),
        ({"info_keys": iter(["distance"])}, "info_keys must be a list of names, not the iterator <"),
        ({"info_keys": ["distance", 3]}, "info_keys must be a list of names, not of 3"),
        ({"callbacks": [print]}, "callbacks must be a list of `Callback` objects, not of <built-in"),
    ],
)
def test_trainer_with_an_argument_of_another_kind_names_it(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        AsyncPPO(**({"env": "CartPole-v1", "ppo": PPO(False, 4, 2)} | bad))


def test_evaluation_with_an_argument_of_another_kind_names_it() -> None:
    for actor in (lambda obs: 0, PPO):
        with pytest.raises(TypeError, match="the actor must be an object with the method `get_action`, not <"):
            evaluate(actor, "CartPole-v1")
    ppo = PPO(False, 4, 2)
    with pytest.raises(TypeError, match=r"evaluate\(\) got an unexpected keyword argument 'determinist"):
        evaluate(ppo, "CartPole-v1", determinist=True)
    with pytest.raises(TypeError, match=r"'n_eval_episodes': did you mean 'episodes'\?"):
        evaluate(ppo, "CartPole-v1", n_eval_episodes=5)
    with pytest.raises(TypeError, match=r"BackgroundEvaluation\(\) got an unexpected keyword argument 'determin"):
        BackgroundEvaluation("CartPole-v1", 100, deterministic=True)


def test_agent_for_other_spaces_is_refused() -> None:
    for ppo, message in [
        (PPO(False, 3, 2), "observ_dim=3, but .*CartPole-v1.* needs 4"),
        (PPO(False, 4, 5), "action_dim=5"),
        (PPO(True, 4, 2), "is_continuous=True"),
    ]:
        with pytest.raises(ValueError, match=message):
            AsyncPPO("CartPole-v1", ppo)


def test_an_error_comes_without_the_warning_of_too_few_steps(recwarn: pytest.WarningsRecorder) -> None:
    ppo = PPO(False, 3, 2)
    with pytest.raises(ValueError, match="observ_dim=3"):
        AsyncPPO("CartPole-v1", ppo, steps=100)
    with pytest.raises(ValueError, match="no environment 'CartPol-v1'"):
        AsyncPPO("CartPol-v1", ppo, steps=100)
    with AsyncPPO("CartPole-v1", PPO(False, 4, 2), 1, steps=100, progress=False, backend="inline") as run:
        assert not recwarn.list
        run.run()
    assert [Path(warning.filename).name for warning in recwarn] == [Path(__file__).name]


def test_a_run_in_which_no_episode_ended_warns_once(recwarn: pytest.WarningsRecorder) -> None:
    for length in (150, 10**9):
        ppo = PPO.for_env(Counter(), batch_size=128, mini_batch_size=64, k_epochs=1)
        with AsyncPPO(partial(Counter, length), ppo, 4, 600, progress=False, backend="inline") as run:
            run.run()
    assert [str(warning.message)[:37] for warning in recwarn] == ["no episode ended within 600 steps, so"]


def test_failing_environment_ends_the_run_with_its_name() -> None:
    ppo = PPO(False, 3, len(Faulty.FAULTS), batch_size=64, mini_batch_size=64, seed=0)
    with (
        AsyncPPO(Faulty, ppo, 4, 1000, backend="inline", seed=0, progress=False) as run,
        pytest.raises(EnvError, match=r"environment \d "),
    ):
        run.run()


def test_a_stop_before_the_first_run_ends_it_and_not_the_next() -> None:
    with trainer() as run:
        run.stop("at once", skip_slow_work=True)
        assert not list(run.run())
        assert (run.steps_done, run.stopped, run.skip_slow_work) == (0, "at once", True)
        assert run.run()
        assert (run.steps_done, run.stopped, run.skip_slow_work) == (600, None, False)
        run.stop("too late")
        assert run.stopped is None
        run.run()
        assert (run.steps_done, run.stopped) == (1200, None)


def test_of_several_stops_the_first_gives_the_reason_and_one_is_enough_to_skip_slow_work() -> None:
    with trainer() as run:
        run.stop("by SIGTERM", skip_slow_work=True)
        run.stop("at a mean return of 475.0")
        assert (run.stopped, run.skip_slow_work) == ("by SIGTERM", True)
        run.run()
        run.run()
        assert (run.stopped, run.skip_slow_work) == (None, False), "they are of one run"
