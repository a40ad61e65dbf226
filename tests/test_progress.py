from __future__ import annotations

import io
import pickle
import re
import threading

import pytest
from rich.console import Console

from raynas.progress import PLAIN_EVERY_S, Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def plain():
    return Console(file=io.StringIO(), width=80)


def terminal():
    return Console(file=io.StringIO(), width=80, height=24, force_terminal=True, legacy_windows=False)


def lines(console):
    return console.file.getvalue().splitlines()


def test_seconds_of_each_stage_are_recorded_and_add_up(clock):
    with Progress(plain(), clock=clock) as progress:
        progress.begin("supernets", {"uniform": 10}, unit="steps")
        clock.now += 7
        progress.begin("population", {}, unit="evaluations")  # ends the stage before
        clock.now += 2
        progress.finish()
        clock.now += 50
        progress.begin("supernets", {"fair": 10}, unit="steps")
        clock.now += 3
    assert progress.seconds == {"supernets": 10.0, "population": 2.0}


def test_elsewhere_than_on_a_terminal_lines_are_plain_and_rare(clock):
    console = plain()
    with Progress(console, clock=clock) as progress:
        progress.begin("supernets", {"uniform": 1000, "fair": 1000}, unit="steps")
        for step in range(1001):
            progress.update("uniform", done=step, facts={"loss": 1.5})
            progress.update("fair", done=step)
            clock.now += 0.02
        progress.note("[bold]a note[/bold] \x1b[31mof a failure")
    text = console.file.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    allowed = 1 + int(20.02 // PLAIN_EVERY_S)
    for task in ("uniform", "fair"):
        assert 2 <= sum(f"supernets: {task} " in line for line in lines(console)) <= allowed
    assert "[bold]a note[/bold]" in text
    assert lines(console)[0].startswith("supernets: started")
    assert lines(console)[-1] == "supernets: done after 20 s"


def test_news_told_twice_changes_nothing(clock):
    def words(times):
        console = terminal()
        clock.now = 0.0
        with Progress(console, clock=clock) as progress:
            progress.begin("supernets", {"uniform": 400}, unit="steps")
            for done in (0, 37, 80):
                clock.now += 5
                for _ in range(times):
                    progress.update("uniform", done=done, facts={"loss": 1.9})
            with console.capture() as capture:
                console.print(progress._render())
        return capture.get()

    assert words(1) == words(3)
    assert "80/400 steps" in words(1)


def test_time_left_follows_the_pace_of_all_tasks_together(clock):
    console = plain()
    with Progress(console, clock=clock) as progress:
        progress.begin("supernets", {"a": 100, "b": 100}, unit="steps")
        progress.update("a", done=0)
        progress.update("b", done=0)
        clock.now += 10
        progress.update("a", done=40)
        clock.now += 10
        progress.update("b", done=40)  # 80 of 200 after 20 s: 120 more take 30 s
    assert lines(console)[-2].endswith("30 s left")


def test_what_an_earlier_attempt_had_done_is_no_measure_of_speed(clock):
    console = plain()
    with Progress(console, clock=clock) as progress:
        progress.begin("supernets", {"a": 1000}, unit="steps")
        clock.now += 2
        progress.update("a", done=900)  # resumed
        clock.now += 8
        progress.update("a", done=916)
    assert "916/1,000 steps · 2 steps/s · 52 s left" in lines(console)[-2]  # 84 steps at 16 in 10 s


def test_a_task_that_waited_for_room_is_as_fast_as_it_goes(clock):
    console = plain()
    with Progress(console, clock=clock) as progress:
        progress.begin("supernets", {"a": 100, "b": 100}, unit="steps")
        clock.now += 100
        progress.update("b", done=0)
        clock.now += 10
        progress.update("b", done=20)
    assert "b 20/100 steps · 2 steps/s" in lines(console)[-2]


def test_first_news_with_facts_are_work_of_this_attempt(clock):
    console = plain()
    with Progress(console, clock=clock) as progress:
        progress.begin("population", {"nsga2": 40}, unit="evaluations")
        clock.now += 10
        progress.update("nsga2", done=16, facts={"best": 0.4})  # 24 more at 16 in 10 s
    assert "nsga2 16/40 evaluations · best 0.4 · 15 s left" in lines(console)[-2]


def test_a_task_that_falls_back_to_its_checkpoint_goes_on(clock):
    console = plain()
    with Progress(console, clock=clock) as progress:
        progress.begin("supernets", {"a": 100}, unit="steps")
        for done in (30, 50, 20, 40):
            clock.now += 10
            progress.update("a", done=done)
    assert "a 40/100 steps · 2 steps/s" in lines(console)[-2]


def test_late_and_unforeseen_news_do_no_harm(clock):
    console = plain()
    with Progress(console, clock=clock) as progress:
        progress.update("early", done=1)
        progress.begin("population", {"nsga2": 16}, unit="evaluations")
        progress.update("unforeseen", done=3)
        progress.finish()
        progress.update("nsga2", done=16)
    assert "unforeseen 3 evaluations" in console.file.getvalue()
    assert "nsga2" not in console.file.getvalue()


def test_a_stage_that_was_stopped_is_not_called_done(clock):
    console = plain()
    with Progress(console, clock=clock) as progress:
        progress.begin("gap", {}, unit="")
        progress.finish(stopped=True)
    assert lines(console) == ["gap: started", "gap: stopped after 0.0 s"]


@pytest.mark.parametrize("fault", [ValueError("x"), KeyboardInterrupt()])
def test_an_exception_passes_through_and_leaves_the_terminal_as_it_was(clock, fault):
    console = terminal()
    with pytest.raises(type(fault)), Progress(console, clock=clock) as progress:
        progress.begin("supernets", {"uniform": 400}, unit="steps")
        progress.update("uniform", done=3)
        clock.now += 12
        raise fault
    text = console.file.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again
    assert "stopped after 12 s" in text
    assert progress.seconds == {"supernets": 12.0}
    with Progress(console, clock=clock) as progress:  # rich refuses a second live display while one runs
        progress.begin("again", {}, unit="steps")


def test_on_a_terminal_each_task_has_a_bar_and_markup_in_names_is_text(clock):
    console = terminal()
    with Progress(console, clock=clock) as progress:
        progress.begin("retraining", {"finalists/1": 6, "[red]2[/red]": 6}, unit="epochs")
        clock.now += 4
        progress.update("finalists/1", done=2, facts={"accuracy": 0.951})
        with console.capture() as capture:
            console.print(progress._render())
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capture.get())
    assert "retraining  4.0 s" in shown
    assert re.search(r"finalists/1 +━.* 2/6 epochs · accuracy 0\.951", shown)
    assert "[red]2[/red]" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_dumb_terminal_gets_plain_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    console = terminal()
    with Progress(console, clock=clock) as progress:
        progress.begin("supernets", {"uniform": 4}, unit="steps")
        progress.update("uniform", done=1)
    assert "\x1b[?25" not in console.file.getvalue()


def test_a_copy_in_another_process_is_silent(clock, capsys):
    with Progress(Console(), clock=clock) as progress:
        copy = pickle.loads(pickle.dumps(progress))  # noqa: S301
        with copy:
            copy.begin("supernets", {"uniform": 4}, unit="steps")
            copy.update("uniform", done=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("make", [plain, terminal])
def test_news_may_come_from_many_threads(make):
    with Progress(make()) as progress:
        progress.begin("supernets", {f"net {index}": 500 for index in range(4)}, unit="steps")

        def tell(name):
            for step in range(501):
                progress.update(name, done=step, facts={"loss": 1 / (step + 1)})

        threads = [threading.Thread(target=tell, args=(f"net {index}",)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(task.is_done for task in progress._tasks.values())
