"""The rules of advice, on figures made up for each of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from edgeprune.pipeline.recommendation import Method, Ratio, ratio_of, recommend
from edgeprune.records.budget import Budget
from edgeprune.records.figures import Figure

DENSE = {
    "latency.p50": Figure(10.0, 10.1),
    "peak_memory": Figure(50e6, 51e6),
    "size": Figure(4e6, 4e6),
    "accuracy": Figure(0.9, 0.9),
}
BUDGET = Budget.parse({"latency": {"p50": "6ms"}, "accuracy": {"max_drop": "2pp"}})


def ratio(value: float) -> Ratio:
    change = "none" if abs(value - 1) < 0.02 else "less" if value < 1 else "more"
    return Ratio(value, value - 0.01, value + 0.01, change)  # type: ignore[arg-type]


def method(name: str, latency: float, change: float | None, budget: Budget = BUDGET, **more: object) -> Method:
    kind = "both" if "+" in name else "int8" if "int8" in name else "structured" if "str" in name else "sparse"
    accuracy = None if change is None else 0.9 + change
    figures = {
        "latency.p50": Figure(10 * latency, 10 * latency),
        "size": Figure(2e6, 2e6),
        **({} if accuracy is None else {"accuracy": Figure(accuracy, accuracy)}),
    }
    ratios: Mapping[str, Ratio] = {"latency": ratio(latency), "download": ratio(0.5)}
    fields: dict[str, object] = {"figures": figures, "ratios": ratios, "accuracy_change": change}
    return Method(name, kind, check=budget.check(figures, DENSE), **(fields | more))  # type: ignore[arg-type]


def test_of_those_that_meet_the_budget_the_one_that_loses_least() -> None:
    methods = [
        method("structured 50%", 0.5, -0.05, trains=True),
        method("int8 a", 0.55, -0.01),
        method("2:4", 1.0, -0.0),
    ]
    found = recommend(methods, DENSE, BUDGET, phone=False, weights_share=0.9)
    assert found.method == "int8 a"
    assert found.needs == ("latency.p50",)
    assert "misses latency.p50 6ms (it has 10.000 ms)" in found.text
    assert "loses least of the 2 methods" in found.text
    assert len(found.reasons) == 4


def test_what_no_training_gives_back_is_held_against_the_budget() -> None:
    methods = [method("int8 a", 0.5, -0.03), method("structured 50%", 0.55, -0.2, trains=True)]
    assert recommend(methods, DENSE, BUDGET, phone=False, weights_share=0.9).method == "structured 50%"
    untrained = [method("int8 a", 0.5, -0.03), method("structured 50%", 0.55, -0.2)]
    found = recommend(untrained, DENSE, BUDGET, phone=False, weights_share=0.9)
    assert found.method is None
    assert "no method could be measured that keeps it" in found.text


def test_the_nearest_where_none_meets_the_budget() -> None:
    methods = [method("structured 30%", 0.8, -0.01, trains=True), method("2:4", 1.0, 0.0, trains=True)]
    found = recommend(methods, DENSE, BUDGET, phone=False, weights_share=0.9)
    assert found.method == "structured 30%"
    assert "no method as tried here meets every limit" in found.text
    worse = [method("2:4", 1.1, 0.0, trains=True)]
    assert recommend(worse, DENSE, BUDGET, phone=False, weights_share=0.9).method is None


def test_a_dense_model_within_the_budget_needs_nothing() -> None:
    budget = Budget.parse({"latency": {"p50": "20ms"}})
    found = recommend([method("int8 a", 0.5, 0.0, budget)], DENSE, budget, phone=False, weights_share=0.9)
    assert found.method is None
    assert found.text == "The dense model meets the budget as it is: nothing has to go."


def test_the_price_is_told() -> None:
    small = Budget.parse({"size": "3MB"})
    found = recommend([method("int8 a", 1.3, 0.0, small)], DENSE, small, phone=False, weights_share=0.9)
    assert found.method == "int8 a"
    assert "at the price of latency 1.300 x (1.290 to 1.310)" in found.text


def test_memory_goes_first_on_a_phone_and_latency_on_a_board() -> None:
    budget = Budget()
    less, same = Ratio(0.7, 0.69, 0.71, "less"), Ratio(1.0, 0.99, 1.01, "none")
    methods = [
        method("int8 a", 0.5, 0.0, budget, ratios={"latency": less, "peak_memory": same}),
        method("structured 50%", 0.9, 0.0, budget, ratios={"latency": same, "peak_memory": less}),
    ]
    assert recommend(methods, DENSE, budget, phone=False, weights_share=0.9).method == "int8 a"
    phone = recommend(methods, DENSE, budget, phone=True, weights_share=0.9)
    assert phone.method == "structured 50%"
    assert "on a phone that is, in this order, peak memory, latency, size, download" in phone.text


def test_without_a_budget_what_keeps_the_accuracy_goes_before_what_gains_most() -> None:
    methods = [method("structured 50%", 0.4, -0.05, Budget(), trains=True), method("int8 a", 0.6, -0.009, Budget())]
    assert recommend(methods, DENSE, Budget(), phone=False, weights_share=0.9).method == "int8 a"
    # 5 points for 0.6 is a better price than 9 for 0.7
    dear = [
        method("structured 50%", 0.4, -0.05, Budget(), trains=True),
        method("structured 80%", 0.3, -0.09, Budget(), trains=True),
    ]
    found = recommend(dear, DENSE, Budget(), phone=False, weights_share=0.9)
    assert found.method == "structured 50%"
    assert "it loses 5.0 pp so far" in found.text


def test_no_gain_is_said() -> None:
    sparse = method("2:4", 1.0, -0.001, Budget())
    found = recommend([sparse], DENSE, Budget(), phone=False, weights_share=0.3)
    assert found.method == "2:4"  # the download is what gains
    about, weights = found.reasons
    assert "no gain in latency 1.000 x (0.990 to 1.010)" in about
    assert "zeros make nothing but the download smaller here" in about
    assert "weights are only 30%" in weights
    nothing = method("2:4", 1.0, 0.0, Budget(), ratios={"latency": ratio(1.0)})
    assert recommend([nothing], DENSE, Budget(), phone=False, weights_share=0.3).method is None


def test_whether_two_methods_add_up_is_said() -> None:
    alone = [method("structured 50%", 0.6, 0.0), method("int8 a", 0.5, 0.0)]
    told = {
        0.3: "gains more latency than each alone",
        0.49: "is not proved to be faster than each alone",  # its interval touches that of int8 alone
        0.55: "is not proved to be faster than each alone",
    }
    for together, words in told.items():
        both = method("structured 50% + int8 a", together, 0.0)
        reasons = recommend([*alone, both], DENSE, BUDGET, phone=False, weights_share=0.9).reasons
        assert any(f"structured 50% + int8 a {words}: {together:.3f} x, alone" in reason for reason in reasons)


def test_a_method_that_was_not_measured_has_its_reason() -> None:
    gone = Method("int8 a", "int8", missing={"": "an operator has no int8 form"})
    found = recommend([gone], DENSE, BUDGET, phone=False, weights_share=0.9)
    assert found.method is None
    assert found.reasons[0] == "int8 a: not measured: an operator has no int8 form"


@pytest.mark.parametrize(
    ("value", "upper", "expected"),
    [
        (25e6, 26e6, Ratio(0.5, 24 / 51, 26 / 49, "less")),
        (49e6, 50e6, Ratio(0.98, 48 / 51, 50 / 49, "none")),
        (60e6, 61e6, Ratio(1.2, 59 / 51, 61 / 49, "more")),
        (25e6, None, Ratio(0.5, None, None, "none")),
    ],
)
def test_a_ratio_bears_the_noise_of_both(value: float, upper: float | None, expected: Ratio) -> None:
    found = ratio_of("peak_memory", {"peak_memory": Figure(value, upper)}, DENSE)
    assert found is not None
    assert (found.value, found.change) == (expected.value, expected.change)
    assert (found.lower, found.upper) == pytest.approx((expected.lower, expected.upper))
    assert ratio_of("peak_memory", {"peak_memory": Figure(None, missing="no proc")}, DENSE) is None
    one_reading = ratio_of("peak_memory", {"peak_memory": Figure(value, upper)}, DENSE, interval=False)
    assert one_reading == Ratio(expected.value, None, None, "none")


def test_what_is_exact_is_its_own_interval() -> None:
    assert ratio_of("size", {"size": Figure(1e6, 1e6)}, DENSE) == Ratio(0.25, 0.25, 0.25, "less")
    assert str(ratio_of("size", {"size": Figure(1e6, 1e6)}, DENSE)) == "0.250 x"
    nearly = ratio_of("size", {"size": Figure(3.99e6, 3.99e6)}, DENSE)
    assert nearly is not None
    assert nearly.change == "none"  # 0.25 % is nothing that anyone notices
