"""The report: what it says, that it holds together, and that nothing a client writes can act in it."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from matl.campaigns.report import write_report
from matl.campaigns.report.markup import clean, tag
from matl.campaigns.report.svg import Scale, nice_range
from matl.campaigns.report.theme import PALETTE
from matl.errors import StateError

STATUSES = ("accepted", "clipped", "suspected", "quarantined", "rejected")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# Six clients, the first two malicious. Client 5 is honest and wrongly quarantined in the end; client 1 is let go again.
STORY = {
    "c0": ("accepted", "quarantined", "quarantined", "quarantined"),
    "c1": ("accepted", "quarantined", "quarantined", "accepted"),
    "c2": ("accepted", "accepted", "clipped", "accepted"),
    "c3": ("accepted", "suspected", "accepted", "accepted"),
    "c4": ("accepted", "accepted", "rejected", "accepted"),
    "c5": ("accepted", "accepted", "accepted", "quarantined"),
}


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def write_run(
    directory: Path,
    *,
    story: dict[str, Sequence[str]] | None = None,
    malicious: int = 2,
    reason: str = "cosine -0.4 below its bar",
    channel: str = "poison_share",
    **result: Any,
) -> Path:
    """A run directory by hand: ``story`` gives the statuses of each client, the first ``malicious`` ones lie."""
    story = STORY if story is None else story
    directory.mkdir(parents=True, exist_ok=True)
    liars = set(list(story)[:malicious])
    rounds = len(next(iter(story.values())))
    (directory / "config.toml").write_text('dataset = "digits"\nattack = { name = "sign_flip", scale = 3.0 }\n')
    write_csv(
        directory / "clients.csv",
        [
            ["client", "malicious", "samples", "class_0", "class_1", "class_2"],
            *([c, int(c in liars), 30 + i, 10 + i, 20, 0] for i, c in enumerate(story)),
        ],
    )
    verdicts: list[list[object]] = [["round", "client", "status", "weight", "reason", channel, "never_seen"]]
    figures: list[list[object]] = [
        ["round", "accuracy", "accepted", *STATUSES[1:], "true_positive_rate", "false_positive_rate", "seconds"]
    ]
    for t in range(rounds):
        now = {c: statuses[t] for c, statuses in story.items()}
        for i, (client, status) in enumerate(now.items()):
            kept_out = status in STATUSES[3:]
            evidence = "" if status == "rejected" else i / 10 + t
            told = reason if status != "accepted" else ""
            verdicts.append([t, client, status, 0.0 if kept_out else 1.0, told, evidence, ""])
        counts = [sum(s == status for s in now.values()) for status in STATUSES]
        out = {c for c, s in now.items() if s in STATUSES[3:]}
        tpr = len(out & liars) / malicious if malicious else ""
        figures.append([t, 0.3 + 0.1 * t, *counts, tpr, len(out - liars) / (len(story) - malicious), 0.5])
    write_csv(directory / "verdicts.csv", verdicts)
    write_csv(directory / "rounds.csv", figures)
    content = {
        "schema_version": 1,
        "kind": "run",
        "name": "mode1",
        "gives_verdicts": True,
        "simulation": True,
        "dataset": "digits",
        "clients": len(story),
        "malicious": malicious,
        "attack": "sign_flip",
        "alpha": 0.5,
        "rounds": rounds,
        "seed": 7,
        "accuracy": 0.921,
        "ceiling_accuracy": 0.924,
        "tpr": 0.5,
        "fpr": 0.25,
        "zero_weight_tpr": 0.5,
        "zero_weight_fpr": 0.25,
        "bound": 0.45,
        "outside_bound": False,
        "seconds": 12.0,
        "peak_memory_mib": 150.0,
        "versions": {"python": "3.12.1"},
        "commit": "3f2c1ab",
        "settings": {"dataset": "digits", "local": {"steps": 5}},
        **result,
    }
    (directory / "result.json").write_text(json.dumps(content))
    return directory


def write_comparison(directory: Path, *rules: str) -> Path:
    rows = []
    for rule in rules:
        judge = rule.startswith("mode")
        figures: dict[str, Any] = {"accuracy": 0.92 if judge else 0.4, "bound": 1 / 3 if judge else None}
        figures |= {} if judge else {"tpr": None, "fpr": None}
        figures["outside_bound"] = rule == "mode0"
        write_run(directory / rule, name=rule, gives_verdicts=judge, **figures)
        rows.append({"rule": rule, "label": rule, "tpr": 1.0 if judge else None, "directory": rule, **figures})
    shared = {"seed": 7, "dataset": "digits", "clients": 6, "malicious": 2, "attack": "sign_flip", "rounds": 4}
    (directory / "compare.json").write_text(json.dumps({"kind": "comparison", "rules": rows, **shared}))
    return directory


class Page(HTMLParser):
    """A page taken apart, which fails on any element that is not closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.within: dict[str, list[str]] = {"script": [], "style": [], "h1": [], "title": []}
        self.rows: list[list[str]] = []
        self.stack: list[str] = []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.stack.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in self.within:
            self.within[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] in self.within:
            self.within[self.stack[-1]][-1] += data
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.text.append(data)
        if "td" in self.stack or ("th" in self.stack and self.rows):
            self.rows[-1][-1] += data

    @property
    def said(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))

    def attribute(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.attributes if name in attributes]

    def maps(self) -> list[dict[str, Any]]:
        return [json.loads(block) for block in self.within["script"] if block.startswith("{")]


