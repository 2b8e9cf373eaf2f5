"""The page of a server: everything of its OpenAPI document, and nothing of users as HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from served_document import DOCUMENT, HOSTILE

from vitrail.serve.api_page import api_page, page_file
from vitrail.serve.openapi_view import paths_of


class Outline(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def ids(self) -> list[str | None]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def test_every_path_method_and_code_is_on_the_page():
    page = Outline(api_page(DOCUMENT, "trees", False))
    assert set(DOCUMENT["paths"]) <= set(page.ids())
    for method in ("POST", "PUT", "GET"):
        assert method in page.text
    for code in ("200", "401", "404", "429"):
        assert code in page.text
    for said in (
        "One answer an image",
        "Too Many Requests",
        "number, 0 to 1",
        "required",
    ):
        assert said in page.text
    assert len(page.ids()) == len(set(page.ids()))


def test_methods_that_do_the_same_are_one_operation():
    first = paths_of(DOCUMENT)[0]
    assert [operation.methods for operation in first.operations] == [["POST", "PUT"]]
    kinds = [(one.name, one.place, one.kind, one.required) for one in first.operations[0].parameters]
    assert kinds == [
        ("point", "query", "string", False),
        ("threshold", "query", "number, 0 to 1", False),
        ("X-Deadline-Ms", "header", "integer", True),
    ]


def test_an_example_is_made_of_the_schema_also_of_one_that_holds_itself():
    answers, refused = paths_of(DOCUMENT)[0].operations[0].answers
    assert '"total_ms": 18.5' in answers.contents[0].example
    assert '"batch": 0' in answers.contents[0].example
    assert refused.contents[0].example == '{\n  "error": "The queue is full."\n}'


def test_only_relative_addresses_and_no_inline_script():
    page = api_page(DOCUMENT, "trees", True)
    outline = Outline(page)
    links = [v for _, attributes in outline.tags for k, v in attributes.items() if k in {"href", "src"}]
    assert links
    assert all(re.match(r"#|static/|openapi\.json$|data:image/svg", link or "") for link in links)
    scripts = [attributes for tag, attributes in outline.tags if tag == "script"]
    assert [one["src"] for one in scripts] == ["static/api.js"]
    assert not any(name.startswith("on") or name == "style" for _, a in outline.tags for name in a)


def test_every_link_has_its_target():
    outline = Outline(api_page(DOCUMENT, "trees", True))
    targets = [a["href"] for tag, a in outline.tags if tag == "a" and (a["href"] or "").startswith("#")]
    named = [(one or "").replace("%7B", "{").replace("%7D", "}") for one in targets]
    assert set(named) <= {f"#{one}" for one in outline.ids()}


def test_hostile_words_stay_text():
    document = {
        "info": {"description": f"{HOSTILE} `{HOSTILE}`"},
        "paths": {
            f"/{HOSTILE}": {
                "get": {
                    "summary": HOSTILE,
                    "description": HOSTILE,
                    "parameters": [{"name": HOSTILE, "in": HOSTILE, "description": HOSTILE}],
                    "responses": {
                        "200": {"description": HOSTILE, "content": {HOSTILE: {"example": HOSTILE}}}
                    },
                }
            }
        },
    }
    outline = Outline(api_page(document, HOSTILE, False))
    assert "img" not in [tag for tag, _ in outline.tags]
    assert len([tag for tag, _ in outline.tags if tag == "script"]) == 1
    assert outline.text.count(HOSTILE) >= 9


def test_the_token_is_asked_for_only_where_it_is_needed():
    assert "token" in Outline(api_page(DOCUMENT, "trees", True)).ids()
    page = api_page(DOCUMENT, "trees", False)
    assert "token" not in Outline(page).ids()
    assert "Bearer" not in page


def test_a_document_without_paths_is_a_page_too():
    assert "Addresses" in api_page({}, "trees", False)


def test_the_files_of_the_page_are_named_one_by_one():
    for tag, attributes in Outline(api_page(DOCUMENT, "trees", False)).tags:
        link = attributes.get("src") or attributes.get("href") or ""
        if tag in {"script", "link"} and link.startswith("static/"):
            found = page_file(link.removeprefix("static/"))
            assert found is not None
            assert found.data
    assert page_file("../api_page.py") is None
