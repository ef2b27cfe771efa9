"""Loading a configuration: what is understood, and every problem at once with its place."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pix4d_watcher.config import (
    CHECK_NAMES,
    SETTINGS_KEYS,
    RootSettings,
    Settings,
    examine,
    find_config,
    load,
)
from pix4d_watcher.core.errors import ConfigError
from pix4d_watcher.core.model import Level

SMALLEST = """\
cloud:
  url: https://cloud.pix4d.com
  client_id: me
  client_secret_file: /etc/pix4d-watcher/client_secret
  s3_endpoint: null
journal: /var/lib/pix4d-watcher/journal.db
watch:
  - name: survey
    path: /srv/pix4d/drop
    settle: 60s
    poll: 30s
    existing: process
results: /srv/pix4d/results
dashboard: 127.0.0.1:8470
"""


@pytest.fixture
def write(tmp_path):
    def write_text(text, name="pix4d-watcher.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


@pytest.fixture
def problems(write):
    """The problems of a text, without the file's name: `LINE: place: text`."""

    def problems_of(text):
        path = write(text)
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert all(problem.startswith(f"{path}:") for problem in caught.value.problems)
        return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]

    return problems_of


def watch(*lines, before=""):
    return f"{before}watch:\n  - name: a\n    path: drop\n" + "".join(f"    {line}\n" for line in lines)


def test_the_smallest_configuration_loads(write):
    """The configuration that the design fixes is understood; its dashboard is announced as not there."""
    settings = load(write(SMALLEST))
    (root,) = settings.watch
    assert (root.name, root.path, root.settle, root.poll, root.existing) == (
        "survey",
        Path("/srv/pix4d/drop"),
        60.0,
        30.0,
        "process",
    )
    assert settings.results == Path("/srv/pix4d/results")
    assert settings.cloud.client_id == "me"
    (warning,) = settings.warnings
    assert warning.endswith(":14: dashboard: this version has no dashboard; nothing listens on 127.0.0.1:8470")


def test_one_drop_directory_is_enough(write, tmp_path):
    """Everything but the drop directories has a default; paths start at the file's directory."""
    settings = load(write("watch: [{name: a, path: drop}]\n"))
    root, cloud, advanced = settings.watch[0], settings.cloud, settings.advanced
    assert root.path == tmp_path / "drop"
    assert (root.settle, root.poll, root.existing, root.start) == (60.0, None, None, "auto")
    assert (root.outputs, root.outputs_wait, root.checks, root.processing) == ("all", 1800.0, {}, None)
    assert (root.include, root.exclude, root.ready_file) == ((), (), None)
    assert (root.project.name, root.project.create) == ("{folder}", {})
    assert settings.journal == Path("/var/lib/pix4d-watcher/journal.db")
    assert (settings.results, settings.dashboard) == (None, None)
    assert (settings.upload.connections, settings.upload.multipart_threshold) == (4, 32 * 2**20)
    assert (cloud.url, cloud.s3_endpoint, cloud.ca_file) == ("https://cloud.pix4d.com", None, None)
    assert (cloud.create_in_doubt, cloud.register_in_doubt) == ("create", "again")
    assert cloud.failure_statuses == ("ERROR", "FAILED", "CANCELED", "CANCELLED")
    assert (advanced.doubt_wait, advanced.scan_interval, advanced.request_timeout) == (180.0, 300.0, 60.0)
    assert (advanced.retry_base, advanced.retry_max, advanced.register_batch) == (2.0, 600.0, None)
    assert (settings.warnings, settings.file) == ((), tmp_path / "pix4d-watcher.yaml")


def test_sections_whose_keys_are_all_commented_out_have_their_defaults(write):
    """An empty `cloud:`, `upload:`, `project:` or `checks:` is no error."""
    settings = load(write(watch("project:", "checks:", "include:", before="cloud:\nupload:\nadvanced:\n")))
    assert settings.model_dump() == load(write(watch())).model_dump()


def test_settings_do_not_change():
    """Settings are frozen."""
    root = RootSettings.model_validate({"name": "a", "path": "/x"})
    with pytest.raises(ValueError, match="frozen"):
        root.settle = 5.0


