"""Bounds and wishes as people write them: suffixes, percentages, relative to the dense model, on what was chosen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.basics import COSTS, Amount
from rank_search.errors import QueryError
from rank_search.point import Bound, Choice, Chosen, Point, parse_condition
from rank_search.store import Store, StudyRecord, parse_wish
from tests.store.store_tools import a_record, complete, finish, numbers

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
names = (
    st.text(st.characters(exclude_characters="\"'", exclude_categories=("Cs",)), min_size=1).map(str.strip).filter(bool)
)
amounts = st.builds(Amount, finite) | st.builds(Amount, finite, st.just(value=True), finite)


@given(names, st.sampled_from(["<=", ">=", "<", ">", "="]), amounts)
def test_a_bound_is_read_as_it_was_written(name: str, sign: str, amount: Amount) -> None:
    bound = Bound(name, sign, amount.number, amount.of_dense, amount.offset)
    assert Bound.parse(bound.written()) == bound
    assert parse_condition(f"  {bound.written()} ") == bound


@given(names, st.from_regex(r"[A-Za-z_][\w-]{0,9}", fullmatch=True), st.booleans())
def test_a_choice_is_read_as_it_was_written(layer: str, factorization: str, negated: bool) -> None:
    condition = Chosen(layer, factorization, negated)
    if factorization not in ("inf", "infinity", "nan"):
        assert parse_condition(str(condition)) == condition
    assert condition.holds(factorization) is not negated
    assert condition.holds(factorization + "x") is negated


@given(finite.filter(lambda value: abs(value) < 1e100), st.floats(0.01, 100), st.floats(0.001, 1000))
def test_a_relative_bound_follows_the_dense_model(dense: float, factor: float, offset: float) -> None:
    def of(text: str) -> float:
        return Amount.parse(text, "error").of({"error": dense}, "error")

    assert of("dense") == dense
    assert of(f"{factor!r} * dense") == of(f"dense*{factor!r}") == pytest.approx(factor * dense)
    assert of(f"dense / {factor!r}") == pytest.approx(dense / factor)
    assert of(f"dense + {offset!r}") == pytest.approx(dense + offset)
    assert of(f"dense - {offset!r}") == pytest.approx(dense - offset)
    assert of(f"{factor!r}*dense-{offset!r}") == pytest.approx(factor * dense - offset, abs=1e-6)


@given(st.floats(0, 1e6), st.sampled_from(["", "k", "K", "M", "G", "T", "%"]))
def test_suffixes_are_factors(value: float, suffix: str) -> None:
    factor = {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "%": 0.01}[suffix]
    assert Amount.parse(f"{value!r}{suffix}", "error") == Amount(pytest.approx(value * factor))
    assert Amount.parse(f"{value!r} {suffix}", "error").number == pytest.approx(value * factor)


@pytest.mark.parametrize("name", [*COSTS, "error"])
def test_a_percentage_of_a_cost_is_of_the_dense_models(name: str) -> None:
    of_dense = name in COSTS
    assert Amount.parse("17%", name) == Amount(0.17, of_dense)
    assert Amount.parse("17% of dense", name) == Amount(0.17, of_dense=True)
    points = Amount.parse("dense + 1%", name)
    assert points.of({name: 0.5}, name) == pytest.approx(0.505 if of_dense else 0.51)


@pytest.mark.parametrize("text", ["error", "error <= ", "error <= nan", "error <= 5m", "a <= dense / 0", "", "<= 3"])
@pytest.mark.parametrize("more", ["", " x", " + dense"])
def test_text_that_is_no_bound_is_refused(text: str, more: str) -> None:
    with pytest.raises(QueryError, match=r"is no bound|A bound is NAME"):
        parse_condition(text + more)


def test_a_wish_takes_the_same_amounts() -> None:
    wish = parse_wish("error = dense + 0.01, macs = 20%, bits=200k, top-5 acc=0.9")
    assert list(wish) == ["error", "macs", "bits", "top-5 acc"]
    assert wish["error"] == Amount(1.0, of_dense=True, offset=0.01)
    assert wish["macs"] == Amount(0.2, of_dense=True)
    assert wish["bits"] == Amount(200_000.0)


@pytest.fixture(scope="module")
def study(store: Store) -> StudyRecord:
    """The dense model has a = 4 and b = 8; trial k has a = k, and rank k, or stays dense, or becomes an svd."""
    made = store.join(a_record())
    choices = [
        Choice(),
        Choice("svd", {"rank": 1}),
        Choice("tucker2", {"rank_out": 2, "rank_in": 3}),
        Choice("svd", {"rank": 3}),
    ]
    for k, choice in enumerate(choices):
        point = Point({"0.conv": choice, "fc": Choice("svd", {"rank": 100 + k})})
        finish(store, made, complete(a=float(k), b=8.0 - k), point=point)
    return made


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["a <= dense - 2"], [0, 1, 2]),
        (["a <= dense / 4"], [0, 1]),
        (["b <= 75% of dense", "a <= dense"], [2, 3]),
        (["a = 2"], [2]),
        (["0.conv = dense"], [0]),
        (["0.conv=svd"], [1, 3]),
        (["0.conv != dense", "0.conv.rank <= 2"], [1]),
        (["0.conv == tucker2"], [2]),
        (["fc.rank >= 102"], [2, 3]),
    ],
)
def test_a_front_within_bounds(store: Store, study: StudyRecord, where: list[str], expected: list[int]) -> None:
    front = store.front(study, where=where)
    assert numbers(front) == expected
    assert front == store.front(study, where=[parse_condition(text) for text in where])
    assert store.front(study).best(*where) in front


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("conv = dense", "no layer 'conv'.*did you mean '0.conv'"),
        ("a = dense", "It is a measurement: write 'a <= dense'"),
        ("0.conv = svdd", "cannot become 'svdd'.*did you mean 'svd'"),
        ("speed <= dense + 1", "is relative to the dense model"),
        ("0.conv.rnk <= 3", "no measurement or axis of a layer"),
    ],
)
def test_unknown_layers_and_factorizations_are_named(store: Store, study: StudyRecord, where: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        store.front(study, where=[where])
