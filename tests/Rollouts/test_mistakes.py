"""What is wrong with an actor is one error that names it, before the first step."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from Rollouts import BaseActorModule, evaluations, rollout
from tests.envs import Counter


class NeverStepped(Counter):
    def step(self, action: int) -> Any:
        pytest.fail("a step was taken")


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