def report(directory: Path) -> Page:
    path = write_report(directory)
    assert path == directory / "report.html"
    return Page(path.read_text("utf-8"))


def test_head_says_what_was_run_and_what_came_of_it(tmp_path: Path) -> None:
    page = report(write_run(tmp_path))
    assert page.within["h1"] == ["mode1 against sign flip"]
    assert "6 clients trained one model on digits over 4 rounds" in page.said
    assert "2 of them (33 %) attacked by sign flip" in page.said
    for figure in ("1 of 2", "1 of 4", "92.1 %", "against a ceiling of 92.4 %"):
        assert figure in page.said
    assert "who is malicious is known here because MATL made them so. A live network shows “unknown”." in page.said


def test_an_attack_free_run_says_so_and_has_no_figure_for_malicious_clients(tmp_path: Path) -> None:
    page = report(write_run(tmp_path, malicious=0, attack="none", tpr=None, zero_weight_tpr=None))
    assert page.within["h1"] == ["mode1 with nobody attacking"]
    assert "none of them attacked" in page.said
    assert "malicious clients quarantined" not in page.said
    assert "AUROC 0" not in page.said


def test_mistakes_of_the_judge_come_first(tmp_path: Path) -> None:
    rows = report(write_run(tmp_path)).rows
    named = [row[0] for row in rows if row and (row[0] in STORY or row[0].startswith(("Honest", "Malicious")))]
    assert named == [
        "Honest clients wrongly quarantined or rejected: 2",
        "c5",
        "c4",
        "Malicious clients not kept out at the end: 1",
        "c1",
        "Malicious clients caught: 1",
        "c0",
    ]
    (row,) = (row for row in rows if row[0] == "c5")
    assert row == ["c5", "honest", "round 3", "1 of 4", "quarantined", "\u2013", "cosine -0.4 below its bar"]


def test_composite_trust_is_shown_with_its_interval_where_there_is_one(tmp_path: Path) -> None:
    assert "How far each is trusted" not in report(write_run(tmp_path / "without")).said
    path = write_run(tmp_path / "with") / "verdicts.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    ends = [["trust", "trust_low", "trust_high"], *(["0.25", "0.125", "0.5"] for _ in rows[1:])]
    write_csv(path, [row + end for row, end in zip(rows, ends, strict=True)])
    page = report(path.parent)
    assert "How far each is trusted" in page.said
    assert "Least and most trusted: 0.25, 0.25." in page.said
    (row,) = (row for row in page.rows if row[0] == "c5")
    assert row[5] == "0.250.12 to 0.50"  # the interval stands below, in small print
    assert "Evidence channel trust low" not in page.said
    assert "Evidence channel trust by round" in page.said


