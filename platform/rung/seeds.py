"""The seeds of a study: which ones, and how many of them a configuration begins with.

In a study file, one of

    seeds: 8                       # 0, 1, ..., 7
    seeds: [0, 13, 42]
    seeds: {start: 2, full: 8}     # racing: 2 up to the first rung, more from rung to rung, 8 at the end
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

CONFIRM_SEEDS_FROM = 1_000_000_000
"""The first seed of phase `confirm`. Seeds of the search lie below it, so the two can never meet, however many seeds
a study is given later."""


class Seeds(tuple[int, ...]):
    """The seeds of every configuration's runs, in the order in which they join."""

    start: int | None
    """How many train up to the first rung; None: all of them."""

    def __new__(cls, seeds: Iterable[int], start: int | None = None) -> Seeds:
        made = super().__new__(cls, seeds)
        made.start = start
        return made

    def __getnewargs__(self) -> tuple[tuple[int, ...], int | None]:
        return tuple(self), self.start

    @classmethod
    def read(cls, given: Any) -> Seeds:
        """The seeds that a study file means.

        Raises:
            ValueError: says what is wrong with them.
        """
        if isinstance(given, Seeds):
            return given
        if isinstance(given, Mapping):
            return cls._racing(given)
        if isinstance(given, float) and given.is_integer():
            given = int(given)
        if isinstance(given, int) and not isinstance(given, bool):
            if given < 1:
                raise ValueError(f"at least one seed is needed, got {given}")
            given = range(given)
        if not isinstance(given, list | tuple | range):
            raise ValueError(f"expected how many seeds or a list of them, got {given!r}")
        return cls(_checked([_whole(seed) for seed in given]))

    @classmethod
    def _racing(cls, given: Mapping[str, Any]) -> Seeds:
        if set(given) != {"start", "full"}:
            raise ValueError(f"racing over seeds is written {{start: 2, full: 8}}, got {dict(given)!r}")
        seeds, start = cls.read(given["full"]), given["start"]
        if isinstance(given["full"], Mapping) or isinstance(start, bool) or not isinstance(start, int):
            raise ValueError(f"start is how many seeds, full is how many or a list, got {dict(given)!r}")
        if not 1 <= start <= len(seeds):
            raise ValueError(f"start lies between 1 and all {len(seeds)} seeds, got {start}")
        return cls(seeds, start if start < len(seeds) else None)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(list)
        numbers = core_schema.list_schema(core_schema.int_schema())
        reading = core_schema.no_info_plain_validator_function(cls.read, serialization=written)
        return core_schema.json_or_python_schema(json_schema=numbers, python_schema=reading, serialization=written)


def _whole(seed: Any) -> int:
    if isinstance(seed, float) and seed.is_integer():
        seed = int(seed)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"a seed is a whole number, got {seed!r}")
    return seed


def _checked(seeds: list[int]) -> list[int]:
    if not seeds:
        raise ValueError("at least one seed is needed")
    repeated = [seed for index, seed in enumerate(seeds) if seed in seeds[:index]]
    if repeated:
        raise ValueError(f"seed {repeated[0]} stands twice: two runs with one seed are the same run")
    wrong = [seed for seed in seeds if not 0 <= seed < CONFIRM_SEEDS_FROM]
    if wrong:
        raise ValueError(
            f"a seed lies between 0 and {CONFIRM_SEEDS_FROM - 1} (larger ones belong to phase confirm), got {wrong[0]}"
        )
    return seeds
