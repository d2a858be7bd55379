"""Model FLOPs utilization: the share of a device's peak that training reaches (Chowdhery et al. 2022, arXiv 2204.02311,
appendix B). Imports no torch.

nanoGPT divides by an A100's peak whatever it runs on; here the device decides, and one that is not in the table has
none.
"""

from __future__ import annotations

import re

PEAKS = {
    # Dense 16-bit tensor-core peaks with fp32 accumulation in FLOP/s, from NVIDIA's data sheets of these devices;
    # the first name that stands in torch's device name counts, so special ones go first.
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "A10G": 70e12,
    "A10": 125e12,
    "A30": 165e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,  # float16
    "T4": 65e12,  # float16
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def peak_of(device_name: str) -> float | None:
    """FLOP/s of a device by its name as torch gives it; None: not in the table (a processor, or another GPU)."""
    return next((peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", device_name)), None)


def utilization(flops_per_step: float, seconds: float, peak: float | None) -> float | None:
    """Share of the peak; None where it is not known."""
    return None if peak is None or seconds <= 0 else flops_per_step / seconds / peak
