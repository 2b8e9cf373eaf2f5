"""The questions with one button: what each runs, what is refused, and a real one from the button to its result."""

from __future__ import annotations

from pathlib import Path

import pytest
from trained_studio import RUN, ended

from vitrail.core.errors import SettingError
from vitrail.studio.studies import words_of


def test_each_question_says_what_it_costs_and_has_one_button(client):
    for kind in ("labels", "robustness", "again", "duel", "curve"):
        page = client.get(f"/studies/{kind}/{RUN}")
        assert page.status_code == 200
        assert page.text.count('<button class="large">') == 1
        assert "It takes" in page.text
    assert client.get(f"/studies/magic/{RUN}").status_code == 422


def test_what_a_form_holds_never_becomes_another_option():
    with pytest.raises(SettingError, match="dash"):
        words_of("curve", "data/x", {"models": "--device"}, Path("out"))
    with pytest.raises(SettingError, match="two networks"):
        words_of("duel", "data/x", {"models": "vit_s16"}, Path("out"))
    with pytest.raises(SettingError, match="time"):
        words_of("duel", "data/x", {"models": "a,b", "time": "9 days"}, Path("out"))
    assert words_of("robustness", "runs/a", {"other": "b"}, Path("out"))[-3:] == [
        "--runs",
        "runs/a",
        "runs/b",
    ]


def test_labels_are_listed_and_can_be_corrected_on_the_result(client, workspace):
    page = client.post(f"/studies/labels/{RUN}")
    number = str(page.url).partition("of=")[2]
    done = ended(client, f"/background/{number}")
    assert 'class="state done"' in done, done
    assert f"studies/labels/{RUN}?of={number}" in done
    shown = client.get(f"/studies/labels/{RUN}").text
    assert f"runs/{RUN}/result#doubts" in shown
    table = (workspace.runs / RUN / "fix" / "fix.csv").read_text().splitlines()
    result = client.get(f"/runs/{RUN}/result").text
    assert ('id="doubts"' in result) == any("uncertain" not in row for row in table[1:])
