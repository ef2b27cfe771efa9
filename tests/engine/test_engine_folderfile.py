"""What a folder says about itself in its pix4d.yaml, and how little whoever drops it can do with that."""

import contextlib
import os

import pytest

from pix4d_watcher.config import RootSettings
from pix4d_watcher.engine.overrides import effective
from pix4d_watcher.intake.scan import Rules, scan_folder
from pix4d_watcher.journal import views
from pix4d_watcher.journal.people import Refusal

pytestmark = pytest.mark.check  # minutes in all: run by make check

ALL = ["name", "create", "processing"]
FILE = "pix4d.yaml"


def drop(site, name, text, count=6):
    """Drop a folder with a pix4d.yaml."""
    folder = site.prepare(name, count)
    (folder / FILE).write_text(text)
    return folder.rename(site.drops / name)


def in_cloud(site, name="flight"):
    """Give the cloud's project of a folder, whatever it is called there."""
    (found,) = [row for row in site.cloud.ledger()["projects"] if row["id"] == site.look(name)["remote_id"]]
    return found


def test_it_sets_what_the_root_allows(site):
    """Name, creation and processing are those of the folder, key by key over those of the drop directory."""
    project = {"name": "plain {folder}", "create": {"billing_model": "flat", "project_type": "pro"}}
    site.configure(folder_may=ALL, project=project, processing={"quality": 1, "where": "{bucket}"})
    file = """
name: "{root} / {folder}"
create: {project_type: bim, nested: [1, {a: null}]}
processing: {quality: 2, masks: ["{prefix}/masks", {deep: "{bucket}"}], brace: "{x}"}
"""
    drop(site, "flight", file)
    site.drop("other")
    assert site.run() == 0
    found, other = in_cloud(site), in_cloud(site, "other")
    assert found["name"] == f"survey / flight [{views.project(site.journal(), site.id_of()).marker}]"
    assert found["create_fields"] == {"billing_model": "flat", "project_type": "bim", "nested": [1, {"a": None}]}
    bucket, prefix = site.cloud.settings.bucket, found["prefix"]
    (body,) = found["start_bodies"]
    assert body == {"quality": 2, "where": bucket, "masks": [f"{prefix}/masks", {"deep": bucket}], "brace": "{x}"}
    assert other["name"].startswith("plain other [")
    assert other["create_fields"] == project["create"]
    assert other["start_bodies"] == [{"quality": 1, "where": bucket}]
    assert ("folder file", f"{FILE} sets name, create, processing") in site.events()
    assert not [key for key in site.cloud.ledger()["objects"] if "yaml" in key]
    report = views.project(site.journal(), site.id_of()).report
    assert report["not_images"] == []


def test_a_bad_one_holds_until_it_is_mended(site):
    """Every problem is told, nothing is created, and a corrected, removed or approved file lets the folder go on."""
    site.configure(folder_may=["name"], start="manual")
    bad = "nmae: x\nprocessing: {a: 1}\nstart: auto\n"
    folders = {name: drop(site, name, bad) for name in ("mended", "removed", "approved")}
    site.start()
    for name in folders:
        text = site.held("bad_folder_file", name)
        assert f"{FILE}:1: nmae: unknown key; did you mean 'name'?" in text
        assert f"{FILE}:2: processing: is not allowed here; the administrator must allow it" in text
        assert f"{FILE}:3: start: can only be tightened" in text
        assert f"pix4d-watcher approve survey/{name}" in text
    assert site.requests("create") == 0
    (folders["mended"] / FILE).write_text("name: right\n")
    (folders["removed"] / FILE).unlink()
    site.ask("approve", "approved")
    for name in folders:
        site.held("manual_start", name)
    names = {name: in_cloud(site, name)["name"].partition(" [")[0] for name in folders}
    assert names == {"mended": "right", "removed": "removed", "approved": "approved"}


def test_it_tightens_start_and_approval(site):
    """A folder may ask for a person before it starts or costs, also where the drop directory would not."""
    drop(site, "careful", "start: manual\n")
    drop(site, "poor", "approve_above: 0.00001\n")
    assert site.run() == 0
    site.held("manual_start", "careful")
    assert "above 1e-05 credits" in site.held("approval", "poor")
    assert site.requests("start") == 0
    site.ask("start", "careful")
    site.ask("approve", "poor")
    assert site.run() == 0
    for name in ("careful", "poor"):
        site.once(name, held=True)


