"""What the families of language models share: tokens on disk, windows of them, loss, evaluation, a base class.

`LanguageTrainable` (`trainable`) is what a family derives from; `TokenFolder` (`tokens`) and `FolderWriter`
(`token_writer`) are how text lies on disk; `bpe` and `encoding` make byte-level BPE tokens of text files. Import the
modules, not this package: it imports nothing, so that it costs nothing.
"""
