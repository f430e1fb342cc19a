"""Parser of YAML that holds tables, lists, texts, numbers and booleans, and as many of them as it is allowed to."""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["parse_yaml"]

KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


def parse_yaml(text: str, limit: int, depth: int, *, exponents: bool = False) -> Any:
    """Parse a YAML document.

    A date without quotes is a text. Aliases count as often as they are used, and are counted before they are resolved.

    Args:
        text: the document.
        limit: the largest number of values, lists and tables.
        depth: the largest number of lists and tables within each other; its scanner is slow at many.
        exponents: whether 1e-3, without a point, is a number, as OmegaConf has it, and not a text, as YAML 1.1 has it.

    Raises:
        ValueError: the text is no YAML, or holds something else, or too many values; the message names the line.
    """
    try:
        return (_ExponentLoader if exponents else _Loader)(text, limit, depth).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"{error.problem or error.context}{line}") from error
    except yaml.YAMLError as error:  # a character that no YAML has
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    """Loader that weighs each node as it is composed: an alias costs three characters, whatever it stands for."""

    def __init__(self, text: str, limit: int, depth: int) -> None:
        super().__init__(text)
        self.limit = limit
        self.depth_left = depth
        self.weights: dict[int, int] = {}  # by the node's id, with all that is in it

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias = self.check_event(yaml.AliasEvent)
        if self.depth_left < 0:
            raise yaml.MarkedYAMLError(
                problem="found too many lists and tables within each other",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        self.depth_left -= 1
        node = super().compose_node(parent, index)
        self.depth_left += 1
        if isinstance(node, yaml.CollectionNode) and not alias:
            self._weigh(node)
        return node

    def _weigh(self, node: yaml.CollectionNode) -> None:
        inner = node.value
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            inner = [value for _, value in node.value]
        self.weights[id(node)] = weight = 1 + sum(self._weight(each) for each in inner)
        if weight > self.limit:
            raise _error(f"found more than {self.limit:,} values, aliases counted as often as they are used", node)

    def _weight(self, node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) not in self.weights:
            raise _error("found an alias within what it stands for", node)
        return self.weights[id(node)]


class _ExponentLoader(_Loader):
    """Loader that reads numbers with an exponent, but without a point or a sign of it."""


def _check_keys(node: yaml.MappingNode) -> None:
    """Refuse keys that are no texts, and keys that occur twice."""
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in KEY_TAGS:
            raise _error("found a key that is no text; put it in quotes", key)
        if key.value in seen:
            raise _error(f"found the key {key.value[:100]!r} twice", key)
        seen.add(key.value)


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


# A date is a text: no parameter is one, and 2001-99-99 is none either.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_ExponentLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?\d+(_\d+)*(\.[\d_]*)?[eE][-+]?\d+$", re.ASCII),
    list("-+0123456789"),
)
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
}
