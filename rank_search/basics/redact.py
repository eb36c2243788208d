"""Credentials are shown to nobody: the one place that knows what they look like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

MASK: Final = "***"

_NAMES: Final = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|token|credential|signature|scram_\w*key|access_?key|account_?key|"
    r"api_?key|private_?key|shared_?key|oauth_\w*|odbc_connect|connection_?string|bearer)"
)
_IN_URL: Final = re.compile(r"(://[^\s:/]*:)(?!PASSWORD@HOST)\S*@")  # that is our own advice
_OF_KEY: Final = re.compile(r"([?&](?:key|auth|sig|sas|pass)=)[^\s&#]+", re.IGNORECASE)
_ASSIGNED: Final = re.compile(
    rf"""({_NAMES}[\w-]*(?:(?:\\?["'])?\s*(?:=|%3D)|\\?["']\s*:)\s*)"""
    r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?:\\.|\S)+)""",
    re.IGNORECASE,
)
_BEFORE_HOST: Final = re.compile(
    r"(?<=://)(?P<key>[^/:@]*):(?!\d+/)(?P<secret>.*?@(?:[^/@]*@)*)"  # NAME:SECRET@, which is no HOST:PORT/
)
_NAME: Final = re.compile(rf"{_NAMES}|^(?:key|auth|sig|sas|pass)$", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether what is called so is a secret: a key of a URL's query, a field of a log, an option.

    >>> is_secret("scram_client_key"), is_secret("sslmode")
    (True, False)
    """
    return bool(_NAME.search(name))


def masked(text: str, known: Iterable[str] = ()) -> str:
    """The text without credentials: those in URLs, whatever is assigned to a secret, and the known ones in every form.

    Rather too much than too little is taken away: a password may hold any character but white space.

    >>> masked("postgresql://me:hunter2@host/db is away; password='hun ter2' user=me")
    'postgresql://me:***@host/db is away; password=*** user=me'
    """
    for secret in sorted({form for each in known if each for form in _forms(each)}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return masked_options(_IN_URL.sub(rf"\g<1>{MASK}@", text))


def masked_options(text: str) -> str:
    """The text without what is assigned to secrets: for a URL that has no credentials before its host."""
    return _ASSIGNED.sub(rf"\g<1>{MASK}", _OF_KEY.sub(rf"\g<1>{MASK}", text))


def split_credentials(url: str) -> tuple[str, tuple[str, ...]]:
    """The URL without the name and the secret before its host, and these two, if there are any.

    >>> split_credentials("s3://KEY:SECRET@bucket/prefix")
    ('s3://bucket/prefix', ('KEY', 'SECRET'))
    """
    found = _BEFORE_HOST.search(url)
    return _BEFORE_HOST.sub("", url), (found["key"], found["secret"].removesuffix("@")) if found else ()


def has_credentials(url: str) -> bool:
    """Whether a URL holds some."""
    return "://" in url and masked(url) != url


def _forms(secret: str) -> Iterator[str]:
    """A secret as it is and as it looks in URLs, lines and quotes."""
    line = " ".join(secret.split())
    yield from filter(None, (secret, line, quote(secret), quote(secret, safe=""), quote_plus(secret)))
    yield from (repr(secret)[1:-1], secret.replace("\\", "\\\\").replace("'", "\\'"))
