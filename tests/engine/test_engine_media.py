"""Threads at the files of a medium: who stands still is given up, who goes on however slowly is not."""

import os
import select
import threading

import pytest
from harness import until

from pix4d_watcher.core.errors import MediaAbsent
from pix4d_watcher.engine.beats import Beats, Crew
from pix4d_watcher.engine.media import Media

PATIENCE = 1.0
"""Two looks."""


class Reader:
    """A thread of a crew that reads a pipe to its end at a medium; a pipe without bytes hangs like a dead disk."""

    def __init__(self, crew, media, place="card", **how):
        self.media, self.place, self.how = media, place, how
        self.source, self.feed = os.pipe()
        self.left = False
        crew.start("reader", self.run)

    def run(self):
        """Read, and note that it left as usual."""
        with self.media.at(self.place, patience=PATIENCE, **self.how):
            while os.read(self.source, 1):
                continue
        self.left = True

    def answer(self):
        """Let the read come back, with the end of the file."""
        os.close(self.feed)


@pytest.fixture
def media():
    """Media of a service without anything else."""
    return Media(Beats())


@pytest.fixture
def crew():
    """Threads whose unexpected errors show."""
    made = Crew(threading.Event())
    yield made
    assert made.failure is None


def looks(media, count=4):
    """Look so often, and give all that were given up."""
    return [touch for _look in range(count) for touch in media.look()]


def test_who_stands_still_is_given_up(media, crew):
    """It is given up once; nobody else goes there until it came back, where it ends without doing anything more."""
    reader = Reader(crew, media)
    until(media.busy, "it is there")
    (touch,) = until(lambda: looks(media), "it is given up")
    assert (touch.place, touch.first, looks(media)) == ("card", True, [])
    assert media.given_up() == {touch.thread}
    with pytest.raises(MediaAbsent, match="card does not answer"), media.at("card"):
        pytest.fail("it went there")
    with media.at("another card"), media.at("card"):
        pass  # inside of another one nothing is asked again
    with media.at("card", anyway=True):
        pass
    reader.answer()
    until(lambda: not touch.thread.is_alive(), "it ended")
    assert not reader.left
    with media.at("card"):
        pass


def test_who_goes_on_slowly_is_not(media, crew):
    """A thread that gets a byte between two looks reads on for as long as it takes, and leaves as usual."""
    reader = Reader(crew, media)
    until(media.busy, "it is there")
    for _look in range(20):
        os.write(reader.feed, b".")
        until(lambda: not ready(reader.source), "it took the byte")
        assert media.look() == []
    reader.answer()
    until(lambda: reader.left, "it left")


def ready(source):
    """Say whether a pipe holds bytes."""
    return bool(select.select([source], [], [], 0)[0])


def test_the_medium_s_own_thread_is_told(media):
    """A thread that stays gets an error in the place of its end, inside at the next check and where it leaves."""
    found = []

    def work():
        try:
            with media.at("card", stays=True, patience=PATIENCE):
                os.read(source, 1)
                media.check()
        except MediaAbsent as error:
            found.append(error)

    source, feed = os.pipe()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until(media.busy, "it is there")
    until(lambda: looks(media), "it is given up")
    os.close(feed)
    thread.join(20)
    assert len(found) == 1


def test_one_at_a_time_but_for_who_hangs(media, crew):
    """Who wants to be alone waits for others that do, and not for one that was given up."""
    first, second = Reader(crew, media, alone=True), Reader(crew, media, "disk", alone=True)
    until(media.busy, "one is there")
    assert len(media.busy()) == 1
    until(lambda: looks(media), "it is given up")
    until(lambda: len(media.busy()) == 2, "the other one is there, too")
    first.answer()
    second.answer()
    until(lambda: not media.busy(), "both are through")


def test_files_are_no_late_heartbeat():
    """Whoever is at files is judged there; a long stay that ends well is a sign of life."""
    beats = Beats()
    media = Media(beats)
    beats.beat(0.0)
    with media.at("card"):
        assert beats.late(but=media.busy()) == []
        assert beats.late() == [threading.current_thread().name]
        beats.beat(1e6)
    assert beats.late() == []
    beats.rest()
