"""Quantities: what is read, what is refused and why, and that what is written can be read again."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune import units
from edgeprune.errors import UnitError
from edgeprune.units import Drop, Quantity


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("30ms", 30.0),
        ("250us", 0.25),
        ("250µs", 0.25),  # micro sign, U+00B5
        ("250\u03bcs", 0.25),  # Greek mu, U+03BC
        ("1.5s", 1500.0),
        ("2 min", 120_000.0),
        (" 5 ms ", 5.0),
        ("7ns", 7e-6),
        (".5ms", 0.5),
        ("1e3us", 1.0),
        ("+4ms", 4.0),
    ],
)
def test_durations_are_milliseconds(text: str, ms: float) -> None:
    assert units.parse_duration(text) == pytest.approx(ms, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4MB", 4_000_000),
        ("4MiB", 4_194_304),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("2GB", 2_000_000_000),
        ("2GiB", 2_147_483_648),
        ("512B", 512),
        ("0.1MiB", 104_858),
    ],
)
def test_sizes_are_whole_bytes(text: str, size: int) -> None:
    assert units.parse_size(text) == size
    assert isinstance(units.parse_size(text), int)
    assert units.parse_quantity(text, "size") == Quantity(size)


@pytest.mark.parametrize(
    ("text", "mj"), [("12mJ", 12.0), ("1.2J", 1200.0), ("3uJ", 0.003), ("3µJ", 0.003), ("5nJ", 5e-6)]
)
def test_energies_are_millijoules(text: str, mj: float) -> None:
    assert units.parse_energy(text) == pytest.approx(mj, rel=1e-15)


@pytest.mark.parametrize(("text", "mhz"), [("2.4GHz", 2400.0), ("600MHz", 600.0), ("800kHz", 0.8), ("50Hz", 5e-5)])
def test_frequencies_are_megahertz(text: str, mhz: float) -> None:
    assert units.parse_frequency(text) == pytest.approx(mhz, rel=1e-15)


@pytest.mark.parametrize(
    ("unit", "question"),
    [
        ("KB", "do you mean 4kB or 4KiB? (kB = 1000 B, KiB = 1024 B)"),
        ("K", "do you mean 4kB or 4KiB?"),
        ("k", "do you mean 4kB or 4KiB?"),
        ("kb", "do you mean 4kB or 4KiB?"),
        ("M", "do you mean 4MB or 4MiB?"),
        ("Mb", "do you mean 4MB or 4MiB?"),
        ("mB", "do you mean 4MB or 4MiB?"),
        ("G", "do you mean 4GB or 4GiB?"),
        ("mib", "do you mean 4MiB?"),
        ("kiB", "do you mean 4KiB?"),
        ("Ki", "do you mean 4KiB?"),
    ],
)
def test_ambiguous_sizes_are_refused_with_a_question(unit: str, question: str) -> None:
    with pytest.raises(UnitError, match="is ambiguous") as caught:
        units.parse_size(f"4{unit}")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(question)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("30", "'30' has no unit", "write it like 30ms"),
        (30, "30 is a bare number", '"30ms"'),
        (0.5, "0.5 is a bare number", '"30ms"'),
        (True, "True is no text", '"30ms"'),
        (None, "the quantity is missing", '"30ms"'),
        (["30ms"], "is no text", '"30ms"'),
        ("", "is not a quantity", "30ms"),
        ("fast", "is not a quantity", "30ms"),
        ("nan ms", "is not a quantity", "30ms"),
        ("inf ms", "is not a quantity", "30ms"),
        ("0x10ms", "unknown unit 'x10ms'", "units: ns"),
        ("30MS", "unknown unit 'MS'", "did you mean 30ms?"),
        ("30 sec", "unknown unit 'sec' for a duration", "units: ns, us"),
        ("30kB", "unknown unit 'kB' for a duration", "units: ns"),
        ("1,5ms", "a decimal comma", "1.5ms"),
        ("0ms", "must be greater than zero", None),
        ("-3ms", "must be greater than zero", None),
        ("1e-400ms", "must be greater than zero", None),
        ("1e400ms", "is out of range", None),
        ("1e308s", "is out of range", None),
        ("30ms\n20ms", "", None),
    ],
)
def test_wrong_durations_are_refused(text: object, message: str, hint: str | None) -> None:
    with pytest.raises(UnitError) as caught:
        units.parse_duration(text)  # type: ignore[arg-type]
    assert message in caught.value.message
    if hint is not None:
        assert caught.value.hint is not None
        assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_size_below_one_byte_is_refused() -> None:
    with pytest.raises(UnitError, match="less than one byte"):
        units.parse_size("0.4B")
    with pytest.raises(UnitError, match="less than one byte"):
        units.parse_quantity("0.0001kB", "size")


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0, "+0.00 pp"), (-0.0, "+0.00 pp"), (-1e-6, "+0.00 pp"), (-0.0123, "-1.23 pp"), (0.1, "+10.00 pp")],
)
def test_points_have_no_negative_zero(fraction: float, text: str) -> None:
    assert units.format_points(fraction) == text


def test_relative_quantities() -> None:
    assert units.parse_quantity("60% of dense", "duration") == Quantity(0.6, relative=True)
    assert units.parse_quantity("150 %  of dense", "size") == Quantity(1.5, relative=True)
    assert units.parse_quantity("12mJ", "energy") == Quantity(12.0)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("60%", "percent of what", '"60% of dense"'),
        ("40 % of dens", "unknown unit '% of dens'", 'did you mean "40% of dense"'),
        ("40% dense", "unknown unit '% dense'", 'did you mean "40% of dense"'),
        ("0% of dense", "must be greater than zero", None),
        ("-5% of dense", "must be greater than zero", None),
        ("60% of the dense", "unknown unit", "units:"),
    ],
)
def test_wrong_relative_quantities_are_refused(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(UnitError, match=message) as caught:
        units.parse_quantity(text, "duration")
    assert hint is None or hint in (caught.value.hint or "")


def test_relative_is_refused_where_only_absolute_makes_sense() -> None:
    with pytest.raises(UnitError, match="unknown unit '% of dense' for a size"):
        units.parse_size("50% of dense")


def test_shares() -> None:
    assert units.parse_share("35%") == 0.35
    assert units.parse_share("2 %") == 0.02
    for wrong, message in (
        (0.35, "bare number"),
        ("35", "not a percentage"),
        ("35pp", "not a percentage"),
        ("1e999%", "out of range"),
    ):
        with pytest.raises(UnitError, match=message):
            units.parse_share(wrong)  # type: ignore[arg-type]


def test_drops() -> None:
    assert units.parse_drop("1.0pp") == Drop(1.0, relative=False)
    assert units.parse_drop("2%") == Drop(2.0, relative=True)
    assert units.parse_drop("0pp").allowed(0.9) == 0.9
    assert Drop(1.0, relative=False).allowed(0.915) == pytest.approx(0.905)
    assert Drop(2.0, relative=True).allowed(0.5) == pytest.approx(0.49)


@pytest.mark.parametrize("text", ["1", "1ms", 1.0, "-1pp", "101pp", "1e999%", None])
def test_wrong_drops_are_refused(text: object) -> None:
    with pytest.raises(UnitError):
        units.parse_drop(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0.000 ms"),
        (1e-6, "1.0 ns"),
        (4.12e-4, "412.0 ns"),
        (0.031, "31.0 us"),
        (0.00196, "1.96 us"),
        (0.00994, "9.94 us"),
        (0.00996, "10.0 us"),
        (0.0999, "99.9 us"),
        (0.1, "0.100 ms"),
        (0.412, "0.412 ms"),
        (999.9994, "999.999 ms"),
        (999.9996, "1.000 s"),
        (1250, "1.250 s"),
    ],
)
def test_durations_are_written_in_the_unit_that_fits(ms: float, text: str) -> None:
    assert units.format_duration(ms) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (412, "412 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_999, "1.00 MB"),
        (3_210_000, "3.21 MB"),
        (1.5e9, "1.50 GB"),
    ],
)
def test_sizes_are_written_in_the_unit_that_fits(size: float, text: str) -> None:
    assert units.format_size(size) == text


@pytest.mark.parametrize(
    ("mj", "text"), [(0, "0 mJ"), (0.0456, "45.6 uJ"), (12.34, "12.3 mJ"), (999.9, "1.00 J"), (1200, "1.20 J")]
)
def test_energies_are_written_in_the_unit_that_fits(mj: float, text: str) -> None:
    assert units.format_energy(mj) == text


positive = st.floats(1e-3, 1e9, allow_nan=False)


@given(value=positive, unit=st.sampled_from(units.unit_names("duration")))
def test_every_written_duration_is_read_as_written(value: float, unit: str) -> None:
    factor = units.parse_duration(f"1{unit}")
    assert units.parse_duration(f"{value!r}{unit}") == pytest.approx(value * factor, rel=1e-12)
    assert units.parse_duration(f" {value!r} {unit} ") == units.parse_duration(f"{value!r}{unit}")


@given(ms=st.floats(1e-4, 1e8))
def test_a_formatted_duration_is_read_back_to_its_precision(ms: float) -> None:
    assert units.parse_duration(units.format_duration(ms)) == pytest.approx(ms, rel=6e-3)


@given(size=st.integers(1, 10**13))
def test_a_formatted_size_is_read_back_to_its_precision(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == pytest.approx(size, rel=6e-3)


@given(mj=st.floats(1e-3, 1e8))
def test_a_formatted_energy_is_read_back_to_its_precision(mj: float) -> None:
    assert units.parse_energy(units.format_energy(mj)) == pytest.approx(mj, rel=6e-3)


@given(size=st.integers(1, 10**15))
def test_bytes_survive_exactly(size: int) -> None:
    assert units.parse_size(f"{size}B") == size


@given(percent=st.floats(1e-6, 1e6))
def test_relative_limits_survive(percent: float) -> None:
    quantity = units.parse_quantity(f"{percent!r}% of dense", "size")
    assert quantity.relative
    assert quantity.value == pytest.approx(percent / 100, rel=1e-12)


@given(points=st.floats(0, 100), dense=st.floats(0, 1))
def test_a_drop_never_allows_more_than_dense_and_scales_with_its_value(points: float, dense: float) -> None:
    absolute, relative = Drop(points, relative=False), Drop(points, relative=True)
    assert absolute.allowed(dense) == pytest.approx(dense - points / 100, abs=1e-12)
    assert 0 <= relative.allowed(dense) <= dense


@given(text=st.text(max_size=12))
def test_any_text_is_read_or_refused_with_a_unit_error(text: str) -> None:
    for parse in (units.parse_duration, units.parse_size, units.parse_energy, units.parse_frequency):
        try:
            value = parse(text)
        except UnitError:
            continue
        assert 0 < value < math.inf


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.format_duration(250.0, 1500.0), "0.250 s"),
        (units.format_duration(1500.0, 250.0), "1500.000 ms"),
        (units.format_duration(1500.0, 0.25), "1.500 s"),
        (units.format_duration(0.05, 0.3), "0.0500 ms"),
        (units.format_duration(0.02, 0.3), "20.0 us"),  # too far from each other for one unit
        (units.format_size(250_000.0, 1_000_000.0), "0.250 MB"),
        (units.format_size(50_000.0, 1_000_000.0), "50.00 kB"),
        (units.format_energy(250.0, 1500.0), "0.25 J"),
    ],
)
def test_figures_beside_each_other_have_one_unit(shown: str, text: str) -> None:
    assert shown == text
