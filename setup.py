"""Packages are found, never listed: what is left out of a list is missing from a wheel, and nobody notices here."""

from setuptools import find_packages, setup

built_in = ["rank_search_plugins", *(f"rank_search_plugins.{name}" for name in find_packages("plugins"))]
setup(packages=[*find_packages(include=["rank_search", "rank_search.*"]), *built_in])
