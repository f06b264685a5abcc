"""ActorCritic: a policy and its value function."""

import warnings
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from parallel_rl.networks import (
    CategoricalHead,
    Core,
    CoreName,
    Distribution,
    GaussianHead,
    MultiCategoricalHead,
    Perception,
    RunningNorm,
    ValueHead,
    make_policy_head,
    mlp,
)
from parallel_rl.networks.encoders import ACTIVATIONS
from parallel_rl.utils import ALONE, Features, Ranks, choices_of, unseen_images
from PPO.fast.distributions import Bounds, Choices
from PPO.fast.policy import Architecture

OBS_CLIP = 10.0
NUMBERS_OR_IMAGE = (
    "{part} counts as plain numbers, which go into the network as they are. If it is an image, let its space be a Box "
    "of uint8, or of floats between 0 and 1 or 0 and 255, of shape (H, W), (H, W, C), (C, H, W) or a stack of these: "
    "then it goes through convolutions. If it is not, normalize_obs=True normalizes it; encoder= takes a network of "
    "your own."
)
MakeEncoder = Callable[[Features], nn.Module]
"""Makes a module that turns columns of observations `(B, columns)` into features `(B, F)`."""

Past = tuple[torch.Tensor, torch.Tensor]
"""The recurrent state `(B, S)` before each row, and which rows are the first of a sequence, bool `(B,)`."""


