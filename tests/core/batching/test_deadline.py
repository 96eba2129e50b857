"""Where a request's deadline comes from: every claim, clamp and skew of docs/design.md §3.2."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.core.batching.deadline import (
    CLAIM_HEADERS,
    ClientBudget,
    Deadline,
    Skew,
    Source,
    claims_of,
    deadline_of,
)

NOW = 1000.0
WALL = 1_700_000_000.0  # 2023-11-14T22:13:20Z


def deadline(
    claims: dict[str, str],
    slo_s: float = 1.0,
    timeout_s: float = 300.0,
    share: float = 0.9,
    client_budget: ClientBudget = ClientBudget.ANY,
) -> Deadline:
    encoded = {name.encode(): value.encode("latin-1") for name, value in claims.items()}
    return deadline_of(
        encoded,
        now=NOW,
        wall_now_s=WALL,
        slo_s=slo_s,
        timeout_s=timeout_s,
        max_network_share=share,
        client_budget=client_budget,
    )


@pytest.mark.parametrize(
    ("claims", "left_s", "source"),
    [
        pytest.param({}, 1.0, Source.SETTING, id="nothing claimed: the revision's own SLO"),
        pytest.param({"x-sponge-deadline": "1700000000250"}, 0.25, Source.DEADLINE_HEADER, id="absolute, unix ms"),
        pytest.param({"x-sponge-deadline": "1700000000250.5"}, 0.2505, Source.DEADLINE_HEADER, id="fraction of a ms"),
        pytest.param({"x-sponge-deadline": "1699999999000"}, -1.0, Source.DEADLINE_HEADER, id="already passed"),
        pytest.param({"ce-expirytime": "2023-11-14T22:13:22Z"}, 2.0, Source.EXPIRYTIME, id="CloudEvents expirytime"),
        pytest.param({"ce-expirytime": "2023-11-14T23:13:22.5+01:00"}, 2.5, Source.EXPIRYTIME, id="with an offset"),
        pytest.param({"ce-expirytime": "2023-11-14t22:13:22.5z"}, 2.5, Source.EXPIRYTIME, id="in lower case"),
        pytest.param(
            {"ce-expirytime": "2023-11-14T22:13:22.123456789Z"}, 2.123456, Source.EXPIRYTIME, id="nanoseconds"
        ),
        pytest.param({"x-sponge-slo-ms": "400"}, 0.4, Source.SLO_HEADER, id="own SLO"),
        pytest.param({"x-slo-ttft-ms": "300"}, 0.3, Source.TTFT_HEADER, id="inference gateway's name for it"),
        pytest.param({"x-envoy-expected-rq-timeout-ms": "15"}, 0.015, Source.ENVOY_HEADER, id="Envoy's"),
        pytest.param({"grpc-timeout": "250m"}, 0.25, Source.GRPC_HEADER, id="gRPC's in milliseconds"),
        pytest.param({"grpc-timeout": "2S"}, 2.0, Source.GRPC_HEADER, id="gRPC's in seconds"),
        pytest.param({"grpc-timeout": "1M"}, 60.0, Source.GRPC_HEADER, id="gRPC's M is minutes, not months"),
        pytest.param({"x-sponge-sent": "1699999999900"}, 0.9, Source.SETTING, id="the network used 100 ms"),
        pytest.param({"x-request-start": "t=1699999999.9"}, 0.9, Source.SETTING, id="request start in seconds"),
        pytest.param({"x-request-start": "t=1699999999900"}, 0.9, Source.SETTING, id="request start in ms"),
        pytest.param({"x-request-start": "1699999999900000"}, 0.9, Source.SETTING, id="request start in us"),
        pytest.param({"ce-time": "2023-11-14T22:13:19.9Z"}, 0.9, Source.SETTING, id="CloudEvents time"),
        pytest.param({"x-sponge-slo-ms": "400", "x-sponge-sent": "1699999999900"}, 0.3, Source.SLO_HEADER, id="both"),
        pytest.param(
            {"x-sponge-deadline": "1700000000250", "x-sponge-slo-ms": "9000"},
            0.25,
            Source.DEADLINE_HEADER,
            id="the absolute deadline comes first",
        ),
        pytest.param(
            {"x-sponge-sent": "1699999999900", "x-request-start": "t=1699999999.5"},
            0.9,
            Source.SETTING,
            id="our own send time comes first",
        ),
    ],
)
def test_the_first_valid_claim_sets_the_deadline(claims: dict[str, str], left_s: float, source: Source) -> None:
    found = deadline(claims)
    assert found.at_s == pytest.approx(NOW + left_s, abs=1e-6)
    assert found.source is source
    assert found.ignored == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-sponge-deadline", "soon"),
        ("x-sponge-deadline", "-5"),
        ("x-sponge-deadline", "nan"),
        ("x-sponge-deadline", "1e12"),
        ("x-sponge-deadline", "9" * 19),
        ("x-sponge-slo-ms", "0"),
        ("x-sponge-slo-ms", ""),
        ("x-sponge-slo-ms", "1_000"),
        ("x-sponge-slo-ms", "0" * 65),
        ("x-sponge-slo-ms", "\xb2"),
        ("ce-expirytime", "2023-11-14"),
        ("ce-expirytime", "20231114T221322Z"),
        ("ce-expirytime", "2023-W46-2T22:13:22Z"),
        ("ce-expirytime", "2023-11-14 22:13:22Z"),
        ("ce-expirytime", "2023-13-14T22:13:22Z"),
        ("ce-expirytime", "2023-11-14T22:13:22+99:00"),
        ("ce-expirytime", "2023-11-14T22:13:22"),
        ("ce-expirytime", "9999-12-31T23:59:59-01:00"),
        ("ce-time", "0001-01-01T00:00:00+01:00"),
        ("grpc-timeout", "250"),
        ("grpc-timeout", "123456789m"),
        ("grpc-timeout", "0S"),
        ("x-request-start", "t=12"),
        ("ce-time", "yesterday"),
    ],
)
def test_an_unusable_claim_is_passed_over_and_named(name: str, value: str) -> None:
    found = deadline({name: value})
    assert found.at_s == NOW + 1.0
    assert found.source is Source.SETTING
    assert found.ignored == (name,)


def test_after_an_unusable_claim_the_next_one_holds() -> None:
    found = deadline({"x-sponge-deadline": "soon", "x-sponge-slo-ms": "200"})
    assert (found.at_s, found.source, found.ignored) == (NOW + 0.2, Source.SLO_HEADER, ("x-sponge-deadline",))


def test_a_send_time_in_the_future_counts_as_now() -> None:
    found = deadline({"x-sponge-sent": "1700000005000"})
    assert (found.at_s, found.network_s, found.skew) == (NOW + 1.0, 0.0, Skew.FUTURE)


def test_an_ancient_send_time_uses_up_only_the_allowed_share_of_the_budget() -> None:
    found = deadline({"x-sponge-sent": "1600000000000"}, share=0.8)
    assert found.at_s == pytest.approx(NOW + 0.2)
    assert (found.network_s, found.skew) == (0.8, Skew.STALE)


@pytest.mark.parametrize("claims", [{}, {"x-sponge-slo-ms": "60000"}, {"x-sponge-deadline": "1700000060000"}])
def test_no_deadline_is_later_than_the_revision_timeout(claims: dict[str, str]) -> None:
    assert deadline(claims, slo_s=100.0, timeout_s=10.0).at_s == NOW + 10.0


@given(
    st.dictionaries(
        st.sampled_from(sorted(name.decode() for name in CLAIM_HEADERS)),
        st.text(st.characters(max_codepoint=255), max_size=24),
    )
)
def test_whatever_the_headers_hold_there_is_one_finite_deadline_within_the_timeout(claims: dict[str, str]) -> None:
    found = deadline(claims)
    assert math.isfinite(found.at_s)
    assert found.at_s <= NOW + 300.0
    assert 0.0 <= found.network_s <= 0.9 * found.budget_s or found.source in (Source.DEADLINE_HEADER, Source.EXPIRYTIME)


SENT = {"x-sponge-sent": "1699999999900"}
"""100 ms ago."""


@pytest.mark.parametrize(
    ("claims", "shorter", "any_budget", "ignore"),
    [
        # Seconds left: until the answer and until the deadline that cores are bought for.
        pytest.param({}, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), id="nothing"),
        pytest.param({"x-sponge-slo-ms": "400"}, (0.4, 1.0), (0.4, 0.4), (1.0, 1.0), id="less than the SLO"),
        pytest.param({"x-sponge-slo-ms": "1000"}, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), id="the SLO"),
        pytest.param({"grpc-timeout": "30S"}, (1.0, 1.0), (30.0, 30.0), (1.0, 1.0), id="more than the SLO"),
        pytest.param({"x-sponge-deadline": "1700000000250"}, (0.25, 1.0), (0.25, 0.25), (1.0, 1.0), id="sooner"),
        pytest.param({"ce-expirytime": "2023-11-14T22:13:50Z"}, (1.0, 1.0), (30.0, 30.0), (1.0, 1.0), id="later"),
        pytest.param({"x-sponge-deadline": "1699999999000"}, (-1.0, 1.0), (-1.0, -1.0), (1.0, 1.0), id="passed"),
        pytest.param(SENT, (0.9, 0.9), (0.9, 0.9), (0.9, 0.9), id="time in the network is spent for all"),
        pytest.param({**SENT, "x-sponge-slo-ms": "400"}, (0.3, 0.9), (0.3, 0.3), (0.9, 0.9), id="both"),
        pytest.param({**SENT, "x-sponge-slo-ms": "105"}, (0.0105, 0.9), (0.0105, 0.0105), (0.9, 0.9), id="clamped"),
        pytest.param(
            {**SENT, "x-sponge-deadline": "1700000005000"}, (0.9, 0.9), (5.0, 5.0), (0.9, 0.9), id="sent and later"
        ),
        pytest.param(
            {**SENT, "x-sponge-deadline": "1700000000950"}, (0.9, 0.9), (0.95, 0.95), (0.9, 0.9), id="sent and hardly"
        ),
    ],
)
def test_what_a_claim_changes_is_the_revisions_to_say(
    claims: dict[str, str],
    shorter: tuple[float, float],
    any_budget: tuple[float, float],
    ignore: tuple[float, float],
) -> None:
    for client_budget, expected in (
        (ClientBudget.SHORTER, shorter),
        (ClientBudget.ANY, any_budget),
        (ClientBudget.IGNORE, ignore),
    ):
        found = deadline(claims, client_budget=client_budget)
        assert (found.at_s - NOW, found.sizing_at_s - NOW) == pytest.approx(expected, abs=1e-6), client_budget


def test_a_claim_that_was_clipped_is_told_and_its_own_time_is_kept() -> None:
    long = {"x-sponge-deadline": "1700000060000"}
    found = deadline(long, client_budget=ClientBudget.SHORTER)
    assert (found.source, found.clipped, found.own_at_s) == (Source.SETTING, True, NOW + 60.0)
    found = deadline(long, timeout_s=10.0)
    assert (found.source, found.clipped, found.own_at_s) == (Source.DEADLINE_HEADER, False, NOW + 60.0)
    assert not deadline({"x-sponge-slo-ms": "1000"}, client_budget=ClientBudget.SHORTER).clipped


CLAIMS = st.dictionaries(
    st.sampled_from(sorted(name.decode() for name in CLAIM_HEADERS)),
    st.one_of(
        st.integers(0, 5000).map(str),
        st.integers(-5000, 5000).map(lambda ms: str(1_700_000_000_000 + ms)),
        st.integers(1, 99).map("{}S".format),
        st.text(st.characters(max_codepoint=255), max_size=24),
    ),
)


@given(CLAIMS, st.floats(0.01, 10.0), st.floats(0.01, 10.0), st.floats(0.0, 1.0))
def test_no_budget_changes_what_is_bought_or_outlasts_it(
    claims: dict[str, str], slo_s: float, timeout_s: float, share: float
) -> None:
    sent = {name: value for name, value in claims.items() if name in ("x-sponge-sent", "x-request-start", "ce-time")}
    for client_budget in (ClientBudget.SHORTER, ClientBudget.IGNORE):
        found = deadline(claims, slo_s, timeout_s, share, client_budget)
        plain = deadline(sent, slo_s, timeout_s, share, client_budget)
        assert found.at_s <= found.sizing_at_s == plain.sizing_at_s == plain.at_s
        assert found.sizing_at_s >= NOW + min((1 - share) * slo_s, timeout_s) - 1e-9
    assert found.at_s == found.sizing_at_s, "ignored"


def test_of_duplicate_headers_the_first_counts() -> None:
    headers = [(b"accept", b"*/*"), (b"x-sponge-slo-ms", b"200"), (b"x-sponge-slo-ms", b"900")]
    assert claims_of(headers) == {b"x-sponge-slo-ms": b"200"}


def test_ce_headers_are_percent_decoded_and_others_are_not() -> None:
    headers = [(b"ce-expirytime", b"2023-11-14T22%3A13%3a22Z"), (b"x-sponge-slo-ms", b"4%300")]
    assert claims_of(headers) == {b"ce-expirytime": b"2023-11-14T22:13:22Z", b"x-sponge-slo-ms": b"4%300"}


def test_the_attributes_of_an_event_count_in_place_of_its_ce_headers() -> None:
    headers = [(b"ce-expirytime", b"2023-11-14T22:13:22Z"), (b"ce-time", b"x"), (b"x-sponge-slo-ms", b"400")]
    attributes = {"id": "1", "expirytime": "2030-01-01T00:00:00Z"}
    assert claims_of(headers, attributes) == {b"ce-expirytime": b"2030-01-01T00:00:00Z", b"x-sponge-slo-ms": b"400"}


def test_an_attribute_that_is_not_ascii_is_a_claim_that_cannot_be_used() -> None:
    claims = claims_of([], {"expirytime": "\N{FULLWIDTH DIGIT TWO}023-11-14T22:13:22Z"})
    found = deadline_of(
        claims,
        now=NOW,
        wall_now_s=WALL,
        slo_s=1.0,
        timeout_s=300.0,
        max_network_share=0.9,
        client_budget=ClientBudget.ANY,
    )
    assert (found.source, found.ignored) == (Source.SETTING, ("ce-expirytime",))
