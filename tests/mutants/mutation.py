"""One-token changes of a Python source that should make a test fail. Reads text, changes no file."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

_OPERATORS = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
    "+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=",
}  # fmt: skip
_KEYWORDS = {
    "and": "or", "or": "and", "not": "", "is": "is not", "in": "not in",
    "True": "False", "False": "True", "break": "continue", "continue": "break",
}  # fmt: skip
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_LOGGERS = {"log", "_log", "logger"}
_LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT}

Place = tuple[int, int]
"""Line, from 1, and column in characters, from 0."""


@dataclass(frozen=True, slots=True, order=True)
class Mutation:
    """`before` at `line` and `column` of `file` becomes `after`.

    text, indent: the line without its indentation, and how long that is.
    statement: first and last line of the statement, or of its head; whoever executes one of them executes the token.
    at_import: whether the token is executed when the module is imported and not when a function is called.
    """

    file: str
    line: int
    column: int
    before: str
    after: str
    text: str
    indent: int
    statement: tuple[int, int]
    at_import: bool

    @property
    def mutant(self) -> str:
        """`text` after the change."""
        at = self.column - self.indent
        return self.text[:at] + self.after + self.text[at + len(self.before) :]

    def apply(self, source: str) -> str:
        """The whole source with the one token changed."""
        lines = source.split("\n")
        line = lines[self.line - 1]
        end = self.column + len(self.before)
        assert line[self.column : end] == self.before
        lines[self.line - 1] = line[: self.column] + self.after + line[end:]
        return "\n".join(lines)


def mutations(source: str, file: str) -> Iterator[Mutation]:
    """All of them, in the order of the text. Some may not compile: see `compiles`."""
    marks = _Marks(source)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in _LAYOUT]
    lines = source.split("\n")
    texts = ["", *(token.string for token in tokens), ""]
    for before, token, after in zip(texts, tokens, texts[2:], strict=False):
        change = _change(before, token, after)
        if change is None or marks.skipped(token.start):
            continue
        number, column = token.start
        line = lines[number - 1]
        statement, at_import = marks.statement(number)
        yield Mutation(
            file, number, column, token.string, change,
            line.strip(), len(line) - len(line.lstrip()), statement, at_import,
        )  # fmt: skip


def compiles(mutation: Mutation, source: str) -> bool:
    """Whether the mutant is Python: the `in` of a `for` is not a comparison, nor is the `*` of `*args` a product."""
    try:
        compile(mutation.apply(source), mutation.file, "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _change(before: str, token: tokenize.TokenInfo, after: str) -> str | None:
    text = token.string
    if token.type == tokenize.NUMBER:
        return _next_number(text)
    if token.type == tokenize.OP:
        # A bare * or / in a signature is no operator.
        return None if after in {",", ")"} else _OPERATORS.get(text)
    if token.type != tokenize.NAME:
        return None
    if text in _FUNCTIONS:
        return None if before in {".", "def"} or after == "=" else _FUNCTIONS[text]
    if (text == "is" and after == "not") or (text == "in" and before == "not"):
        return None  # taking the `not` away is that mutant
    return _KEYWORDS.get(text)


def _next_number(text: str) -> str | None:
    value = ast.literal_eval(text)
    return None if isinstance(value, complex) else repr(value + 1)


class _Marks:
    """What the syntax tree knows of places: those that are left alone, and the statement that each line belongs to."""

    def __init__(self, source: str) -> None:
        self._lines = source.split("\n")
        self._skipped: list[tuple[Place, Place]] = []
        self._heads: list[tuple[int, int, bool]] = []
        self._visit(ast.parse(source), at_import=True)

    def skipped(self, place: Place) -> bool:
        """Whether the place is an annotation, a decorator, a log call, a text, or a guard that never fires."""
        return any(start <= place < end for start, end in self._skipped)

    def statement(self, line: int) -> tuple[tuple[int, int], bool]:
        """First and last line of the smallest statement around a line, and whether it runs when the module is imported."""
        around = [head for head in self._heads if head[0] <= line <= head[1]]
        first, last, at_import = min(around, key=lambda head: head[1] - head[0])
        return (first, last), at_import

    def _visit(self, node: ast.AST, *, at_import: bool) -> None:
        for part in _left_alone(node):
            self._skipped.append((self._place(part.lineno, part.col_offset), self._end(part)))
        if isinstance(node, ast.stmt | ast.excepthandler):
            body: list[ast.stmt | ast.match_case] = getattr(node, "body", None) or getattr(node, "cases", [])
            last = _first_line(body[0]) - 1 if body else node.end_lineno or node.lineno
            self._heads.append((node.lineno, max(last, node.lineno), at_import))
        elif isinstance(node, ast.match_case):
            self._heads.append((_first_line(node), max(_first_line(node), _first_line(node.body[0]) - 1), at_import))
        inner = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            self._visit(child, at_import=inner)

    def _place(self, line: int, offset: int) -> Place:
        return line, len(self._lines[line - 1].encode()[:offset].decode())

    def _end(self, part: ast.expr | ast.stmt) -> Place:
        assert part.end_lineno is not None
        assert part.end_col_offset is not None
        return self._place(part.end_lineno, part.end_col_offset)


def _first_line(node: ast.stmt | ast.match_case) -> int:
    if isinstance(node, ast.match_case):
        return node.pattern.lineno
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _left_alone(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    yield from getattr(node, "decorator_list", [])
    match node:
        case ast.ClassDef(bases=bases) if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in bases):
            yield node
        case ast.ClassDef(keywords=keywords):
            yield from (keyword.value for keyword in keywords)
        case ast.FunctionDef(returns=ast.expr() as returns) | ast.AsyncFunctionDef(returns=ast.expr() as returns):
            yield returns
        case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
            yield annotation
        case ast.Assert(msg=ast.expr() as message):
            yield message
        case ast.JoinedStr():
            yield node  # tokens of their own from Python 3.12 on only
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name))) if name in _LOGGERS:
            yield node
        case ast.keyword(arg="strict", value=value):
            yield value  # zip's guard
        case _:
            pass
