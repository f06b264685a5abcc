# Import
from PPO import PPO
from AsyncPPO import EnvVectorizer, VecMemory

import utils

import torch as t
import numpy as np

from tqdm import tqdm

import gymnasium as gym

# Main loop
if __name__ == '__main__':
	# Create environment
	env = gym.make('CartPole-v1')

	# Initialise neural network (or your own implementation)
	ppo = PPO(
		is_continuous=False, 
		observ_dim=env.observation_space.shape[0],
		action_dim=env.action_space.n, 
		lr=0.001,
		# action_scaling=1.0,
		policy_clip=0.2, 
		k_epochs=11, 
		GAE_lambda=0.95, 
		batch_size=1024, 
		mini_batch_size=512, 
		gamma=0.995,
		use_RND=True, 
		beta=0.001
	)

	env = EnvVectorizer(env=env, num_envs=32) # Vectorised env
	buffer = VecMemory(num_envs=32) # Vectorized buffer with one buffer for every env

	# Data collecting loop with tqdm progress bar
	pbar = tqdm(
		total=100000,
		unit='step'
	)

	while pbar.n < pbar.total:
		states = env.reset()[0] # Get states

		rewards_score = np.array(0.) # Reset rewards score
		steps_score = np.array(0) # Reset steps score

		while True:
			# Get actions, state values, and log probabilities
			actions = ppo.get_action(t.from_numpy(states)) 

			# Execute steps
			next_states, rewards, dones, truncates, _ = env.step(actions) 

			# Append data in our AsyncPPO.VecMemory buffer
			utils.buffer_append(
				buffer,

				states, 
				actions, 
				rewards, 
				dones,

				is_env_terminal=env.envs_active,
				num_envs=32
			) 

			# Sifting states with done or truncate = True features, and also update envs activity list
			states = utils.inactive_states_dropout(next_states, dones | truncates) 
			env.envs_active = utils.update_active_environments_list(env.envs_active, dones | truncates)

			rewards_score += sum(rewards) # Update rewards score
			steps_score += sum(~env.envs_active) # Update steps score

			# If all environments are terminal we finish the episode
			if np.all(env.envs_active): 
				# Transfer data from our local buffer to ppo.memory buffer for ppo learning. You also can use your own function for transfer data in your own neural network buffer.
				utils.buffer_to_target_buffer_transfer(buffer, ppo.memory) 
				ppo.learn() # Launch the learning function

				pbar.set_description(f'Mean reward {rewards_score / 32: .1f}')
				pbar.update(min(pbar.total - pbar.n, steps_score))

				break # Get out from the episode and start new one
