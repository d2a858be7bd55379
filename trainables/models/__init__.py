"""Model code shared by the trainables: plain `nn.Module`s that draw every random number from a passed generator.

Import the modules (`trainables.models.gpt`), not this package: it imports nothing, so that it costs nothing.
"""
