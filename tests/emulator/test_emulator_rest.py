"""What the emulated REST API promises."""

import datetime as dt
import re

import pytest
import requests
from emulator_client import FORM, PAIR, until

SAMPLE_FIELDS = """id name display_name project_group_id is_demo is_geolocalized create_date public_status
display_detailed_status error_reason user_display_name project_thumb detail_url acquisition_date project_type
image_count last_datetime_processing_started last_datetime_processing_ended bucket_name s3_bucket_region s3_base_path
never_delete under_trial uuid coordinate_system outputs min_zoom max_zoom proj_pipeline"""


def ask(emulator, **more):
    return requests.post(f"{emulator.url}/oauth2/token/", timeout=10, **more)


def test_token_from_form_body(emulate):
    """A token is given for a urlencoded and for a multipart body, with the fields of the guide."""
    emulator = emulate(token_lifetime=172800)
    for more in ({"data": FORM}, {"files": {name: (None, value) for name, value in FORM.items()}}):
        answer = ask(emulator, **more)
        assert answer.status_code == 200
        assert answer.json()["token_type"] == "Bearer"
        assert answer.json()["expires_in"] == 172800
        assert set(answer.json()) == {"access_token", "token_type", "expires_in", "scope"}


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"params": FORM}, 400),
        ({"data": FORM, "params": PAIR}, 400),
        ({"json": FORM}, 400),
        ({"data": {**FORM, "client_secret": "wrong"}}, 401),
        ({"data": {**FORM, "grant_type": "password"}}, 400),
        ({"data": {**FORM, "token_format": "opaque"}}, 400),
    ],
)
def test_token_refused(emulate, more, status):
    """Secrets in the query, JSON bodies, wrong pairs and wrong grants get no token."""
    emulator = emulate()
    answer = ask(emulator, **more)
    assert answer.status_code == status
    assert (answer.json() == {"error": "invalid_client"}) == (status == 401)
    assert emulator.ledger()["tokens"] == 0
    assert emulator.ledger()["refused"] == {"token": 1}


def test_path_without_slash_is_redirected(emulate):
    """Like Django, a path without its last slash is answered with a redirect, which loses a POST's body."""
    answer = requests.post(f"{emulate().url}/oauth2/token", data=FORM, allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.headers["Location"]) == (301, "/oauth2/token/")


def test_token_expires(fly):
    """Without a token, with an unknown one, and with an expired one everything is 401."""
    pilot = fly()
    pilot.emulator.change(token_lifetime=0.3)
    pilot.login()
    until(lambda: pilot.get().status_code == 401)
    assert "expired" in pilot.get().json()["detail"]
    pilot.emulator.change(token_lifetime=3600)
    pilot.login()
    assert pilot.get().status_code == 200
    pilot.emulator.expire("token")
    assert pilot.get().status_code == 401
    pilot.session.headers["Authorization"] = "Bearer nonsense"
    assert pilot.get().status_code == 401
    del pilot.session.headers["Authorization"]
    assert pilot.get().headers["WWW-Authenticate"].startswith("Bearer")


def test_project_has_the_fields_of_the_sample(pilot):
    """A new project has every field of the guide's sample, in its date formats, and is kept in the ledger."""
    detail = pilot.get().json()
    assert sorted(detail) == sorted(SAMPLE_FIELDS.split())
    assert detail["public_status"] == "NEW"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}\+02:00", detail["create_date"])
    assert set(detail["outputs"]) == {"mesh", "images", "map", "bundles", "reports"}
    assert detail["outputs"]["bundles"]["inputs"]["status"] == "requestable"
    assert detail["s3_base_path"].endswith(f"/project-{detail['id']}")
    entry = pilot.emulator.ledger()["projects"][0]
    assert (entry["name"], entry["used"], entry["create_fields"]) == ("survey", False, {})


