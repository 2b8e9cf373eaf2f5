"""Every text of every page comes from a catalogue: a pseudo-language puts brackets around what does.

What users named (files, classes, runs, settings) is no text: it stands in `<bdi>`, `<code>`, `<pre>`, `<kbd>`, or below
`translate="no"`. Sentences that vitrail writes for a command line too are marked `lang="en"`.
"""

from __future__ import annotations

import json

import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from browsers import browser
from every_page import EveryPage
from image_studio import TOKEN

from vitrail.studio.language import PSEUDO

WORDS = (
    "data-busy", "data-take", "data-refused", "data-mean", "data-token", "data-patch", "data-largest", "data-epoch",
    "data-loss", "data-score",
)  # fmt: skip
"""Attributes that hand words to scripts."""

FORGOTTEN = """() => {
  const own = "bdi, code, pre, kbd, script, style, template, [translate=no], body [lang=en]";
  const again = "[translate=yes]";
  const units = /[\\d.,]+ (s|min|h|d|MB)(?!\\p{L})/gu;
  const bare = (text) => { const inner = text.replace(/⟦[^⟦⟧]*⟧/g, ""); return inner === text ? text : bare(inner); };
  const left = (text) => bare(text).replace(/<[^>]*>/g, "").replace(units, "").trim();
  const english = (text) => /\\p{L}/u.test(left(text));
  const named = (one) => one.closest(own) && !(one.closest(again) && one.closest(own).contains(one.closest(again)));
  const found = [];
  const tell = (one, where, text) => { if (english(text)) found.push(`<${one.localName}${where}> ${left(text)}`); };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const parent = walk.currentNode.parentElement;
    if (!named(parent)) tell(parent, ` class="${parent.className}"`, walk.currentNode.data);
  }
  for (const one of document.querySelectorAll("body *")) {
    for (const name of ["aria-label", "title", "placeholder", "alt", ...WORDS]) {
      if (one.hasAttribute(name) && !named(one)) tell(one, ` ${name}`, one.getAttribute(name));
    }
  }
  for (const template of document.querySelectorAll("template")) {
    for (const one of template.content.querySelectorAll("[data-word]")) tell(one, ` in <template>`, one.textContent);
  }
  const names = new Set([...document.querySelectorAll("bdi, [translate=no]")].map((one) => one.textContent.trim()));
  const title = document.title.replace(/ · vitrail$/, "");
  if (!names.has(title)) tell(document.head, " title", title);
  return [...new Set(found)];
}""".replace("WORDS", json.dumps(WORDS))
"""Return each text that is neither in brackets nor marked as a name."""


def test_no_text_of_any_page_was_forgotten(pages: EveryPage) -> None:
    with browser() as chromium:
        tab = chromium.new_context(extra_http_headers={"accept-language": PSEUDO}).new_page()
        tab.goto(f"{pages.address}/?token={TOKEN}")
        forgotten: dict[str, list[str]] = {}
        for page in pages.pages:
            tab.goto(f"{pages.address}{page}", wait_until="load")
            tab.wait_for_function("() => document.body.innerText.includes('⟦')")
            if tab.locator("[data-attention]").count():
                tab.wait_for_selector("[data-attention] canvas")  # it brings words of its own
            for one in tab.evaluate(FORGOTTEN):
                forgotten.setdefault(one, []).append(page)
    assert not forgotten, "\n".join(f"{one}: {', '.join(where[:3])}" for one, where in forgotten.items())