class ActorCritic(nn.Module):
    """A policy and a value function, each with an encoder and a head.

    Observations are rows of columns (`utils.Features`). By default an encoder is an MLP. Its inputs are the plain
    numbers, and the features of a convolutional network for each image. A recurrent core may follow, which actor and
    critic share. Without images the encoders are separate and use tanh, as Andrychowicz et al. 2021 (arXiv:2006.05990)
    recommend in section 3.2.

    A subclass may replace `actor`, `critic`, `core`, `policy_head` and `value_head`, and override `forward`,
    `distribution`, `value` and `step`, as long as they agree with each other.

    Args:
        observation_space: of one environment.
        action_space: of one environment.
        squash: whether bounded continuous actions are squashed by tanh; otherwise they are clipped.
        hidden_sizes: units of the layers of each encoder's MLP.
        activation: tanh, relu or silu.
        share_encoder: whether actor and critic share one encoder; by default only with images or a core.
        encoder: makes each encoder, in place of the default one.
        core: gru or lstm for a recurrent policy.
        core_size: H, the number of features that the core returns.
        log_std: the Gaussian's initial log standard deviation.
        action_unit: of continuous actions with an infinite bound, a positive number or one for each dimension.
        use_sde: whether the noise of continuous actions depends on the state (gSDE).
        values: V, the number of value functions: one for each reward.
        normalize_obs: whether to normalize the numbers in observations by running statistics.
        bf16: whether the encoders compute in bfloat16 (Micikevicius et al. 2018, arXiv:1710.03740). This is faster
            for images and large networks if the processor supports it. Everything else stays in float32.
        generator: of the initial weights.

    Raises:
        TypeError: a space is not supported, or `encoder` makes no module.
        ValueError: the activation or core is unknown, a core has separate encoders, or the size of the action mask
            is not the number of choices.
    """

    obs_norm: RunningNorm | None

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *,
        squash: bool = True,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        share_encoder: bool | None = None,
        encoder: MakeEncoder | None = None,
        core: CoreName = "none",
        core_size: int = 64,
        log_std: float = 0.0,
        action_unit: float | np.ndarray = 1.0,
        use_sde: bool = False,
        values: int = 1,
        normalize_obs: bool = False,
        bf16: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.features, self.action_space = _features_of(observation_space, warn=encoder is None), action_space
        self.hidden_sizes, self.activation = tuple(hidden_sizes), activation
        self._custom, self._bf16 = encoder is not None, bf16
        generator = generator or _fresh_generator()
        numbers, recurrent = self.features.vector, core != "none"
        self.obs_norm = RunningNorm(numbers, OBS_CLIP) if normalize_obs and numbers else None
        share = recurrent or bool(self.features.images) if share_encoder is None else share_encoder
        if recurrent and not share:
            raise ValueError("share_encoder=False does not work with a core, which actor and critic share")
        self.actor = self._make_encoder(encoder, generator)
        self.critic = self.actor if share else self._make_encoder(encoder, generator)
        self.eval()  # no dropout, so that the first ratio of an update is 1
        width = self._width(self.actor)
        self.core: Core | None = None
        if recurrent:
            self.core, width = Core(core, width, core_size, generator), core_size
        self.policy_head = make_policy_head(action_space, width, squash, log_std, generator, use_sde, action_unit)
        self.value_head = ValueHead(width, values, generator)
        self.features.check_mask_size(self.policy_head.choices, action_space)

    def _make_encoder(self, make: MakeEncoder | None, generator: torch.Generator) -> nn.Module:
        if make is not None:
            return _made(make, self.features)
        if not self.features.images:
            return mlp(self.features.vector, self.hidden_sizes, self.activation, generator)
        perception = Perception(self.features, generator)
        return nn.Sequential(perception, *mlp(perception.outputs, self.hidden_sizes, self.activation, generator))

    def _width(self, encoder: nn.Module) -> int:
        """Return the number of features of an encoder, by calling it once."""
        columns = self.features.columns
        try:
            with torch.no_grad():
                features = encoder(torch.zeros(1, columns))
        except Exception as error:
            raise ValueError(
                f"the encoder must turn (1, {columns}) into (1, F), but it failed: {type(error).__name__}: {error}"
            ) from error
        if not torch.is_tensor(features):
            raise TypeError(f"the encoder must turn (1, {columns}) into (1, F), not into a {type(features).__name__}")
        if features.ndim != 2 or len(features) != 1:
            raise ValueError(f"the encoder must turn (1, {columns}) into (1, F), not into {tuple(features.shape)}")
        return features.shape[1]

    def forward(self, obs: torch.Tensor, past: Past | None = None) -> tuple[Distribution, torch.Tensor]:
        """Return the policy and the normalized values `(B, V)` of normalized observations `(B, D)`.

        Args:
            obs: the observations.
            past: recurrent states and starts of sequences; for a recurrent policy.
        """
        inputs, mask = self._split(obs)
        features = self._recall(self._encode(self.actor, inputs), past)
        own = features if self.critic is self.actor else self._encode(self.critic, inputs)
        return self.policy_head(features, mask), self.value_head(own)

    def distribution(self, obs: torch.Tensor, past: Past | None = None) -> Distribution:
        """Return only the policy."""
        inputs, mask = self._split(obs)
        return self.policy_head(self._recall(self._encode(self.actor, inputs), past), mask)

    def value(self, obs: torch.Tensor, past: Past | None = None) -> torch.Tensor:
        """Return only the values `(B, V)`, in units of reward."""
        features = self._recall(self._encode(self.critic, self._split(obs)[0]), past)
        return self.value_head.stats.inverse(self.value_head(features))

    def step(self, obs: torch.Tensor, state: torch.Tensor) -> tuple[Distribution, torch.Tensor]:
        """Return the policy, and the next recurrent state `(B, S)` after `state` `(B, S)`."""
        inputs, mask = self._split(obs)
        features = self._encode(self.actor, inputs)
        if self.core is not None:
            features, state = self.core.step(features, state)
        return self.policy_head(features, mask), state

    def deterministic_actions(self, obs: torch.Tensor, core: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Return deterministic actions `(B, ...)` for observations `(B, D)` before normalization, for an export.

        For a Dict or Tuple space the actions of each part are separate; after them comes the next recurrent state
        `(B, S)`, if the policy is recurrent.
        """
        distribution, state = self.step(self.normalize(obs), obs[:, :0] if core is None else core)
        actions = self.policy_head.to_action(distribution.mode())
        parts = actions if isinstance(actions, tuple) else (actions,)
        return parts if core is None else (*parts, state)

    def _encode(self, encoder: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        if not self._bf16:
            return encoder(inputs)
        with torch.autocast(inputs.device.type, torch.bfloat16):
            return encoder(inputs).float()

    def _recall(self, features: torch.Tensor, past: Past | None) -> torch.Tensor:
        if self.core is None:
            return features
        assert past is not None
        return self.core(features, *past)

    def normalize(self, obs: torch.Tensor) -> torch.Tensor:
        """Return normalized observations `(B, D)`, which the other methods take."""
        return obs if self.obs_norm is None else self.obs_norm.leading(obs)

    def update_statistics(self, obs: torch.Tensor, ranks: Ranks = ALONE) -> None:
        """Update the running statistics of `normalize` with observations `(B, D)` of all ranks."""
        if self.obs_norm is not None:
            self.obs_norm.update(obs[:, : self.features.vector], ranks)

    def _split(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the columns for the encoders, and the action mask."""
        return self.features.split(obs.float() if self._custom else obs)

    @property
    def first_layers(self) -> list[tuple[str, str]]:
        """The names of weights and biases whose first inputs are the normalized numbers; none of your own networks."""
        if self._custom or type(self) is not ActorCritic:
            return []
        if self.hidden_sizes:
            index = 1 if self.features.images else 0
            layers = [f"actor.{index}", f"critic.{index}"]
        elif self.core is not None:
            return [("core.layer.weight_ih_l0", "core.layer.bias_ih_l0")]
        else:
            linear = [name for name, layer in self.named_modules() if isinstance(layer, nn.Linear)]
            layers = [name for name in linear if name.startswith(("policy_head.", "value_head."))]
        return [(f"{layer}.weight", f"{layer}.bias") for layer in layers]

    def stacked_parameters(self) -> list[nn.Parameter]:
        """Return the parameters in the order of `Architecture.views`: actor and critic alternate, layer by layer."""
        encoders = zip(self.actor.parameters(), self.critic.parameters(), strict=True)
        return [*chain.from_iterable(encoders), *self.policy_head.parameters(), *self.value_head.parameters()]

    def architecture(self) -> Architecture | None:
        """Return the structure of the NumPy policy; None if these networks are not two MLPs with a simple head."""
        layers, head = [nn.Linear, ACTIVATIONS[self.activation]] * len(self.hidden_sizes), self.policy_head
        separate = type(self) is ActorCritic and not self._custom and not self._bf16 and self.critic is not self.actor
        mlps = all([type(layer) for layer in encoder.children()] == layers for encoder in (self.actor, self.critic))
        if not separate or not mlps or type(head) not in (GaussianHead, CategoricalHead, MultiCategoricalHead):
            return None
        bounds, choices = None, None
        if isinstance(head, GaussianHead):
            outputs = head.mean.out_features
            scale, offset, low, high = (bound.cpu().numpy() for bound in (head.scale, head.offset, head.low, head.high))
            bounds = Bounds(scale, offset, low, high, head.squash)
        else:
            outputs = head.choices
            counts, starts = zip(*choices_of(self.action_space), strict=True)
            choices = Choices(counts, np.reshape(starts, -1 if isinstance(head, MultiCategoricalHead) else ()))
        return Architecture(
            self.features,
            None if self.obs_norm is None else OBS_CLIP,
            self.hidden_sizes,
            self.activation,
            outputs,
            self.value_head.normal.out_features,
            bounds,
            choices,
        )


def _made(make: MakeEncoder, features: Features) -> nn.Module:
    """Return the encoder that a function of the user makes.

    Raises:
        TypeError: it is not a function, or does not return a module.
    """
    if isinstance(make, nn.Module) or not callable(make):
        what = f"the module {make}" if isinstance(make, nn.Module) else repr(make)
        raise TypeError(f"encoder must be a function of Features that returns a module, not {what}")
    encoder = make(features)
    if not isinstance(encoder, nn.Module):
        raise TypeError(f"encoder must return a module, not {encoder!r}")
    return encoder


def _fresh_generator() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator


def _features_of(space: spaces.Space, warn: bool) -> Features:
    """Return the features of an observation space; optionally warn about images that are treated as numbers.

    Raises:
        TypeError: the space has no elements.
    """
    features = Features.of(space)
    if not features.columns:
        raise TypeError(f"the observation space {space} is not supported: it has no elements")
    for part in unseen_images(space) if warn else ():
        warnings.warn(NUMBERS_OR_IMAGE.format(part=part), stacklevel=3)
    return features
