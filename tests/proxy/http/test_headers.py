"""Header fields on their way: a table of what Knative's own proxy does, and rules checked against a slow second opinion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.errors import BadRequest
from knative_sponge.proxy.http.headers import HOP_BY_HOP, Pair, end_to_end, inbound
from tests.proxy.harness import answering, model_server, ok, on_loop, proxy
from tests.proxy.wire import client, fields_of

PEER = b"9.9.9.9"


def seen(*sent: Pair, peer: bytes = b"") -> dict[bytes, list[bytes]]:
    """What the model server gets of these fields, by name."""
    result: dict[bytes, list[bytes]] = {}
    for name, value in inbound(sent, peer, b"127.0.0.1:8080"):
        result.setdefault(name, []).append(value)
    return result


@pytest.mark.parametrize(
    ("route", "host", "scheme", "forwarded"),
    [
        (b"1.2.3.4, ::1", b"h", b"https", b'for=1.2.3.4;host=h;proto=https, for="[::1]"'),
        (b"1.2.3.4", None, None, b"for=1.2.3.4"),
        (b"2001:db8::1", None, None, b'for="[2001:db8::1]"'),
        (None, b"h", None, b"host=h"),
        (None, None, b"http", b"proto=http"),
        (None, b"h", b"http", b"host=h;proto=http"),
        (b"1.1.1.1,2.2.2.2 ,  3.3.3.3", None, b"http", b"for=1.1.1.1;proto=http, for=2.2.2.2, for=3.3.3.3"),
        (b"1.1.1.1, ,2.2.2.2", None, None, b"for=1.1.1.1, for=, for=2.2.2.2"),
        (b"1.1.1.1,", None, None, b"for=1.1.1.1"),
    ],
)
def test_forwarded_is_made_of_the_older_fields(
    route: bytes | None, host: bytes | None, scheme: bytes | None, forwarded: bytes
) -> None:
    names = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto")
    sent = [(name, value) for name, value in zip(names, (route, host, scheme), strict=True) if value is not None]
    assert seen(*sent)[b"forwarded"] == [forwarded]


def test_a_forwarded_field_that_is_there_stays_as_it_is() -> None:
    got = seen((b"forwarded", b"for=x"), (b"x-forwarded-for", b"1.1.1.1"))
    assert got[b"forwarded"] == [b"for=x"]


def test_no_forwarded_field_is_made_of_nothing() -> None:
    assert b"forwarded" not in seen((b"host", b"a"), peer=PEER)


def test_the_peer_is_appended_to_the_route() -> None:
    assert seen(peer=PEER)[b"x-forwarded-for"] == [b"9.9.9.9"]
    got = seen((b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2"), peer=PEER)
    assert got[b"x-forwarded-for"] == [b"1.1.1.1, 2.2.2.2, 9.9.9.9"]
    assert got[b"forwarded"] == [b"for=1.1.1.1"], "of the first field only, before the peer"


@pytest.mark.parametrize(
    ("sent", "host", "original"),
    [
        ([(b"host", b"a")], b"a", None),
        ([(b"host", b"a"), (b"k-original-host", b"b.example")], b"b.example", None),
        ([(b"host", b"a"), (b"k-original-host", b"")], b"a", [b""]),
        ([], b"127.0.0.1:8080", None),
        ([(b"host", b"")], b"127.0.0.1:8080", None),
    ],
)
def test_the_host_is_the_one_that_was_asked_for(sent: list[Pair], host: bytes, original: list[bytes] | None) -> None:
    got = seen(*sent)
    assert (got[b"host"], got.get(b"k-original-host")) == ([host], original)


@pytest.mark.parametrize("host", [b"a b", b"a\tb", "ä".encode()])
def test_an_original_host_that_is_no_host_is_refused(host: bytes) -> None:
    with pytest.raises(BadRequest):
        seen((b"k-original-host", host))


def test_fields_that_only_find_the_pod_do_not_reach_the_application() -> None:
    assert seen((b"knative-serving-revision", b"r"), (b"knative-serving-namespace", b"n"), (b"host", b"a")) == {
        b"host": [b"a"]
    }


def test_an_empty_user_agent_is_dropped_and_a_missing_one_is_not_made_up() -> None:
    assert b"user-agent" not in seen((b"user-agent", b""))
    assert b"user-agent" not in seen()
    assert seen((b"user-agent", b"curl"))[b"user-agent"] == [b"curl"]


NAMES = [*sorted(HOP_BY_HOP), b"x-a", b"x-b", b"host", b"content-length", b"x-forwarded-for", b"trailer", b"set-cookie"]
CONNECTION = st.lists(st.sampled_from([*NAMES, b"close", b"Keep-Alive", b"X-A", b"", b" x-b "]), max_size=3)
PAIRS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(NAMES), st.sampled_from([b"v", b"w", b"trailers, deflate", b"TRAILERS"])),
        st.tuples(st.just(b"connection"), CONNECTION.map(b",".join)),
    ),
    max_size=8,
)


@given(PAIRS)
def test_only_end_to_end_fields_go_on(sent: list[Pair]) -> None:
    """Second opinion: RFC 9110 §7.6.1 read literally, one field at a time."""
    listed = {t.strip().lower() for name, value in sent if name == b"connection" for t in value.split(b",")}
    protected = {b"host", b"content-length", b"x-forwarded-for"}
    expected = [
        (name, value) for name, value in sent if name not in HOP_BY_HOP and (name in protected or name not in listed)
    ]
    wants_trailers = any(name == b"te" and b"trailers" in value.lower() for name, value in sent)
    assert end_to_end(sent) == expected + [(b"te", b"trailers")] * wants_trailers


@on_loop
async def test_a_client_cannot_have_the_framing_of_its_body_left_out() -> None:
    async with model_server(answering(ok())) as fake, proxy(fake) as port, client(port) as one:
        assert (await one.post(b"hello", b"Connection: content-length, host, x-forwarded-for")).status == 200
        assert dict(fields_of(fake.seen[0])) == {
            b"host": b"a.example", b"content-length": b"5", b"x-forwarded-for": b"127.0.0.1",
        }  # fmt: skip


@on_loop
async def test_hop_by_hop_fields_of_an_answer_stay_behind() -> None:
    answer = ok(
        b"ok", b"Connection: X-Secret, keep-alive", b"X-Secret: 1", b"Keep-Alive: timeout=5", b"Proxy-Authenticate: x",
        b"Upgrade: h2c", b"X-Kept: 1", b"Date: Sun, 06 Nov 1994 08:49:37 GMT", b"Server: app",
    )  # fmt: skip
    async with model_server(answering(answer)) as fake, proxy(fake) as port, client(port) as one:
        assert [name for name, _ in (await one.get()).fields] == [b"content-length", b"x-kept", b"date", b"server"]
