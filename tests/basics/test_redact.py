"""No credential of any URL is shown: in texts, logs, errors, their tracebacks, representations, or records."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rank_search.artifacts import ArtifactStore
from rank_search.basics import has_credentials, is_secret, masked, split_credentials
from rank_search.errors import RankSearchError
from rank_search.observe import logs
from rank_search.store import Store, locate, location_of
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
WORD = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
    lambda text: not any(map(str.isspace, text))
)
PROSE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
USER = WORD.filter(lambda text: not set(text) & set(":/"))
quick = settings(deadline=None)
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
def test_no_credential_of_a_url_in_any_text(url: str, before: str) -> None:
    assert SECRET not in masked(f"{before}{url}")
    assert SECRET not in masked(repr({"url": url}))
    assert SECRET not in masked(json.dumps({"url": url}))
    assert masked(masked(url)) == masked(url)
    assert has_credentials(url)


@settings(deadline=None, max_examples=100)
@given(urls())
def test_no_credential_in_the_location_of_artifacts_or_of_a_store(url: str) -> None:
    assert SECRET not in repr(ArtifactStore(url))
    assert SECRET not in ArtifactStore(url).location
    assert SECRET not in told(lambda: ArtifactStore(url.replace("://", "-nowhere://", 1)).names())
    assert SECRET not in told(lambda: location_of(locate(url)))
    assert SECRET not in told(lambda: Store.open(url.replace("host", "host:port", 1)))
    if url.startswith("postgres"):
        found = locate(url)
        assert SECRET not in without_secrets(f"refused: {url} or {found.password}, {dict(found.query)}", found)


@settings(deadline=None, max_examples=50)
@given(urls())
def test_no_job_is_submitted_with_a_credential(url: str) -> None:
    study = Study.model_validate({"study": {"name": "x", "artifacts": url}, "task": {"factory": "a.py:b"}})
    said = told(lambda: check_places(study, None))
    assert "holds a password" in said
    assert SECRET not in said


@settings(deadline=None, max_examples=50)
@given(urls())
def test_no_credential_in_a_log_record(url: str) -> None:
    record = logging.LogRecord("rank_search.x", logging.ERROR, "", 0, "away: %s", (url,), None)
    record.where = {"store": url, "list": [url]}
    assert SECRET not in logs._People(logging.INFO).format(record)


@pytest.mark.parametrize("name", KEYS)
def test_names_of_secrets_are_known(name: str) -> None:
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
def test_harmless_text_is_shown_as_it_is(text: str) -> None:
    assert masked(text) == text


# ---- the four places that hide: logs, stores, artifacts, submitted jobs ------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:Hunter2Hunter2@h/db",
        "postgresql://me@h/db?password=Hunter2Hunter2",
        "postgresql://me@h/db?scram_client_key=Hunter2Hunter2",
        "postgresql://me@h/db?sslmode=require&sslpassword=Hunter2Hunter2",
        "postgres://:Hunter2Hunter2@h/db",
        "postgresql://me:x/Hunter2Hunter2@h/db",
        "s3://KEY:Hunter2Hunter2@bucket/prefix",
        "s3://KEY:x/Hunter2Hunter2+@bucket/pre@fix",
        "s3://KEY:x@Hunter2Hunter2@bucket",
        "https://host/file?X-Amz-Signature=Hunter2Hunter2",
        "abfs://container/?sas=Hunter2Hunter2",
    ],
)
def test_every_room_hides_the_credential_of(url: str) -> None:
    assert SECRET not in masked(url)
    record = logging.LogRecord("rank_search.x", logging.ERROR, "", 0, "away: %s", (url,), None)
    assert SECRET not in logs._People(logging.INFO).format(record)
    assert SECRET not in told(lambda: location_of(locate(url)))
    assert SECRET not in ArtifactStore(url).location
    study = Study.model_validate({"study": {"name": "x", "artifacts": url}, "task": {"factory": "a.py:b"}})
    assert SECRET not in told(lambda: check_places(study, None))


@pytest.mark.parametrize("name", ["password", "scram_client_key"])
def test_text_keeps_all_but_the_value_of_an_option(name: str) -> None:
    assert masked(f"postgresql://me@h/db?{name}=hunter2") == f"postgresql://me@h/db?{name}=***"


def test_split_credentials_of_a_url_without_any() -> None:
    assert split_credentials("webdav://host:8080/a@b") == ("webdav://host:8080/a@b", ())


@quick
@given(PROSE, USER, WORD, WORD, PROSE)
def test_no_credential_in_a_url_within_prose(before: str, user: str, left: str, right: str, after: str) -> None:
    text = f"{before}postgresql://{user}:{left}{SECRET}{right}@host/db {after}"
    assert SECRET not in masked(text)
    assert masked(masked(text)) == masked(text)


@quick
@given(
    PROSE,
    st.sampled_from(["password=", "PGPASSWORD = ", "&password=", "'password': ", '\\"password\\":', "secret_key="]),
    WORD.filter(lambda text: text[:1] not in ("'", '"') and "\\" not in text),
    WORD,
    PROSE,
)
def test_no_assigned_credential(before: str, name: str, left: str, right: str, after: str) -> None:
    assert SECRET not in masked(f"{before} {name}{left}{SECRET}{right} {after}")


@quick
@given(PROSE, st.sampled_from("'\""), PROSE, PROSE)
def test_no_quoted_credential(before: str, quote: str, left: str, right: str) -> None:
    assume("\\" not in left + right and quote not in left + right)
    assert SECRET not in masked(f"{before} password={quote}{left}{SECRET} {right}{quote} host=here")


@quick
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_text_without_a_url_is_left_alone(text: str) -> None:
    assume(not is_secret(text))
    assert masked(text.replace("@", "")) == text.replace("@", "")
    assert masked(text.replace("://", "")) == text.replace("://", "")


ODD = "s3 cr/et'%@?#ß\\x"  # with everything that has another form in a URL
FORMS = (ODD, quote(ODD), quote(ODD, safe=""), quote_plus(ODD), repr(ODD)[1:-1])


@pytest.mark.parametrize(
    "where",
    [
        "postgresql://u:s3cret@host:port/db",
        "postgresql://u:s3cret@host:port/db?password=s3cret",
        "postgresql://u@host:port/db?password=s3@cret&sslpassword=s3cret",
        "postgresql://u:s3@cret@host/db",
        "postgresql://u:x@s3cret@host/db",
        "postgresql://u:x?s3cret@host:port/db",
        "postgresql://u:x#s3cret@host:port/db",
        "postgresql://u:a/s3cret@host:port/db",
        "mysql://u:s3cret@h/db?password=s3cret",
        "postgresql+nodriver://u:s3cret@h/db?password=s3cret",
    ],
)
def test_an_address_that_cannot_be_used_hides_its_password(where: str) -> None:
    with pytest.raises(RankSearchError) as caught:
        Store.open(where)
    shown = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in str(caught.value)
    assert "cret@" not in str(caught.value)
    assert "@cret" not in str(caught.value)
    assert "s3cret" not in shown.replace(where, "")  # the line of this test may be quoted


@pytest.mark.parametrize("name", ["password", "sslpassword"])
def test_every_form_of_every_secret_is_hidden(name: str) -> None:
    for url in (
        locate(f"postgresql://u:{quote(ODD, safe='')}@h/d"),
        locate(f"postgresql://h/d?{name}={quote(ODD, safe='')}"),
    ):
        said = " and ".join(FORMS)
        assert without_secrets(f"{said}.\n  twice:   {said}", url) == " and ".join(
            ["***"] * 5
        ) + ". twice: " + " and ".join(["***"] * 5)