def test_heat_map_holds_every_verdict(tmp_path: Path) -> None:
    (heat,) = report(write_run(tmp_path)).maps()
    assert heat["columns"] == ["0", "1", "2", "3"]
    assert heat["channels"] == ["poison_share"]  # a channel without a value is no channel
    assert dict(zip(heat["clients"], heat["truth"], strict=True)) == {
        client: "malicious" if client in ("c0", "c1") else "honest" for client in STORY
    }
    for client, row in zip(heat["clients"], heat["status"], strict=True):
        assert tuple(heat["statuses"]["abcdefgh".index(letter)] for letter in row) == STORY[client]
    row = heat["clients"].index("c5")
    weight, reason, value = heat["details"][3][row]
    assert (weight, heat["reasons"][reason], value) == (0, "cosine -0.4 below its bar", 3.5)
    assert heat["details"][2][heat["clients"].index("c4")][2] is None  # screened out: nothing was measured


def test_clients_that_did_not_take_part_and_senders_that_nobody_knows(tmp_path: Path) -> None:
    write_run(tmp_path)
    lines = (tmp_path / "verdicts.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("2,c3,")]
    (tmp_path / "verdicts.csv").write_text("\n".join([*kept, "3,stranger,rejected,0.0,not invited,,"]) + "\n")
    page = report(tmp_path)
    (heat,) = page.maps()
    assert heat["status"][heat["clients"].index("c3")] == "ac.a"
    assert heat["truth"][heat["clients"].index("stranger")] == "unknown"
    assert ["stranger", "unknown", "round 3", "1 of 1", "rejected", "\u2013", "not invited"] in page.rows


def test_long_runs_show_the_worst_verdict_of_each_column(tmp_path: Path) -> None:
    quiet = ["accepted"] * 500
    story = {"c0": quiet, "c1": [*quiet[:100], "quarantined", *quiet[101:]]}
    page = report(write_run(tmp_path, story=story, malicious=1))
    (heat,) = page.maps()
    assert len(heat["columns"]) == 167
    assert heat["columns"][33] == "99\u2013101"
    assert heat["status"][heat["clients"].index("c1")] == "a" * 33 + "d" + "a" * 133
    assert "A column stands for 3 rounds" in page.said


def test_rare_mistakes_are_drawn_where_not_every_client_is(tmp_path: Path) -> None:
    # Rows are ordered by the first round out, so the one mistake of each kind stands amid a hundred others.
    a, q = "accepted", "quarantined"
    story: dict[str, Sequence[str]] = {f"liar{i}": (q, q, q) if i % 2 else (a, q, q) for i in range(199)}
    story |= {"missed": (q, a, a), **{f"honest{i}": (q, a, a) if i % 2 else (a, a, a) for i in range(199)}}
    story["wronged"] = (a, a, q)
    (heat,) = report(write_run(tmp_path, story=story, malicious=200)).maps()
    assert Counter(name.rstrip("0123456789") for name in heat["clients"]) == {
        "missed": 1,
        "wronged": 1,
        "liar": 59,
        "honest": 59,
    }


def test_comparison_shows_every_rule_and_marks_bounds(tmp_path: Path) -> None:
    page = report(write_comparison(tmp_path, "fedavg", "mode0", "mode1", "honest_only"))
    assert page.within["h1"] == ["three rules against sign flip"]
    table = {row[0]: row[1:] for row in page.rows if len(row) == 8}
    assert set(table) == {"honest onlyceiling", "mode0outside its bound (33\u202f%)", "mode1", "fedavg"}
    assert table["fedavg"][2:4] == ["\u2013", "\u2013"]
    assert table["mode1"][:3] == ["92.0\u202f%", "+52.0", "100.0\u202f%2 of 2"]
    assert "Outside its bound: mode0 is made for at most 33 % malicious clients" in page.said
    assert len(page.maps()) == 2
    assert "matl compare fedavg/config.toml --rules fedavg,mode0,mode1,honest_only" in page.said


def test_failed_rounds_are_shown_plainly(tmp_path: Path) -> None:
    failed = {"failed_rounds": 3, "last_failure": "no update passed <screening>"}
    directory = write_run(tmp_path / "run", **failed)
    rows = [line.split(",") for line in (directory / "rounds.csv").read_text().splitlines()]
    write_csv(directory / "rounds.csv", [[*rows[0], "failure"], *([*row, "no, update"] for row in rows[1:])])
    write_run(directory / "honest_only", name="honest_only", **failed | {"failed_rounds": 1})
    said = report(directory).said
    assert "Failed rounds: 3 of 4 rounds of mode1 failed and left the model as it was." in said
    assert "The last time: no update passed <screening>." in said
    assert "Failed rounds: 1 of 4 rounds of honest only failed" in said
    older = report(write_run(tmp_path / "older"))
    assert "Failed rounds" not in older.said


@pytest.mark.parametrize(("dirty", "shown"), [(True, "3f2c1ab, with uncommitted changes"), (False, "3f2c1ab")])
def test_a_commit_is_shown_with_whether_it_is_the_whole_truth(tmp_path: Path, dirty: bool, shown: str) -> None:
    assert ["commit", shown] in report(write_run(tmp_path, dirty=dirty)).rows


def test_a_rule_without_verdicts_names_nobody(tmp_path: Path) -> None:
    page = report(write_run(tmp_path, name="krum", gives_verdicts=False, tpr=None, fpr=None, zero_weight_fpr=0.75))
    assert "3 of 4 in the last round; this rule names nobody" in page.said
    assert "The rules used here weigh updates but name nobody" in page.said
    assert not page.maps()


def test_nested_ceiling_gives_a_curve_and_a_row(tmp_path: Path) -> None:
    write_run(tmp_path, ceiling_accuracy=None)
    write_run(tmp_path / "honest_only", name="honest_only", accuracy=0.95, gives_verdicts=False, tpr=None, fpr=None)
    page = report(tmp_path)
    assert "against a ceiling of 95.0 %" in page.said
    assert any(row[:3] == ["honest onlyceiling", "95.0\u202f%", "\u2013"] for row in page.rows)


@pytest.mark.parametrize("missing", ["clients.csv", "rounds.csv", "verdicts.csv", "config.toml"])
def test_what_was_not_recorded_is_left_out(tmp_path: Path, missing: str) -> None:
    (write_run(tmp_path) / missing).unlink()
    assert "92.1 %" in report(tmp_path).said


def test_a_comparison_without_its_runs_still_has_its_table(tmp_path: Path) -> None:
    write_comparison(tmp_path, "fedavg", "mode1")
    for rule in ("fedavg", "mode1"):
        shutil.rmtree(tmp_path / rule)
    assert any(row[:2] == ["mode1", "92.0\u202f%"] for row in report(tmp_path).rows)


def test_a_comparison_reads_only_its_own_folders(tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere")
    here = write_comparison(tmp_path / "here", "mode1")
    content = json.loads((here / "compare.json").read_text())
    content["rules"][0]["directory"] = "../elsewhere"
    (here / "compare.json").write_text(json.dumps(content))
    assert not report(here).maps()


def test_directory_that_is_neither(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"expected a finished run \(result.json\) or comparison \(compare.json\)"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", "{", "not valid JSON"),
        ("result.json", "[]", "expected a table"),
        ("config.toml", "= 3", "not valid TOML"),
        ("rounds.csv", "", "not a CSV file with a header"),
        ("rounds.csv", "round,time\n0,1\n", "accuracy is missing"),
        ("rounds.csv", "round,accuracy\n0,high\n", "expected numbers in column 'accuracy'"),
        ("rounds.csv", "round,accuracy\n0.5,1\n", "expected whole numbers in column 'round'"),
        ("rounds.csv", "round,accuracy\n0\n", "expected 2 cells in row 2"),
        ("verdicts.csv", "round,client,status,weight,reason\n0,a,banned,1,\n", "got 'banned'"),
        ("compare.json", "{}", "expected a list of tables under 'rules'"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (write_run(tmp_path) / name).write_text(content)
    with pytest.raises(StateError, match=re.escape(name)) as caught:
        write_report(tmp_path)
    assert message in str(caught.value)


HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"><svg onload=alert(3)> '",
    "--></style><a href=javascript:alert(4)>&lt;b&gt;",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_a_client_writes_can_act(tmp_path: Path, text: str) -> None:
    calm = report(write_run(tmp_path / "calm"))
    story = {text if client == "c5" else client: statuses for client, statuses in STORY.items()}
    page = report(
        write_run(tmp_path / "hostile", story=story, reason=text, channel=text, name=text, dataset=text, commit=text)
    )
    assert page.tags == calm.tags
    assert not any(name.startswith("on") for _, attributes in page.attributes for name in attributes)
    assert not any(link.startswith("javascript") for link in page.attribute("href"))
    assert [text, "honest", "round 3", "1 of 4", "quarantined", "\u2013", text] in page.rows
    (heat,) = page.maps()
    assert text in heat["clients"]
    assert text in heat["reasons"]


def test_names_cannot_be_turned_around_or_hidden() -> None:
    assert clean("a\u202eb\x00c\u200bd\u2066e") == "a\ufffdb\ufffdc\ufffdd\ufffde"


def test_page_needs_no_network_and_allows_only_its_own_script(tmp_path: Path) -> None:
    page = report(write_comparison(tmp_path, "mode0", "mode1"))
    links = page.attribute("href") + page.attribute("src")
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert "@import" not in page.within["style"][0]
    assert "url(" not in page.within["style"][0]
    (policy,) = (value for value in page.attribute("content") if "default-src" in value)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for content in (page.within["script"][-1], page.within["style"][0]):
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in policy
    assert not page.attribute("style")  # the policy would refuse them


def test_page_can_be_read_without_seeing_it(tmp_path: Path) -> None:
    page = report(write_comparison(tmp_path, "fedavg", "mode0", "mode1", "honest_only"))
    ids = page.attribute("id")
    assert len(ids) == len(set(ids))
    pictures = [a for name, a in page.attributes if name == "svg" and "aria-hidden" not in a]
    assert pictures
    for picture in pictures:
        assert picture["role"] == "img"
        assert {picture["aria-labelledby"], picture["aria-describedby"]} <= set(ids)
    assert page.tags["caption"] == page.tags["table"]
    assert all("scope" in a for name, a in page.attributes if name == "th")
    assert {link[1:] for link in page.attribute("href") if link.startswith("#")} <= set(ids)
    assert all(a.get("tabindex") == "0" for _, a in page.attributes if a.get("class") == "heat")


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    first = write_report(write_run(tmp_path)).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def luminance(colour: str) -> float:
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("ground", ["paper", "panel"])
def test_every_colour_of_text_can_be_read(theme: int, ground: str) -> None:
    behind = luminance(PALETTE[ground][theme])
    for name in PALETTE.keys() - {"paper", "panel", "rule"}:
        low, high = sorted((behind, luminance(PALETTE[name][theme])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


@pytest.mark.parametrize("letter", ["\u00e9", "<", "'"])
def test_large_runs_stay_small(tmp_path: Path, letter: str) -> None:
    """Many clients and rounds with a long reason each, all different: the worst that can come."""
    rng = np.random.default_rng(0)
    names = np.array(STATUSES)
    story: dict[str, Sequence[str]] = {f"client-{i:04d}-{'x' * 60}": names[rng.integers(0, 5, 50)] for i in range(600)}
    write_run(tmp_path, story=story, malicious=240)
    lines = (tmp_path / "verdicts.csv").read_text().splitlines()
    padded = [line.replace("cosine", f"cosine {i} {letter * 200}") for i, line in enumerate(lines)]
    (tmp_path / "verdicts.csv").write_text("\n".join(padded) + "\n")
    page = report(tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
    (heat,) = page.maps()
    assert len(heat["clients"]) == 120
    assert set(heat["truth"]) == {"malicious", "honest"}
    assert 0 < heat["first"] < 50
    assert f"Reasons and evidence are embedded from round {heat['first']} on" in page.said
    assert "120 of 600 clients are drawn" in page.said


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium browser")
def test_in_a_browser_the_script_runs_and_hostile_text_does_not(tmp_path: Path) -> None:
    story = {HOSTILE[1] if client == "c5" else client: statuses for client, statuses in STORY.items()}
    path = write_report(write_run(tmp_path / "run", story=story, reason=HOSTILE[0]))
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
    quiet = ("--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}")
    done = subprocess.run(
        [str(BROWSER), *flags, *quiet, "--enable-logging=stderr", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    page = Page(done.stdout)
    (toggle,) = (a for name, a in page.attributes if name == "button")
    assert "hidden" not in toggle  # the script names and shows it
    assert toggle["aria-label"] in ("Use dark colours", "Use light colours")
    assert not page.tags["img"]
    assert "CONSOLE" not in done.stderr  # neither errors nor refusals by the policy


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.integers(2, 8))
def test_axes_hold_their_values_and_have_few_ticks(values: list[float], steps: int) -> None:
    low, high = nice_range(np.array(values), steps=steps)
    slack = 1e-6 * max(abs(low), abs(high), high - low)
    assert low - slack <= min(values) <= max(values) <= high + slack
    assert low < high
    ticks = Scale(low, high, 0.0, 1.0).ticks(steps)
    assert 1 <= len(ticks) <= 3 * steps
    assert all(low - slack <= tick <= high + slack for tick in ticks)


@given(st.text(), st.text())
@example("<b>&amp;", '"><b>&amp;')
def test_elements_give_back_their_text(child: str, attribute: str) -> None:
    page = Page(tag("p", child, title=attribute))
    assert "".join(page.text) == clean(child)
    assert page.attribute("title") == [clean(attribute)]


def test_the_spread_of_the_data_is_drawn_with_its_statistics(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path, data={"class_names": ["cat", "dog", "<eel>"]})).read_text()
    # By hand: six clients with 10 to 15 examples of the first class and 20 of the second.
    for wanted in (">cat</text>", ">dog</text>", ">&lt;eel&gt;</text>", ">divergence</text>"):
        assert wanted in page
    assert "holds examples of 2 of 3 classes on average, worth 1.9 equally frequent ones" in page
    assert "total variation): 3\u202f% on average" in page
    other = write_report(write_run(tmp_path / "other", data={"class_names": "not a list"})).read_text()
    assert ">class 0</text>" in other


@pytest.mark.parametrize(
    ("partition", "wanted"),
    [
        ('"iid"', "with data dealt out evenly"),
        ('{ name = "dirichlet", alpha = 0.2 }', "each with its own mix of classes (Dirichlet, \u03b1 = 0.2)"),
        ('"dirichlet"', "(Dirichlet, \u03b1 = 0.5)"),
        ('{ name = "rotation", degrees = 20 }', "each with its images at an angle of its own"),
        ('"of_my_own"', "over 4 rounds; 2 of them"),
    ],
)
def test_the_head_says_how_the_data_were_spread(tmp_path: Path, partition: str, wanted: str) -> None:
    directory = write_run(tmp_path)
    config = directory / "config.toml"
    config.write_text(f"{config.read_text()}partition = {partition}\n")
    assert wanted in write_report(directory).read_text()
