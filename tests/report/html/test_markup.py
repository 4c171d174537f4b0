"""Whatever is text stays text."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from edgeprune.report.html.markup import Html, join, tag


class Reader(HTMLParser):
    """What a browser's parser makes of markup."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((name, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc"))))
def test_text_and_attributes_come_back_as_they_were_and_add_no_elements(text: str) -> None:
    reader = read(tag("p", text, title=text))
    assert reader.seen == [("p", {"title": text})]
    assert reader.text == text


def test_attributes_that_are_none_or_false_are_left_out() -> None:
    markup = tag("input", type="radio", checked=True, disabled=False, id=None, data_value=0.5, class_="a b")
    assert markup == '<input type="radio" checked data-value="0.5" class="a b">'
    assert tag("rect", width=2.0, x=1 / 3) == '<rect width="2" x="0.33"></rect>'


def test_markup_is_joined_as_it_is_and_sequences_are_taken_apart() -> None:
    assert join(Html("<b>"), ["x < y", [1, None]], Html("</b>")) == "<b>x &lt; y1</b>"
    assert tag("p", tag("b", "a&b"), " c") == "<p><b>a&amp;b</b> c</p>"