def test_all_problems_are_told_at_once_with_their_lines(problems):
    """Two typing errors, a bare number and a wrong word are told together, in the order of their lines."""
    found = problems(
        "cloud:\n"
        "  creat_in_doubt: create\n"
        "watch:\n"
        "  - name: a\n"
        "    path: drop\n"
        "    setle: 60s\n"
        "    poll: 60\n"
        "    start: atuo\n"
        "upload: {connections: 65}\n"
    )
    assert found == [
        "2: cloud.creat_in_doubt: unknown key; did you mean 'create_in_doubt'?",
        "6: watch[0].setle: unknown key; did you mean 'settle'?",
        "7: watch[0].poll: 60 what? write 60s for seconds; units are ms, s, m, h, d",
        "8: watch[0].start: must be 'auto' or 'manual'; did you mean 'auto'?",
        "9: upload.connections: must be at most 64",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Settle: 5s", "unknown key; did you mean 'settle'?"),
        ("ready-file: .ready", "unknown key; did you mean 'ready_file'?"),
        ("connections: 5", "unknown key here; it belongs to 'upload.connections'"),
        ("keep_for: 30d", "unknown key"),
        ("qqq: 1", "unknown key; known here are name, path, settle"),
    ],
)
def test_unknown_keys_name_the_nearest_known_one(problems, line, problem):
    """Misspelt and misplaced keys, and those of features that this version has not, are errors that help."""
    (found,) = problems(watch(line))
    assert problem in found
    assert found.startswith("4: watch[0].")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("settle: [60s]", "settle: is no duration"),
        ("settle:", "settle: is no duration"),
        ("start: false", "start: must be 'auto' or 'manual'"),
        ("existing: 1", "existing: must be 'process', 'ignore' or 'ask'"),
        ("include: '*.jpg'", "include: must be a list"),
        ("include: [5]", "include[0]: must be text; put it in quotes as it stands"),
        ("project: x", "project: must be a mapping"),
        ("project: {name: ''}", "project.name: must not be empty"),
        ("project: {name: '{site}'}", "project.name: unknown placeholder {site}; known are {folder}, {root}, {date}"),
        ("project: {name: '{folder!r}'}", "project.name: unknown placeholder"),
        ("project: {name: '{date:%Y}'}", "project.name: unknown placeholder"),
        ("project: {name: '{}'}", "project.name: unknown placeholder {}"),
        ("project: {name: '{folder'}", "project.name: has a lone brace"),
        ("project: {create: {name: x}}", "project.create: must not hold 'name'"),
        ("approve_above: true", "approve_above: must be a number"),
        ("approve_above: .inf", "approve_above: must be a number"),
        ("approve_above: nan", "approve_above: must be a number"),
        ("approve_above: '12'", "approve_above: must be a number"),
        ("approve_above: -1", "approve_above: must be at least 0"),
        ("split: true", "split: must be a whole number"),
        ("processing: []", "processing: must be a mapping"),
        ("outputs: some", "outputs: must be all, none or a list of output types"),
        ("outputs: [1]", "outputs: must be all, none or a list of output types"),
        ("ready_file: a/b", "ready_file: must be the name of a file directly in the folder"),
        ("checks: {too_few: warn}", "checks.too_few: unknown check; did you mean 'too_few_images'?"),
        ("checks: {duplicates: of}", "checks.duplicates: must be 'hold', 'warn' or 'off'; did you mean 'off'?"),
        ("checks: {duplicates: false}", "checks.duplicates: must be 'hold', 'warn' or 'off'"),
    ],
)
def test_wrong_values_in_a_root_are_explained(problems, line, problem):
    """Each wrong value is told once, with the way to it and what is wanted."""
    (found,) = problems(watch(line))
    assert found.startswith(f"4: watch[0].{problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cloud: {url: ftp://x}", "cloud.url: must be a URL"),
        ("cloud: {url: cloud.pix4d.com}", "cloud.url: must be a URL"),
        ("cloud: {url: 'https://a b'}", "cloud.url: must be a URL"),
        ("cloud: {url: 'https://a,b'}", "cloud.url: must be a URL"),
        ("cloud: {url: 'https://x:99999'}", "cloud.url: host or port cannot be read"),
        ("cloud: {url: 'https://[::1'}", "cloud.url: host or port cannot be read"),
        ("cloud: {url: 'https://a..b'}", "cloud.url: host or port cannot be read"),
        ("cloud: {url: 'https://me:hush/x@y'}", "cloud.url: host or port cannot be read"),
        ("cloud: {url: 'https://x/?a=b'}", "cloud.url: must end with the host or path"),
        ("cloud: {s3_endpoint: 'http://me:hush@x'}", "cloud.s3_endpoint: must not hold a user name or password"),
        ("cloud: {client_id: 12}", "cloud.client_id: must be text; put it in quotes as it stands"),
        ("cloud: {failure_statuses: ERROR}", "cloud.failure_statuses: must be a list"),
        ("cloud: {ca_file: no-such.pem}", "cloud.ca_file: there is no file"),
        ("cloud: []", "cloud: must be a mapping"),
        ("journal: ''", "journal: must be a path"),
        ("journal: 5", "journal: must be a path"),
        ("journal: ~nobody-of-this-name/x", "journal: the home directory of ~nobody-of-this-name is not known"),
        ("dashboard: 8470", "dashboard: must be text"),
        ("dashboard: localhost", "dashboard: must be host:port"),
        ("dashboard: localhost:99999", "dashboard: must be host:port"),
        ("upload: {connections: 0}", "upload.connections: must be at least 1"),
        ("upload: {connections: '4'}", "upload.connections: must be a whole number"),
        ("upload: {connections: true}", "upload.connections: must be a whole number"),
        ("upload: {multipart_threshold: 5MiB}", "upload.multipart_threshold: must be at least 8MiB"),
        ("upload: {multipart_threshold: 6GiB}", "upload.multipart_threshold: must be at most 5GiB: S3 takes no larger"),
        ("advanced: {register_batch: 0}", "advanced.register_batch: must be at least 1"),
        ("notify: {}", "notify: unknown key"),
    ],
)
def test_wrong_values_elsewhere_are_explained(problems, text, problem):
    """Addresses, paths, numbers and sections of a wrong kind are told with what is wanted."""
    (found,) = problems(watch(before=f"{text}\n"))
    assert found.startswith(f"1: {problem}")
    assert "hush" not in found


