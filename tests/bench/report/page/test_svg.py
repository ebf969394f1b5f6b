"""SVG documents within a page: ids, styles, size, and nothing from outside."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.report.figures import to_svg
from bench.report.page.svg import inline

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="72pt" height="36pt">'


def test_ids_and_what_refers_to_them_get_a_prefix() -> None:
    made = inline(
        f'{HEAD}<defs><clipPath id="c"/><path id="m"/></defs>'
        '<use xlink:href="#m" clip-path="url(#c)" style="fill: url( \'#m\' )"/></svg>',
        "f_1",
        "",
    )
    root = ElementTree.fromstring(made)
    assert {element.get("id") for element in root.iter()} - {None} == {"f_1", "f_1_c", "f_1_m"}
    use = root.find("use")
    assert use is not None
    assert use.attrib == {"href": "#f_1_m", "clip-path": "url(#f_1_c)", "style": "fill: url(#f_1_m)"}


def test_it_is_a_described_picture_without_a_size() -> None:
    root = ElementTree.fromstring(inline(f"{HEAD}</svg>", "f_1", 'a "b" <c>'))
    assert root.attrib == {
        "id": "f_1",
        "role": "img",
        "aria-label": 'a "b" <c>',
        "viewBox": "0 0 96 48",
        "style": "--width: 96px",
    }


def test_style_rules_hold_within() -> None:
    text = HEAD.replace("<svg", '<svg id="old"') + "<style>#old * { fill: #fff; clip-path: url(#x) }</style></svg>"
    style = ElementTree.fromstring(inline(text, "f_1", "")).findtext("style")
    assert style == "@scope (#f_1) { #f_1 * { fill: #fff; clip-path: url(#x) } }"


def test_metadata_and_editors_elements_are_left_out() -> None:
    made = inline(
        f'{HEAD}<metadata><a xmlns="x"/></metadata><b xmlns="editor"/><g xmlns:e="editor" e:k="1"/></svg>', "f", ""
    )
    assert [element.tag for element in ElementTree.fromstring(made).iter()] == ["svg", "g"]
    assert "editor" not in made


def test_a_figure_of_ours_fits() -> None:
    figure = Figure()
    figure.subplots().plot([0, 1])
    root = ElementTree.fromstring(inline(to_svg(figure, "salt"), "f_1", "A line"))
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert all(name == "f_1" or name.startswith("f_1_salt-") for name in ids)
    assert root.get("aria-label") == "A line"
    assert "@scope (#f_1) { #f_1 *{" in (next(root.iter("style")).text or "")


@pytest.mark.parametrize(
    "inside",
    [
        "<script>1</script>",
        "<foreignObject/>",
        '<g onclick="1"/>',
        '<image href="https://a.org/b.png"/>',
        '<image xlink:href="b.png"/>',
        '<g fill="url(//a.org/b)"/>',
        "<style>@import 'a.css';</style>",
        "<style>g { fill: url(a.svg#b) }</style>",
    ],
)
def test_nothing_from_outside(inside: str) -> None:
    with pytest.raises(BenchError, match=r"the drawing f_1 has .* refers only to itself"):
        inline(f"{HEAD}<g>{inside}</g></svg>", "f_1", "")


@pytest.mark.parametrize(("text", "message"), [("no", "is not XML"), ("<html/>", "begins with <html>")])
def test_no_svg(text: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        inline(text, "f_1", "")
