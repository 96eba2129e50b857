"""The part of Go's template language that request logs use. Expected texts were printed by Go's queue-proxy 1.21.1."""

from __future__ import annotations

import contextlib
import json
import string
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_sponge.proxy.knative.log_template import Template, Value, shown

Subject = Mapping[str, Value]
NAMES = (".A", ".B.C", ".Request.Header.Get")


def render(text: str, header: str = "", **values: Value) -> str:
    """`.A` and `.B.C` are what there is."""
    fields = {".A": lambda subject: subject["A"], ".B.C": lambda subject: subject["C"]}
    template: Template[Subject] = Template(text, fields, lambda _subject, name: f"{header}{name}")
    return template.render(values)


AGENT = "u\"a'\\<>&=x é~`"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain } { text\n", "plain } { text\n"),
        ("{{.A}}", AGENT),
        ("<{{ .A }}>", f"<{AGENT}>"),
        ("{{js .A}}", "u\\\"a\\'\\\\\\u003C\\u003E\\u0026\\u003Dx é~`"),
        ("{{.A | js}}", "u\\\"a\\'\\\\\\u003C\\u003E\\u0026\\u003Dx é~`"),
        ("{{html .A}}", "u&#34;a&#39;\\&lt;&gt;&amp;=x é~`"),
        ("{{urlquery .A}}", "u%22a%27%5C%3C%3E%26%3Dx+%C3%A9~%60"),
        ("{{js (html .B.C)}}", "5"),
        ("{{.B.C}}|{{- .B.C -}} |{{.B.C}}", "5|5|5"),
        ("a \n{{- .B.C -}}\t b", "a5b"),
        ("{{/* said }} to nobody */}}x", "x"),
        ("{{- /* a comment */ -}} x", "x"),
        ('{{.Request.Header.Get "X-Key"}}', "x-key"),
        ('{{js (.Request.Header.Get "X")}}', "x"),
        ('{{.Request.Header.Get `X"` | js}}', 'x\\"'),
    ],
)
def test_what_is_understood_reads_as_in_go(text: str, expected: str) -> None:
    assert render(text, A=AGENT, C=5) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{}}", "{{.A", "{{.D}}", "{{.A.B}}", "{{if .A}}x{{end}}", "{{range .A}}{{end}}", "{{$x := .A}}",
        '{{printf "%q" .A}}', "{{.A .B.C}}", "{{js}}", "{{.A |}}", "{{| js}}", "{{.A | .B.C}}", "{{js (.A}}", "{{.A)}}",
        "{{.Request.Header.Get}}", "{{.Request.Header.Get .A}}", '{{"text"}}', "{{js .A .A}}", "{{()}}", "{{.}}",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        render("before " + text + " after", A="a", C=1)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00463659, "0.00463659"), (1.0, "1"), (0.0, "0"), (1e-05, "1e-05"), (2.5, "2.5"), (-1, "-1"), (200, "200")],
)
def test_numbers_read_as_in_go(value: Value, text: str) -> None:
    assert shown(value) == text


@given(st.text(st.characters(codec="utf-8")))
def test_js_leaves_a_text_that_json_reads_back(text: str) -> None:
    """But for the quote that only JavaScript escapes, and letters beyond the first plane that do not print."""
    escaped = render("{{js .A}}", A=text).replace("\\'", "'")
    if all(ord(letter) < 0x10000 for letter in text):
        assert json.loads(f'"{escaped.replace(chr(0x7F), "")}"', strict=False) == text.replace(chr(0x7F), "")
    assert not set(escaped) & set("<>&=\n\r\0")


@given(st.text(string.printable, max_size=40))
def test_no_text_is_a_surprise(text: str) -> None:
    """It is rendered or refused; without an action it is itself."""
    try:
        found = render(text, A="a", C=1)
    except ValueError:
        assert "{{" in text
    else:
        assert "{{" in text or found == text


@given(st.text(st.sampled_from('{}()|.AB"`-/* \njs'), max_size=20))
def test_no_action_is_a_surprise(text: str) -> None:
    with contextlib.suppress(ValueError):
        render("{{" + text + "}}", A="a", C=1)
