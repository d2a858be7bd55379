"""Whether one of several answers to a question is right. Imports no torch."""

from __future__ import annotations

import math


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Probability that at least one of k answers is right, of which `right` among `samples` were: the unbiased estimate
    1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374), section 2.1, as a product.

    Raises ValueError unless 1 <= k <= samples and 0 <= right <= samples.
    """
    if not (1 <= k <= samples and 0 <= right <= samples):
        raise ValueError(f"pass@{k} of {right} right ones among {samples} is not defined")
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / n for n in range(samples - right + 1, samples + 1))
