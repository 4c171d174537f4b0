"""The report of a real run in a real browser: chromium, driven by its own driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from edgeprune.pipeline.report import write_report
from edgeprune.records.figures import format_figure
from edgeprune.report.html.page import page
from edgeprune.search.journal import read_trials
from tests.report.html.views import view

SIZES = [(360, 740), (1440, 900)]
THEMES = ["light", "dark"]


def look(browser: Chrome, file: Path, size: tuple[int, int] = SIZES[1], theme: str = "light") -> None:
    """Open the file in a window of that size, for a reader with that preference."""
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wishes = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}  # what is clicked on stands still
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(file.as_uri())


def background(browser: Chrome) -> str:
    return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))


def sideways(browser: Chrome) -> int:
    """By how many pixels the page is wider than the window."""
    return int(
        browser.execute_script("const page = document.documentElement; return page.scrollWidth - page.clientWidth")
    )


def all_of(browser: Chrome, selector: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES, ids=["phone", "desk"])
@pytest.mark.parametrize("which", ["real", "large"])
def test_it_opens_without_a_complaint_and_nothing_sticks_out(
    browser: Chrome, finished: Path, tmp_path: Path, *, which: str, size: tuple[int, int], theme: str
) -> None:
    file = finished / "report.html"
    if which == "large":
        file = tmp_path / "report.html"
        file.write_text(page(view()), encoding="utf-8")
    look(browser, file, size, theme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert sideways(browser) == 0
    wide = """
        return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, #tip, .skip, thead, legend'))
          .map(e => [e, e.getBoundingClientRect()])
          .filter(([, box]) => box.width > 0 && box.right > document.documentElement.clientWidth + 1)
          .map(([e]) => `${e.tagName}.${e.getAttribute('class')} ${e.textContent.slice(0, 40)}`)
    """
    assert browser.execute_script(wide) == []
    assert background(browser) == {"light": "rgb(251, 250, 247)", "dark": "rgb(22, 24, 27)"}[theme]
    heading = browser.find_element(By.TAG_NAME, "h1")
    assert heading.is_displayed()
    assert heading.text.startswith("Every limit is met by measurement: ")


def test_all_figures_are_those_of_the_result(browser: Chrome, finished: Path, result: dict[str, Any]) -> None:
    look(browser, finished / "report.html")
    shown = all_of(browser, ".figures [data-figure]")
    assert len(shown) == 2 * 7  # accuracy, p50, p95, memory, size, parameters, multiply-accumulates
    for cell in shown:
        name, value = cell.get_attribute("data-figure"), float(cell.get_attribute("data-value") or "nan")
        trial = result["dense" if cell.get_attribute("data-trial") == "dense" else "best"]
        figure = trial["figures"].get(name)
        assert value == (trial["details"][name] if figure is None else figure["value"])
        like = result["dense"]["figures"].get(name, {}).get("value")
        assert cell.text == (f"{int(value):,}" if figure is None else format_figure(str(name), value, like))
        kind = cell.find_element(By.XPATH, "following-sibling::*[1]").text
        assert kind == ("counted" if figure is None else figure["kind"])
    limits = {limit.get_attribute("data-metric"): limit for limit in all_of(browser, ".limit")}
    assert list(limits) == ["latency.p50", "size", "accuracy.max_drop"]
    for entry in result["check"]["limits"]:
        told = limits[entry["limit"]["metric"]]
        name = "accuracy" if entry["limit"]["drop"] else entry["limit"]["metric"]
        assert told.get_attribute("data-state") == entry["state"] == "met"
        assert format_figure(name, entry["value"], entry["bound"]) in told.text
        assert format_figure(name, entry["bound"]) in told.text
    assert result["dense"]["figures"]["energy"]["missing"] in browser.find_element(By.CLASS_NAME, "figures").text


def test_trials_points_and_layers_are_those_of_the_run(browser: Chrome, finished: Path, result: dict[str, Any]) -> None:
    look(browser, finished / "report.html")
    trials = read_trials(finished)
    rows = all_of(browser, ".trials tr[id]")
    assert [row.get_attribute("id") for row in rows] == [f"trial-{trial.number}" for trial in trials]
    for row, trial in zip(rows, trials, strict=True):
        told = {c.get_attribute("data-figure"): c for c in row.find_elements(By.CSS_SELECTOR, "[data-figure]")}
        for name, cell in told.items():
            assert float(cell.get_attribute("data-value") or "nan") == trial.figures[str(name)].value
    points = all_of(browser, ".panel:first-of-type a.point")
    measured = {
        t.number: (t.figures["latency.p50"].value, t.figures["accuracy"].value) for t in trials if t.stage.is_measured
    }
    assert {
        int(point.get_attribute("data-trial") or -1): tuple(
            float(point.get_attribute(f"data-{at}") or 0) for at in "xy"
        )
        for point in points
    } == measured
    kept = {name: len(units) for name, units in result["best"]["candidate"]["kept"].items()}
    layers = [
        tuple(layer.get_attribute(f"data-{name}") for name in ("layer", "before", "after"))
        for layer in all_of(browser, ".widths li")
    ]
    assert layers == [("0", "32", str(kept["0"])), ("3", "48", str(kept["3"])), ("8", "10", "10")]
    assert "is the model's output" in browser.find_element(By.CSS_SELECTOR, "dl.frozen").text


def test_colours_can_be_chosen(browser: Chrome, finished: Path) -> None:
    look(browser, finished / "report.html", theme="light")
    light = background(browser)
    all_of(browser, "label[for=theme-dark]")[0].click()
    dark = background(browser)
    assert dark == "rgb(22, 24, 27)" != light
    all_of(browser, "label[for=theme-light]")[0].click()
    assert background(browser) == light
    look(browser, finished / "report.html", theme="dark")
    assert background(browser) == dark
    all_of(browser, "label[for=theme-light]")[0].click()
    assert background(browser) == light


def test_trials_are_sorted_by_a_click_and_by_the_next_the_other_way(browser: Chrome, finished: Path) -> None:
    look(browser, finished / "report.html")
    column = 3
    heads = all_of(browser, ".trials thead th")
    assert heads[column].text.startswith("latency p50")

    def values() -> list[float | None]:
        cells = all_of(browser, f".trials tr[id] > :nth-child({column + 1})")
        return [None if (text := cell.get_attribute("data-value")) is None else float(text) for cell in cells]

    before = values()
    for direction, sign in (("ascending", 1), ("descending", -1)):
        heads[column].find_element(By.TAG_NAME, "button").click()
        assert heads[column].get_attribute("aria-sort") == direction
        known = [value for value in values() if value is not None]
        assert known == sorted(known, key=lambda value: sign * value)
        assert values() == known + [None] * (len(before) - len(known))
    assert sorted(v for v in before if v is not None) == sorted(known)
    heads[0].find_element(By.TAG_NAME, "button").click()
    assert values() == before
    assert heads[column].get_attribute("aria-sort") is None


def test_details_open_and_tell_the_candidate(browser: Chrome, finished: Path, result: dict[str, Any]) -> None:
    look(browser, finished / "report.html")
    row = browser.find_element(By.ID, f"trial-{result['best']['number']}")
    details = row.find_element(By.XPATH, "following-sibling::tr")
    assert not details.is_displayed()
    row.find_element(By.TAG_NAME, "label").click()
    assert details.is_displayed()
    said = details.text
    assert "fine-tuning" in said
    assert f"trials/{result['best']['number']:04d}/model.onnx" in said
    assert sideways(browser) == 0


def test_figures_of_the_front_are_chosen_by_a_click(browser: Chrome, finished: Path) -> None:
    look(browser, finished / "report.html")
    assert [panel.is_displayed() for panel in all_of(browser, ".panel")] == [True, False, False]
    all_of(browser, "label[for=front-1]")[0].click()
    assert [panel.is_displayed() for panel in all_of(browser, ".panel")] == [False, True, False]
    assert "size, kB" in all_of(browser, ".panel")[1].text


@pytest.mark.parametrize("size", SIZES, ids=["phone", "desk"])
def test_everything_is_reached_by_the_keyboard(browser: Chrome, finished: Path, size: tuple[int, int]) -> None:
    look(browser, finished / "report.html", size)
    trials = read_trials(finished)
    seen: list[str] = []
    for _ in range(200):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        now = browser.switch_to.active_element
        if now.tag_name == "body":
            break
        what = now.get_attribute("class") or now.get_attribute("id") or now.tag_name
        if what == "point":
            tip = browser.find_element(By.ID, "tip")
            assert tip.is_displayed()
            assert tip.text == (now.get_attribute("aria-label") or "").replace("\u00a0", " ")
            box = tip.rect
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size[0]
        seen.append(f"{what} {now.text.strip()}")
    assert seen[0] == "skip to the figures"
    assert seen[1].startswith("theme-auto")
    assert sum(text.startswith("point") for text in seen) == sum(trial.stage.is_measured for trial in trials)
    assert sum(text.startswith("button") for text in seen) >= 8  # the columns
    assert sum(text.startswith("opener") for text in seen) == len(trials)
    assert len(seen) < 200  # and it ends


def test_a_point_leads_to_its_trial_by_enter(browser: Chrome, finished: Path) -> None:
    look(browser, finished / "report.html")
    point = all_of(browser, ".panel:first-of-type a.point")[0]
    number = point.get_attribute("data-trial")
    browser.execute_script("arguments[0].focus()", point)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.current_url.endswith(f"#trial-{number}")
    assert browser.execute_script("return document.querySelector(':target').id") == f"trial-{number}"


def test_without_scripts_all_of_it_can_be_read(browser: Chrome, finished: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        look(browser, finished / "report.html")
        assert len(all_of(browser, ".trials tr[id]")) == len(read_trials(finished))
        assert all_of(browser, ".trials button") == []  # what would do nothing is not there
        assert len(all_of(browser, "svg.area title")) > 20  # the browser's own tips
        all_of(browser, "label[for=theme-dark]")[0].click()
        assert (
            browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color") == "rgba(22, 24, 27, 1)"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_it_prints_whole_and_light(browser: Chrome, finished: Path) -> None:
    look(browser, finished / "report.html", theme="dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert background(browser) == "rgb(255, 255, 255)"
        assert all(panel.is_displayed() for panel in all_of(browser, ".panel"))
        assert not browser.find_element(By.CLASS_NAME, "theme").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_it_is_written_again_from_the_folder_the_very_same(finished: Path, tmp_path: Path) -> None:
    again = write_report(finished, tmp_path / "again.html")
    assert again.read_bytes() == (finished / "report.html").read_bytes()
