"""The report of a run as one HTML file: no network, no library, readable without scripts.

The policy in its head forbids the browser to load or send anything; style and script are allowed by their sums.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import PurePosixPath

from edgeprune.report.html import wording
from edgeprune.report.html.binding import binding
from edgeprune.report.html.figures import figures, limits
from edgeprune.report.html.front import front
from edgeprune.report.html.latency import latency
from edgeprune.report.html.markup import Child, Html, join, tag
from edgeprune.report.html.memory import memory, power
from edgeprune.report.html.provenance import measured_line, provenance, warnings
from edgeprune.report.html.quantised import quantised
from edgeprune.report.html.trials import trials
from edgeprune.report.html.view import View
from edgeprune.report.html.widths import frozen, widths
from edgeprune.report.text import SECONDS

__all__ = ["page"]

_OPEN = 3  # warnings that are shown at once
_THEMES = (("auto", "Auto"), ("light", "Light"), ("dark", "Dark"))


def page(view: View) -> str:
    """The file's text; the same for the same run."""
    style, script = _asset("report.css"), _asset("report.js")
    allowed = f"style-src '{_sum(style)}'; script-src '{_sum(script)}'"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{wording.status(view)}: {view.name}, edgeprune"),
        tag("style", style),
    )
    sections = _sections(view)
    body = tag(
        "body",
        tag("a", "to the figures", href="#reached", class_="skip"),
        _banner(view, [(name, text) for name, text, _ in sections]),
        tag("main", [_section(name, text, content) for name, text, content in sections]),
        _footer(view),
        tag("div", id="tip", role="tooltip", hidden=True),
        tag("script", script),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _asset(name: str) -> Html:
    return Html((files("edgeprune.report.html") / name).read_text(encoding="utf-8"))


def _sum(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _sections(view: View) -> list[tuple[str, str, Html]]:
    """Those that there is something to say in, in the order of reading."""
    found = [
        ("reached", "Asked and reached", join(limits(view), figures(view))),
        ("binds", "What binds", binding(view)),
        ("front", "Accuracy against cost", front(view)),
        ("widths", "Layers, before and after", widths(view)),
        ("latency", "Latency of single inferences", latency(view)),
        ("int8", "Quantised to int8", quantised(view)),
        ("memory", "Memory", memory(view)),
        ("power", "Power", power(view)),
        ("frozen", "Frozen, and why", frozen(view)),
        ("trials", f"Trials ({len(view.trials)})", trials(view)),
        ("provenance", "Provenance", provenance(view)),
    ]
    return [(name, text, content) for name, text, content in found if content is not None]


def _section(name: str, text: str, content: Html) -> Html:
    return tag("section", tag("h2", text, id=f"{name}-title"), content, id=name, aria_labelledby=f"{name}-title")


def _banner(view: View, sections: list[tuple[str, str]]) -> Html:
    result = view.result
    themes: list[Child] = []
    for value, text in _THEMES:
        themes.append(tag("input", type="radio", name="theme", id=f"theme-{value}", checked=value == "auto"))
        themes.append(tag("label", text, for_=f"theme-{value}"))
    search = (
        f"{result.strategy or 'search'}, seed {result.seed}, {result.trials} trials, {result.seconds:.0f} s {SECONDS}"
    )
    doubts = warnings(view)
    return tag(
        "header",
        tag(
            "div",
            tag("span", tag("strong", "edgeprune"), " run ", view.name, class_="run"),
            tag("fieldset", tag("legend", "Colours"), themes, class_="theme"),
            class_="bar",
        ),
        tag("p", wording.status(view), class_=f"status {result.status}"),
        tag("h1", wording.verdict(view)),
        tag("p", measured_line(view).replace("measured on: ", "Measured on "), class_="quiet"),
        tag("p", f"Searched by {search}", class_="quiet"),
        _files(view),
        _doubts(doubts),
        tag("nav", [tag("a", text, href=f"#{name}") for name, text in sections], aria_label="sections"),
    )


def _doubts(doubts: list[str]) -> Html | None:
    if not doubts:
        return None
    words = f"{len(doubts)} warning{'' if len(doubts) == 1 else 's'}"
    return tag(
        "details",
        tag("summary", words),
        tag("ul", [tag("li", text) for text in doubts]),
        class_="doubts",
        open=len(doubts) <= _OPEN,
    )


def _files(view: View) -> Html | None:
    """Links to what lies beside the report; only to paths inside the run's folder."""
    given = view.result.provenance.get("files")
    paths = {**(given if isinstance(given, dict) else {}), "result": "result.json"}
    links = [
        tag("a", f"{kind} ({path})", href=str(path))
        for kind, path in paths.items()
        if not PurePosixPath(str(path)).is_absolute()
        and ".." not in PurePosixPath(str(path)).parts
        and ":" not in str(path)
    ]
    return tag("p", "Files: ", [[link, " "] for link in links], class_="quiet files") if links else None


def _footer(view: View) -> Html:
    inputs = view.result.provenance.get("inputs")
    versions = inputs.get("versions", {}) if isinstance(inputs, dict) else {}
    version = f" {versions['edgeprune']}" if "edgeprune" in versions else ""
    said = f"Written by edgeprune{version}. Measured figures come from the device named above; estimated ones say so."
    return tag("footer", tag("p", said, class_="quiet"))