@pytest.mark.parametrize("written", ["007", "1e5", "0x1F", "true", "12345678901234567890"])
def test_a_number_in_the_place_of_text_is_not_written_in_another_way(problems, write, written):
    """The advice is to quote what stands there, and names no value that something else was made of."""
    (found,) = problems(watch(before=f"cloud: {{client_id: {written}}}\n"))
    assert found == "1: cloud.client_id: must be text; put it in quotes as it stands"
    assert load(write(watch(before=f"cloud: {{client_id: '{written}'}}\n"))).cloud.client_id == written


@pytest.mark.parametrize("path", ["/tmp/\\ud800x", "~\\udfff/x", "\\ud83d\\ude00"])
@pytest.mark.parametrize("key", ["results", "journal", "watch[0].path", "watch[0].template", "cloud.ca_file"])
def test_a_path_of_half_characters_is_a_problem_of_its_line(problems, capfd, path, key):
    """Nothing looks for what no disk can hold: it is refused like any other value."""
    head, _, name = key.rpartition(".")
    line = {"": f'{name}: "{path}"\n', "cloud": f'cloud: {{{name}: "{path}"}}\n'}.get(head, "")
    text = watch(f'template: "{path}"', before=line) if name == "template" else watch(before=line)
    (found,) = problems(text.replace("path: drop", f'path: "{path}"') if name == "path" else text)
    assert re.fullmatch(rf"\d: {re.escape(key)}: holds characters that are no text, .*", found)
    assert capfd.readouterr() == ("", "")


def test_a_path_that_is_not_utf8_can_be_named(write):
    """Bytes of a name are written as the half characters that Python makes of them."""
    assert bytes(load(write('watch: [{name: a, path: "/srv/M\\udce9moire"}]')).watch[0].path) == b"/srv/M\xe9moire"


def test_inline_secrets_are_refused_and_never_shown(problems, capsys):
    """A secret in the file is refused with where it goes instead; its text appears nowhere."""
    (found,) = problems(watch(before="cloud: {client_secret: hush-hush}\n"))
    assert found.startswith("1: cloud.client_secret: secrets do not belong in this file")
    assert all(word in found for word in ("client_secret_file", "PIX4D_CLIENT_SECRET", "LoadCredential", "600"))
    assert "hush" not in found


@pytest.mark.parametrize(
    "text", ["watch: []", "watch:", "cloud: {}", "watch: x", "watch: [x]", "[]", "just text", "watch: [{path: x}]"]
)
def test_without_a_whole_drop_directory_nothing_runs(problems, text):
    """No, half and wrongly built entries are problems of their own line."""
    (found,) = problems(text)
    assert found.startswith("1: ")


def test_yaml_words_that_were_booleans_once_are_taken_as_written(write):
    """`off` is the level off, also without quotes."""
    (root,) = load(write(watch("checks: {too_many_images: off, not_geotagged: warn}"))).watch
    assert root.checks == {"too_many_images": Level.OFF, "not_geotagged": Level.WARN}