def test_a_changed_file_counts_until_the_creation(site):
    """What is written before the project exists is what holds; afterwards the file is not looked at again."""
    site.configure(folder_may=ALL, start="manual")
    folder = drop(site, "flight", "name: first\n")
    site.unplug()
    site.start()
    site.until(lambda: "settled" in [kind for kind, _ in site.events()] if site.look() else None, "it is settled")
    (folder / FILE).write_text("name: second\nprocessing: {a: 1}\n")
    site.until(lambda: [kind for kind, _ in site.events()].count("settled") == 2, "it is frozen anew")
    site.plug()
    site.held("manual_start")
    (folder / FILE).write_text("processing: {a: 2}\n")
    site.restart()
    site.held("manual_start")
    (folder / FILE).unlink()
    site.ask("start")
    site.delivered()
    assert in_cloud(site)["name"].startswith("second [")
    assert in_cloud(site)["start_bodies"] == [{"a": 1}]
    assert site.requests("create") >= 1
    assert len(site.cloud.ledger()["projects"]) == 1


def test_what_is_forbidden_later_counts_no_more(site):
    """Where the administrator takes a permission back, what a folder said before is not sent."""
    site.configure(folder_may=ALL, start="manual", processing={"b": 1})
    drop(site, "flight", "processing: {a: 1}\n")
    assert site.run() == 0
    site.held("manual_start")
    site.configure(folder_may=["name"], start="manual", processing={"b": 1})
    site.ask("start")
    assert site.run() == 0
    assert in_cloud(site)["start_bodies"] == [{"b": 1}]


