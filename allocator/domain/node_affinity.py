"""The required node affinity that keeps a pod on nodes where its pools serve.

A pool serves some nodes (`nodeName`, else `nodeAffinity`) or all. For each group of pools, those of one interface and
family, some pool must serve the pod's node: an OR over the pools, an AND over the groups and with what the pod requires
itself. Source of the form and meaning: NodeSelector in k8s.io/api core/v1; its operators mean for nodes what those of
label selectors mean, so that an absent label satisfies NotIn and DoesNotExist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from allocator.domain.selector_rules import OPERATORS, SUBDOMAIN, SUBDOMAIN_LIMIT, is_label_key, is_label_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from allocator.domain.pool import Pool
    from allocator.domain.selectors import LabelSelector

# Of terms, each of one node or one selector: a pod should not grow by more than some KiB.
MOST: Final = 100

_NAME_FIELD: Final = "metadata.name"
# Stands for the node's name among the keys of labels, none of which is empty.
_NAME: Final = ""


@dataclass(frozen=True, slots=True)
class _Values:
    """Which values of a label a node may have: those listed, or all but those; and whether it may lack the label."""

    listed: frozenset[str] = frozenset()
    are_barred: bool = False
    may_lack: bool = False

    def __and__(self, other: _Values) -> _Values:
        may_lack = self.may_lack and other.may_lack
        match self.are_barred, other.are_barred:
            case True, True:
                return _Values(self.listed | other.listed, are_barred=True, may_lack=may_lack)
            case True, False:
                return _Values(other.listed - self.listed, may_lack=may_lack)
            case False, True:
                return _Values(self.listed - other.listed, may_lack=may_lack)
            case _:
                return _Values(self.listed & other.listed, may_lack=may_lack)

    def __le__(self, other: _Values) -> bool:
        """Whether a node that satisfies this satisfies the other one; sure of it, where values are without end."""
        if self.may_lack and not other.may_lack:
            return False
        if self.are_barred:
            return other.are_barred and other.listed <= self.listed
        return self.listed.isdisjoint(other.listed) if other.are_barred else self.listed <= other.listed

    @property
    def is_none(self) -> bool:
        return not (self.listed or self.are_barred or self.may_lack)


# What one term asks of a node, by the label's key. All of it must hold.
_Term: TypeAlias = Mapping[str, _Values]
_Raw: TypeAlias = Mapping[str, Any]


_ANY: Final = _Values(are_barred=True, may_lack=True)


@dataclass(frozen=True, slots=True)
class Restricted:
    """The nodeSelectorTerms to put on the pod, or None to leave it as it is; `problem` says why, where that is bad."""

    terms: list[dict[str, Any]] | None = None
    problem: str = ""


class _Unfit(Exception):
    """No affinity is put on the pod; the message says why."""


def names_nodes(own: Sequence[_Raw] | None) -> bool:
    """Whether somebody has chosen the node already, as for the pods of a DaemonSet: every term has a node's name."""
    bounds = [each for term in own or () if (each := _bounds_of(term)) is not None]
    return bool(bounds) and all(_NAME in each and not each[_NAME].are_barred for each in bounds)


def restricted(
    own: Sequence[_Raw] | None, groups: Iterable[Iterable[Pool]], selector: Mapping[str, str] | None = None
) -> Restricted:
    """The pod's own required terms (None when it has none), narrowed to nodes where each group has a pool that serves.

    `selector` is the pod's nodeSelector, which holds as well. A fixed point: terms that lie within stay as they are.
    """
    labels = {key: _Values(frozenset([value])) for key, value in (selector or {}).items()}
    try:
        demand = _demand(groups)
        if demand is None:
            return Restricted()
        demand = [term for term in demand if _met(labels, term) is not None]
        if not demand:
            raise _Unfit("its pools serve no node that its nodeSelector allows")  # noqa: TRY301
        return Restricted(_merged(own, demand) if own is not None else [_joined({}, {}, term) for term in demand])
    except _Unfit as why:
        return Restricted(problem=str(why))


def _demand(groups: Iterable[Iterable[Pool]]) -> list[_Term] | None:
    """What the groups ask of a node together; None when any node will do. _Unfit when none will, or too many."""
    demand: list[_Term] | None = None
    for pools in groups:
        terms = _served(pools)
        if terms is not None and terms != demand:
            demand = _few(terms if demand is None else _both(demand, terms))
            if not demand:
                raise _Unfit("no node is served for all of its addresses: the pools are for different nodes")
    return None if demand is None else _simplified(demand)


def _few(terms: list[_Term]) -> list[_Term]:
    if len(terms) > MOST:
        names = sum(_NAME in term for term in terms)
        what = f"{names} nodes by name" if names == len(terms) else f"{len(terms)} nodes or selectors of nodes"
        raise _Unfit(f"its pools serve {what}, more than {MOST}; let the pools select nodes by spec.nodeAffinity")
    return terms


def _served(pools: Iterable[Pool]) -> list[_Term] | None:
    """A term for each node, or selector of nodes, that a pool serves; None when one serves all."""
    names: dict[str, None] = {}
    terms: list[_Term] = []
    for pool in pools:
        if pool.node_names:
            names |= dict.fromkeys(pool.node_names)
            continue
        term = {} if pool.node_affinity is None else _selected(pool.node_affinity)
        if term == {}:
            return None
        terms += [] if term is None else [term]
    return _unique([*({_NAME: _Values(frozenset([name]))} for name in names if _is_name(name)), *terms])


