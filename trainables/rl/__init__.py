"""Reinforcement learning with verifiable rewards: one core (GRPO and its variants) for every family of models."""
