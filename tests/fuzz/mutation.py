"""Mutations of valid files: of their bytes, of the values in a document, and of what is inside arrays and archives."""

from __future__ import annotations

import copy
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import tomli_w
import yaml

__all__ = [
    "Mutation",
    "mutate_archive",
    "mutate_array",
    "mutate_bytes",
    "mutate_document",
    "mutate_picture",
    "write_document",
]

Mutation = Callable[[bytes, Random], bytes]

NUMBERS = (0, 1, -1, 2, 64, 255, 65_536, 10**6, 2**31, 2**53, 2**63 - 1, 2**63, 10**19, 10**400, -(10**12))
FLOATS = (0.0, 0.5, 1e-9, 5e-324, 1e300, 1e308, -1e308, float("nan"), float("inf"))
TEXTS = ("", " ", "\0", "\x1b[31m", "é", "9" * 5000, "x" * 12_000, "../../x", "/dev/null", "x.npz", "2001-99-99",
         "1e-4", "2h", "9" * 400 + "d", "1" * 30 + "-2", "nan", "a\nb", "{", "adam", "mlp", "tpe", "grid", "hyperband",
         "val_loss", "val_accuracy > 0.5", "normal", "q_log_uniform", "!!int x", "*a", "constant", "value",
         "choices")  # fmt: skip
TREES: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [{}], [None], [1, "a", 2.5, None], ["a", "a"], list(range(3000)),
    {"low": 1, "high": 65_536}, {"low": 1, "high": 10**9}, {"low": 1e-9, "high": 1.000000001, "step": 1e-9},
    {"low": 1e-4, "high": 1e-1, "log": True}, {"low": -1e308, "high": 1e308}, {"choices": [1, 2]}, {"choices": 7},
    {"value": {}}, {"value": 1, "when": {"depth": 1}},
    [{"value": 1, "when": {"depth": [1]}}, {"value": 2, "when": {"depth": [2]}}], {"min": 1, "max": 10**300},
    {"distribution": "log_uniform", "min": -1e4, "max": 1e4},
    {"distribution": "normal", "mu": 1e308, "sigma": 1e308},
    {"distribution": "q_uniform", "min": 0, "max": 1e300, "q": 1e-300}, {"values": [[1], {"a": 2}]}, {"values": []},
    {"name": "asha", "min_early_stopping_rate": 10**9}, {"name": "hyperband", "reduction_factor": 1},
    {"name": "cmaes", "popsize": 10**9}, {"name": "tpe", "n_ei_candidates": 10**12},
    {"metric": "val_loss", "direction": 1}, {"type": "hyperband", "eta": 999_999, "s": 99_999_999, "max_iter": 27},
    {"better": {"depth": 1}, "than": {"depth": 2}},
)  # fmt: skip
ALIASES = (
    "a0: &a0 [x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)),
    "settings: &s {a: *s}\n", "settings: &s\n  <<: *s\n", "<<: {a: 1}\n", "? [1, 2]\n: 3\n", "!!set {a, b}\n",
    "settings: !!python/object/apply:os.getcwd []\n", "settings: !!timestamp 2001-99-99\n", "settings: !!binary x\n",
    "settings: !!int abc\n", "settings: !!float abc\n", "settings: " + "[" * 3000 + "\n",
    "settings: " + "{a: " * 3000 + "\n",
)  # fmt: skip


def mutate_bytes(content: bytes, random: Random) -> bytes:
    """Change a few bytes, numbers or pieces."""
    mutated = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        start = random.randrange(len(mutated) + 1)
        stop = min(len(mutated), start + random.choice((1, 2, 4, 8, 64)))
        match random.randrange(8):
            case 0 if start < len(mutated):
                mutated[start] ^= 1 << random.randrange(8)
            case 1:
                del mutated[start:]
            case 2:
                del mutated[start:stop]
            case 3:
                mutated[start:start] = mutated[start:stop] * random.choice((2, 10, 200))
            case 4:
                mutated[start:stop] = random.randbytes(stop - start)
            case 5:
                mutated[start:stop] = struct.pack(random.choice("<>") + "Q", random.choice(NUMBERS) % 2**64)[
                    : stop - start
                ]
            case 6:
                mutated = bytearray(_swap_number(bytes(mutated), random))
            case _:
                mutated[start:start] = random.choice(TEXTS).encode()
    return bytes(mutated)


def _swap_number(content: bytes, random: Random) -> bytes:
    """Put another number in the place of one that is written out."""
    found = list(re.finditer(rb"\d+", content[:100_000]))
    if not found:
        return content
    place = random.choice(found)
    value = random.choice((*NUMBERS, *FLOATS))
    return content[: place.start()] + str(value).encode() + content[place.end() :]


