"""Recipes for plans of small models."""

import pytest

from tunesmith import make_recipe


@pytest.fixture
def recipe(tiny, colours_file):
    def made(*settings, kind="chat", **values):
        given = {"model": str(tiny(kind)), "task": str(colours_file), "dtype": "float32", **values}
        return make_recipe({**given, "forgetting": {"tasks": [], "text": False}}, settings)

    return made