def test_bodies_for_the_service_pass_through_verbatim(write):
    """Fields for creation and the start body keep their types, nesting and spelling; dates stay text."""
    (root,) = load(
        write(
            watch(
                "project: {name: '{root}: {folder} {date}', create: {project_type: pro, acquisition_date: 2024-05-17}}",
                "processing: {custom_template_s3_key: k, Quality: [2, 1.5, true, null, {a: off}]}",
            )
        )
    ).watch
    assert root.project.create == {"project_type": "pro", "acquisition_date": "2024-05-17"}
    assert root.processing == {"custom_template_s3_key": "k", "Quality": [2, 1.5, True, None, {"a": "off"}]}


@pytest.mark.parametrize(
    ("text", "outputs"),
    [("all", "all"), ("none", ()), ("[]", ()), ("[ortho_rgb, dsm]", ("ortho_rgb", "dsm"))],
)
def test_results_are_chosen_by_output_type(write, text, outputs):
    """All, none, or a list of types."""
    assert load(write(watch(f"outputs: {text}"))).watch[0].outputs == outputs


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("watch: [{name: a, path: x}, {name: A, path: y}]", "watch[1].name: 'A' is taken by watch[0] already"),
        ("watch: [{name: a, path: x}, {name: b, path: ./y/../x}]", "watch[1].path: is the same directory as watch[0]"),
        ("watch: [{name: a, path: x}, {name: b, path: x/y}]", "watch[1].path: lies inside the drop directory"),
        ("watch: [{name: a, path: x/y}, {name: b, path: x}]", "watch[0].path: lies inside the drop directory"),
        ("watch: [{name: a, path: real}, {name: b, path: link/y}]", "watch[1].path: lies inside the drop directory"),
        ("{results: x/r, watch: [{name: a, path: x}]}", "results: lies inside the drop directory"),
        ("{results: x, watch: [{name: a, path: x}]}", "results: lies inside the drop directory"),
        ("{results: x, watch: [{name: a, path: x/y}]}", "results: lies around the drop directory"),
        ("{journal: x/j.db, watch: [{name: a, path: x}]}", "journal: lies inside the drop directory"),
        ("watch: [{name: a, path: /var/lib}]", "journal: lies inside the drop directory"),
    ],
)
def test_directories_do_not_lie_in_each_other(problems, tmp_path, text, problem):
    """Roots in roots (also through links), results or journal in roots and doubled names are configuration errors."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (found,) = problems(text)
    assert found.startswith(f"1: {problem}")


def test_neighbours_with_a_common_beginning_are_fine(write):
    """`drop` and `drop2` lie beside each other."""
    assert (
        len(load(write("{results: drop-results, watch: [{name: a, path: drop}, {name: b, path: drop2}]}")).watch) == 2
    )


def test_problems_across_keys_are_told_with_all_others(problems):
    """A doubled name is told although another key could not be understood at all."""
    found = problems("watch:\n  - {name: a, path: x, setle: 1s}\n  - {name: a, path: x/y}\n")
    assert [problem.split(": ")[1] for problem in found] == ["watch[0].setle", "watch[1].name", "watch[1].path"]


def test_a_doubled_key_is_told_with_the_rest(problems):
    """Problems of YAML and of meaning come in one list."""
    found = problems(watch("start: auto", "start: manual", "poll: 3"))
    assert found[0] == "5: watch[0].start: given twice, first in line 4"
    assert found[1].startswith("6: watch[0].poll: 3 what?")


def test_an_absent_drop_directory_is_no_error_of_the_file(write, tmp_path):
    """Media may be away when the file is loaded; who wants to know asks for what is missing."""
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "other").touch()
    entries = "{name: a, path: there}, {name: b, path: gone}, {name: c, path: file}, {name: d, path: other/below}"
    path = write(f"watch: [{entries}]")
    assert load(path)
    settings, _client, problems = examine(path, {"PIX4D_CLIENT_ID": "a", "PIX4D_CLIENT_SECRET": "b"}, roots=True)
    assert settings == load(path)
    gone, file, below = (problem.removeprefix(f"{path}:1: drop directory ") for problem in problems)
    assert gone == f"b: {tmp_path}/gone is not there; make it, or mount what belongs there"
    assert file.startswith(f"c: {tmp_path}/file is a file, and a drop directory is wanted")
    assert below.startswith(f"d: {tmp_path}/other/below is not there")


@pytest.mark.parametrize(
    "text", ["cloud: 3\n", "cloud: {client_id: 7}\n", "watch: {}\n", "watch: [3, {path: 4}]\n", "[]"]
)
def test_what_a_wrong_file_names_is_looked_at_as_far_as_it_can_be(write, text):
    """A file of wrong shapes has its problems told, and nothing else comes of looking at what it names."""
    settings, client, problems = examine(write(text), {}, roots=True)
    assert (settings, client) == (None, None)
    assert problems


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("cloud: {url: 'http://pix4d.example'}", "cloud.url: is http, not https: the client secret"),
        ("cloud: {s3_endpoint: 'HTTP://10.0.0.5:9000/'}", "cloud.s3_endpoint: is http, not https: every image"),
        ("advanced: {doubt_wait: 500ms}", "advanced.doubt_wait: 500ms is shorter than request_timeout (1m)"),
        ("cloud: {url: 'http://127.0.0.1:5'}", None),
        ("cloud: {url: 'http://localhost:5', s3_endpoint: 'http://[::1]:5'}", None),
        ("advanced: {doubt_wait: 200ms, request_timeout: 100ms, retry_base: 1ms, retry_max: 2ms}", None),
    ],
)
def test_odd_but_possible_settings_are_warned_of(write, text, warning):
    """Plain http off this machine and a short doubt are accepted with a warning at their line; loopback is silent."""
    path = write(watch(before=f"{text}\n"))
    warnings = load(path).warnings
    assert len(warnings) == (warning is not None)
    assert not warning or warnings[0].startswith(f"{path}:1: {warning}")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("HTTPS://Cloud.PIX4D.com/", "https://cloud.pix4d.com"),
        ("Http://[::1]:5/A/", "http://[::1]:5/A"),
        ("https://clöud.test", "https://clöud.test"),
    ],
)
def test_addresses_are_written_in_one_way(write, text, url):
    """Capitals in scheme and host mean nothing, so that whoever asks for https:// finds it; a path keeps its own."""
    cloud = load(write(watch(before=f"cloud: {{url: '{text}', s3_endpoint: '{text}'}}\n"))).cloud
    assert (cloud.url, cloud.s3_endpoint) == (url, url)


