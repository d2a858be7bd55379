"""Sequences of expressions and their batches: each once in a pass, the right targets, nothing cut off silently."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rung.errors import RungError, StorageError
from trainables.arithmetic import check_sequence_lengths
from trainables.arithmetic.batches import SequenceStream, windows, with_rows
from trainables.arithmetic.config import Batching, TokenizerConfig
from trainables.arithmetic.corpus import solution_of
from trainables.arithmetic.corpus_config import CorpusConfig, Format
from trainables.arithmetic.generator import items
from trainables.arithmetic.layout import Layout
from trainables.arithmetic.preparation import both_formats, learnt_tokenizer
from trainables.arithmetic.sequences import Sequences, encoded, fitting, pair
from trainables.language.batches import Windows, row_parts
from trainables.language.losses import language_loss

LINES = [(item.expression, solution_of(item)) for item in items(CorpusConfig(max_depth=3), "train", 0, 230)]
TOKENIZER = learnt_tokenizer(both_formats(LINES), TokenizerConfig())
SEQUENCES = encoded(TOKENIZER, [pair(*line, format="v2", is_instruction=True) for line in LINES])
LONGEST = int(SEQUENCES.positions.max())
KINDS: tuple[Batching, ...] = ("padded", "bucketed", "packed")


def stream(
    batching: Batching, *, seed: int = 0, batch_size: int = 16, only_solutions: bool = True, context: int = LONGEST + 40
) -> SequenceStream:
    return SequenceStream(
        SEQUENCES,
        batching=batching,
        batch_size=batch_size,
        context=context,
        only_solutions=only_solutions,
        seed=seed,
    )


def read(batch: Windows) -> list[tuple[int, ...]]:
    """The sequences in a batch, whole: what was read and the last target."""
    found = []
    for inputs, targets in zip(batch.inputs_BS.tolist(), batch.targets_BS.tolist(), strict=True):
        begins = [at for at, token in enumerate(inputs) if token == TOKENIZER.begin]
        for begin, end in zip(begins, [*begins[1:], len(inputs)], strict=True):
            length = next(at for at in range(begin, end) if targets[at] == TOKENIZER.end) - begin + 1
            assert inputs[begin + 1 : begin + length] == targets[begin : begin + length - 1]
            assert set(inputs[begin + length : end]) <= {TOKENIZER.pad}
            found.append((*inputs[begin : begin + length], TOKENIZER.end))
    return found


def pass_of(made: SequenceStream, number: int) -> list[Windows]:
    count = made.layout.batches
    return [made.at(position) for position in range(number * count, (number + 1) * count)]


@pytest.mark.parametrize("batching", KINDS)
def test_a_pass_has_each_sequence_once_and_passes_differ(batching: Batching) -> None:
    made = stream(batching)
    everything = Counter(tuple(SEQUENCES.of(index).tolist()) for index in range(len(SEQUENCES)))
    passes = [[read(batch) for batch in pass_of(made, number)] for number in (0, 1)]
    for batches in passes:
        assert Counter(each for batch in batches for each in batch) == everything
    assert passes[0] != passes[1]


@pytest.mark.parametrize("batching", KINDS)
def test_a_batch_follows_from_seed_and_position(batching: Batching) -> None:
    first, again, other = stream(batching), stream(batching), stream(batching, seed=1)
    expected = [first.at(position) for position in range(40)]
    for position in (39, 3, 0, 20):  # in any order, by a stream that knows nothing of the others
        batch = again.at(position)
        assert torch.equal(batch.inputs_BS, expected[position].inputs_BS)
        assert torch.equal(batch.targets_BS, expected[position].targets_BS)
    assert [read(other.at(position)) for position in range(3)] != [read(batch) for batch in expected[:3]]


@pytest.mark.parametrize("batching", KINDS)
def test_targets_are_solutions_or_everything(batching: Batching) -> None:
    for batch, all_of_it in zip(
        pass_of(stream(batching), 0), pass_of(stream(batching, only_solutions=False), 0), strict=True
    ):
        assert batch.weights_BS is not None
        assert all_of_it.weights_BS is not None
        assert torch.equal(all_of_it.weights_BS > 0, all_of_it.targets_BS != TOKENIZER.pad)
        for targets, weights in zip(batch.targets_BS, batch.weights_BS, strict=True):
            learnt = TOKENIZER.decode(targets[weights > 0].tolist())
            solutions = learnt.split("<think>")[1:]
            assert learnt.startswith("<think>")
            assert learnt.count("Evaluate") == 0
            assert learnt.count("Final Result") == len(solutions) == int((targets[weights > 0] == TOKENIZER.end).sum())


def test_buckets_hardly_pad_and_have_about_equal_sizes() -> None:
    for batching, most in (("bucketed", 0.15), ("packed", 0.05)):
        batches = pass_of(stream(batching), 0)  # type: ignore[arg-type]
        sizes = [batch.inputs_BS.numel() for batch in batches]
        padding = sum(int((batch.inputs_BS == TOKENIZER.pad).sum()) for batch in batches) / sum(sizes)
        assert padding < most, batching
        if batching == "bucketed":
            assert max(sizes) < 2 * np.mean(sizes)
    assert len(pass_of(stream("bucketed"), 0)) == len(pass_of(stream("padded"), 0)) == -(-len(SEQUENCES) // 16)


def test_buckets_can_be_asked_for_by_their_tokens() -> None:
    for tokens, most in ((400, 2), (10 * LONGEST, 1.2)):
        layout = Layout.of(SEQUENCES.positions, "bucketed", 1, LONGEST, tokens)
        sizes = [layout.batch(np.arange(layout.batches), index)[0] for index in range(layout.batches)]
        ordered = np.sort(SEQUENCES.positions)
        assert layout.batches == -(-int(SEQUENCES.positions.sum()) // tokens)
        assert all(ordered[ranks].sum() < most * max(tokens, LONGEST) for ranks in sizes)
    one_each = Layout.of(SEQUENCES.positions, "bucketed", 1, LONGEST, 1)
    assert one_each.batches == len(SEQUENCES)


@pytest.mark.parametrize("batching", KINDS)
def test_the_layout_knows_the_positions_of_a_pass(batching: Batching) -> None:
    made = stream(batching)
    found = [sum(batch.inputs_BS.numel() for batch in pass_of(made, number)) for number in range(6)]
    if batching == "padded":
        assert made.layout.positions == pytest.approx(np.mean(found), rel=0.05)
    else:
        assert set(found) == {made.layout.positions}


@pytest.mark.parametrize(
    ("lengths", "batch_size"), [([5], 3), ([9, 1, 1, 1, 1, 1], 2), ([100, 1, 1], 1), ([4] * 7, 4), ([1, 50, 50], 2)]
)
def test_every_batch_of_a_layout_has_a_sequence(lengths: list[int], batch_size: int) -> None:
    for batching in KINDS:
        layout = Layout.of(np.array(lengths), batching, batch_size, 100)
        order = np.arange(layout.rows_to_shuffle)
        batches = [layout.batch(order, index)[0] for index in range(layout.batches)]
        assert all(len(batch) for batch in batches)
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))


def test_packed_rows_hold_whole_sequences_and_are_full() -> None:
    draw = np.random.default_rng(0)
    lengths: NDArray[np.int64] = draw.integers(1, 33, size=500)
    layout = Layout.of(lengths, "packed", 1, 64)
    ordered = np.sort(lengths)
    rows = [int(ordered[layout.batch(np.array([row]), 0)[0]].sum()) for row in range(layout.batches)]
    assert max(rows) <= 64
    assert sum(row == 64 for row in rows) > 0.9 * len(rows)


def test_parts_make_the_whole_even_of_a_batch_with_fewer_rows() -> None:
    made = stream("bucketed", batch_size=2)
    batch = min(pass_of(made, 0), key=len)
    assert len(batch) == 1
    parts = row_parts(with_rows(batch, 3), 3)
    logits = torch.randn(1, batch.inputs_BS.shape[1], TOKENIZER.size, generator=torch.Generator().manual_seed(0))
    assert sum(fraction for _, fraction in parts) == pytest.approx(1)
    total = sum(language_loss(logits, part) * fraction for part, fraction in parts)
    assert float(total) == pytest.approx(float(language_loss(logits, batch)))
    assert with_rows(batch, 1) is batch


def test_prompt_and_solution_meet_where_they_should() -> None:
    for is_instruction in (True, False):
        for format in get_args(Format):
            line = ("5 + 7", "<think>\nStep 1\n</think>\nFinal Result: 12")
            given, written = pair(*line, format=format, is_instruction=is_instruction)
            made = encoded(TOKENIZER, [(given, written)])
            tokens, cut = made.of(0).tolist(), int(made.prompts[0])
            assert tokens == [TOKENIZER.begin, *TOKENIZER.encode(given + written), TOKENIZER.end]
            assert (TOKENIZER.decode(tokens[:cut]), TOKENIZER.decode(tokens[cut:])) == (given, written)
    assert pair("1", "<think>\n</think>\nFinal Result: 1", format="v1", is_instruction=False) == (
        "Evaluate: 1 ",
        "<think> </think> Final Result: 1",
    )


def test_sequences_survive_the_disk(tmp_path: Path) -> None:
    SEQUENCES.save(tmp_path, "train")
    again = Sequences.load(tmp_path, "train")
    chosen = np.array([7, 0, 7])
    for found, expected in ((again, SEQUENCES), (again.take(chosen), SEQUENCES.take(chosen))):
        assert [found.of(index).tolist() for index in range(len(found))] == [
            expected.of(index).tolist() for index in range(len(expected))
        ]
    (tmp_path / "train-lengths.npy").write_bytes(b"nothing")
    with pytest.raises(StorageError, match="cannot be read"):
        Sequences.load(tmp_path, "train")
    with pytest.raises(RungError, match="the corpus is empty"):
        encoded(TOKENIZER, [])


def test_what_is_too_long_is_refused_or_left_out_whole() -> None:
    positions = SEQUENCES.positions
    context = int(np.quantile(positions, 0.9))
    too_long = int((positions > context).sum())
    share = too_long / len(positions)
    with pytest.raises(
        RungError, match=rf"{too_long} of 230 sequences \({share:.2%}\) are longer than context"
    ) as caught:
        fitting(SEQUENCES, context, 0.001)
    assert f"the longest has {LONGEST}" in str(caught.value)
    assert "At most 0.10% may be left out (most_cut)" in str(caught.value)
    fits = fitting(SEQUENCES, context, share)
    assert fits.left_out == too_long
    assert fits.note is not None
    assert len(fits.sequences) == 230 - too_long
    assert {int(tokens[-1]) for tokens in map(fits.sequences.of, range(len(fits.sequences)))} == {TOKENIZER.end}
    assert fitting(SEQUENCES, LONGEST, 0.0).note is None
    with pytest.raises(RungError, match="230 of 230"):
        fitting(SEQUENCES, 3, 1.0)


def test_the_longest_fits_exactly_into_its_positions() -> None:
    batch = windows(SEQUENCES, np.array([int(SEQUENCES.positions.argmax())]), only_solutions=True)
    assert batch.inputs_BS.shape == (1, LONGEST)
    assert batch.targets_BS[0, -1] == TOKENIZER.end


def test_lengths_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"expression": e, "problem": f"Evaluate: {e}", "solution": s, "answer": 0}) for e, s in LINES]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    TOKENIZER.save(tmp_path)
    options = ["--corpus-path", str(tmp_path / "corpus.jsonl"), "--tokenizer-path", str(tmp_path)]
    check_sequence_lengths.main([*options, "--max-samples", "40"])
    written = capsys.readouterr().out
    positions = SEQUENCES.positions[:40]
    assert f"40 sequences, {positions.sum():,} tokens" in written
    assert f"| mean | {positions.mean():,.1f} |" in written
    assert f"| longest | {positions.max()} |" in written
    assert f"| 64 | {(positions <= 64).mean():.2%} | {(positions > 64).sum()} |" in written
    with pytest.raises(RungError, match="--max-samples must be 1 or more, got 0"):
        check_sequence_lengths.main([*options, "--max-samples", "0"])
