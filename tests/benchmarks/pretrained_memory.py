"""Memory of a training step of a pretrained model: the estimate that plans show, against what a step took.

    python -m tests.benchmarks.pretrained_memory models/SmolLM2-135M-Instruct       about three minutes

One step of a policy gradient on 4 responses of 64 tokens to prompts of 64, each mode in a process of its own, after a
step on one short response that loads libraries and makes gradients and the state of AdamW; the gradients are added to.
Measured are the resident memory at its highest during the step less that before it (VmHWM of /proc/self/status, so
Linux only), and the step's CPU seconds on one thread. Estimated are activations and logits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.measure import parser, print_machine, print_table

ROWS, PROMPT, RESPONSE = 4, 64, 64
MODES: dict[str, dict[str, Any]] = {
    "LoRA, bf16": {},
    "LoRA, bf16, gradient checkpointing": {"gradient_checkpointing": True},
    "LoRA, nf4": {"quantization": "nf4"},
    "LoRA, nf4, gradient checkpointing": {"quantization": "nf4", "gradient_checkpointing": True},
    "LoRA, fp32": {"dtype": "fp32"},
}


class Measured(NamedTuple):
    """What a process found, bytes and seconds."""

    weights: float
    estimated_weights: float
    peak: float
    estimated_peak: float
    seconds: float


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("model", type=Path, help="folder of a model")
    arguments.add_argument("--settings", help="measure one mode, given as JSON, and print what was found")
    options = arguments.parse_args()
    if options.settings is not None:
        print(json.dumps(_measure(options.model.absolute(), json.loads(options.settings))))
        return
    print_machine(threads=1)
    rows = []
    for name, settings in MODES.items():
        found = _in_a_process(options.model, settings)
        sizes = (f"{size / 1e6:,.0f}" for size in found[:4])
        rows.append((name, *sizes, f"{found.peak / found.estimated_peak:.2f}", f"{found.seconds:.1f}"))
    headers = ("trained", "weights, MB", "estimate", "step, MB", "estimate", "ratio", "step, CPU s")
    print_table(headers, rows)


def _in_a_process(model: Path, settings: dict[str, Any]) -> Measured:
    # Memory that is freed goes back to the system at once, so that a step's peak is its own.
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "tests.benchmarks.pretrained_memory", str(model), "--settings"]
    done = subprocess.run(
        [*command, json.dumps(settings)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def _measure(model: Path, settings: dict[str, Any]) -> Measured:
    import torch

    from trainables.models.pretrained import load
    from trainables.models.pretrained_config import PretrainedConfig
    from trainables.models.pretrained_memory import memory, weight_bytes
    from trainables.models.pretrained_shape import shape_of

    torch.set_num_threads(1)
    config = PretrainedConfig(model=str(model), **settings)
    loaded = load(config, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW([each for each in loaded.parameters() if each.requires_grad], lr=1e-5)
    _step(loaded, optimizer, rows=1, prompt=4, response=4)
    base = {each.data_ptr(): each for name, each in loaded.named_parameters() if "lora_" not in name}
    before, begun = _status("VmRSS"), time.process_time()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    _step(loaded, optimizer, rows=ROWS, prompt=PROMPT, response=RESPONSE)
    seconds, peak = time.process_time() - begun, _status("VmHWM") - before
    shape = shape_of(config)
    estimate = memory(config, shape, rows=ROWS, written_rows=ROWS, prompt=PROMPT, response=RESPONSE)
    weights = sum(each.untyped_storage().nbytes() for each in base.values())
    return Measured(weights, weight_bytes(config, shape), peak, estimate.learning, seconds)


def _step(model: Any, optimizer: Any, *, rows: int, prompt: int, response: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, model.config.vocab_size, (rows, prompt + response), generator=generator)
    output = model(input_ids=tokens[:, :-1], use_cache=False, logits_to_keep=response)
    logs = torch.log_softmax(output.logits.float(), -1)
    del output
    logs.gather(-1, tokens[:, prompt:, None]).mean().backward()
    optimizer.step()


def _status(name: str) -> int:
    """Bytes, from a line such as `VmRSS:  123 kB`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


if __name__ == "__main__":
    main()
