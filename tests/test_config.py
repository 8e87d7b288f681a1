import pytest

from tunesmith.config import override, read_yaml
from tunesmith.errors import ConfigError
from tunesmith.method import Full, Lora
from tunesmith.names import extra, nearest
from tunesmith.recipe import Recipe, make_recipe, read_recipe


def wrong(values, *settings):
    with pytest.raises(ConfigError) as error:
        make_recipe(values, settings, where="r.yaml")
    return error.value


def test_an_unknown_key_is_answered_with_the_nearest_right_one():
    error = wrong({"method": {"name": "lora", "rnak": 8}})
    assert error.what == "r.yaml: method.lora has no field 'rnak'"
    assert error.fix == "did you mean 'rank'?"


def test_an_unknown_key_at_the_top_is_answered_too():
    error = wrong({"modle": "smollm2"})
    assert error.what == "r.yaml: recipe has no field 'modle'"
    assert error.fix == "did you mean 'model'?"


def test_an_unknown_key_of_a_nested_record_is_answered_from_that_record():
    assert wrong({"train": {"epoch": 3}}).fix == "did you mean 'epochs'?"
    assert wrong({"length": {"overflw": "drop"}}).fix == "did you mean 'overflow'?"


def test_an_unknown_method_is_answered_with_the_nearest():
    error = wrong({"method": "lroa"})
    assert error.what == "r.yaml: method 'lroa' does not exist"
    assert error.fix == "did you mean 'lora'?"


def test_a_wrong_value_says_what_was_got():
    assert "train.epochs" in wrong({"train": {"epochs": 0}}).what
    assert "(got 0)" in wrong({"train": {"epochs": 0}}).what
    assert "overflow" in wrong({"length": {"overflow": "cut"}}).what


def test_settings_override_fields_and_are_read_as_yaml():
    recipe = make_recipe({}, ("train.epochs=3", "method.rank=4", "limit.train=null", "length.overflow=drop"))
    assert (recipe.train.epochs, recipe.method.rank, recipe.limit.train) == (3, 4, None)
    assert recipe.length.overflow == "drop"


def test_changing_the_methods_name_drops_the_old_methods_fields():
    recipe = make_recipe({"method": {"name": "lora", "rank": 4}}, ("method.name=full",))
    assert recipe.method == Full()
    assert make_recipe({}, ("method=full",)).method == Full()
    assert make_recipe({"method": {"rank": 4}}).method == Lora(rank=4)


@pytest.mark.parametrize("setting", ["train.epochs", "=3", "train.epochs=[", "model.name.x=1.y.z="])
def test_a_malformed_setting_is_refused(setting):
    assert wrong({}, setting).fix


def test_a_setting_below_a_plain_value_is_refused():
    assert "has no fields" in wrong({"seed": 3}, "seed.x=1").what


def test_each_method_brings_its_own_learning_rate():
    full, lora, fixed = (
        make_recipe({}, (s,)).resolved(576) for s in ("method=full", "method=lora", "train.learning_rate=0.5")
    )
    assert lora.train.learning_rate == pytest.approx(10 * full.train.learning_rate, rel=0.01)
    assert lora.train.learning_rate == 1.32e-3
    assert fixed.train.learning_rate == 0.5


def test_the_usual_rate_falls_with_the_models_width():
    assert Lora().usual_rate(2000) == 5e-4
    assert Lora().usual_rate(4096) == pytest.approx(2.86e-4)


def test_a_recipe_saved_and_read_is_equal(tmp_path):
    recipe = make_recipe({"method": {"name": "lora", "targets": ["q_proj", "v_proj"]}, "limit": {"train": 7}})
    path = tmp_path / "r.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert read_recipe(path) == recipe
    assert Recipe() == make_recipe({})


def test_yaml_mistakes_have_their_line(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("model: smollm2\ntrain: {epochs: 1\nseed: 0\n")
    with pytest.raises(ConfigError, match=r"r.yaml: line 3"):
        read_yaml(path)
    path.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="no mapping"):
        read_yaml(path)
    path.write_bytes(b"model: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")


def test_a_missing_optional_part_is_answered_with_the_exact_command():
    with pytest.raises(ConfigError) as error:
        extra("a_module_that_nobody_has", "bench")
    assert error.value.fix == "pip install 'tunesmith[bench]'"
    assert extra("json", "bench").dumps([]) == "[]"


def test_nearest_gives_nothing_where_nothing_is_near():
    assert nearest("rnak", ["rank", "alpha"]) == "rank"
    assert nearest("zzzzzz", ["rank", "alpha"]) is None


def test_overrides_leave_the_given_values_alone():
    values = {"train": {"epochs": 1}}
    assert override(values, ["train.epochs=2"]) == {"train": {"epochs": 2}}
    assert values == {"train": {"epochs": 1}}
