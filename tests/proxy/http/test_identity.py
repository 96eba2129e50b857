"""What the client sends is what the model server gets, and back: byte for byte, for any target, field and body."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.proxy.http.headers import HOP_BY_HOP
from tests.proxy.harness import answering, model_server, ok, on_loop, proxy
from tests.proxy.wire import Wire, body_of, client, fields_of

PATH = "".join(sorted(set(string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/%[]")))
QUERY = PATH + '?{}|^`\\<>"'
TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
VALUE = [*range(0x21, 0x7F), *range(0x80, 0x100)]
OURS = HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"user-agent", b"k-original-host", b"knative-serving-revision",
    b"knative-serving-namespace", b"k-network-probe", b"forwarded", b"x-forwarded-for", b"x-forwarded-host",
    b"x-forwarded-proto",
}  # fmt: skip

targets = st.builds(
    lambda path, query: ("/" + path + ("" if query is None else "?" + query)).encode(),
    st.text(PATH, max_size=30),
    st.none() | st.text(QUERY, max_size=30),
)
names = st.text(TOKEN, min_size=1, max_size=12).map(str.encode).filter(lambda name: name.lower() not in OURS)
words = st.lists(st.sampled_from(VALUE), max_size=12).map(bytes)
values = st.lists(words, max_size=3).map(b" \t ".join).map(lambda value: value.strip(b" \t"))
fields = st.lists(st.tuples(names, values), max_size=8)
bodies = st.binary(max_size=200)
methods = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "REPORT", "M-SEARCH", "PROPFIND"])


def chunks(body: bytes, cut: int) -> bytes:
    pieces = [body[at : at + cut] for at in range(0, len(body), cut)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@given(
    method=methods,
    target=targets,
    sent=fields,
    body=bodies,
    cut=st.none() | st.integers(1, 50),
    answered=fields,
    answer=bodies,
    status=st.integers(200, 599).filter(lambda code: code not in (204, 304)),
)
def test_requests_and_answers_pass_unchanged(
    method: str,
    target: bytes,
    sent: list[tuple[bytes, bytes]],
    body: bytes,
    cut: int | None,
    answered: list[tuple[bytes, bytes]],
    answer: bytes,
    status: int,
) -> None:
    @on_loop
    async def round_trip() -> None:
        got: list[bytes] = []

        async def serve(wire: Wire) -> None:
            got.append(await body_of(wire, await wire.head()))
            lines = [b"HTTP/1.1 %d Any" % status, *(b"%b: %b" % pair for pair in answered)]
            await wire.send(b"\r\n".join([*lines, b"Content-Length: %d" % len(answer), b"", answer]))
            await wire.gone()

        framing = b"Content-Length: %d" % len(body) if cut is None else b"Transfer-Encoding: chunked"
        head = [b"%b %b HTTP/1.1" % (method.encode(), target), b"Host: h.example:81", framing]
        async with model_server(serve) as fake, proxy(fake) as port, client(port) as one:
            reply = await one.ask(
                b"\r\n".join([*head, *(b"%b: %b" % pair for pair in sent)]), body if cut is None else chunks(body, cut)
            )
            line = fake.seen[0].split(b"\r\n")[0]
            assert line == b"%b %b HTTP/1.1" % (method.encode(), target)
            arrived = fields_of(fake.seen[0])
            assert [pair for pair in arrived if pair[0] not in OURS] == [(n.lower(), v) for n, v in sent]
            ours = {pair for pair in arrived if pair[0] in OURS}
            kept = (framing.split(b": ")[0].lower(), framing.split(b": ")[1])
            assert ours == {(b"host", b"h.example:81"), (b"x-forwarded-for", b"127.0.0.1"), kept}
            assert got == [body]
            assert reply.status == status
            expected = [(n.lower(), v) for n, v in answered] + [(b"content-length", b"%d" % len(answer))]
            assert reply.fields == expected
            assert reply.body == answer

    round_trip()


@on_loop
async def test_targets_that_servers_like_to_tidy_up_are_left_alone() -> None:
    tidy = [b"/a%2Fb//c?x=%20", b"/a/../b/./c", b"/;p=1?", b"/?", b"//host/x", b"/%zz", b"/a?b?c=d&&", b"/[::1]"]

    async def serve(wire: Wire) -> None:
        for _ in tidy:
            await wire.head()
            await wire.send(ok())

    async with model_server(serve) as fake, proxy(fake) as port, client(port) as one:
        for target in tidy:
            await one.get(target)
        assert [head.split(b" ")[1] for head in fake.seen] == tidy


@on_loop
async def test_what_is_illegal_in_a_path_is_escaped_there_and_the_query_is_left_raw() -> None:
    async with model_server(answering(ok())) as fake, proxy(fake) as port, client(port) as one:
        await one.get(b"/a\\b/^{`}/%2F#c?x=^{`}\\%20#d")
        assert fake.seen[0].split(b" ")[1] == b"/a%5Cb/%5E%7B%60%7D/%2F%23c?x=^{`}\\%20#d"


@on_loop
async def test_nothing_is_added_to_what_a_client_did_not_say() -> None:
    async def serve(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08")

    async with model_server(serve) as fake, proxy(fake) as port, client(port) as one:
        reply = await one.get()
        assert fields_of(fake.seen[0]) == [(b"host", b"a.example"), (b"x-forwarded-for", b"127.0.0.1")]
        assert reply.fields == [(b"content-encoding", b"gzip"), (b"content-length", b"3")]
        assert reply.body == b"\x1f\x8b\x08"