def test_home_directories_are_understood(write, monkeypatch, tmp_path):
    """`~/drop` is in the home directory of who runs it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load(write("watch: [{name: a, path: ~/drop}]")).watch[0].path == tmp_path / "home" / "drop"


def test_the_file_is_looked_for_in_the_order_of_the_contract(write, tmp_path, monkeypatch):
    """--config, then the variable, then ./, then the user's directory; a named file is never replaced by another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pix4d_watcher.config.loader.SYSTEM_DIRECTORY", tmp_path / "etc")
    environ = {"HOME": str(tmp_path / "home")}
    with pytest.raises(ConfigError) as caught:
        find_config(None, environ)
    for place in ("./pix4d-watcher.yaml", "home/.config/pix4d-watcher/pix4d-watcher.yaml", "etc/pix4d-watcher.yaml"):
        assert place in str(caught.value)
    system = write("", "etc/pix4d-watcher.yaml")
    assert find_config(None, environ) == system
    user = write("", "home/.config/pix4d-watcher/pix4d-watcher.yaml")
    assert find_config(None, environ) == user
    xdg = write("", "xdg/pix4d-watcher/pix4d-watcher.yaml")
    assert find_config(None, {**environ, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}) == xdg
    write("")
    assert find_config(None, environ) == Path("pix4d-watcher.yaml")
    assert find_config(None, {**environ, "PIX4D_WATCHER_CONFIG": "/else"}) == Path("/else")
    assert find_config(Path("/named"), {"PIX4D_WATCHER_CONFIG": "/else"}) == Path("/named")


def test_every_key_is_listed_with_its_dots():
    """The list for the docs names sections, their keys, and those of list entries with brackets."""
    assert {"cloud.url", "watch[].settle", "watch[].project.create", "upload.connections", "results"} < set(
        SETTINGS_KEYS
    )
    assert len(SETTINGS_KEYS) == len(set(SETTINGS_KEYS))
    assert len(CHECK_NAMES) == len(set(CHECK_NAMES))


def test_every_key_is_documented():
    """Each key of each section has a description that is a sentence."""
    for model in (Settings, *(field.annotation for field in Settings.model_fields.values()), RootSettings):
        for name, field in getattr(model, "model_fields", {}).items():
            assert field.description, name
            assert field.description.endswith("."), name


def test_importing_the_configuration_is_light():
    """Reading a configuration loads neither the HTTP libraries nor the database nor Pillow."""
    heavy = {"requests", "boto3", "botocore", "sqlalchemy", "PIL", "rich", "typer", "starlette", "jsonschema"}
    code = "import sys, pix4d_watcher.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not heavy & set(done.stdout.split())
