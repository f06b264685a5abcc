"""Whole episodes from fragments."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from parallel_rl.utils import counted
from Rollouts.fragment import Fragment, State, StepValues, cat
from Rollouts.nested import Nested, tree_map


def episodes(feed: Iterable[Fragment], batch_size: int = 1) -> Iterator[list[Fragment]]:
    """Yield whole episodes, in lists of `batch_size`.

    The environments take turns, and each yields its episodes in order. So short episodes are not overrepresented,
    although they finish sooner: an episode waits for the turn of its environment.

    An episode of L steps is a fragment `(1 + L, 1)`. `fin` is True in its first and last rows; the last row has the
    last observation of the episode, and `stepno` L. Its `lag` is the age of the weights of its first step.

    If an environment failed and was restarted (`on_env_error="restart"`), its episode is truncated before the step that
    failed; without an earlier step it is left out. So are the running episodes of a replica (`lag=1`) that died.

    Args:
        feed: the generator of `rollout`, preferably a new one: episodes that began before its next fragment are left
            out.
        batch_size: number of episodes in a list.

    Raises:
        ValueError: `batch_size` is below 1.
    """
    return _episodes(feed, counted("batch_size", batch_size))


def _episodes(feed: Iterable[Fragment], batch_size: int) -> Iterator[list[Fragment]]:
    tracks: list[Track] = []
    batch: list[Fragment] = []
    turn = 0
    for number, fragment in enumerate(feed):
        tracks = tracks or [Track(env_id) for env_id in range(fragment.state.fin.shape[1])]
        following = {name: fragment.following(name) for name in fragment.actor}
        parts = fragment.state, fragment.actor, fragment.env, fragment.next_obs, following
        first_hx = _first_hx(fragment)
        for track in tracks:
            track.append(parts, first_hx, number - fragment.lag)
        while tracks[turn].finished:
            version, episode = tracks[turn].finished.popleft()
            batch.append(replace(episode, lag=number - version))
            turn = (turn + 1) % len(tracks)
            if len(batch) == batch_size:
                yield batch
                batch = []


@dataclass
class Track:
    """The episodes of one environment."""

    env_id: int
    finished: deque[tuple[int, Fragment]] = field(default_factory=deque)
    """Finished episodes, each with the `version` of its first step."""
    parts: list[tuple[State, Any, Any]] = field(default_factory=list)
    """The running episode: from each fragment its states, the actor's outputs and the flags, `(n, 1, ...)`."""
    hx: Nested = None
    """The recurrent state at the start of the running episode."""
    version: int = 0
    """The version of the weights at its first step: the number of that fragment, less its lag."""

    def append(self, parts: tuple[Nested, ...], first_hx: dict[tuple[int, int], Nested], version: int) -> None:
        """Add this environment's column of a fragment.

        Args:
            parts: `state`, `actor`, `env` and `next_obs` of the fragment, and `following` for each of its outputs.
            first_hx: the result of `_first_hx`.
            version: of the weights that acted.
        """
        state, actor, env, next_obs, following = tree_map(lambda tensor: tensor[:, self.env_id, None], parts)
        fin, valid = state.fin[:, 0].tolist(), env["valid"][:, 0].tolist()
        for start, stop in _runs(fin, valid):
            if fin[start]:
                self.parts, self.hx, self.version = [], first_hx[start, self.env_id], version
            elif not self.parts:
                continue  # this episode began before the first fragment
            self.parts.append(_rows((state, actor, env), start, stop))
            if fin[stop]:
                final_outputs, obs = _rows((following, next_obs), stop - 1, stop)
                self._finish(_rows(state, stop, stop + 1)._replace(obs=obs), final_outputs)
            elif stop < len(valid):  # step `stop` failed: its row has the observation of the step before
                self._finish(*_rows((state, actor), stop, stop + 1))

    def _finish(self, last: State, final_outputs: dict[str, Nested]) -> None:
        """Join the parts of the episode, with the last row `(1, 1, ...)`."""
        states, infos, flags = zip(*self.parts, strict=True)
        self.parts = []
        env = cat([*flags])
        env["truncated"][-1] |= ~env["terminated"][-1]
        steps = len(env["valid"])
        last = last._replace(stepno=torch.full_like(last.stepno, steps), fin=torch.ones_like(last.fin))
        values = tree_map(lambda tensor: tensor[0], final_outputs)
        look_ahead = StepValues(steps - 1, torch.zeros(1, dtype=torch.int64, device=last.fin.device), values)
        episode = Fragment(
            state=cat([*states, last]),
            actor=cat([*infos, final_outputs]),
            env=env,
            hx=tree_map(torch.clone, self.hx),
            look_aheads=() if env["terminated"][-1] else (look_ahead,),
        )
        self.finished.append((self.version, episode))


def _rows(tree: Nested, start: int, stop: int) -> Any:
    return tree_map(lambda tensor: tensor[start:stop], tree)


def _first_hx(fragment: Fragment) -> dict[tuple[int, int], Nested]:
    """Return the recurrent state `(layers, 1, ...)` at the start of each episode, by its row and environment."""
    rows = torch.arange(fragment.state.fin.shape[1])
    return {
        (entry.step + 1, env_id): tree_map(lambda tensor: tensor[:, place : place + 1], entry.values)  # noqa: B023
        for entry in (StepValues(-1, rows, fragment.hx), *fragment.first_hx)
        for place, env_id in enumerate(entry.envs.tolist())
    }


def _runs(fin: list[bool], valid: list[bool]) -> Iterator[tuple[int, int]]:
    """Yield the first row of each part of an episode, and the row after its last step; each step in it is valid.

    Args:
        fin: for 1 + T rows.
        valid: for the T steps between them. In a step that is not valid, the environment waited (`fin` is True before
            it), or the step failed.
    """
    start = 0
    for step, taken in enumerate(valid):
        if not taken:
            if not fin[step]:
                yield start, step
            start = step + 1
        elif fin[step + 1]:
            yield start, step + 1
            start = step + 1
    if start < len(valid):
        yield start, len(valid)
