"""No secret is shown, wherever in a URL, or in what should be one, it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpo.errors import StorageError
from hpo.storage.url import explain_connect_error, mask, normalize
from hpo.utils.masking import mask_secrets, mask_url_text

# A secret has characters that no shape has, and is not cut to a part that could be anything.
PIECES = ("x", "7", "Q", "/", ":", "@", "?", "&", "=", "%", "%40", " ", "'", '"', "\\", "#", "+", ";", "*", "é", "-")
SECRETS = st.tuples(st.just("sEcr"), st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.just("eT9z"))
SHAPES = (
    "postgresql//host/db?user=me&password={}",
    "postgresql:/host/db?passwd={}&user=me",
    "postgresql://host:port/db?PASSWORD={}",
    "postgresql://host:5432:1/db?user=me&sslpassword = {}",
    "host=h user=me pwd={}",
    "host=h token: {}",
    '{{"user": "me", "password": "{}"}}',
    "postgresql//me:{}@host/db",
    "postgresql:/me:{}@host/db",
    "postgresql:me:{}@host/db",
    "postgresql//me:{}",
    "me:{}",
    "me:{}@host",
    "me%3A{}@host",
    "postgres:{}@host:5432/db",
    "postgresql://me:{}@host:port/db",
    "postgresql://me:{}",
    "://me:{}@host",
    "psotgresql//me:{}@host/db?api_key=1",
    " postgresql //me:{}@host",
    "Passwort:{}",
    "mysql+pymysql//me:{}@[::1]:3306/db",
)
PARSED = (
    "postgresql://host/db?user=me&password={}",
    "postgresql://host/db?user=me&Access_Token={}&a=b",
    "mysql://host/db?user=me%3A{}",
    "postgresql://me:{}@127.0.0.1:1/x",
    "postgresql://me%3A{}@127.0.0.1:1/x",
    "postgresql:///me:{}@host/db",
    "postgresql://host/db password {}",
    "nodb://me:{}@host/db",
    "sqlite:////nowhere/x.db?password={}",
    "sqlite://me:{}@host/x.db",
)
PARTS = ("sEcr", "eT9z")  # of which neither may be seen either


@settings(max_examples=400, deadline=None)
@given(shape=st.sampled_from(SHAPES + PARSED), parts=SECRETS)
@example(shape="me:{}", parts=("sEcr", "", "eT9z"))
@example(shape="postgresql://me:{}@127.0.0.1:1/x", parts=("sEcr", "@", "eT9z"))
@example(shape="postgresql://me:{}@127.0.0.1:1/x", parts=("sEcr", "/@:", "eT9z"))
def test_a_secret_is_in_no_message(shape: str, parts: tuple[str, str, str]) -> None:
    secret = "".join(parts)
    if shape in PARSED:
        secret = secret.replace("&", "")  # which begins another option
    if shape == "postgresql://host/db password {}":
        secret = secret.replace("?", "")  # which begins the options
    if shape == "postgresql://me:{}":
        secret = secret.replace("@", "")  # or this is a URL, and what follows is its host
    url = shape.format(secret)
    try:
        line = mask(normalize(url))
    except StorageError as error:
        line = f"{error} {error.__cause__}"
    assert not any(part in line for part in PARTS), line


@settings(max_examples=150, deadline=None)
@given(shape=st.sampled_from(PARSED), parts=SECRETS, quoting=st.sampled_from([str, repr, ascii, sa.engine.url.quote]))
def test_a_secret_is_in_no_message_of_a_driver(shape: str, parts: tuple[str, str, str], quoting: object) -> None:
    """Drivers quote what they were given: a part of the URL, or a whole one."""
    secret = "".join(parts)
    secret = secret.translate(dict.fromkeys(map(ord, "@&?%#+")))  # which mean something in a URL
    try:
        url = normalize(shape.format(secret))
    except StorageError:
        return
    shown = quoting(secret)  # type: ignore[operator]
    for text in (f"invalid {shown}", f"cannot open postgresql://me:{shown}@h/d", f"user=me password={shown} host=h"):
        line = explain_connect_error(url, RuntimeError(text), "cannot be opened")
        assert not any(part in line for part in PARTS), line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nonsense", "nonsense"),
        ("postgresql//host/db?user=me&password=x", "postgresql//host/db?user=me&password=***"),
        ("postgresql//me:x@host:5432/db", "postgresql//me:***"),
        ("postgres:x@host", "postgres:***"),
        ("/data/studies.db", "/data/studies.db"),
    ],
)
def test_what_helps_to_find_the_mistake_is_shown(text: str, shown: str) -> None:
    assert mask_url_text(text) == shown


@pytest.mark.parametrize(
    "text",
    ["Access denied for user 'me'@'host' (using password: YES)", "fe_sendauth: no password supplied", "disk I/O error",
     'password authentication failed for user "me"', "connection to 127.0.0.1:5432 failed: Connection refused"],
)  # fmt: skip
def test_a_drivers_own_words_stay(text: str) -> None:
    assert mask_secrets(text, ["hunter22", ""]) == text


def test_a_short_secret_is_masked_as_a_word() -> None:
    assert mask_secrets("a bad password 'a'", ["a"]) == "*** bad password '***'"


def test_two_ats_and_an_option_that_is_none_have_a_line_each(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"'postgresql://me:\*\*\*' is not a URL; .* such as %40 for @"):
        normalize("postgresql://me:a@b@h/d")
    for text in ("sqlite:///a?b/x.db", "sqlite:///a?b=1", "sqlite:///a?"):
        with pytest.raises(StorageError, match="is no option of SQLite; in a path write %3F"):
            normalize(text)
    assert normalize("sqlite:///x.db?timeout=3&mode=ro").query == {"timeout": "3", "mode": "ro"}
