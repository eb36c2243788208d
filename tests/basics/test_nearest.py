"""Names that were not found, and the known one that was meant."""

from __future__ import annotations

from rank_search.basics import did_you_mean, nearest


def test_nearest_names_the_one_most_alike_and_all_in_order() -> None:
    assert nearest("eror", ["macs", "error", "bits"]) == "; did you mean 'error'? There are: bits, error, macs."


def test_nearest_of_nothing_alike_names_all() -> None:
    assert nearest("zzz", ["macs", "error"]) == ". There are: error, macs."


def test_nearest_of_no_known_name() -> None:
    assert nearest("error", []) == ". There are: none."


def test_did_you_mean_prefers_the_closest_of_several() -> None:
    assert did_you_mean("nsga33", ["nsga2", "nsga3"]) == "; did you mean 'nsga3'?"
