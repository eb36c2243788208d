"""No credential of any URL is shown: in texts, logs, errors, their tracebacks, representations, or records."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_search.artifacts import ArtifactStore
from rank_search.basics import has_credentials, is_secret, masked
from rank_search.errors import RankSearchError
from rank_search.observe import logs
from rank_search.store import Store, locate
from rank_search.store import masked as masked_url
from rank_search.store.address import without_secrets
from rank_search.study import Study
from rank_search.submit.reachable import check_places

SECRET = "Hunter2Hunter2"
KEYS = (
    *(
        "password",
        "sslpassword",
        "passwd",
        "pwd",
        "pass",
        "scram_client_key",
        "scram_server_key",
        "token",
        "auth_token",
    ),
    *("oauth_client_secret", "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "secret", "key", "sig"),
    *("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "account_key", "AccountKey", "api_key", "sas"),
    *(
        "odbc_connect",
        "connection_string",
        "SharedAccessSignature",
        "sslkeypassphrase",
        "access_token",
        "client_secret",
    ),
)
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg", "mysql+pyodbc", "mssql", "s3", "gs", "abfs", "ray", "https")
AROUND = st.text(st.sampled_from("abcXYZ0159_-.!$*+~'\"\\äß%/?#@:&= "), max_size=6)


@st.composite
def urls(draw: st.DrawFn) -> str:
    """A URL with the secret somewhere in it, as it is or quoted, among other signs."""
    scheme, form = (
        draw(st.sampled_from(SCHEMES)),
        draw(st.sampled_from((quote_plus, lambda text: quote(text, safe="")))),
    )
    secret = form(f"{draw(AROUND)}{SECRET}{draw(AROUND)}")
    user = draw(st.sampled_from(("me", "", "me%40here")))
    if draw(st.booleans()):
        return f"{scheme}://{user}:{secret}@host/db"
    others = draw(st.sampled_from(("", "sslmode=require&", "host=a&port=1&")))
    name = draw(st.sampled_from(KEYS))
    return f"{scheme}://{user}{'@' if user else ''}host/db?{others}{name}={secret}{draw(st.sampled_from(('', '&x=1')))}"


def told(act: Callable[[], object]) -> str:
    """What is shown of an error that the act raises, with its traceback, but without lines of code."""
    try:
        return repr(act())
    except RankSearchError as error:
        found = traceback.TracebackException.from_exception(error)
        return "".join(found.format_exception_only()) + str(found.__cause__ or "")


@settings(deadline=None, max_examples=300)
@given(urls(), st.sampled_from(("", "could not reach ", "{'url': '")))
def test_in_any_text(url: str, before: str) -> None:
    assert SECRET not in masked(f"{before}{url}")
    assert SECRET not in masked(repr({"url": url}))
    assert SECRET not in masked(json.dumps({"url": url}))
    assert masked(masked(url)) == masked(url)
    assert has_credentials(url)


@settings(deadline=None, max_examples=100)
@given(urls())
def test_of_a_place_for_files_and_of_a_store(url: str) -> None:
    assert SECRET not in repr(ArtifactStore(url))
    assert SECRET not in ArtifactStore(url).location
    assert SECRET not in told(lambda: ArtifactStore(url.replace("://", "-nowhere://", 1)).names())
    assert SECRET not in told(lambda: masked_url(locate(url)))
    assert SECRET not in told(lambda: Store.open(url.replace("host", "host:port", 1)))
    if url.startswith("postgres"):
        found = locate(url)
        assert SECRET not in without_secrets(f"refused: {url} or {found.password}, {dict(found.query)}", found)


@settings(deadline=None, max_examples=50)
@given(urls())
def test_a_job_is_not_submitted_with_it(url: str) -> None:
    study = Study.model_validate({"study": {"name": "x", "artifacts": url}, "task": {"factory": "a.py:b"}})
    said = told(lambda: check_places(study, None))
    assert "holds a password" in said
    assert SECRET not in said


@settings(deadline=None, max_examples=50)
@given(urls())
def test_in_what_is_logged(url: str) -> None:
    record = logging.LogRecord("rank_search.x", logging.ERROR, "", 0, "away: %s", (url,), None)
    record.where = {"store": url, "list": [url]}
    assert SECRET not in logs._People(logging.INFO).format(record)


@pytest.mark.parametrize("name", KEYS)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)
    assert SECRET not in masked(f"{name}={SECRET}") or name in ("key", "sig", "pass", "sas")
    assert SECRET not in masked(f"https://host/?{name}={SECRET}&more")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://USER:PASSWORD@HOST/DATABASE",
        "postgresql://me@host:5432/db?sslmode=require&passfile=/home/me/.pgpass&sslkey=client.key",
        "s3://bucket/pre@fix",
        "http://HEAD:8265",
        "search.options.n_startup_trials = 10",
        "The keys of [training] are: epochs, optimizer",
        "a path with # and ? and %: /data/50%/what?/key=3",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert masked(text) == text
