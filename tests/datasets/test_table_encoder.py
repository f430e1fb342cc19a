"""Encoder of tables: against scikit-learn, and the properties that keep a validation part honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, RobustScaler, StandardScaler

from hpo.datasets import Feature
from hpo.datasets.table_encoder import CategoryColumn, NumberColumn, TableEncoder

RNG = np.random.default_rng(0)
ROWS = 3000
NUMBERS = tuple(Feature(name=name, column=name, missing=name != "d") for name in "abcd")
COLOURS = Feature(name="colour", column="colour", kind="category", missing=True, categories=("red", "blue", "grey"))
SIZES = Feature(name="size", column="size", kind="category", categories=("S", "L"))
KINDS = ["standard", "unit", "symmetric", "robust", "quantile"]


def numbers(rows: int = ROWS) -> np.ndarray:
    """Of four kinds: normal, of a long tail, whole with many ties, and large; 5 % are missing from three of them."""
    x = np.stack(
        [
            RNG.normal(3, 2, rows),
            RNG.lognormal(0, 2, rows),
            RNG.integers(0, 12, rows) + 0.0,
            RNG.uniform(1e6, 2e6, rows),
        ],
        axis=1,
    ).astype(np.float32)
    x[:, :3][RNG.random((rows, 3)) < 0.05] = np.nan
    return x


def mixed(rows: int = 200) -> tuple[np.ndarray, tuple[Feature, ...]]:
    """A matrix whose categories stand before and between its numbers."""
    colours, sizes = RNG.integers(0, 4, rows).astype(np.float32), RNG.integers(0, 3, rows).astype(np.float32)
    colours[::7] = np.nan
    first, second = numbers(rows)[:, [0, 3]].T
    return np.stack([colours, first, sizes, second], axis=1), (COLOURS, NUMBERS[0], SIZES, NUMBERS[3])


REFERENCES = {
    "standard": StandardScaler(),
    "unit": MinMaxScaler(),
    "symmetric": MinMaxScaler((-1, 1)),
    "robust": RobustScaler(),
    "quantile": QuantileTransformer(n_quantiles=1000, output_distribution="normal", subsample=None),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_are_those_of_scikit_learn(kind: str, order: str) -> None:
    x = np.asarray(numbers(), order=order)  # type: ignore[call-overload]
    index = np.sort(RNG.permutation(ROWS)[:2000])
    if kind == "quantile":  # of a column that lacks values, ours has fewer quantiles than scikit-learn's
        x = np.nan_to_num(x, nan=1.0)
    encoder = TableEncoder.fit(x, index, NUMBERS, kind)
    encoded = encoder.apply(x)
    assert encoded.dtype == np.float32
    assert encoded.shape == (ROWS, 4 + 3)
    imputed = SimpleImputer().set_params(strategy="median").fit(x[index]).transform(x)
    expected = REFERENCES[kind].fit(x[index].astype(np.float64)).transform(imputed.astype(np.float64))
    np.testing.assert_allclose(encoded[:, :4], expected, atol=2e-5)
    np.testing.assert_array_equal(encoded[:, 4:], np.isnan(x[:, :3]))
    np.testing.assert_array_equal(encoder.apply(x, index), encoded[index])


def test_missing_numbers_do_not_move_the_scale_of_those_that_are_there() -> None:
    x = numbers()
    encoder = TableEncoder.fit(x, np.arange(ROWS), NUMBERS, "quantile")
    present = x[~np.isnan(x[:, 0]), 0]
    reference = QuantileTransformer(n_quantiles=1000, output_distribution="normal", subsample=None)
    expected = reference.fit_transform(present[:, None].astype(np.float64))[:, 0]
    np.testing.assert_allclose(encoder.apply(x)[~np.isnan(x[:, 0]), 0], expected, atol=2e-5)


def test_new_values_beyond_all_quantiles_stay_within_five_deviations() -> None:
    x = numbers()
    encoder = TableEncoder.fit(x, np.arange(ROWS), NUMBERS, "quantile")
    extreme = np.array([[-1e30] * 4, [1e30] * 4], np.float32)
    np.testing.assert_allclose(encoder.apply(extreme)[:, :4], [[-5.199] * 4, [5.199] * 4], atol=1e-3)


def test_quartiles_that_are_equal_leave_the_deviation() -> None:
    x = np.zeros((100, 1), np.float32)
    x[:10] = 50
    encoded = TableEncoder.fit(x, np.arange(100), NUMBERS[3:], "robust").apply(x)
    assert encoded.max() == pytest.approx(50 / x.std())


def test_categories_are_codes_at_the_end() -> None:
    x, features = mixed()
    encoder = TableEncoder.fit(x, np.arange(len(x)), features, "standard")
    assert encoder.names == ("a", "d", "a is missing", "colour", "size")
    assert encoder.shape == (5,)
    assert encoder.shape.categories == (5, 3)  # 0, three and missing; 0 and two
    codes = encoder.apply(x)[:, 3:]
    np.testing.assert_array_equal(codes[:, 0], np.where(np.isnan(x[:, 0]), 4, x[:, 0]))
    np.testing.assert_array_equal(codes[:, 1], x[:, 2])


def test_what_training_has_not_seen_is_any_other() -> None:
    x = np.array([[1, 1], [3, 2], [2, 1], [np.nan, np.nan]], np.float32)
    encoder = TableEncoder.fit(x, np.array([0, 1]), (COLOURS, SIZES), "standard")
    np.testing.assert_array_equal(encoder.apply(x), [[1, 1], [3, 2], [0, 1], [0, 0]])
    assert encoder.shape.categories == (5, 3)  # which a split does not change


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("column", [[np.nan] * 3, [7, 7, 7], [np.nan, 7, np.nan]], ids=["missing", "constant", "both"])
def test_a_column_that_says_nothing_is_zero_for_new_rows_too(kind: str, column: list[float]) -> None:
    x = np.array([column], np.float32).T
    encoder = TableEncoder.fit(x, np.arange(3), NUMBERS[:1], kind)
    new = np.array([[7], [1e6], [-3], [np.nan]], np.float32)
    np.testing.assert_allclose(encoder.apply(np.concatenate([x, new]))[:, 0], 0, atol=1e-30)


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_is_enough(kind: str) -> None:
    x, features = mixed(5)
    encoder = TableEncoder.fit(x, np.array([2]), features, kind)
    assert np.isfinite(encoder.apply(x)).all()
    assert encoder.apply(x[:0]).shape == (0, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_any_size_are_encoded(kind: str) -> None:
    x = np.array([[-1.5e38], [0], [1e-45], [1.5e38], [1]], np.float32)
    assert np.isfinite(TableEncoder.fit(x, np.arange(5), NUMBERS[3:], kind).apply(x)).all()
    tiny = np.array([[0], [1e-45]], np.float32)
    assert np.isfinite(TableEncoder.fit(tiny, np.arange(2), NUMBERS[3:], kind).apply(tiny)).all()


columns = st.lists(
    st.one_of(st.just(np.nan), st.floats(-1e6, 1e6, width=32), st.sampled_from([0.0, 1.0])), min_size=4, max_size=30
)


@given(column=columns, kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_rows_may_come_in_any_order_and_only_those_of_training_count(column: list[float], kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.choice([np.nan, 0, 1, 2, 3], len(column))
    x = np.stack([column, codes], axis=1).astype(np.float32)
    features = (NUMBERS[0], COLOURS)
    index = np.flatnonzero(rng.random(len(x)) < 0.6)
    index = index if len(index) else np.array([0])
    encoder = TableEncoder.fit(x, index, features, kind)
    encoded = encoder.apply(x)
    assert np.isfinite(encoded).all()
    order = rng.permutation(len(x))
    where = np.argsort(order)
    again = TableEncoder.fit(x[order], where[index], features, kind)
    np.testing.assert_allclose(again.apply(x), encoded, atol=1e-5)
    changed = x.copy()
    others = np.setdiff1d(np.arange(len(x)), index)
    changed[others] = rng.choice([1, 2, 3], (len(others), 2))
    assert TableEncoder.fit(changed, index, features, kind) == encoder
    alone = np.concatenate([encoder.apply(row[None]) for row in x])
    np.testing.assert_array_equal(alone, encoded)  # a row is encoded by itself
    assert (encoded[:, 2] < encoder.shape.categories[0]).all()


def test_it_is_stored_as_json() -> None:
    x, features = mixed()
    encoder = TableEncoder.fit(x, np.arange(100), features, "quantile")
    again = TableEncoder.model_validate_json(encoder.model_dump_json())
    assert again == encoder
    np.testing.assert_array_equal(again.apply(x), encoder.apply(x))


WRONG = [
    (NumberColumn, {"name": "a", "median": np.nan}, "finite"),
    (NumberColumn, {"name": "a", "median": 0, "scale": 0}, "greater than 0"),
    (NumberColumn, {"name": "a", "median": 0, "quantiles": [1, 0]}, "ascending"),
    (NumberColumn, {"name": "a", "median": 0, "quantiles": [1]}, "two or more"),
    (CategoryColumn, {"name": "a", "codes": [0]}, "at least 2"),
    (CategoryColumn, {"name": "a", "codes": [0, 9, 0]}, "its own number"),
    (CategoryColumn, {"name": "a", "codes": [0, 1, 2]}, "its own number"),
]


@pytest.mark.parametrize(("kind", "values", "says"), WRONG)
def test_a_stored_encoder_is_checked(kind: type[NumberColumn | CategoryColumn], values: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        kind.model_validate(values)


def test_wide_tables_leave_no_column_out() -> None:
    x = RNG.normal(size=(50, 37)).astype(np.float32)
    features = [Feature(name=str(i), column=str(i)) for i in range(37)]
    encoded = TableEncoder.fit(x, np.arange(50), features, "symmetric").apply(x)
    np.testing.assert_allclose(encoded, 2 * (x - x.min(0)) / np.ptp(x, 0) - 1, atol=1e-5)


def test_a_constant_whole_number_is_exactly_zero() -> None:
    encoder = TableEncoder.fit(np.full((4, 1), 5, np.float32), np.arange(4), [Feature(name="f", column="f")], "none")
    assert encoder.apply(np.array([[5], [7]], np.float32)).tolist() == [[0], [0]]
