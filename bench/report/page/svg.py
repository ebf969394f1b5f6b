"""SVG documents made ready to stand inside an HTML page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from bench.errors import BenchError

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"
_XML = "{http://www.w3.org/XML/1998/namespace}"
_PX = {"": 1.0, "px": 1.0, "pt": 96 / 72, "pc": 16.0, "in": 96.0, "cm": 96 / 2.54, "mm": 96 / 25.4}
_LENGTH = re.compile(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_URL = re.compile(r"url\(\s*(['\"]?)(.*?)\1\s*\)", re.IGNORECASE)
_FORBIDDEN = ("script", "foreignObject")


def inline(svg: str, name: str, description: str) -> str:
    """An ``<svg>`` element for use within HTML.

    Ids get ``name`` as a prefix, since all drawings of a page share one space of ids, and style rules hold within the
    element only. Its CSS variable ``--width`` is the width that the document asks for; it has no size of its own.

    Args:
        svg: a whole document.
        name: the id of the element.
        description: read out in its place.

    Raises:
        BenchError: it is no SVG, or it runs code or refers to anything outside itself.
    """
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise BenchError(f"the drawing {name} is not XML: {error}. Expected an SVG document.") from error
    if root.tag != f"{_SVG}svg":
        raise BenchError(f"the drawing {name} begins with <{root.tag}>; expected <svg> in SVG's namespace.")
    _drop_foreign(root)
    names = {found: f"{name}_{found}" for element in root.iter() if (found := element.get("id"))}
    names[root.get("id", name)] = name
    for element in root.iter():
        # HTML's parser knows SVG by the names of its elements, and would not understand a prefix.
        element.tag = element.tag.removeprefix(_SVG)
        if element.tag in _FORBIDDEN:
            raise _outside(name, f"<{element.tag}>")
        attributes = {key.removeprefix(_XLINK): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib |= {key: _attribute(name, names, key, value) for key, value in attributes.items()}
        if element.tag == "style":
            element.text = _style(name, names, element.text or "")
    _fit(root)
    root.attrib |= {"id": name, "role": "img", "aria-label": description}
    return ElementTree.tostring(root, encoding="unicode")


def _drop_foreign(element: ElementTree.Element) -> None:
    """Take out metadata and what editors add of their own."""
    for child in list(element):
        if child.tag.startswith(_SVG) and child.tag != f"{_SVG}metadata":
            _drop_foreign(child)
        else:
            element.remove(child)
    for key in list(element.attrib):
        if key.startswith("{") and not key.startswith((_XLINK, _XML)):
            del element.attrib[key]


def _attribute(name: str, names: dict[str, str], key: str, value: str) -> str:
    if key.lower().startswith("on"):
        raise _outside(name, key)
    if key == "id":
        return names[value]
    if key == "href":
        return _reference(name, names, value)
    return _urls(name, names, value)


def _style(name: str, names: dict[str, str], rules: str) -> str:
    if "@import" in rules.lower():
        raise _outside(name, "@import")
    known = re.sub(r"#([\w-]+)(?=[^};]*\{)", lambda found: f"#{names.get(found[1], found[1])}", rules)
    return f"@scope (#{name}) {{ {_urls(name, names, known)} }}"


def _urls(name: str, names: dict[str, str], text: str) -> str:
    return _URL.sub(lambda found: f"url({_reference(name, names, found[2])})", text)


def _reference(name: str, names: dict[str, str], target: str) -> str:
    if target.startswith("#"):
        return f"#{names.get(target[1:], target[1:])}"
    if target.startswith("data:"):
        return target
    raise _outside(name, target)


def _fit(root: ElementTree.Element) -> None:
    """Swap a fixed size for a view box, so that the page decides how large it is drawn."""
    width, height = (_px(root.attrib.pop(side, "")) for side in ("width", "height"))
    if width and height:
        root.attrib.setdefault("viewBox", f"0 0 {width:g} {height:g}")
    view = root.get("viewBox", "").replace(",", " ").split()
    if not width and len(view) == 4:
        width = float(view[2])
    if width:
        root.set("style", f"--width: {width:g}px")


def _px(length: str) -> float | None:
    """None for what depends on the page, such as 100 %."""
    found = _LENGTH.fullmatch(length)
    unit = _PX.get(found[2].lower()) if found else None
    return float(found[1]) * unit if found and unit else None


def _outside(name: str, what: str) -> BenchError:
    return BenchError(f"the drawing {name} has {what}; expected an SVG that runs no code and refers only to itself.")
