"""The page as a reader has it: in a real browser, without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rank_search.basics import is_logarithmic, short_number
from rank_search.report import write_report
from rank_search.report.contents import contents
from rank_search.report.page import render
from rank_search.store import Store
from tests.report.report_tools import HOSTILE, Many, in_a_shell, study_record

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page


class Opened:
    """A page, and whatever it complained about or asked for."""

    def __init__(self, context: BrowserContext, file: Path) -> None:
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-complete]", state="attached")

    def trial(self) -> int:
        """The number of the selected trial."""
        return int(self.page.input_value("#number"))

    def follow(self, before: dict[str, Any]) -> None:
        """Wait until another trial is selected."""
        self.page.wait_for_selector(f"#front tr[aria-current]:not([data-place='{before['place']}'])")

    def figures(self) -> dict[str, Any]:
        """What the views say of the selected trial, each by itself."""
        return dict(self.page.evaluate(_VIEWS))


_VIEWS = """() => {
  const ring = (node) => { const last = node.data[node.data.length - 1]; return [last.x[0], last.y[0]]; };
  return {
    rings: [...document.querySelectorAll("#pairs .plot")].map(ring),
    place: document.querySelector("#front tr[aria-current]").dataset.place,
    row: document.querySelector("#front tr[aria-current] th").textContent.trim(),
    column: document.querySelector("#heat").layout.shapes.length,
    said: document.querySelector("#said").textContent,
    trial: document.querySelector("#trial").textContent,
    ranks: document.querySelector("#ranks-said").textContent,
    priors: document.querySelector("#priors caption").textContent,
    command: document.querySelector("#commands code").textContent,
  };
}"""


@pytest.fixture
def opened(browser: BrowserContext, page_file: Path) -> Iterator[Opened]:
    found = Opened(browser, page_file)
    yield found
    found.page.close()


def test_the_page_loads_without_a_network_or_a_complaint(opened: Opened, page_file: Path) -> None:
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("data:", "blob:"))] == [page_file.as_uri()]
    assert opened.page.locator(".plot .main-svg").count() > 5


def test_hostile_names_are_shown_as_text(opened: Opened) -> None:
    assert opened.page.evaluate("window.broken") is None
    assert opened.page.locator("h1").text_content() == HOSTILE
    assert opened.page.title().startswith(HOSTILE)
    opened.page.select_option("#layer", "2")
    assert HOSTILE in str(opened.page.locator("#priors caption").text_content())
    drawn = opened.page.locator("#pairs .plot").first.locator("text").all_text_contents()
    assert any(text.startswith("<script") for text in drawn)  # the reference, shortened, its < as it is
    assert opened.complaints == []


def test_every_view_follows_the_table(opened: Opened) -> None:
    place = opened.page.locator("#front tbody tr[data-place]").nth(3).get_attribute("data-place")
    before = opened.figures()
    opened.page.check(f"#front input[value='{place}']")
    _all_show(opened, before)


def test_every_view_follows_a_click_on_a_mark(opened: Opened) -> None:
    before = opened.figures()
    opened.page.evaluate(_TO_PIXELS)
    x, y = opened.page.evaluate("window.at")
    opened.page.mouse.move(x, y)
    opened.page.mouse.click(x, y)
    opened.follow(before)
    _all_show(opened, before)


_TO_PIXELS = """() => {
  const node = [...document.querySelectorAll("#pairs .plot")].find((each) => each.data[3].x.length > 1);
  node.scrollIntoView({ block: "center", behavior: "instant" });
  const { left, top } = node.getBoundingClientRect();
  const front = node.data[3];
  const { xaxis, yaxis } = node._fullLayout;
  const k = 1;
  window.at = [left + xaxis._offset + xaxis.d2p(front.x[k]), top + yaxis._offset + yaxis.d2p(front.y[k])];
}"""


def test_every_view_follows_a_click_on_the_heat_map(opened: Opened) -> None:
    before = opened.figures()
    box = opened.page.locator("#heat .nsewdrag").first
    box.scroll_into_view_if_needed()
    at = box.bounding_box()
    assert at is not None
    opened.page.mouse.move(at["x"] + at["width"] - 8, at["y"] + at["height"] - 5)
    opened.page.mouse.click(at["x"] + at["width"] - 8, at["y"] + at["height"] - 5)
    opened.follow(before)
    _all_show(opened, before)
    assert opened.page.input_value("#layer") == "2"  # the lowest row


def test_the_page_is_usable_by_keyboard_alone(opened: Opened) -> None:
    before = opened.figures()
    opened.page.focus("#front input:checked")
    opened.page.keyboard.press("ArrowDown")
    _all_show(opened, before)
    after = opened.figures()
    opened.page.focus("#before")
    opened.page.keyboard.press("Enter")
    assert opened.figures() != after
    opened.page.fill("#number", "999")
    opened.page.keyboard.press("Enter")
    assert "no trial 999" in opened.figures()["said"]


def test_a_trial_behind_the_front_can_be_selected(opened: Opened) -> None:
    opened.page.fill("#number", "2")
    opened.page.keyboard.press("Enter")
    assert "failed" in str(opened.page.locator("#trial").text_content())
    assert HOSTILE in str(opened.page.locator("#trial").text_content())
    assert opened.complaints == []


def _all_show(opened: Opened, before: dict[str, Any]) -> None:
    """Every view shows one and the same trial, another one than before."""
    now, number = opened.figures(), opened.trial()
    assert number != int(before["row"])
    assert int(now["row"]) == number
    assert now["said"].startswith(f"Trial {number}:")
    assert now["trial"].startswith(f"Trial {number};")
    assert f"trial {number} " in now["ranks"]
    assert f"trial {number} " in now["priors"]
    assert now["command"].endswith(f" {number}")
    assert now["column"] == 1
    shown = json.loads(str(opened.page.locator("#contents").text_content()))
    place, measured = shown["trials"]["number"].index(number), shown["trials"]["measurements"]
    assert now["rings"] == [[measured[pair["x"]][place], measured[pair["y"]][place]] for pair in shown["pairs"]]


def test_the_copied_command_runs(opened: Opened, tmp_path: Path) -> None:
    opened.page.get_by_role("button", name="Copy the command that shows it").click()
    opened.page.get_by_text("Copied").wait_for()
    command = opened.page.evaluate("navigator.clipboard.readText()")
    done = in_a_shell(f"{command} --format json", tmp_path)
    assert json.loads(done)[0]["trial"] == opened.trial()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_serious(browser: BrowserContext, page_file: Path, scheme: Any, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = Opened(browser, page_file)
    found.page.set_viewport_size({"width": width, "height": 800})
    found.page.emulate_media(color_scheme=scheme)
    results = Axe().run(found.page)
    serious = [
        (each["id"], each["nodes"][0]["html"][:200])
        for each in results.response["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
    wider = found.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0  # nothing sticks out
    found.page.close()


def test_the_theme_can_be_chosen(opened: Opened) -> None:
    opened.page.emulate_media(color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    opened.page.wait_for_selector("html[data-theme=dark]", state="attached")
    dark = opened.page.evaluate(paper)
    opened.page.click("#theme")
    assert opened.page.evaluate(paper) != dark
    assert opened.page.locator("html").get_attribute("data-theme") == "light"
    opened.page.emulate_media(color_scheme="light")


def test_paper_has_light_figures_of_its_width_and_no_buttons(opened: Opened) -> None:
    opened.page.click("#theme")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened.page.emulate_media(media="print")
    widths = "[...document.querySelectorAll('.plot .main-svg')].map(each => each.clientWidth)"
    assert set(opened.page.evaluate(widths)) == {680}
    assert not opened.page.locator("#theme").is_visible()
    assert opened.page.locator("html").get_attribute("data-theme") == "light"
    opened.page.emulate_media(media="screen")
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.page.locator("html").get_attribute("data-theme") == "dark"


def test_ten_thousand_trials_are_few_marks(browser: BrowserContext, tmp_path: Path) -> None:
    """What makes a page slow is what is drawn on it; `benchmarks/report_page.py` has the seconds."""
    many = Many.of(10_000, ("error", "macs"), [f"stage{k // 4}.block{k % 4}.conv" for k in range(20)])
    file = tmp_path / "many.html"
    file.write_text(render(contents(many, "many.sqlite", "many")), encoding="utf-8")  # type: ignore[arg-type]
    opened = Opened(browser, file)
    marks = opened.page.locator("#pairs .plot .points path").count()
    assert 100 < marks < 3_000
    assert "one where several would cover each other" in opened.page.locator("#pairs").inner_text()
    assert opened.complaints == []


def test_the_page_of_a_study_without_trials_has_no_complaint(browser: BrowserContext, tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.sqlite", create=True) as store:
        store.join(study_record(name="new"))
        write_report(store, "s.sqlite", "new", tmp_path / "new.html")
    opened = Opened(browser, tmp_path / "new.html")
    assert opened.complaints == []
    assert opened.page.locator("#trial").text_content() == "No trial is selected."
    opened.page.close()


def test_the_scripts_write_numbers_and_choose_axes_as_python_does(browser: BrowserContext, tmp_path: Path) -> None:
    values = [0.0, 0.00012345, -0.5, 1 / 3, 12.0, 9999.4, 9999.6, 12346.0, 999_951.0, -29_639_296.0, 2.5e12, 9.999e14]
    pairs = [(1.0, 19.9), (1.0, 20.1), (0.0, 50.0), (-1.0, 40.0), (0.001, 0.03)]
    with Store.open(tmp_path / "s.sqlite", create=True) as store:
        store.join(study_record(name="s"))
        look = contents(store, str(tmp_path / "s.sqlite"), "s")["look"]
    shown = {"trials": {"number": [], "member": []}, "study": {"objectives": []}, "look": look}
    page = browser.new_page()
    page.set_content(f'<script type="application/json" id="contents">{json.dumps(shown)}</script>')
    page.add_script_tag(content=resources.files("rank_search.report").joinpath("page", "state.js").read_text("utf-8"))
    assert page.evaluate("(values) => values.map(short)", values) == [short_number(value) for value in values]
    assert page.evaluate("(pairs) => pairs.map(([low, high]) => isLogarithmic(low, high))", pairs) == [
        is_logarithmic(pair) for pair in pairs
    ]
    page.close()
