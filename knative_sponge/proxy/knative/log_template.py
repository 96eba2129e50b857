"""Go's text/template, as far as request logs use it: text, fields, `js`, `html`, `urlquery`, pipes, `Header.Get`.

Pure. Whatever else the language has (conditions, loops, variables, printf) is refused as a whole, not guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar
from urllib.parse import quote_plus

T = TypeVar("T")
Value = str | int | float
Field = Callable[[T], Value]

_ACTION: Final = re.compile(
    r"\{\{(-\s)?((?:(?>/\*.*?\*/)|\"(?:[^\"\\\n]|\\.)*+\"|`[^`]*+`|/(?!\*)|[^\"`/])*?)(\s-)?\}\}", re.DOTALL
)
_COMMENT: Final = re.compile(r"/\*.*\*/", re.DOTALL)
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<name>[a-z]\w*)|(?P<text>\"(?:[^\"\\\n]|\\[\"\\])*\"|`[^`]*`)|(?P<mark>[|()]))"
)
_GET: Final = ".Request.Header.Get"
_JS: Final = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}
_HTML: Final = str.maketrans({'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"})


class Template(Generic[T]):
    """A compiled template.

    fields: what may be named, such as `.Response.Code`. header: a request's first value of a field, by lower-case name.
    Raises ValueError when the text uses anything else.
    """

    def __init__(self, text: str, fields: Mapping[str, Field[T]], header: Callable[[T, str], str]) -> None:
        self._fields = fields
        self._header = header
        self._pieces: list[str | Field[T]] = []
        at, trim = 0, False
        while (start := text.find("{{", at)) >= 0:
            action = _ACTION.match(text, start)
            if action is None:
                raise ValueError("an action without an end")
            self._literal(text[at : action.start()], trim, trim_end=bool(action[1]))
            at, trim = action.end(), bool(action[3])
            inside = action[2].strip()
            if not _COMMENT.fullmatch(inside):
                self._pieces.append(self._pipeline(_tokens(inside)))
        self._literal(text[at:], trim, trim_end=False)

    def render(self, subject: T) -> str:
        """The text for one subject."""
        return "".join([piece if isinstance(piece, str) else shown(piece(subject)) for piece in self._pieces])

    def _literal(self, text: str, trim: bool, *, trim_end: bool) -> None:
        if trim:
            text = text.lstrip(" \t\r\n")
        self._pieces.append(text.rstrip(" \t\r\n") if trim_end else text)

    def _pipeline(self, tokens: Sequence[str]) -> Field[T]:
        """`command | function | function`, to the end of the tokens."""
        tokens = list(tokens)
        found = self._command(tokens)
        while tokens:
            if tokens.pop(0) != "|" or not tokens:
                raise ValueError("not a pipeline")
            found = _applied(tokens.pop(0), found)
        return found

    def _command(self, tokens: list[str]) -> Field[T]:
        token = tokens.pop(0) if tokens else ""
        if token in _FUNCTIONS:
            return _applied(token, self._operand(tokens))
        tokens.insert(0, token)
        return self._operand(tokens)

    def _operand(self, tokens: list[str]) -> Field[T]:
        token = tokens.pop(0) if tokens else ""
        if token == "(":
            if ")" not in tokens:
                raise ValueError("a parenthesis without its end")
            end = len(tokens) - 1 - tokens[::-1].index(")")
            inside, tokens[:] = tokens[:end], tokens[end + 1 :]
            return self._pipeline(inside)
        if token == _GET and tokens and tokens[0][:1] in ('"', "`"):
            name = tokens.pop(0)[1:-1].lower()
            header = self._header
            return lambda subject: header(subject, name)
        if token in self._fields:
            return self._fields[token]
        raise ValueError(f"{token or 'an empty action'} is not known")


def shown(value: Value) -> str:
    """A value as Go prints it."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _tokens(text: str) -> list[str]:
    found = []
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            if not text[at:].strip():
                break
            raise ValueError(f"{text[at : at + 40]!r} is not understood")
        found.append(token[token.lastgroup or 0])
        at = token.end()
    return found


def _applied(name: str, value: Field[T]) -> Field[T]:
    function = _FUNCTIONS.get(name)
    if function is None:
        raise ValueError(f"the function {name} is not known")
    return lambda subject: function(shown(value(subject)))


def _js(text: str) -> str:
    if text.isalnum() and text.isascii():
        return text
    return "".join([_JS.get(letter) or _js_letter(letter) for letter in text])


def _js_letter(letter: str) -> str:
    # Bytes that are no UTF-8 came as lone surrogates and leave as they came.
    if letter.isprintable() or letter == "\x7f" or "\udc80" <= letter <= "\udcff":
        return letter
    return f"\\u{ord(letter):04X}"


def _html(text: str) -> str:
    return text.translate(_HTML)


def _urlquery(text: str) -> str:
    return quote_plus(text, errors="surrogateescape")


_FUNCTIONS: Final[Mapping[str, Callable[[str], str]]] = {"js": _js, "html": _html, "urlquery": _urlquery}
