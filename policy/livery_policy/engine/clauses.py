"""What a policy's tree says of it: where it applies, what of the context it reads, and its single conditions.

Owns: the walk over Cedar's syntax tree. Does not own: evaluation.

Invariants: `context_paths` never leaves one out, since a path it forgot would be cut from the context and from the
cache's key: an unknown node raises. `scope_keys` may promise too much (Cedar checks the scope again) and never too
little.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from livery_policy.cedar import pst

Path = tuple[str, ...]
Mention = tuple[str, Path]  # a variable (principal, action, resource, context) and attributes below it
WHOLE: Path = ()  # the context itself: everything in it

# A place in the index: anything, a type, one entity, or all that is in an entity.
Key = tuple[str, ...]
ANY: Key = ("any",)


class UnknownNode(ValueError):
    """Cedar's language grew a construct that this release cannot see into."""


def type_key(entity_type: str) -> Key:
    """The key of `is <type>`."""
    return ("is", entity_type)


def equal_key(entity_type: str, entity_id: str) -> Key:
    """The key of `== <entity>`."""
    return ("==", entity_type, entity_id)


def in_key(entity_type: str, entity_id: str) -> Key:
    """The key of `in <entity>`."""
    return ("in", entity_type, entity_id)


def keys_of(entity_type: str, entity_id: str, above: Iterable[tuple[str, str]]) -> tuple[Key, ...]:
    """Everything under which a policy that applies to this entity may stand. `in X` holds for X itself too."""
    own = (ANY, type_key(entity_type), equal_key(entity_type, entity_id), in_key(entity_type, entity_id))
    return own + tuple(in_key(*uid) for uid in above)


def scope_key(constraint: pst.PrincipalOrResourceConstraint) -> Key:
    """Where a principal's or resource's constraint stands in the index."""
    match constraint:
        case pst.ScopeAny():
            return ANY
        case pst.ScopeIs(entity_type):
            return type_key(str(entity_type))
        case pst.ScopeEq(pst.EntityUid(entity_type, entity_id)):
            return equal_key(str(entity_type), entity_id)
        case pst.ScopeIn(pst.EntityUid(entity_type, entity_id)):
            return in_key(str(entity_type), entity_id)
        case pst.ScopeIsIn(_, pst.EntityUid(entity_type, entity_id)):
            return in_key(str(entity_type), entity_id)
    raise UnknownNode(f"a scope of the form {type(constraint).__name__}")


def action_keys(constraint: pst.ActionConstraint) -> tuple[Key, ...]:
    """Where an action's constraint stands in the index: once for each action of its list."""
    match constraint:
        case pst.ScopeAny():
            return (ANY,)
        case pst.ActionEq(pst.EntityUid(entity_type, entity_id)):
            return (equal_key(str(entity_type), entity_id),)
        case pst.ActionIn(entities):
            return tuple(in_key(str(e.type), e.id) for e in entities)
    raise UnknownNode(f"an action scope of the form {type(constraint).__name__}")


def context_paths(template: pst.Template) -> frozenset[Path]:
    """Every path of the context the policy reads; a path stands for all that is under it."""
    return without_shadowed(path for root, path in mentions(template) if root == "context")


def mentions(template: pst.Template) -> frozenset[Mention]:
    """Every attribute the policy reads or asks for, as the variable it begins at and the path from there."""
    return frozenset(mention for clause in template.clauses for mention in _mentions(clause.expr))


def without_shadowed(paths: Iterable[Path]) -> frozenset[Path]:
    """The paths that no other of them contains."""
    given = set(paths)
    return frozenset(p for p in given if not any(p[:n] in given for n in range(len(p))))


def conditions(template: pst.Template) -> tuple[pst.Clause, ...]:
    """The conditions that must all hold, one by one: each `&&` of a `when` taken apart, an `unless` as it is."""
    found: list[pst.Clause] = []
    for clause in template.clauses:
        if isinstance(clause, pst.When):
            found.extend(pst.When(part) for part in _conjuncts(clause.expr))
        else:
            found.append(clause)
    return tuple(found)


def _conjuncts(expr: pst.Expr) -> Iterator[pst.Expr]:
    if isinstance(expr, pst.BinaryOp) and expr.op == "and":
        yield from _conjuncts(expr.left)
        yield from _conjuncts(expr.right)
    else:
        yield expr


def _mentions(expr: pst.Expr) -> Iterator[Mention]:
    match expr:
        case pst.HasAttr(base, attrs):
            if (inner := _chain(base)) is None:
                yield from _mentions(base)
            else:
                yield inner[0], (*inner[1], *attrs)
        case pst.Var() | pst.GetAttr():
            if (inner := _chain(expr)) is not None:
                yield inner
            elif isinstance(expr, pst.GetAttr):
                yield from _mentions(expr.base)
        case _:
            for child in _children(expr):
                yield from _mentions(child)


def _chain(expr: pst.Expr) -> Mention | None:
    """`context.a.b` as ("context", ("a", "b")); None if this is no chain of attributes down to a variable."""
    attributes: list[str] = []
    while isinstance(expr, pst.GetAttr):
        attributes.append(expr.attr)
        expr = expr.base
    return (expr.name, tuple(reversed(attributes))) if isinstance(expr, pst.Var) else None


def _children(expr: pst.Expr) -> tuple[pst.Expr, ...]:
    children: tuple[pst.Expr, ...]
    match expr:
        case pst.Var() | pst.Slot() | pst.BoolLit() | pst.LongLit() | pst.StringLit() | pst.EntityLit():
            children = ()
        case pst.UnaryOp(_, arg):
            children = (arg,)
        case pst.BinaryOp(_, left, right):
            children = (left, right)
        case pst.GetAttr(base, _) | pst.HasAttr(base, _) | pst.Like(base, _):
            children = (base,)
        case pst.Is(base, _, in_expr):
            children = (base,) if in_expr is None else (base, in_expr)
        case pst.IfThenElse(condition, then, otherwise):
            children = (condition, then, otherwise)
        case pst.Set(elements):
            children = tuple(elements)
        case pst.Record(fields):
            children = tuple(fields.values())
        case _:
            raise UnknownNode(f"an expression of the form {type(expr).__name__}")
    return children
