"""The workflow of nanoGPT (https://github.com/karpathy/nanoGPT) on rung's engine: its configuration files, its keys,
its commands and its files. `python -m trainables.character_streams` is the way in; importing this imports no torch.
"""
