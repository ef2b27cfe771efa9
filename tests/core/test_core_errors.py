"""The tree of errors: each answers whom it stops, whether it happened, and what helps."""

import inspect
import pickle
import re

import pytest

from pix4d_watcher.core import errors
from pix4d_watcher.core.errors import Cure, Happened, Scope, WatcherError

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, WatcherError)]
REMOTE = [kind for kind in ALL if issubclass(kind, errors.RemoteError)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_answers_three_questions(kind):
    """Scope, happened and cure are known for every error, without an object of it."""
    assert isinstance(kind.scope, Scope)
    assert isinstance(kind.happened, Happened)
    assert isinstance(kind.cure, Cure)


@pytest.mark.parametrize("kind", ALL)
def test_only_the_unknown_is_asked_first(kind):
    """What may have happened is asked for before it is done again, and nothing else is."""
    assert (kind.happened is Happened.UNKNOWN) == (kind.cure is Cure.ASK_FIRST)


def test_only_a_lost_answer_is_unknown():
    """Of all errors only a lost answer leaves it open whether the service did it."""
    assert [kind for kind in ALL if kind.happened is Happened.UNKNOWN] == [errors.Unanswered]


def test_tree_is_as_documented():
    """The picture at the head of the module shows every error at its place."""
    place, documented = [], {}
    for indent, name in re.findall(r"^( +)([A-Z]\w+)", errors.__doc__, re.MULTILINE):
        place = [*place[: len(indent) // 2 - 2], name]
        documented[name] = place[-2] if len(place) > 1 else "Exception"
    assert documented == {kind.__name__: kind.__base__.__name__ for kind in ALL}


@pytest.mark.parametrize("kind", REMOTE)
def test_remote_errors_keep_the_service_s_words(kind):
    """An error of the service keeps our sentence, its status and its own words apart."""
    error = kind("create: refused", status=400, words="name too long")
    assert (str(error), error.status, error.words) == ("create: refused", 400, "name too long")
    assert (kind("no answer").status, kind("no answer").words) == (None, "")


def test_throttled_keeps_the_pause():
    """The pause that the service asked for is kept, None where it named none."""
    assert errors.Throttled("slow down", status=429, retry_after=7.5).retry_after == 7.5
    assert errors.Throttled("slow down").retry_after is None


def test_config_error_shows_every_problem():
    """All problems of a configuration are shown at once, one per line."""
    error = errors.ConfigError(["a.yaml:3: watch: missing", "a.yaml:9: pol: unknown key, did you mean poll"])
    assert str(error).splitlines() == error.problems


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not errors.ConfigError])
def test_errors_survive_a_queue(kind):
    """An error keeps its text where it is copied from one thread or process to another."""
    assert str(pickle.loads(pickle.dumps(kind("what happened")))) == "what happened"