def test_create_wants_a_name_and_keeps_other_fields(pilot):
    """A name is required and more fields are kept; each call makes a project."""
    pilot.project = {}
    assert pilot.post("", json={}).json() == {"name": ["This field is required."]}
    assert pilot.post("", json={"name": ""}).status_code == 400
    assert pilot.post("", data=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    assert pilot.post("", data={"name": "form"}).status_code == 415
    assert pilot.post("", json={"name": "b", "billing_model": "x"}).status_code == 201
    assert pilot.session.put(pilot.url(), timeout=10).status_code == 405
    names = [(item["name"], item["create_fields"]) for item in pilot.emulator.ledger()["projects"]]
    assert names == [("survey", {}), ("b", {"billing_model": "x"})]


def test_unknown_and_deleted_projects_are_404(pilot):
    """What is not there, or was deleted in the service's page, is 404."""
    assert pilot.get("nothing/").status_code == 404
    pilot.emulator.by_hand(pilot.project["id"], "delete")
    assert pilot.get().status_code == 404
    assert pilot.get("s3_credentials/").status_code == 404
    assert pilot.emulator.ledger()["projects"][0]["deleted"] is True


def test_list_in_pages(pilot):
    """The list is one page, or several with absolute links to the host that was asked, or missing."""
    first, pilot.project = pilot.project["id"], {}
    made = [first] + [pilot.post("", json={"name": str(number)}).json()["id"] for number in range(4)]
    whole = pilot.get().json()
    assert (whole["count"], whole["next"], [item["id"] for item in whole["results"]]) == (5, None, made[::-1])
    pilot.emulator.change(project_list="paged", page_size=2)
    host = f"localhost:{pilot.emulator.url.rpartition(':')[2]}"
    page = pilot.get(headers={"Host": host}).json()
    assert page["next"].startswith(f"http://{host}/")
    seen = [item["id"] for item in page["results"]]
    while page["next"]:
        page = pilot.session.get(page["next"].replace("localhost", "127.0.0.1"), timeout=10).json()
        seen += [item["id"] for item in page["results"]]
    assert seen == made[::-1]
    assert pilot.get(params={"page": 9}).status_code == 404
    pilot.emulator.change(project_list="off")
    assert pilot.get().status_code == 404


def test_list_lags(fly):
    """A new project shows up in the list only after the lag, though it can be asked for by its id."""
    pilot = fly(list_lag=3600)
    assert pilot.get().status_code == 200
    pilot.project = {}
    assert pilot.get().json()["count"] == 0
    pilot.emulator.change(list_lag=0)
    assert pilot.get().json()["count"] == 1


def test_credentials_have_the_documented_keys(fly):
    """The documented keys in the sample's date formats, two more only where set, and clocks shifted by the skew."""
    pilot = fly(clock_skew=-7200, credentials_lifetime=1800)
    documented = {"access_key", "secret_key", "session_token", "expiration", "bucket", "key", "server_time", "region"}
    assert set(pilot.keys) == documented
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}Z", pilot.keys["expiration"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}\+00:00", pilot.keys["server_time"])
    server_time = dt.datetime.fromisoformat(pilot.keys["server_time"])
    life = dt.datetime.fromisoformat(pilot.keys["expiration"]) - server_time
    assert abs(life.total_seconds() - 1800) < 2
    assert abs((dt.datetime.now(dt.UTC) - server_time).total_seconds() - 7200) < 60
    pilot.emulator.change(endpoint_override="s3.example", is_bucket_accelerated=False)
    pilot.renew()
    assert (pilot.keys["endpoint_override"], pilot.keys["is_bucket_accelerated"]) == ("s3.example", False)


def test_only_own_stored_objects_can_be_registered(pilot):
    """Keys outside the prefix and keys without an object are refused by name, and nothing is registered."""
    key = pilot.put()
    assert "b.jpg" in pilot.register(key, pilot.key("b.jpg")).text
    assert "elsewhere/a.jpg" in pilot.register(key, "elsewhere/a.jpg").text
    assert pilot.register().status_code == 400
    assert pilot.post("inputs/bulk_register/", json={"input_file_keys": key}).status_code == 400
    assert pilot.emulator.ledger()["projects"][0]["registered"] == {}
    assert pilot.register(key).json()["nb_images_registered"] == 1
    assert pilot.get().json()["image_count"] == 1


@pytest.mark.parametrize(("again", "answered", "count"), [("same", 2, 2), ("zero", 1, 2), ("double", 2, 3)])
def test_registering_again(fly, again, answered, count):
    """What a second registration of a key does is a setting; the ledger counts each application."""
    pilot = fly(register_again=again)
    one, two = pilot.put("1.jpg"), pilot.put("2.jpg")
    pilot.register(one)
    assert pilot.register(one, two).json()["nb_images_registered"] == answered
    assert pilot.get().json()["image_count"] == count
    assert pilot.emulator.ledger()["projects"][0]["registered"] == {one: 2, two: 1}