def test_hostile_files(site):
    """Whatever is called pix4d.yaml does the service no harm, and other folders go on."""
    site.configure(folder_may=ALL, existing="process")
    laughs = "".join(f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    texts = {
        "laughs": f"a: &a0 [x]\n{laughs}",
        "large": "#" * (1 << 20),
        "deep": "[" * 60_000,
        "tag": "name: !!python/object/apply:os.abort []",
        "pair": 'name: "\\ud800"\n"\\udc00": 1',
        "many": "\n".join(f"k{n}: 1" for n in range(5000)),
    }
    for name, text in texts.items():
        drop(site, name, text)
    binary = site.prepare("binary")
    (binary / FILE).write_bytes(bytes(range(256)) * 10)
    secret = site.prepare("link")
    (secret / FILE).symlink_to(site.directory / "secret")
    pipe = site.prepare("pipe")
    os.mkfifo(pipe / FILE)
    directory = site.prepare("directory")
    (directory / FILE).mkdir()
    for folder in (binary, secret, pipe, directory):
        folder.rename(site.drops / folder.name)
    site.drop("harmless")
    site.start()
    held = [*texts, "binary", "link"]
    for name in held:
        assert FILE in site.held("bad_folder_file", name)
        assert len(site.look(name)["hold"]["text"]) < 12_000
    assert "demo-secret" not in str(site.status())
    site.delivered("harmless", "pipe", "directory")
    (site.drops / "link" / FILE).unlink()
    site.delivered("link")
    assert site.process.poll() is None


def test_a_card_that_is_away(site):
    """A folder whose drop directory is away is not taken for one without a file; it goes on with it afterwards."""
    site.configure(folder_may=ALL)
    drop(site, "flight", "name: mine\n", count=3)
    site.start()
    site.held("too_few_images")
    site.drops.rename(site.directory / "away")
    site.until(lambda: not site.root().present, "the drop directory is away")
    site.ask("approve")
    site.until(lambda: "gone" in (site.look()["error"] or ""), "it says why it waits")
    assert site.look()["tries"] == 0
    (site.directory / "away").rename(site.drops)
    site.until(lambda: site.root().present, "it is back")
    with contextlib.suppress(Refusal):  # unless it went on by itself meanwhile
        site.ask("retry")
    site.delivered()
    assert in_cloud(site)["name"].startswith("mine [")


def test_folders_that_are_joined(site):
    """The files of joined folders hold together; where two differ the mission is held."""
    site.configure(folder_may=ALL, join="{mission}_{part}", join_wait="500ms")
    texts = {
        "harbour_1": "name: port\n",
        "harbour_2": "start: manual\n",
        "quarry_1": "name: a\n",
        "quarry_2": "name: b",
    }
    for name, text in texts.items():
        drop(site, name, text, count=3 if name.startswith("harbour") else 4)
    site.start()
    site.held("manual_start", "harbour")
    assert in_cloud(site, "harbour")["name"].startswith("port [")
    assert "quarry_2/pix4d.yaml: name: is not what quarry_1/pix4d.yaml says" in site.held("bad_folder_file", "quarry")
    assert "harbour_1" not in str(views.project(site.journal(), site.id_of("harbour")).report["not_images"])


def test_one_of_the_joined_cannot_be_used(site):
    """To go on without one folder's file takes nothing from what the other one tightens."""
    site.configure(folder_may=ALL, join="{mission}_{part}", join_wait="500ms")
    drop(site, "quarry_1", "start: manual\nname: mine\n", count=3)
    drop(site, "quarry_2", "nonsense: 1\n", count=4)
    assert site.run() == 0
    assert "quarry_2/pix4d.yaml:1: nonsense" in site.held("bad_folder_file", "quarry")
    site.ask("approve", "quarry")
    assert site.run() == 0
    site.held("manual_start", "quarry")
    assert in_cloud(site, "quarry")["name"].startswith("quarry [")


@pytest.mark.parametrize("name", ["Pix4D.YAML", "pix4d.yml"])
def test_a_file_that_is_nearly_called_so(site, name):
    """A file that is meant to be the folder's is never passed over in silence; under its right name it counts."""
    folder = site.prepare()
    (folder / name).write_text("start: manual\n")
    folder = folder.rename(site.drops / "flight")
    site.drop("other", salt="other")
    (site.drops / "other" / "notes.yml").write_text("a: 1")
    site.start()
    assert f"{name}: is not read; the file must be called pix4d.yaml" in site.held("bad_folder_file")
    site.delivered("other")
    (folder / name).rename(folder / FILE)
    site.held("manual_start")


def test_a_file_left_out_by_the_administrator(site):
    """Where `exclude` takes the file away it counts for nothing."""
    site.configure(folder_may=ALL, exclude=["*.yaml"])
    drop(site, "flight", "name: mine\nnonsense: 1\n")
    assert site.run() == 0
    site.once()


@pytest.mark.parametrize(
    ("root", "said", "wanted"),
    [
        ({"start": "manual"}, {"start": "auto"}, {"start": "manual"}),
        ({"start": "auto"}, {"start": "manual"}, {"start": "manual"}),
        ({"approve_above": 5}, {"approve_above": 50}, {"approve_above": 5}),
        ({"approve_above": 5}, {"approve_above": 0}, {"approve_above": 0}),
        ({}, {"approve_above": 7}, {"approve_above": 7}),
        ({"processing": {"a": 1}}, {"processing": {"a": 2}}, {"processing": {"a": 1}}),
        ({"folder_may": ["processing"]}, {"processing": {"a": 2}}, {"processing": {"a": 2}}),
    ],
)
def test_nothing_is_loosened(root, said, wanted):
    """Whatever was journalled, what is applied is never looser than the configuration of now."""
    found = effective(RootSettings(name="survey", path="/srv/drop", **root), said)
    assert {key: getattr(found, key) for key in wanted} == wanted


def test_the_scan_sees_the_file(tmp_path):
    """The file is neither image nor other file, and every change of it changes the folder's signature."""
    (tmp_path / "DJI_0001.JPG").write_bytes(b"x")
    below = tmp_path / "100MEDIA"
    below.mkdir()
    (below / FILE).write_text("a: 1")
    seen = set()

    def look():
        tree = scan_folder(os.fsencode(tmp_path), Rules())
        seen.add(tree.signature(with_inodes=True))
        return tree

    assert look().not_images == (b"100MEDIA/pix4d.yaml",)
    (tmp_path / FILE).write_text("a: 1")
    tree = look()
    assert tree.not_images == (b"100MEDIA/pix4d.yaml",)
    assert [file.path for file in tree.images] == [b"DJI_0001.JPG"]
    (tmp_path / FILE).write_text("a: 22")
    look()
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to("elsewhere")
    assert look().not_images == (b"100MEDIA/pix4d.yaml",)
    assert len(seen) == 4
