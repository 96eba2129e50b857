"""Expressions of the policies, judged without an API server: as much of CEL as they use, whose syntax Python's parser reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any


def judge(expression: str, names: Mapping[str, Any]) -> Any:
    """The value of an expression. Raises KeyError for a field that is not there, as CEL does, and SyntaxError for what is no
    expression of this kind."""
    text = re.sub(r"(.+?) \? (.+?) : (.+)", r"(\2) if (\1) else (\3)", " ".join(expression.split()))
    text = text.replace("&&", " and ").replace("||", " or ")
    return _value(ast.parse(text.strip(), mode="eval").body, {"true": True, "false": False, **names})


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.Name(name):
            return names[name]
        case ast.Attribute(value, name):
            return _value(value, names)[name]
        case ast.Subscript(value, key):
            return _value(value, names)[_value(key, names)]
        case ast.List(elements):
            return [_value(one, names) for one in elements]
        case ast.Dict(keys, values):
            return {_value(k, names): _value(v, names) for k, v in zip(keys, values, strict=True) if k is not None}
        case ast.BoolOp(ast.And(), parts):
            return all(_value(one, names) for one in parts)
        case ast.BoolOp(ast.Or(), parts):
            return any(_value(one, names) for one in parts)
        case ast.IfExp(test, then, otherwise):
            return _value(then if _value(test, names) else otherwise, names)
        case ast.Compare(left, [operator], [right]):
            return _compared(_value(left, names), operator, _value(right, names))
        case ast.Call(ast.Name("dyn"), [one]):
            return _value(one, names)
        case ast.Call(ast.Name("has"), [ast.Attribute(value, name)]):
            return name in _value(value, names)
        case ast.Call(ast.Attribute(value, "size"), []):
            return len(_value(value, names))
        case ast.Call(ast.Attribute(value, "contains"), [part]):
            return _value(part, names) in _value(value, names)
        case ast.Call(ast.Attribute(value, "all" | "exists" as quantor), [ast.Name(each), condition]):
            found = (_value(condition, {**names, each: one}) for one in _value(value, names))
            return all(found) if quantor == "all" else any(found)
    raise SyntaxError(f"not known of CEL: {ast.unparse(node)}")


def _compared(left: Any, operator: ast.cmpop, right: Any) -> bool:
    match operator:
        case ast.Eq():
            return bool(left == right)
        case ast.NotEq():
            return bool(left != right)
        case ast.In():
            return left in right
    raise SyntaxError(f"not known of CEL: {type(operator).__name__}")