def mutate_document(content: bytes, random: Random, style: str) -> bytes:
    """Change values and keys of a document, given as JSON, and write it in its format."""
    tree = json.loads(content)
    for _ in range(random.choice((1, 1, 2, 3))):
        tree = _mutate_tree(tree, random)
    written = write_document(tree, style)
    if style == "yaml" and random.random() < 0.2:
        written = random.choice(ALIASES).encode() + written
    return mutate_bytes(written, random) if random.random() < 0.3 else written


def write_document(tree: Any, style: str) -> bytes:
    """Write a document in a format, as far as that can hold it."""
    if style == "yaml":
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")
    if style == "toml":
        try:
            return tomli_w.dumps(_without_none(tree)).encode("utf-8", "surrogatepass")
        except (TypeError, ValueError, AttributeError):  # what TOML cannot hold
            return b"x = " + json.dumps(tree).encode()
    return json.dumps(tree).encode()


def _without_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    return [_without_none(value) for value in tree if value is not None] if isinstance(tree, list) else tree


def _mutate_tree(tree: Any, random: Random) -> Any:
    """Return a copy in which one node is another one."""
    tree = copy.deepcopy(tree)
    nodes = list(_places(tree))
    if not nodes:
        return _any_value(random)
    holder, key = random.choice(nodes)
    match random.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice((*TEXTS, *(str(k) for _, k in nodes)))] = holder[key]
        case 2:
            holder[key] = _nest(holder[key], random)
        case 3:
            other, name = random.choice(nodes)
            holder[key] = copy.deepcopy(other[name]) if name in other or isinstance(other, list) else None
        case _:
            holder[key] = _any_value(random)
    return tree


def _places(tree: Any) -> Any:
    """Yield every table or list with each of its keys or positions."""
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items:
        yield tree, key
        yield from _places(value)


def _nest(value: Any, random: Random) -> Any:
    for _ in range(random.choice((1, 5, 40))):
        value = [value] if random.random() < 0.5 else {"low": value}
    return value


def _any_value(random: Random) -> Any:
    return copy.deepcopy(random.choice(random.choice((NUMBERS[:13], FLOATS, TEXTS, TREES))))


def mutate_array(content: bytes, random: Random) -> bytes:
    """Change an .npy file: its header as a text of the right length, or any bytes."""
    if random.random() < 0.4:
        return mutate_bytes(content, random)
    length = int.from_bytes(content[8:10], "little")
    header = content[10 : 10 + length]
    header = random.choice((_swap_number, mutate_bytes, _swap_type))(header, random)
    return content[:8] + struct.pack("<H", len(header) % 65_536) + header + content[10 + length :]


def _swap_type(header: bytes, random: Random) -> bytes:
    types = (
        b"'|O'",
        b"'<f8'",
        b"'<U9999999'",
        b"'|V0'",
        b"'>c16'",
        b"[('a', '<i4')]",
        b"'<M8[ns]'",
        b"5",
        b"'|b1'",
        b"'|S0'",
    )
    return re.sub(rb"'[<>|][a-z]\d+'", lambda _: random.choice(types), header, count=1)


def mutate_archive(content: bytes, random: Random) -> bytes:
    """Change a zip file: what is in a member, its name or its compression, or any bytes."""
    if random.random() < 0.3:
        return mutate_bytes(content, random)
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(written, "w") as target:
        members = source.infolist()
        chosen = random.choice(members)
        for each in members:
            inner, name = source.read(each), each.filename
            if each is chosen:
                if random.random() < 0.1:
                    name = random.choice((*(other.filename for other in members), "x", "../x", name.upper()))
                else:
                    inner = (mutate_array if inner[:6] == b"\x93NUMPY" else mutate_bytes)(inner, random)
            methods = (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_STORED)
            method = each.compress_type if random.random() < 0.95 else random.choice(methods)
            target.writestr(name, inner, method)
    return mutate_bytes(written.getvalue(), random) if random.random() < 0.1 else written.getvalue()


def mutate_picture(content: bytes, random: Random) -> bytes:
    """Change a PNG file's part, its sum made right again, or any bytes of a picture."""
    if not content.startswith(b"\x89PNG") or random.random() < 0.4:
        return mutate_bytes(content, random)
    parts, at = [], 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        parts.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += length + 12
    chosen = random.randrange(len(parts))
    kind, inner = parts[chosen]
    parts[chosen] = (kind, mutate_bytes(inner, random))
    if random.random() < 0.2:
        parts.insert(chosen, random.choice(parts))
    packed = (
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in parts
    )
    return content[:8] + b"".join(packed)