def _selected(selector: LabelSelector) -> _Term | None:
    """None when no node can match. What the API server would not take in a pod is never asked for."""
    term: _Term | None = {}
    for requirement in selector.requirements:
        if term is None or requirement.operator not in OPERATORS:
            return None
        values = _values_of(requirement.operator, frozenset(filter(is_label_value, requirement.values)))
        if values is None or not (values.may_lack or is_label_key(requirement.key)):
            return None
        if values != _ANY and is_label_key(requirement.key):
            term = _met(term, {requirement.key: values})
    return term


def _values_of(operator: str, values: frozenset[str]) -> _Values | None:
    """None for what no node satisfies as far as we know."""
    match operator:
        case "In":
            return _Values(values)
        case "NotIn":
            return _Values(values, are_barred=True, may_lack=True)
        case "Exists" | "Gt" | "Lt":
            # Numbers are not compared here: that the label is there is certain.
            return _Values(are_barred=True)
        case "DoesNotExist":
            return _Values(may_lack=True)
        case _:
            return None


def _is_name(text: str) -> bool:
    return len(text) <= SUBDOMAIN_LIMIT and SUBDOMAIN.fullmatch(text) is not None


def _met(one: _Term, other: _Term) -> _Term | None:
    """Both at once; None when they contradict each other."""
    met = dict(one)
    for key, values in other.items():
        met[key] = met[key] & values if key in met else values
        if met[key].is_none:
            return None
    return met


def _is_within(one: _Term, other: _Term) -> bool:
    """Whether every node that satisfies the one satisfies the other."""
    return all(key in one and one[key] <= values for key, values in other.items())


class _Index:
    """Terms by the node that they name: others than those of the same node or of none never meet."""

    def __init__(self, terms: Iterable[_Term]) -> None:
        self._terms: dict[_Values | None, list[_Term]] = {}
        for term in terms:
            self._terms.setdefault(term.get(_NAME), []).append(term)

    def beside(self, term: _Term) -> Iterator[_Term]:
        name = term.get(_NAME)
        if name is None:
            for terms in self._terms.values():
                yield from terms
            return
        yield from self._terms.get(None, ())
        yield from self._terms.get(name, ())


def _both(first: list[_Term], second: list[_Term]) -> list[_Term]:
    index = _Index(second)
    terms: list[_Term] = []
    for one in first:
        others = [*index.beside(one)]
        if any(_is_within(one, other) for other in others):
            terms.append(one)
        else:
            terms += [met for other in others if (met := _met(one, other)) is not None]
    return _unique(terms)


def _unique(terms: Iterable[_Term]) -> list[_Term]:
    return [*{frozenset(term.items()): term for term in terms}.values()]


def _simplified(terms: list[_Term]) -> list[_Term]:
    """Without what lies within another."""
    index = _Index(terms)
    return [
        term for term in terms if not any(_is_within(term, other) for other in index.beside(term) if other is not term)
    ]


def _merged(own: Sequence[_Raw], demand: Sequence[_Term]) -> list[dict[str, Any]]:
    """The pod's terms, each as it is where it lies within the demand, else once with each term of that."""
    if len(own) > MOST:
        raise _Unfit(f"it has {len(own)} terms, more than {MOST}")
    merged: list[dict[str, Any]] = []
    is_any_left = False
    for raw in own:
        bounds = _bounds_of(raw)
        if bounds is None or any(_is_within(bounds, term) for term in demand):
            joined = [dict(raw)]
        else:
            joined = [_joined(raw, bounds, term) for term in demand if _met(bounds, term) is not None]
        is_any_left = is_any_left or (bounds is not None and bool(joined))
        merged += joined
    if not is_any_left:
        raise _Unfit("its pools serve no node that its own node affinity allows")
    if len(merged) > MOST:
        raise _Unfit(f"together with its own node affinity that would be {len(merged)} terms, more than {MOST}")
    return merged


def _bounds_of(raw: _Raw) -> _Term | None:
    """What a term of a pod asks for at least; None when it matches no node, as an empty one."""
    asked = [(each.get("key", ""), each) for each in raw.get("matchExpressions") or ()]
    asked += [(_NAME, each) for each in raw.get("matchFields") or ()]
    bounds: _Term | None = {} if asked else None
    for key, each in asked:
        values = _values_of(each.get("operator", ""), frozenset(each.get("values") or ()))
        if bounds is None or values is None:
            return None
        bounds = _met(bounds, {key: values})
    return bounds


def _joined(raw: _Raw, bounds: _Term, term: _Term) -> dict[str, Any]:
    """The pod's term with what it lacks of the other one."""
    lacking = {key: values for key, values in term.items() if key not in bounds or not bounds[key] <= values}
    joined = dict(raw)
    if expressions := [each for key in sorted(lacking) if key != _NAME for each in _written(key, lacking[key])]:
        joined["matchExpressions"] = [*(raw.get("matchExpressions") or ()), *expressions]
    if _NAME in lacking:
        field = {"key": _NAME_FIELD, "operator": "In", "values": sorted(lacking[_NAME].listed)}
        joined["matchFields"] = [*(raw.get("matchFields") or ()), field]
    return joined


def _written(key: str, values: _Values) -> Iterator[dict[str, Any]]:
    if not values.are_barred and not values.may_lack:
        yield {"key": key, "operator": "In", "values": sorted(values.listed)}
        return
    if values.are_barred and not values.may_lack:
        yield {"key": key, "operator": "Exists"}
    if not values.are_barred:
        yield {"key": key, "operator": "DoesNotExist"}
    elif values.listed:
        yield {"key": key, "operator": "NotIn", "values": sorted(values.listed)}
