"""Reinforcement learning with RLlib, whose configuration is a chain of calls."""

from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig

config = (
    PPOConfig()
    .environment("MountainWalk-v1")
    .env_runners(num_env_runners=2)
    .training(
        lr=tune.loguniform(1e-5, 1e-3),
        gamma=tune.uniform(0.9, 0.999),
        clip_param=tune.choice([0.1, 0.2, 0.3]),
        train_batch_size=tune.choice([2000, 4000]),
    )
)
tuner = tune.Tuner(
    "PPO",
    param_space=config,
    tune_config=tune.TuneConfig(metric="env_runners/episode_return_mean", mode="max", num_samples=16),
    run_config=tune.RunConfig(name="mountain", stop={"training_iteration": 50, "env_runners/episode_return_mean": 200}),
)
