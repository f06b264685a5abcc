from Rollouts import BaseActorModule


class Actor(BaseActorModule):
    def reset(self, hx, at):
        ...
        return hx_update

    def step(self, stepno, obs, act, rew, fin, /, *, hx, virtual):
        ...
        return actions_to_take, hx_update, auxiliary_info
