"""What a proxy is told makes it think what is true."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.demand.size import Size
from knative_sponge.core.resizing.phase import Phase
from knative_sponge.core.resizing.proxy_view import Briefing

SIZES = st.sampled_from([0.5, 1.0, 1.5, 2.0])


def briefings() -> st.SearchStrategy[Briefing]:
    return st.builds(
        lambda cores, more, shown: Briefing(cores, cores + more if more else None, shown),
        SIZES,
        st.sampled_from([0.0, 0.5, 1.0]),
        st.booleans(),
    )


@given(st.lists(briefings(), max_size=8))
def test_whatever_happens_the_proxy_ends_up_thinking_what_is_true(history: list[Briefing]) -> None:
    proxy, told = Size(3.0), None
    for briefing in [Briefing(1.0, None, shown=True), *history]:
        for tell in briefing.since(told):
            proxy = proxy.patched(tell.cores) if tell.phase is Phase.PATCHED else proxy.actuated(tell.cores)
        told = briefing
        assert (proxy.cores, proxy.coming) == (briefing.cores, briefing.coming)
        assert briefing.since(told) == []
