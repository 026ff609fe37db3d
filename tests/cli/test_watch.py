"""The live view: what it draws, and what happens where it cannot be drawn."""

import io

import pytest
from rich.console import Console

from matl.cli import console
from matl.cli.watch import Watch, bars, observing
from matl.events import Event
from matl.simulation import RunConfig

CONFIG = RunConfig(dataset="synthetic", clients=10, byzantine=0.3, rounds=4, seed=3)
ROUND = {
    "accuracy": 0.5,
    "accepted": 6,
    "clipped": 1,
    "suspected": 0,
    "quarantined": 2,
    "rejected": 1,
    "true_positive_rate": 1.0,
    "false_positive_rate": None,
}


@pytest.fixture
def screen(monkeypatch):
    def screen(width, height=40, terminal=True):
        stream = io.StringIO()
        made = Console(file=stream, force_terminal=terminal, width=width, height=height, color_system=None)
        monkeypatch.setattr(console, "stderr", made)
        return stream

    return screen


def drawn(watch, width):
    """The picture as lines of text."""
    page = Console(file=io.StringIO(), width=width, color_system=None)
    page.print(watch)
    return page.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_picture_fits_its_width_and_holds_what_happened(screen, width):
    screen(width)
    watch = Watch(CONFIG)
    watch.sink_for("fedavg")
    sink = watch.sink_for("mode0")
    sink(Event("client_quarantined", "r", 1, {"client": "client-003", "reason": "turned round " + "x" * 200}))
    sink(Event("client_released", "r", 1, {"client": "client-004"}))
    sink(Event("update_rejected", "r", 1, {"client": "client-005", "reason": "too long"}))
    sink(Event("round_committed", "r", 1, ROUND))
    lines = drawn(watch, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert lines[0].startswith("MATL  synthetic, 10 clients, 3 malicious (sign_flip), seed 3")
    row = next(line for line in lines if line.startswith("mode0"))
    assert row.split()[-8:-1] == ["50.0", "%", "100", "%", "-", "2/4", "0"]
    assert "clients  6 accepted  1 clipped  0 suspected  2 quarantined  1 rejected" in text
    assert "round   1  mode0  client-003 quarantined: turned round xxx" in text
    assert "client-004 released" in text
    assert "client-005" not in text  # rejections are many; they are counted


def test_on_a_low_screen_the_latest_verdicts_give_way(screen):
    screen(80, height=20)
    watch = Watch(CONFIG)
    sink = watch.sink_for("mode0")
    for number in range(30):
        sink(Event("client_quarantined", "r", 0, {"client": f"client-{number:03}", "reason": "so"}))
    sink(Event("round_committed", "r", 0, ROUND))
    lines = drawn(watch, 80)
    assert len(lines) <= 20
    assert "client-029" in lines[-1]


def test_bars_show_rounds_where_they_belong():
    assert bars({}, 10, 5, 1) == ["     "]
    assert bars({9: 1.0}, 10, 10, 1) == ["         █"]
    assert bars({0: 0.0}, 1, 2, 2) == ["  ", "▁▁"]
    whole = bars(dict.fromkeys(range(3), 1.0), 3, 7, 2)
    assert whole == ["███████", "███████"]


def test_the_time_left_is_that_of_the_rounds_of_this_process():
    from matl.cli.watch import _Run

    run = _Run("mode0", started=100.0, first=10, accuracy={10: 0.1, 11: 0.2})
    assert run.seconds_left(rounds=20, now=104.0) == pytest.approx(16)
    assert _Run("mode0", 0.0).seconds_left(20, 1.0) is None


def test_it_is_drawn_on_a_terminal(screen, tmp_path):
    stream = screen(80)
    with observing(CONFIG, tmp_path, log=(), watch=True, verbosity=0) as sink_for:
        sink_for("mode0")(Event("round_committed", "r", 0, ROUND))
    assert "accuracy by round" in stream.getvalue()


def test_without_a_terminal_there_are_plain_lines_and_it_says_so(screen, tmp_path):
    stream = screen(80, terminal=False)
    with observing(CONFIG, tmp_path, log=(), watch=True, verbosity=0) as sink_for:
        sink_for("mode0")(Event("round_committed", "r", 3, ROUND))
    told, line = stream.getvalue().splitlines()
    assert told == "--watch needs a terminal; showing plain lines instead"
    assert line.startswith("mode0          4 of 4 rounds  accuracy 50.0 %")
