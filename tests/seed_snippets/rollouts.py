import torch

from Rollouts import rollout
from rlplay_parts import Actor, gym, rl_algorithm_loss

actor = Actor()  # minimal compatibility requirements
optim = torch.optim.SGD(actor.parameters())

# infinite rollout generator with each 120 steps long fragment coming
#  from a batch of eight environments
feed = rollout([gym.make(...) for _ in range(8)], actor, n_steps=120)

for j, fragment in zip(range(100), feed):  # limit rollout to 100 fragments

    # here we compute the loss for an A2C or D-DQN algorithm for a fragment
    loss, info = rl_algorithm_loss(fragment, actor)

    # do the optimization
    optim.zero_grad()
    loss.backward()
    optim.step()
