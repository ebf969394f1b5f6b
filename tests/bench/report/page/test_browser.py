"""The page in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

Open = Callable[..., Chrome]
SMALL = "#results .sheet:nth-of-type(2)"
RESULTS = "#results .sheet:nth-of-type(1)"
HOSTILE = "</script><b>x & 'y'"


@pytest.fixture
def open_page(chromium: Chrome, page_file: Path) -> Iterator[Open]:
    """Loads the page afresh; afterwards nothing may have been logged or fetched."""

    def load(
        fragment: str = "", width: int = 1400, height: int = 900, scheme: str = "light", media: str = ""
    ) -> Chrome:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [feature]})
        # Another fragment alone would not load the file again.
        chromium.get("about:blank")
        chromium.get(page_file.as_uri() + fragment)
        return chromium

    yield load
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)") == []


def head(driver: Chrome, table: str, column: int) -> WebElement:
    return driver.find_elements(By.CSS_SELECTOR, f"{table} thead th[scope=col]")[column]


def rows(driver: Chrome, table: str) -> list[str]:
    """First cell of each row, headings of blocks in brackets."""
    script = """
        return [...document.querySelectorAll(arguments[0] + " tbody tr")].map((row) =>
            row.className === "block" ? `[${row.cells[0].textContent}]` : row.cells[0].textContent)"""
    return driver.execute_script(script, table)


def cases(driver: Chrome) -> list[str]:
    return [re.sub("BraTS-PHA-000|-000", "", row) for row in rows(driver, "#cases")]


def shown(driver: Chrome) -> tuple[str, str]:
    """What stands under the picture, and the marked row."""
    marked = driver.find_elements(By.CSS_SELECTOR, "#cases tr[aria-current=true] a")
    caption = driver.find_element(By.CSS_SELECTOR, "#cases figcaption").text
    return caption, "".join(link.text for link in marked)


def until(driver: Chrome, wanted: Callable[[], object]) -> None:
    WebDriverWait(driver, 5, poll_frequency=0.02).until(lambda _: wanted())


@pytest.mark.parametrize(
    ("column", "ascending", "descending"),
    [
        (0, ["a", "b9", "b10", "c", "d"], ["d", "c", "b10", "b9", "a"]),
        (1, ["d", "b10", "c", "a", "b9"], ["a", "b10", "c", "d", "b9"]),
    ],
    ids=["text", "number"],
)
def test_a_head_sorts_turns_round_and_restores(
    open_page: Open, column: int, ascending: list[str], descending: list[str]
) -> None:
    """By value, not by text; ties as they were, what is missing last in both directions."""
    driver = open_page()
    clicked = head(driver, SMALL, column)
    states = []
    for _ in range(3):
        clicked.click()
        states.append((clicked.get_attribute("aria-sort"), rows(driver, SMALL)))
    original = ["b10", "b9", "a", "c", "d"]
    assert states == [("ascending", ascending), ("descending", descending), ("none", original)]


def test_only_one_column_is_sorted(open_page: Open) -> None:
    driver = open_page()
    head(driver, SMALL, 0).click()
    head(driver, SMALL, 1).click()
    assert [head(driver, SMALL, column).get_attribute("aria-sort") for column in (0, 1)] == ["none", "ascending"]
    assert rows(driver, SMALL) == ["d", "b10", "c", "a", "b9"]


@pytest.mark.parametrize("key", [Keys.ENTER, Keys.SPACE])
def test_a_head_sorts_with_the_keyboard(open_page: Open, key: str) -> None:
    driver = open_page()
    button = head(driver, SMALL, 1).find_element(By.TAG_NAME, "button")
    assert button.get_property("tabIndex") == 0
    button.send_keys(key)
    assert rows(driver, SMALL) == ["d", "b10", "c", "a", "b9"]
    button.send_keys(key)
    assert head(driver, SMALL, 1).get_attribute("aria-sort") == "descending"


def test_rows_stay_in_their_block(open_page: Open) -> None:
    driver = open_page()
    before = rows(driver, RESULTS)
    assert (before[0], before[4]) == ("[State space and convolution]", "[Transformers and others]")
    head(driver, RESULTS, 0).click()
    head(driver, RESULTS, 0).click()
    after = rows(driver, RESULTS)
    assert after[:5] == [before[0], "segresnet", "segmamba_2024_01a", "segmamba", before[4]]
    assert after[5:] == ["unetr", "swinunetr_v2", "nnformer", "mednext_b", HOSTILE]


def test_the_first_case_is_shown_and_another_can_be_picked(open_page: Open) -> None:
    driver = open_page()
    assert shown(driver) == ("BraTS-PHA-00000-000, segmamba", "BraTS-PHA-00000-000")
    picture = driver.find_element(By.CSS_SELECTOR, "#cases img")
    first = picture.get_attribute("src")
    driver.find_element(By.LINK_TEXT, "BraTS-PHA-00002-000").click()
    until(driver, lambda: shown(driver) == ("BraTS-PHA-00002-000, segmamba", "BraTS-PHA-00002-000"))
    assert picture.get_attribute("src") != first
    assert picture.get_attribute("alt") == "Case BraTS-PHA-00002-000, segmamba"
    driver.find_elements(By.CSS_SELECTOR, "#cases tbody td")[0].click()
    assert shown(driver)[1] == "BraTS-PHA-00000-000"
    assert picture.get_attribute("src") == first
    assert "case=BraTS-PHA-00000-000" in driver.current_url


def test_scores_follow_the_model(open_page: Open) -> None:
    driver = open_page()

    def scores(case: int) -> list[str]:
        row = driver.find_elements(By.CSS_SELECTOR, "#cases tbody tr")[case]
        return [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]

    assert scores(3)[2::4] == ["0.530", "6.00"]
    assert (scores(2)[2], scores(4)[6]) == ("–", "∞")
    Select(driver.find_element(By.NAME, "model")).select_by_visible_text(HOSTILE)
    assert scores(3)[2] != "0.530"
    assert shown(driver) == (f"BraTS-PHA-00000-000, {HOSTILE}", "BraTS-PHA-00000-000")


def test_a_missing_picture_is_said_to_be_missing(open_page: Open) -> None:
    driver = open_page("#case=BraTS-PHA-00003-000&model=unetr")
    message = driver.find_element(By.CSS_SELECTOR, "#cases .ground p")
    assert message.text == "No picture was kept of this case and model."
    assert not driver.find_element(By.CSS_SELECTOR, "#cases img").is_displayed()
    Select(driver.find_element(By.NAME, "model")).select_by_visible_text("segresnet")
    assert not message.is_displayed()


def test_cases_are_sorted_by_score(open_page: Open) -> None:
    driver = open_page()
    column = head(driver, "#cases", 7)  # HD95 of ET: 3 mm + number, infinite for case 4
    column.click()
    assert cases(driver) == [f"{n:02d}" for n in range(20) if n != 4] + ["04"]
    column.click()
    assert cases(driver)[:3] == ["04", "19", "18"]
    head(driver, "#cases", 3).click()
    assert cases(driver)[-1] == "02"


def test_the_filter_keeps_what_has_every_word(open_page: Open) -> None:
    driver = open_page()
    field, told = driver.find_element(By.NAME, "filter"), driver.find_element(By.CSS_SELECTOR, "#cases output")
    field.send_keys("-0001 pha")
    assert cases(driver) == [f"{n}" for n in range(10, 20)]
    assert told.text == "10 of 20 cases"
    field.send_keys("x")
    assert (cases(driver), told.text) == ([], "0 of 20 cases")
    assert not any(driver.find_element(By.NAME, name).is_enabled() for name in ("previous", "next"))
    field.send_keys(Keys.CONTROL, "a", Keys.BACKSPACE)
    assert len(cases(driver)) == 20


def test_keys_and_buttons_go_through_the_cases_as_listed(open_page: Open) -> None:
    driver = open_page()
    head(driver, "#cases", 0).click()
    head(driver, "#cases", 0).click()
    link = driver.find_element(By.LINK_TEXT, "BraTS-PHA-00018-000")
    link.click()
    link.send_keys(Keys.ARROW_DOWN)
    assert shown(driver)[1] == "BraTS-PHA-00017-000"
    assert driver.switch_to.active_element.text == "BraTS-PHA-00017-000"
    for _ in range(3):
        driver.switch_to.active_element.send_keys(Keys.ARROW_UP)
    assert shown(driver)[1] == "BraTS-PHA-00019-000"
    assert not driver.find_element(By.NAME, "previous").is_enabled()
    driver.find_element(By.NAME, "next").click()
    assert shown(driver)[1] == "BraTS-PHA-00018-000"
    driver.find_element(By.NAME, "filter").send_keys("0001", Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert shown(driver)[1] == "BraTS-PHA-00016-000"


def test_the_fragment_restores_what_was_shown(open_page: Open) -> None:
    driver = open_page()
    Select(driver.find_element(By.NAME, "model")).select_by_visible_text(HOSTILE)
    driver.find_element(By.LINK_TEXT, "BraTS-PHA-00007-000").click()
    until(driver, lambda: shown(driver)[1] == "BraTS-PHA-00007-000")
    fragment = driver.current_url.partition("#")[2]
    driver = open_page(f"#{fragment}", height=500)
    assert shown(driver) == (f"BraTS-PHA-00007-000, {HOSTILE}", "BraTS-PHA-00007-000")
    assert Select(driver.find_element(By.NAME, "model")).first_selected_option.text == HOSTILE
    top = driver.execute_script("return document.querySelector('#cases').getBoundingClientRect().top")
    assert abs(top) < 5


@pytest.mark.parametrize("fragment", ["#case=unknown&model=unknown", "#case=%E0%A4%A", "#results", "#model=unetr"])
def test_a_fragment_that_names_no_case_is_no_harm(open_page: Open, fragment: str) -> None:
    assert shown(open_page(fragment))[1] == "BraTS-PHA-00000-000"


@pytest.mark.parametrize(("width", "height"), [(360, 740), (768, 1024), (1400, 900)])
def test_only_tables_scroll_sideways(open_page: Open, width: int, height: int) -> None:
    driver = open_page(width=width, height=height)
    page, window, table, box = driver.execute_script(
        """const box = document.querySelector("#results .scroll");
        return [document.scrollingElement.scrollWidth, innerWidth, box.scrollWidth, box.clientWidth]"""
    )
    assert window == width
    assert page <= window
    assert table > box if width < 1000 else table >= box


def test_lines_are_no_longer_than_can_be_read(open_page: Open) -> None:
    driver = open_page(width=2400)
    assert driver.execute_script("return document.querySelector('#summary p').clientWidth") <= 700


def test_drawings_and_pictures_are_drawn(open_page: Open) -> None:
    driver = open_page()
    sizes = driver.execute_script(
        """return [...document.querySelectorAll("figure svg[role=img]")].map((drawing) => {
            const box = drawing.getBBox();
            return [drawing.clientWidth, drawing.clientHeight, Math.min(box.width, box.height) > 100]})"""
    )
    assert sizes == [[960, 288, True], [480, 288, True]]  # 10 by 3 and 5 by 3 inches
    picture = driver.find_element(By.CSS_SELECTOR, "#cases img")
    for model in ("segmamba", "nnformer"):  # PNG, SVG
        Select(driver.find_element(By.NAME, "model")).select_by_visible_text(model)
        until(driver, lambda: picture.get_property("complete"))
        assert picture.get_property("naturalWidth") > 0


CONTRAST = r"""
const parsed = (colour) => colour.match(/[\d.]+/g).map(Number);
const light = (colour) => parsed(colour).slice(0, 3).map((part) => part / 255)
  .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
  .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (parsed(colour)[3] !== 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
return arguments[0].map((selector) => {
  const element = document.querySelector(selector);
  const [dark, bright] = [getComputedStyle(element).color, ground(element)].map(light).sort((a, b) => a - b);
  return [selector, (bright + 0.05) / (dark + 0.05)];
});"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(open_page: Open, scheme: str) -> None:
    """WCAG 2.1, success criterion 1.4.3: 4.5 to 1."""
    driver = open_page(scheme=scheme)
    names = ["h1", ".subtitle", "nav a", "p", "caption", "thead button", ".block th", "tbody td", ".notes li"]
    names += ["figcaption", "dt", "dd", "code", "footer", "label", "output", "select", "input", "[name=next]", ".hint"]
    names += ["#cases tr[aria-current] a", "#cases tr[aria-current] td", "#cases tr:nth-child(2) a"]
    contrast = dict(driver.execute_script(CONTRAST, names))
    assert {name: value for name, value in contrast.items() if value < 4.5} == {}
    colours = "return ['html', '.ground'].map((name) => getComputedStyle(document.querySelector(name)).backgroundColor)"
    page, figure = driver.execute_script(colours)
    assert (page != "rgb(255, 255, 255)") == (scheme == "dark")
    assert figure == "rgb(255, 255, 255)"


def test_print_shows_everything_and_no_controls(open_page: Open) -> None:
    driver = open_page(width=690, scheme="dark", media="print")
    for name in ("nav", "#cases .controls", "[name=filter]"):
        assert not driver.find_element(By.CSS_SELECTOR, name).is_displayed(), name
    cut = """return [...document.querySelectorAll(".scroll, .ground")].filter((box) =>
        box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1).length"""
    assert driver.execute_script(cut) == 0
    assert driver.execute_script("return getComputedStyle(document.documentElement).backgroundColor") == (
        "rgb(255, 255, 255)"
    )


def test_without_scripts_all_but_the_cases_can_be_read(open_page: Open) -> None:
    driver = open_page()
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.refresh()
        assert rows(driver, SMALL) == ["b10", "b9", "a", "c", "d"]
        assert driver.find_element(By.CSS_SELECTOR, f"{SMALL} td").is_displayed()
        assert not driver.find_elements(By.CSS_SELECTOR, "th button")
        assert "need JavaScript" in driver.find_element(By.TAG_NAME, "noscript").text
        assert not driver.find_element(By.CSS_SELECTOR, ".browser").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