def test_register_limit_and_counters(fly):
    """Too many keys are 413; image_count can be behind or stand still while the ledger knows."""
    pilot = fly(max_register=1, counter="frozen", counter_lag=3600)
    keys = [pilot.put("1.jpg"), pilot.put("2.jpg")]
    assert pilot.register(*keys).status_code == 413
    assert pilot.register(keys[0]).status_code == 200
    assert pilot.get().json()["image_count"] == 0
    pilot.emulator.change(counter="lagging")
    assert pilot.get().json()["image_count"] == 0
    pilot.emulator.change(counter_lag=0)
    assert pilot.get().json()["image_count"] == 1
    assert pilot.emulator.ledger()["projects"][0]["image_count"] == 1


def test_start_and_process(fly):
    """A project without images cannot start; one with images goes from NEW over PROCESSING to DONE with its outputs."""
    pilot = fly(processing_seconds=3600, output_bytes=1000, ortho_bytes=3_000_000, outputs_seconds=3600)
    assert pilot.post("start_processing/").status_code == 400
    pilot.register(pilot.put())
    assert pilot.post("start_processing/", json={"quality": 2}).status_code == 200
    detail = pilot.get().json()
    assert (detail["public_status"], detail["display_detailed_status"]) == ("PROCESSING", "Waiting for processing")
    assert detail["last_datetime_processing_started"].endswith("Z")
    assert detail["last_datetime_processing_ended"] is None
    pilot.emulator.change(processing_seconds=0)
    detail = pilot.get().json()
    assert (detail["public_status"], detail["error_reason"]) == ("DONE", "")
    assert detail["last_datetime_processing_ended"].endswith("Z")
    outputs = pilot.get("outputs/").json()["outputs"]
    assert {entry["availability"] for entry in outputs} == {"done", "in_progress", "requestable", "not available"}
    assert all(("s3_key" in entry) == (entry["availability"] == "done") for entry in outputs)
    zips = [entry for entry in outputs if entry["output_type"] == "project_zip"]
    assert [entry["result_type"] for entry in zips] == ["project_zip", "mapper_log"]
    assert zips[0]["output_id"] == zips[1]["output_id"]
    pilot.emulator.change(outputs_seconds=0)
    later = pilot.get("outputs/").json()["outputs"]
    assert "in_progress" not in {entry["availability"] for entry in later}
    assert [entry for entry in outputs if "output_id" in entry and entry not in later] == []
    ortho = pilot.get().json()["outputs"]["images"]["ortho"]
    got = pilot.s3().get_object(Bucket=ortho["s3_bucket"], Key=ortho["s3_key"])["Body"].read()
    assert len(got) == pilot.emulator.ledger()["outputs"][ortho["s3_key"]]["size"] == 3_000_000
    assert pilot.emulator.ledger()["projects"][0]["start_bodies"] == [{"quality": 2}]


def test_other_ends_of_processing(fly):
    """Processing can fail with a reason, or show a status nobody has heard of before it is done."""
    pilot = fly(processing_result="error")
    pilot.register(pilot.put())
    pilot.post("start_processing/")
    detail = pilot.get().json()
    assert detail["public_status"] == "ERROR"
    assert detail["error_reason"]
    pilot.emulator.change(processing_result="MOONLIGHT", odd_status_seconds=3600)
    pilot.post("start_processing/")
    assert pilot.get().json()["public_status"] == "MOONLIGHT"
    pilot.emulator.change(odd_status_seconds=0)
    assert pilot.get().json()["public_status"] == "DONE"


def test_second_start(fly):
    """A second start counts in the ledger, or is refused: a setting."""
    pilot = fly(second_start="refuse")
    pilot.register(pilot.put())
    assert [pilot.post("start_processing/").status_code for _ in range(2)] == [200, 400]
    assert pilot.emulator.ledger()["projects"][0]["starts"] == 1
    pilot.emulator.change(second_start="accept")
    assert pilot.post("start_processing/").status_code == 200
    assert pilot.emulator.ledger()["projects"][0]["starts"] == 2


