"""The cycle collector is put aside and comes back."""

from __future__ import annotations

import gc
import weakref

import pytest

from ddray.collector import no_cycle_search


class Knot:
    """Refers to itself."""

    def __init__(self) -> None:
        self.own = self


def collected_by_itself() -> bool:
    """Whether a cycle goes while many objects are made and nobody asks for it."""
    knot = weakref.ref(Knot())
    kept: list[list[int]] = [[] for _ in range(200_000)]
    return knot() is None and bool(kept)


def test_no_search_inside_and_searches_again_after() -> None:
    assert collected_by_itself()
    with no_cycle_search():
        assert not collected_by_itself()
    assert collected_by_itself()


def test_it_comes_back_after_an_error_and_not_for_somebody_who_had_put_it_aside() -> None:
    with pytest.raises(ValueError, match="refused"), no_cycle_search():
        raise ValueError("refused")
    assert gc.isenabled()
    with no_cycle_search():
        with no_cycle_search():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
