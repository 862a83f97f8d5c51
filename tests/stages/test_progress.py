"""What a stage says of itself while it runs."""

import time

import pytest

from stages.shared import progress as module
from stages.shared.progress import Progress, progress


def test_a_slow_step_is_not_a_silent_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The loop says nothing while it sleeps: the lines come from beside it."""
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.02)
    with progress("diffusion on digits", 1000, "steps") as told:
        told.at(7, figures="loss 0.5")
        deadline = time.monotonic() + 10
        printed = ""
        while printed.count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
            printed += capsys.readouterr().out
    lines = (printed + capsys.readouterr().out).splitlines()
    assert len(lines) >= 3
    for line in lines:
        assert line.startswith("diffusion on digits: 7 of 1,000 steps, ") and line.endswith(", loss 0.5")


def test_the_rate_is_of_this_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on from 400 did not do those in no time."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    told = Progress("sbg on digits", 1000, "images")
    assert told.line() == "sbg on digits: 0 of 1,000 images, 0 s so far"
    told.at(400)
    now[0] += 10
    told.advance(40)
    assert told.line() == "sbg on digits: 440 of 1,000 images, 4/s, 2 min 20 s left"
    now[0] += 90
    told.advance(10)
    assert told.line() == "sbg on digits: 450 of 1,000 images, 2 s each, 18 min 20 s left"
    assert told.line(ended=True) == "sbg on digits: 450 of 1,000 images, 2 s each, 1 min 40 s"


def test_a_run_that_goes_on_says_after_what(capsys: pytest.CaptureFixture) -> None:
    told = Progress("diffusion on digits", 1000, "steps")
    told.goes_on(400)
    assert capsys.readouterr().out == "diffusion on digits: goes on after 400 steps\n"
    assert told.line().startswith("diffusion on digits: 400 of 1,000 steps")


def test_what_is_not_counted_is_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    told = Progress("reading the images of mine", None, "")
    now[0] = 3 * 3600 + 125
    assert told.line() == "reading the images of mine: 3 h 2 min so far"
    with progress("reading the images of mine"):
        pass
    assert capsys.readouterr().out == ""  # nothing to say of what took no time


def test_an_error_ends_the_line_too(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="broken"), progress("toy", 3, "seeds"):
        raise ValueError("broken")
    assert capsys.readouterr().out == ""
