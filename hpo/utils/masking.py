"""Masks of secrets in texts that are shown, by what looks like a secret: the text need not be a URL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

__all__ = ["MASK", "is_secret_name", "list_masked", "mask_part", "mask_secrets", "mask_url_text"]

MASK = "***"
WORD = r"(?:pass|pwd?|secret|token|credential|api[-_ ]?key)[\w-]*"
EQUALS = r"(?:=|%3d)"
COLON = r":|%3a"
NAMED = re.compile(rf"({WORD}[\"'\])]*\s*{EQUALS}).*", re.IGNORECASE | re.DOTALL)
NAMED_IN_URL = re.compile(rf"({WORD}[\"'\])]*(?:\s*(?:{EQUALS}|{COLON})|\s)).*", re.IGNORECASE | re.DOTALL)
IN_USER = re.compile(r"(//[^\s:/@]*:)\S*@")
# Before anything but slashes, `postgres:` is a user; a scheme that nobody knows may be one, too.
SCHEME = re.compile(r"[\"'\s]*(?:sqlite|postgres|postgresql|mysql|mariadb|oracle|mssql)(?:\+\w+)?:?/+", re.IGNORECASE)
SEPARATOR = re.compile(rf"{COLON}|@|%40", re.IGNORECASE)
SHORT = 4  # characters of a secret that stands in many words


def is_secret_name(name: str) -> bool:
    """Return whether the value of that name is a secret."""
    return re.search(WORD, name, re.IGNORECASE) is not None


def mask_url_text(text: str) -> str:
    """Mask a text that is written in place of a URL: all that follows `password=` or its like, or a colon or an `@`.

    Where a password ends cannot be told.
    """
    shown = NAMED_IN_URL.sub(rf"\1{MASK}", text)
    scheme = SCHEME.match(shown)
    start = scheme.end() if scheme else 0
    return shown[:start] + mask_part(shown[start:])


def mask_part(text: str) -> str:
    """Mask a part of a URL that holds no secret where it belongs: what follows a colon, or is before or after an
    `@`.
    """
    end = SEPARATOR.search(NAMED_IN_URL.sub(rf"\1{MASK}", text))
    if end is None:
        return NAMED_IN_URL.sub(rf"\1{MASK}", text)
    return f"{text[: end.start()]}:{MASK}" if end[0].lower() in (":", "%3a") else MASK


def list_masked(text: str) -> list[str]:
    """List what `mask_part` masks in a part of a URL, which a driver's message may quote."""
    named = NAMED_IN_URL.search(text)
    before = text.rpartition("@")[0]
    return [text.partition(":")[2], before, before.partition(":")[2], text[named.end(1) :].strip() if named else ""]


def _list_forms(secret: str) -> list[str]:
    """List the ways in which a message may quote a secret."""
    return [
        secret,
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
        quote(secret),
        quote(secret, ""),
        quote(secret, " +"),
        quote_plus(secret),
    ]


def mask_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask secrets in an error's message: those given, however they are quoted, and what looks like one in a URL."""
    forms = {form for each in secrets if each for form in _list_forms(each)}
    for form in sorted(forms, key=len, reverse=True):
        whole = re.escape(form)
        text = re.sub(whole if len(form) >= SHORT else rf"(?<!\w){whole}(?!\w)", MASK, text)
    return NAMED.sub(rf"\1{MASK}", IN_USER.sub(rf"\1{MASK}@", text))
