"""Money: nothing that is estimated above `approve_above` is created or started before a person has agreed, once."""

from pix4d_watcher.emulator import flights

# Six images of 16 x 12 pixels are 0.0012 megapixels, that is 0.0000115 credits.
BELOW, ABOVE = 0.00001, 0.0001


def test_a_dear_folder_waits(site):
    """The estimate and the limit are told, nothing is created, and `approve` is asked for once."""
    site.configure(approve_above=BELOW, start="manual")
    site.drop()
    site.drop("never")
    assert site.run() == 0
    text = site.held("approval")
    assert "about 0.00 credits" in text
    assert f"above {BELOW:g} credits" in text
    site.held("approval", "never")
    assert not site.cloud.ledger()["projects"]
    site.ask("approve")
    site.ask("drop", "never")
    assert site.run() == 0
    site.held("manual_start")
    site.ask("start")
    assert site.run() == 0
    site.once(held=True)
    assert len(site.cloud.ledger()["projects"]) == 1
    assert [kind for kind, text in site.events() if kind == "held" and text.startswith("approval")] == ["held"]


def test_a_cheap_folder_goes_on(site):
    """Nobody is asked about less."""
    site.configure(approve_above=ABOVE)
    site.drop()
    assert site.run() == 0
    site.once()


def test_everything_is_asked_about(site):
    """A limit of 0 asks about every folder."""
    site.configure(approve_above=0)
    site.drop()
    assert site.run() == 0
    site.held("approval")


def test_the_checks_come_first(site):
    """What is wrong with the images is told before anybody is asked for money, and each is asked by itself."""
    site.configure(approve_above=BELOW)
    folder = site.prepare(count=8)
    flights.make_empty_image(folder / "DJI_0001.JPG")
    folder.rename(site.drops / "flight")
    assert site.run() == 0
    site.held("bad_images")
    site.ask("approve")
    assert site.run() == 0
    site.held("approval")
    assert not site.cloud.ledger()["projects"]
    site.ask("approve")
    assert site.run() == 0
    site.once(images=7, held=True)


def test_the_first_scan_is_no_word_about_money(site):
    """A folder approved at the very first scan, before anybody knew what it costs, is asked about again."""
    site.configure(approve_above=BELOW, existing="ask")
    site.drop()
    assert site.run() == 0
    assert "first scan" in site.held("approval")
    site.ask("approve")
    site.start()
    site.until(lambda: "credits" in ((site.look()["hold"] or {}).get("text") or ""), "it is asked about its cost")
    assert site.requests("create") == 0
    site.ask("approve")
    site.delivered()
    site.once(held=True)


def test_images_that_join_make_it_dear(site):
    """Where images join after the checks and the limit is passed, a person is asked before the start."""
    site.configure(approve_above=0.000015)
    site.fault("put", "delay", seconds=1.5, times=None)
    site.drop()
    site.start()
    site.reach("created")
    site.fill(site.drops / "flight", 4, names="LATE_{n:04d}.JPG", salt="late")
    site.held("approval")
    assert site.requests("start") == 0
    assert len(site.used()["registered"]) == 10
    site.ask("approve")
    site.delivered()
    site.once(images=10, held=True)
