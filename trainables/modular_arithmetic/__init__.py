"""Modular arithmetic: an LSTM or a GPT learns `a + b = r` mod p from part of the table, and may grok the rest.

Power et al. 2022 (arXiv 2201.02177). `ModularArithmetic` is the trainable, `api` a Python API for single
runs, `inspection` looks into trained models. Importing this package does not import torch.
"""

from trainables.modular_arithmetic.config import ModelConfig, ModularArithmeticConfig
from trainables.modular_arithmetic.trainable import ModularArithmetic

__all__ = ["ModelConfig", "ModularArithmetic", "ModularArithmeticConfig"]
