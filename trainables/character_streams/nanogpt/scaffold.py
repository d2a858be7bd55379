"""`new NAME`: the folder of a new experiment, with a stream that works and can be changed. Imports no torch.

NAME/README.md                what it is about; yours to write on
     config/basic.py          nanoGPT's keys
     data/basic/prepare.py    the stream function
     out/                     runs
"""

from __future__ import annotations

from pathlib import Path

from rung.errors import RungError, StorageError

COMMAND = "python -m trainables.character_streams"

README = """# {name}

What does the model have to learn, and what do you expect?

    python data/basic/prepare.py
    {command} train config/basic.py --max_iters=200
    {command} train config/basic.py
    {command} sample config/basic.py --num_samples=1 --max_new_tokens=100 --seed=2345

A small change, and what it does:

    {command} train config/basic.py --out_dir=out/faster --learning_rate=3e-3
    {command} compare out/basic out/faster
    {command} report

## What happened

"""

CONFIG = '''"""{name}: a small model that a processor trains in minutes."""

out_dir = "out/basic"
dataset = "basic"

eval_interval = 50
eval_iters = 20
log_interval = 10
always_save_checkpoint = False

gradient_accumulation_steps = 1
batch_size = 12
block_size = 64

n_layer = 4
n_head = 4
n_embd = 128
dropout = 0.0

learning_rate = 1e-3
max_iters = 2000
lr_decay_iters = 2000
min_lr = 1e-4
warmup_iters = 100
beta2 = 0.99

device = "cpu"
compile = False
'''

PREPARE = '''"""The data of this experiment: change `lines`, and run this file."""

import random
from pathlib import Path

from trainables.character_streams import stream
from trainables.character_streams.nanogpt.prepare import prepare


def is_right(line):
    word, _, spaced = line.partition(": ")
    return spaced == " ".join(word)


@stream(check=is_right, prompt=": ")
def lines(seed, longest=3):
    rng = random.Random(seed)
    while True:
        word = "".join(rng.choices("abcde", k=rng.randint(1, longest)))
        yield f"{word}: {' '.join(word)}"


if __name__ == "__main__":
    prepare(f"{__file__}:lines", Path(__file__).parent, seed=1)
'''


def new_experiment(folder: Path) -> list[Path]:
    """Makes the folder of an experiment and returns its files.

    Raises:
        RungError: it exists.
        StorageError: it cannot be written.
    """
    if folder.exists():
        raise RungError(f"{folder} exists already: choose another name")
    files = {
        "README.md": README.format(name=folder.name, command=COMMAND),
        "config/basic.py": CONFIG.format(name=folder.name),
        "data/basic/prepare.py": PREPARE,
        ".gitignore": "out/\n*.bin\n",
    }
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (folder / "out").mkdir()
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    return [folder / name for name in files]
