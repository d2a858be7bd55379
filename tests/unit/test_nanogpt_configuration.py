"""nanoGPT's configuration files and keys: read without running them, honoured or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from rung.errors import RungError
from trainables.character_streams.nanogpt.configuration_file import explain_variable, read_keys
from trainables.character_streams.nanogpt.experiment import to_config
from trainables.character_streams.nanogpt.keys import Keys
from trainables.character_streams.nanogpt.scaffold import CONFIG

KEYS = """
train.py: out_dir eval_interval log_interval eval_iters eval_only always_save_checkpoint init_from wandb_log
train.py: wandb_project wandb_run_name dataset gradient_accumulation_steps batch_size block_size n_layer n_head n_embd
train.py: dropout bias learning_rate max_iters weight_decay beta1 beta2 grad_clip decay_lr warmup_iters lr_decay_iters
train.py: min_lr backend device dtype compile
sample.py: init_from out_dir start num_samples max_new_tokens temperature top_k seed device dtype compile
bench.py: batch_size block_size bias real_data seed device dtype compile profile
"""
THEIRS = {word for word in KEYS.split() if not word.endswith(":")}
PUBLISHED = {
    "eval_interval": 2000, "eval_iters": 200, "gradient_accumulation_steps": 40, "batch_size": 12, "block_size": 1024,
    "n_layer": 12, "n_head": 12, "n_embd": 768, "dropout": 0.0, "bias": False, "learning_rate": 6e-4,
    "max_iters": 600_000, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "grad_clip": 1.0, "decay_lr": True,
    "warmup_iters": 2000, "lr_decay_iters": 600_000, "min_lr": 6e-5, "compile": True, "always_save_checkpoint": True,
    "start": "\n", "num_samples": 10, "max_new_tokens": 500, "temperature": 0.8, "top_k": 200, "seed": 1337,
    "wandb_project": "owt", "wandb_run_name": "gpt2", "dataset": "openwebtext", "out_dir": "out", "log_interval": 1,
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "basic.py"


def test_every_key_of_nanogpt_is_known_with_its_default() -> None:
    assert Keys.model_fields.keys() >= THEIRS
    keys = Keys()
    assert {name: getattr(keys, name) for name in PUBLISHED} == PUBLISHED


def test_a_file_is_read_and_the_command_line_wins(file: Path) -> None:
    lines = [
        '"""A docstring."""',
        "# a comment",
        'out_dir = "out-x"',
        "max_iters = 20 * 100",
        "lr_decay_iters = max_iters  # the same",
        "min_lr = 1e-3 / 10",
        "learning_rate: float = 1",
        "wandb_project = None",
        "bias = compile = False",
        "warmup_iters = -(-5)",
    ]
    file.write_text("\n".join(lines))
    keys = read_keys(
        [str(file), "--max_iters=200", "--learning_rate=1", "--wandb_project=a=b", "--start=\\n=", "--top_k=None"]
    )
    assert (keys.out_dir, keys.max_iters, keys.lr_decay_iters, keys.warmup_iters) == ("out-x", 200, 2000, 5)
    assert keys.min_lr == pytest.approx(1e-4)
    assert keys.learning_rate == 1.0
    assert (keys.wandb_project, keys.start, keys.top_k) == ("a=b", "\\n=", None)
    assert not keys.bias
    assert not keys.compile
    assert read_keys(["--max_iters=9", str(file)]).max_iters == 2000  # in the order of the command line


def test_texts_that_look_like_numbers_stay_texts() -> None:
    keys = read_keys(["--dataset=2024", "--out_dir='a b'", "--wandb_run_name=7"])
    assert (keys.dataset, keys.out_dir, keys.wandb_run_name) == ("2024", "a b", "7")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("import time", "only assignments"),
        ("batch_size = int('3')", r"int\('3'\) is no plain value"),
        ("max_iters = open('x').read()", "no plain value"),
        ("for i in [1]: max_iters = 1", "only assignments"),
        ("batch_size, block_size = 1, 2", "only assignments"),
        ("os.x = 1", "only assignments"),
        ("max_iters = 9**9**9", "too large"),
        ("max_iters = 1 // 0", "zero"),
        ("max_iters = 'a' * 10**9", "no number to reckon with"),
        ("max_iters = unknown_name", "no plain value"),
        ("max_iters = [1][0]", "no plain value"),
        ("max_iters = (", "is not Python"),
    ],
)
def test_what_would_have_to_be_run_is_refused_by_its_line(file: Path, line: str, complaint: str) -> None:
    file.write_text(f"batch_size = 3\n{line}\n")
    with pytest.raises(RungError, match=rf"basic\.py:2: .*{complaint}"):
        read_keys([str(file)])


def test_everything_that_is_wrong_comes_in_one_message(file: Path) -> None:
    file.write_text("import os\nmax_iter = 5\nbatch_size = 'many'\nn_head = 5\nbackend = 'gloo'\n")
    with pytest.raises(RungError) as caught:
        read_keys([str(file), "--wandb_log=True", "--lr=3", "--max_iters", "--dropout=1.5"])
    lines = sorted(str(caught.value).splitlines())
    text = "\n".join(lines)
    assert len(lines) == 9
    for part in (
        "basic.py:1: only assignments",
        "basic.py:2: max_iter: unknown key (did you mean 'max_iters'?)",
        'basic.py:3: batch_size: expected a whole number, got "many"',
        "basic.py:4: n_head: 5 heads do not divide n_embd 768",
        "basic.py:5: backend: this command trains in one process; several workers are resources.workers of a study",
        "--wandb_log=True: these commands write no W&B run",
        "--lr=3: unknown key (did you mean 'learning_rate'?)",
        "--max_iters: write --max_iters=value",
        "--dropout=1.5: must be below 1",
    ):
        assert part in text, part


def test_a_missing_file_and_torchrun_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RungError, match=r"nope\.py: cannot be read"):
        read_keys(["nope.py"])
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(RungError, match=r"torchrun.*resources\.workers"):
        read_keys([])


def test_the_configurator_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NANOGPT_CONFIG", raising=False)
    assert explain_variable() is None
    monkeypatch.setenv("NANOGPT_CONFIG", "../configurator.py")
    assert "is not run" in (explain_variable() or "")


def test_keys_become_a_configuration(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed's basic.py: what the trainable's defaults are, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "basic").mkdir(parents=True)
    file.write_text(CONFIG)
    config = to_config(read_keys([str(file)]), "cpu")
    assert (config.model.layers, config.model.heads, config.model.width, config.model.bias) == (4, 4, 128, False)
    assert (config.context, config.batch_size, config.accumulation) == (64, 12, 1)
    assert config.optimizer == type(config).model_fields["optimizer"].default
    schedule = config.schedule
    assert (schedule.kind, schedule.warmup, schedule.length, schedule.minimum) == ("cosine", 100, 2000, 1e-4)
    assert (config.evaluation.every, config.evaluation.log_every, config.evaluation_tokens) == (50, 10, 20 * 12 * 64)
    assert (config.precision, config.compile, config.gradient_clip) == ("fp32", False, 1.0)
    assert config.data == str(tmp_path / "data" / "basic")


def test_accumulation_clipping_and_constant_rates(tmp_path: Path) -> None:
    given = "--gradient_accumulation_steps=3 --batch_size=4 --grad_clip=0 --decay_lr=False --dtype=bfloat16 --bias=True"
    keys = read_keys([f"--dataset={tmp_path}", *given.split(), "--dropout=0.2", "--weight_decay=0"])
    config = to_config(keys, "cpu")
    assert (config.batch_size, config.accumulation, config.gradient_clip) == (12, 3, None)
    assert (config.schedule.kind, config.schedule.warmup, config.precision) == ("none", 0, "bf16")
    assert (config.model.bias, config.model.dropout, config.optimizer.weight_decay) == (True, 0.2, 0)


def test_float16_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(RungError, match="dtype: float16 needs a GPU, and the device is cpu"):
        to_config(Keys(dataset=str(tmp_path), dtype="float16"), "cpu")


def test_what_the_machine_cannot_do_comes_with_the_other_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RungError) as caught:
        read_keys(["--n_layer=2.5", "--wandb_log=True", "--dtype=float16", "--foo=1", "--n_head=7"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert "--dtype=float16: float16 needs a GPU, and the device is cpu; bfloat16 and float32 run anywhere" in lines
    with pytest.raises(RungError) as caught:
        read_keys(["--device=cuda", "--dtype=float16", "--foo=1"])
    assert "--device=cuda: cuda is not there; cpu computes on the processor" in str(caught.value).splitlines()


def test_data_and_weights_that_are_not_there_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    with pytest.raises(RungError, match=r"dataset 'basic' is not there.*prepare"):
        to_config(read_keys(["--dataset=basic"]), "cpu")
    (tmp_path / "basic").mkdir()
    with pytest.raises(RungError, match="Nothing is downloaded"):
        to_config(read_keys(["--dataset=basic", "--init_from=gpt2-medium"]), "cpu")
    with pytest.raises(RungError, match="neither scratch nor resume"):
        to_config(read_keys(["--dataset=basic", "--init_from=gpt3"]), "cpu")