def test_credits(fly):
    """Without credits a project waits until there are some, or its start is 402; what it costs is taken away."""
    pilot = fly(credits=0, credits_refuse=True)
    pilot.register(pilot.put())
    assert pilot.post("start_processing/").status_code == 402
    pilot.emulator.change(credits_refuse=False)
    pilot.post("start_processing/")
    detail = pilot.get().json()
    assert (detail["public_status"], detail["display_detailed_status"]) == ("PROCESSING", "Waiting for credits")
    assert detail["last_datetime_processing_started"] is None
    pilot.emulator.change(credits=1)
    assert pilot.get().json()["public_status"] == "DONE"
    assert pilot.emulator.settings.credits == pytest.approx(0.8)


def test_extras_and_switched_off_endpoints(fly):
    """Extras are registered apart from images; extras and outputs can be missing from the service."""
    pilot = fly(outputs_endpoint=False)
    key = pilot.put("x.tmpl")
    assert pilot.post("extras/", json={"file_key": key}).status_code == 201
    assert pilot.post("extras/", json={"file_key": pilot.key("no.tmpl")}).status_code == 400
    assert pilot.post("extras/", json={}).status_code == 400
    assert pilot.get().json()["image_count"] == 0
    assert pilot.emulator.ledger()["projects"][0]["extras"] == [key]
    assert pilot.get("outputs/").status_code == 404
    pilot.emulator.change(extras="off")
    assert pilot.post("extras/", json={"file_key": key}).status_code == 404


def test_a_person_in_the_page(pilot):
    """Images added and processing started in the service's own page are seen by the API and the ledger."""
    control = f"{pilot.emulator.url}/_emulator/projects/{pilot.project['id']}"
    requests.post(f"{control}/add_image", json={"name": "hand.jpg"}, timeout=10).raise_for_status()
    assert pilot.get().json()["image_count"] == 1
    assert requests.post(f"{control}/start", timeout=10).json()["starts"] == 1
    assert pilot.get().json()["public_status"] == "DONE"
    requests.post(f"{control}/delete", timeout=10).raise_for_status()
    assert pilot.get().status_code == 404
    missing = requests.post(f"{pilot.emulator.url}/_emulator/projects/1/start", timeout=10)
    assert missing.status_code == 404


def test_control(pilot):
    """Settings and faults are checked, the ledger has its fixed shape, expiry and reset work over HTTP."""
    base = f"{pilot.emulator.url}/_emulator"
    for path, value in (
        ("settings", {"no_such": 1}),
        ("settings", {"counter": "odd"}),
        ("settings", {"region": 5}),
        ("settings", {"page_size": 2.5}),
        ("settings", {"small_parts": "yes"}),
        ("settings", []),
        ("faults", [{"op": "put", "do": "explode"}]),
        ("faults", [{"op": "nothing", "do": "html"}]),
        ("faults", [{"op": "put", "do": "delay"}]),
        ("faults", [{"op": "put", "do": "delay", "seconds": "1"}]),
        ("faults", [{"op": "put", "do": "html", "when": 1}]),
        ("faults", {"op": "put", "do": "html"}),
        ("expire", {"what": "milk"}),
    ):
        assert requests.post(f"{base}/{path}", json=value, timeout=10).status_code == 400, value
    assert requests.post(f"{base}/settings", json={"page_size": 7}, timeout=10).json()["page_size"] == 7
    assert requests.get(f"{base}/settings", timeout=10).json()["client_id"] == "demo-client"
    requests.post(f"{base}/faults", json=[{"op": "*", "do": "html"}], timeout=10).raise_for_status()
    assert pilot.get().headers["Content-Type"] == "text/html"
    assert requests.get(f"{base}/faults", timeout=10).json()[0]["hits"] == 1
    assert requests.delete(f"{base}/faults", timeout=10).status_code == 200
    requests.post(f"{base}/expire", json={"what": "token"}, timeout=10).raise_for_status()
    assert pilot.get().status_code == 401
    names = "projects objects uploads outputs tokens credentials received_bytes requests refused connections"
    assert " ".join(requests.get(f"{base}/ledger", timeout=10).json()) == names
    requests.post(f"{base}/reset", timeout=10).raise_for_status()
    fresh = requests.get(f"{base}/ledger", timeout=10).json()
    assert (fresh["projects"], fresh["requests"], fresh["connections"]) == ([], {}, 0)
    assert pilot.emulator.settings.page_size == 20
    assert requests.get(f"{base}/nothing", timeout=10).status_code == 404
