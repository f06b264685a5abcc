"""What is wrong with an actor is one error that names it, before the first step."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from Rollouts import BaseActorModule, evaluations, rollout
from tests.envs import Counter


class NeverStepped(Counter):
    def step(self, action: int) -> Any:
        pytest.fail("a step was taken")


class Numbered(Counter):
    """Shows its number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def reset(self, **options: Any) -> Any:
        obs, info = super().reset(**options)
        return np.full_like(obs, self.number), info


class Fine(BaseActorModule):
    """Returns correct outputs, except for those that a test replaces."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, obs: Tensor, *, hx: Any, **_: Any) -> Any:
        fine = {"act": torch.zeros(obs.shape[:2], dtype=torch.int64), "hx": (torch.zeros(1, obs.shape[1], 3),)}
        fine["info"] = {"value": torch.zeros(obs.shape[:2])}
        parts = {name: part(obs, hx) if callable(part) else part for name, part in self.parts.items()}
        outputs = fine | parts
        return outputs["all"] if "all" in outputs else (outputs["act"], outputs["hx"], outputs["info"])


def in_place(obs: Tensor, hx: Any) -> Any:
    if hx is not None:
        hx[0].mul_(0.5)
    return hx or (torch.zeros(1, obs.shape[1], 3),)


def growing(obs: Tensor, hx: Any) -> Any:
    return (torch.zeros(1, obs.shape[1], 3 if hx is None else 4),)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"all": torch.zeros(2)}, "Fine.step must return actions, hx and a dict of tensors, not tensor"),
        ({"info": torch.zeros(1, 2)}, "Fine.step must return actions, hx and a dict of tensors, not "),
        ({"act": torch.zeros(1, 3, dtype=torch.int64)}, r"the actions of Fine.step .* shape \(1, 2\), not \(1, 3\)"),
        ({"act": torch.zeros(1, 2)}, "the actions of Fine.step .* must be torch.int64, not torch.float32"),
        ({"act": {"move": torch.zeros(1, 2)}}, "the actions of Fine.step do not fit the action space"),
        ({"act": [[0, 0]]}, "the actions of Fine.step do not fit the action space"),
        ({"info": {"value": torch.zeros(2)}}, r"'value' in the info of Fine.step .* shape \(1, 2, ...\), not \(2,\)"),
        ({"info": {"deep": {"value": 1.0}}}, "'deep.value' in the info of Fine.step must be a tensor, not 1.0"),
        ({"hx": torch.zeros(2, 3)}, r"the hx of Fine.step must have shape \(layers, 2, ...\), not \(2, 3\)"),
        ({"hx": in_place}, "Fine.step changed its hx.0 in place: it must return new tensors"),
        ({"hx": growing}, r"the hx that Fine.step returns .* shape \(1, 2, 3\), not \(1, 2, 4\)"),
        ({"info": lambda obs, hx: {"value": obs.mul_(2)}}, "Fine.step changed its obs in place"),
    ],
)  # fmt: skip
def test_a_wrong_output_of_an_actor_is_an_error_before_the_first_step(parts: dict[str, Any], message: str) -> None:
    feed = rollout(NeverStepped, Fine(**parts), 3, 2)
    with pytest.raises((TypeError, ValueError), match=message):
        next(feed)


class Broken(Fine):
    """Raises an error in `reset` or `step`."""

    def __init__(self, where: str, error: Any) -> None:
        super().__init__()
        self.where, self.error = where, error

    def reset(self, hx: Any, at: Any) -> Any:
        if self.where == "reset":
            raise self.error()
        return super().reset(hx, at)

    def forward(self, obs: Tensor, *, hx: Any, **_: Any) -> Any:
        if self.where == "step":
            raise self.error()
        return super().forward(obs, hx=hx)


class Unpicklable(Exception):
    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


LAGS = [{}, {"num_workers": 2, "lag": 1}]


@pytest.mark.parametrize("options", LAGS)
@pytest.mark.parametrize("where", ["step", "reset"])
def test_an_error_in_the_actor_names_it_and_is_the_cause_before_the_first_step(where: str, options: Any) -> None:
    feed = rollout(NeverStepped, Broken(where, partial(KeyError, "logits")), 3, 2, **options)
    with pytest.raises(RuntimeError, match=rf"^Broken\.{where} failed: KeyError: 'logits'$") as caught:
        next(feed)
    assert type(caught.value) is RuntimeError
    assert repr(caught.value.__cause__) == "KeyError('logits')"


def test_an_error_that_cannot_leave_its_worker_is_a_cause_in_words() -> None:
    with pytest.raises(RuntimeError, match=r"^Broken\.step failed: Unpicklable: 2 and 3$") as caught:
        next(rollout(NeverStepped, Broken("step", partial(Unpicklable, 2, 3)), 3, 2, **LAGS[1]))
    assert "raise self.error()" in str(caught.value.__cause__)


def test_a_wrong_output_in_a_worker_is_the_same_error() -> None:
    with pytest.raises(TypeError, match=r"^Fine.step must return actions, hx and a dict of tensors, not tensor"):
        next(rollout(NeverStepped, Fine(all=torch.zeros(2)), 3, 2, **LAGS[1]))


@pytest.mark.parametrize("options", LAGS)
def test_an_action_out_of_range_names_the_actor_and_the_environment(options: Any) -> None:
    def only_the_last_is_wrong(obs: Tensor, hx: Any) -> Tensor:
        return torch.where(obs[..., 0] == 3, 7, 0)

    feed = rollout([partial(Numbered, number) for number in range(4)], Fine(act=only_the_last_is_wrong), 3, **options)
    with pytest.raises(
        ValueError, match=r"^the actions of Fine\.step do not fit the action space: environment 3 cannot"
    ) as caught:
        next(feed)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"envs": [Counter] * 2, "num_envs": 3}, "num_envs is 3, but envs is a list of 2"),
        ({"device": "gpu"}, "device must be auto or one that torch knows, .* not 'gpu'"),
        ({"device": "cuda"}, "device='cuda', but torch finds no GPU"),
        ({"device": torch.device("cuda")}, "device='cuda', but torch finds no GPU"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_an_error_of_the_call(
    arguments: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        rollout(**{"envs": NeverStepped, "actor": Fine(), **arguments})


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        (NeverStepped, {"device": "cuda"}, "device='cuda', but torch finds no GPU"),
        ([Counter] * 2, {"episodes": 3}, "episodes is 3, but env is a list of 2"),
        (NeverStepped, {"episodes": 0}, "episodes must be at least 1, not 0"),
    ],
)
def test_a_wrong_argument_of_evaluations_is_an_error_of_the_call(
    env: Any, options: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        evaluations(env, Fine(), **options)


def test_an_unknown_argument_is_named_with_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"rollout\(\) got an unexpected keyword argument 'n_envs': .* 'num_envs'\?"):
        rollout(NeverStepped, Fine(), n_envs=2)  # type: ignore[call-arg]


def test_a_reset_in_place_is_an_error_before_the_first_step() -> None:
    class InPlace(Fine):
        def reset(self, hx: Any, at: Any) -> Any:
            hx[0][:, at] = 0
            return hx

    with pytest.raises(ValueError, match=r"InPlace\.reset changed its hx\.0 in place"):
        next(rollout(NeverStepped, InPlace(), 3, 2))


def test_wrong_arguments_are_an_error_when_the_class_is_defined() -> None:
    with pytest.raises(TypeError, match=r"Swapped\.reset must take \(self, hx, at\), not \(self, at, hx=None\)"):

        class Swapped(BaseActorModule):
            def reset(self, at, hx=None):  # type: ignore[no-untyped-def, override]
                ...

    with pytest.raises(TypeError, match=r"Old\.step must take \(self, stepno, obs, act, rew, fin, /, \*, hx, virtual"):

        class Old(BaseActorModule):
            def step(self, obs, act, rew, fin, *, hx=None):  # type: ignore[no-untyped-def, override]
                ...


def test_wrong_arguments_of_forward_are_an_error_where_step_calls_it() -> None:
    class Few(BaseActorModule):
        def forward(self, obs, hx=None):  # type: ignore[no-untyped-def]
            ...

    class Own(Few):
        def step(self, stepno, obs, act, rew, fin, /, *, hx, virtual):  # type: ignore[no-untyped-def]
            return torch.full(obs.shape[:2], 2), (), {}

    for make in (rollout, evaluations):
        with pytest.raises(
            TypeError, match=r"Few\.forward must take \(self, obs, \*, act, .*, virtual\), or \*\*_ for those"
        ):
            make(Counter, Few())
    assert next(rollout(Counter, Own(), 3, 2)).lag == 0


def test_an_object_without_actor_methods_is_an_error() -> None:
    for make in (rollout, evaluations):
        with pytest.raises(TypeError, match=r"Linear is not an actor: it has no method reset\(self, hx, at\)"):
            make(Counter, nn.Linear(1, 1))


def test_any_object_with_the_two_methods_acts() -> None:
    class Constant:
        def reset(self, hx, at):  # type: ignore[no-untyped-def]
            return hx

        def step(self, stepno, obs, act, rew, fin, /, *, hx, virtual):  # type: ignore[no-untyped-def]
            return torch.full(obs.shape[:2], 2), (), {}

    fragment = next(rollout(Counter, Constant(), 3, 2))
    assert (fragment.state.act[1:] == 2).all()
    assert fragment.actor == {}
