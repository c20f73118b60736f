"""scripts/import-json: the Node.js version's files, with ids kept, twice without doubles, bad rows named."""

import json
import os
import subprocess

import pytest
from harness.consul import ROOT
from harness.http import ok_json
from harness.wait import holds_for, wait_until
from promise import everything

SCRIPT = os.path.join(ROOT, "scripts", "import-json")
SOIREES = [
    {"id": "1764671400000", "clientId": "client123", "date": "2025-12-25", "lieu": "Paris", "nombreInvites": 50,
     "budget": 1000, "styleMusical": "disco", "statut": "confirmée", "playlistId": "1764671405000",
     "createdAt": "2025-12-02T10:30:00.000Z", "updatedAt": "2025-12-02T10:30:05.120Z"},
    {"id": "1764671500000", "clientId": 7, "date": "2025-12-31T00:00:00.000Z", "lieu": "Évry 🕺", "nombreInvites": "20",
     "playlistId": None, "createdAt": "2025-12-02T10:31:40.000Z"},
]
PLAYLISTS = [
    {"id": "1764671405000", "nom": "Metaverse Collapse Disco", "stylesMusicaux": ["disco"],
     "description": "Playlist générée automatiquement pour la soirée 1764671400000", "tracks": ["a", "é\"\\"],
     "createdAt": "2025-12-02T10:30:05.000Z"},
    {"id": "1764671000000", "nom": "À la main", "stylesMusicaux": [], "description": "", "tracks": []},
]
BAD = [5, {"id": "x"}, {**SOIREES[0], "id": "bad-1", "date": "2025-02-29"}, {**SOIREES[0], "id": "bad-2", "nombreInvites": 0},
       {**SOIREES[0], "id": "bad-3", "nombreInvites": 50.5}, {**SOIREES[0], "id": "bad-4", "lieu": "x" * 201},
       {**SOIREES[0], "id": "bad-5", "clientId": ["x"]}, {**SOIREES[0], "id": "y" * 65},
       {**SOIREES[0], "id": "bad-6", "date": "2025-W52-1"}, {**SOIREES[0], "id": "bad-7", "date": 20251225},
       {**SOIREES[0], "id": "bad-8", "nombreInvites": True}, {**SOIREES[0], "id": "bad-9", "budget": 10 ** 400}]


def run(tmp_path, stack, soirees, playlists, status=0):
    files = []
    for name, rows in (("soirees", soirees), ("playlists", playlists)):
        files.append(str(tmp_path / (name + ".json")))
        with open(files[-1], "w") as file:
            file.write(rows if isinstance(rows, str) else json.dumps(rows))
    result = subprocess.run([SCRIPT, *files, "--soirees-db", stack.soirees.database, "--playlists-db",
                             stack.playlists.database], capture_output=True, text=True, timeout=120)
    assert result.returncode == status and "Traceback" not in result.stderr, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_everything_is_there_with_its_id(make_stack, tmp_path):
    stack = make_stack()
    assert "2 imported, 0 there already, 0 skipped" in run(tmp_path, stack, SOIREES, PLAYLISTS)
    stack.start()
    first, second = (stack.soiree(row["id"]) for row in SOIREES)
    assert first == SOIREES[0]
    assert second == {"id": "1764671500000", "clientId": "7", "date": "2025-12-31", "lieu": "Évry 🕺", "nombreInvites": 20,
                      "budget": 0, "styleMusical": "disco", "statut": "confirmée", "playlistId": None,
                      "createdAt": "2025-12-02T10:31:40.000Z"}
    assert [s["id"] for s in everything(stack.soirees)] == ["1764671500000", "1764671400000"]
    made = ok_json(stack.playlists.get("/api/playlists/1764671405000"))
    assert (made["soireeId"], made["origine"], made["tracks"]) == ("1764671400000", "lagmaster-pro", ["a", "é\"\\"])
    assert ok_json(stack.playlists.get("/api/playlists/1764671000000"))["origine"] == "manuelle"


def test_messages_that_were_queued_find_their_soirees_and_make_no_second_playlist(make_stack, tmp_path):
    stack = make_stack()
    run(tmp_path, stack, SOIREES, PLAYLISTS)
    stack.vhost.declare()
    for row in SOIREES:
        stack.vhost.publish({"soireeId": row["id"], "clientId": "c", "style": "disco",
                             "timestamp": "2025-12-02T10:30:00.000Z"})
    stack.start()
    wait_until(lambda: stack.soiree("1764671500000")["playlistId"], 60, "its playlist")
    stack.drained()
    assert stack.soiree("1764671400000")["playlistId"] == "1764671405000"
    assert len(everything(stack.playlists)) == 3 and stack.lagmaster.count == 1


def test_twice_makes_no_doubles_and_changes_nothing(make_stack, tmp_path):
    stack = make_stack()
    run(tmp_path, stack, SOIREES, PLAYLISTS)
    stack.start()
    ok_json(stack.soirees.patch("/api/soirees/1764671400000", {"lieu": "Lyon"}))
    stack.soirees.stop()
    stack.playlists.stop()
    assert "0 imported, 2 there already, 0 skipped" in run(tmp_path, stack, SOIREES, PLAYLISTS)
    stack.start()
    assert stack.soiree("1764671400000")["lieu"] == "Lyon"
    assert len(everything(stack.soirees)) == len(everything(stack.playlists)) == 2
    holds_for(lambda: stack.vhost.depth()[0] == 0, 1, "nobody asks for anything")


def test_bad_rows_are_named_and_skipped(make_stack, tmp_path):
    stack = make_stack()
    said = run(tmp_path, stack, SOIREES + BAD, PLAYLISTS + [{"id": "z"}], status=1)
    assert said.count("skipped: ") == len(BAD) + 1
    assert "row 5 (id 'bad-1') skipped: date" in said and "row 3 skipped: not an object" in said
    stack.start()
    assert len(everything(stack.soirees)) == len(everything(stack.playlists)) == 2


def test_two_rows_with_one_id_are_named(make_stack, tmp_path):
    """The old version's ids are milliseconds: two bookings of one are two bookings still."""
    stack = make_stack()
    rows = SOIREES + [{**SOIREES[1], "lieu": "Nice"}]
    for first in ("2 imported, 0 there already, 1 skipped", "0 imported, 2 there already, 1 skipped"):
        said = run(tmp_path, stack, rows, PLAYLISTS, status=1)
        assert first in said and "row 3 (id '1764671500000') skipped: row 2 has this id already" in said
    stack.start()
    assert stack.soiree(SOIREES[1]["id"])["lieu"] == SOIREES[1]["lieu"]


@pytest.mark.parametrize("soirees", ["", "{", "{}", '"x"', "[" * 100000])
def test_a_file_that_is_no_list_imports_nothing(make_stack, tmp_path, soirees):
    stack = make_stack()
    assert "soirees.json" in run(tmp_path, stack, soirees, PLAYLISTS, status=2)
    assert not os.path.exists(stack.playlists.database)


def test_a_service_that_runs_is_left_alone(stack, tmp_path):
    assert "stop it first" in run(tmp_path, stack, SOIREES, PLAYLISTS, status=2)
    assert everything(stack.soirees) == []
