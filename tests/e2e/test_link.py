"""The playlist's way into its soirée: where the PATCH goes, which answers end it, which are tried again."""

import pika
import pytest
from harness.booking import made_for, message, request_properties, waiting
from harness.broker import DEAD_QUEUE
from harness.http import ok_json
from harness.imitations import FakeSoirees
from harness.wait import Timeout, free_port, holds_for, wait_until


def test_the_link_goes_to_the_address_from_consul(make_stack, consul):
    stack = make_stack(consul=consul, playlists={"SOIREES_URL": "http://127.0.0.1:%d" % free_port()}).start()
    consul.register("service-soirees", "by-hand", stack.soirees.port)
    stack.linked(stack.book()["id"])


@pytest.mark.threads
def test_a_dead_address_from_consul_is_passed_over(make_stack, consul):
    stack = make_stack(consul=consul, playlists={"SOIREES_URL": "http://127.0.0.1:%d" % free_port()}).start()
    for name, port in (("dead", free_port()), ("alive", stack.soirees.port)):
        consul.register("service-soirees", name, port)
    for _ in range(6):
        stack.linked(stack.book()["id"])


@pytest.mark.slow
def test_soirees_is_found_by_its_own_registration(make_stack, consul):
    stack = make_stack(consul=consul, playlists={"SOIREES_URL": "http://127.0.0.1:%d" % free_port()}).start()
    stack.linked(stack.book()["id"], timeout=60)
    assert [i["Service"]["Port"] for i in consul.passing("service-soirees")] == [stack.soirees.port]


@pytest.mark.slow
def test_soirees_url_is_used_when_consul_has_had_nobody_for_30_s(make_stack, consul):
    stack = make_stack(consul=consul, soirees={"CONSUL_HOST": ""}).start()
    made = stack.book()
    with pytest.raises(Timeout):
        stack.linked(made["id"], timeout=15)
    stack.linked(made["id"], timeout=90)


def test_soirees_url_is_used_without_consul(stack):
    stack.linked(stack.book()["id"])


def test_the_link_names_its_request_and_carries_the_token(vhost, worker):
    with FakeSoirees(200) as fake:
        worker(fake.url, SOIREES_TOKEN="jeton-secret")
        vhost.publish(message("s-1"), request_properties("0190b0a0-0000-7000-8000-000000000001"))
        wait_until(fake.links, 60, "the PATCH")
        patch = fake.links()[0]
        assert (patch.method, patch.path) == ("PATCH", "/api/soirees/s-1")
        assert patch.headers["Playlist-Request"] == "0190b0a0-0000-7000-8000-000000000001"
        assert patch.headers["Authorization"] == "Bearer jeton-secret"
        assert patch.headers["Content-Type"].split(";")[0].split("/")[0] == "application"
        assert list(patch.json()) == ["playlistId"]
        wait_until(lambda: vhost.depth()[0] == 0 and vhost.drained(), what="acked")
        assert len(fake.links()) == 1


@pytest.mark.parametrize("properties", [None, pika.BasicProperties(message_id="m-1"),
                                        pika.BasicProperties(message_id="m-1", type="autre.chose")],
                         ids=["bare", "id-only", "other-type"])
def test_messages_of_other_producers_name_no_request(vhost, worker, properties):
    with FakeSoirees(200) as fake:
        worker(fake.url)
        vhost.publish(message("s-1"), properties)
        wait_until(fake.links, 60, "the PATCH")
        assert fake.links()[0].headers["Playlist-Request"] is None


def test_the_id_is_percent_encoded_in_the_link(vhost, worker):
    with FakeSoirees(200) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("é/../x?y#z %"))
        wait_until(fake.links, 60, "the PATCH")
        assert fake.links()[0].path == "/api/soirees/%C3%A9%2F..%2Fx%3Fy%23z%20%25"
        assert made_for(playlists, "é/../x?y#z %")["soireeId"] == "é/../x?y#z %"


@pytest.mark.parametrize("soiree_id", [".", ".."])
def test_an_id_of_dots_is_no_other_path(vhost, worker, soiree_id):
    """Else "." is the path of the list, whose 405 has the link tried for ever."""
    with FakeSoirees(200) as fake:
        worker(fake.url)
        vhost.publish(message(soiree_id))
        wait_until(fake.links, 60, "the PATCH")
        assert fake.links()[0].path == "/api/soirees/" + soiree_id


def test_a_media_type_is_known_in_any_case(vhost, worker):
    with FakeSoirees((404, {"error": "?"}, "Application/JSON")) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1"))
        made_for(playlists, "s-1")
        wait_until(lambda: playlists.log_has("elle n'existe plus"), 60, "the end of the link")
        assert [link.method for link in fake.links()] == ["PATCH"]


@pytest.mark.parametrize("answer", [200, 204, 409, 404], ids=str)
def test_these_answers_end_the_link(vhost, worker, answer):
    with FakeSoirees(answer) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1"), request_properties("m-1"))
        made_for(playlists, "s-1")
        wait_until(fake.links, 60, "the PATCH")
        holds_for(lambda: len(fake.links()) == 1, 4, "one PATCH alone")
        playlists.stop()
        assert vhost.depth() == (0, 0)


@pytest.mark.parametrize("answer", [405, (404, b"<html>nothing here</html>", "text/html")],
                         ids=["405", "404-html"])
def test_a_service_without_patch_gets_one_put(vhost, worker, answer):
    """The Node.js version links by PUT."""
    with FakeSoirees(answer, 200) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1"), request_properties("m-1"))
        made = made_for(playlists, "s-1")
        wait_until(lambda: len(fake.links()) == 2, 60, "PATCH, then PUT")
        put = fake.links()[1]
        assert (put.method, put.path, put.json()) == ("PUT", "/api/soirees/s-1", {"playlistId": made["id"]})
        holds_for(lambda: len(fake.links()) == 2, 4, "one PUT alone")


@pytest.mark.parametrize("answer", [500, 503, 429, 401, 403, 422, 400, (302, b"", "text/html")], ids=str)
def test_other_answers_are_tried_again(vhost, worker, answer):
    with FakeSoirees(answer, answer, 200) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1"), request_properties("m-1"))
        made = made_for(playlists, "s-1")
        wait_until(lambda: len(fake.links()) == 3, 90, "the third try")
        assert {p.json()["playlistId"] for p in fake.links()} == {made["id"]}
        holds_for(lambda: len(fake.links()) == 3, 2, "no fourth")


@pytest.mark.threads
@pytest.mark.slow
def test_a_link_waits_for_soirees_and_the_message_does_not(stack):
    stack.lagmaster.control(mode="hang")
    made = stack.book()
    waiting(stack.lagmaster)
    stack.soirees.stop()
    stack.lagmaster.release()
    playlist = made_for(stack.playlists, made["id"])
    stack.drained()
    stack.playlists.stop()
    assert stack.vhost.depth() == (0, 0)
    stack.playlists.start()  # the pending link is stored
    stack.soirees.start()
    found, linked = stack.linked(made["id"], timeout=90)
    assert linked == playlist
    assert len(stack.lagmaster.calls()) == 1


def test_a_link_to_nowhere_holds_up_nobody(vhost, worker):
    """prefetch 1 and no soirees service: the next message is handled all the same."""
    playlists = worker()
    for number in range(3):
        vhost.publish(message("s-%d" % number), request_properties("m-%d" % number))
    for number in range(3):
        made_for(playlists, "s-%d" % number, timeout=90)


def test_a_style_changed_during_the_call_ends_with_the_last_style(make_stack):
    """The older request's playlist arrives later than the newer one's, and does not replace it."""
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 3}).start()
    stack.lagmaster.control(by_style={"disco": {"mode": "hang"}, "rock": {"mode": "hang"}})
    made = stack.book(styleMusical="disco")
    waiting(stack.lagmaster)
    for number, style in ((2, "rock"), (2, "funk")):
        ok_json(stack.soirees.patch("/api/soirees/" + made["id"], {"styleMusical": style}))
        waiting(stack.lagmaster, number)
    wait_until(lambda: stack.soiree(made["id"])["playlistId"], 60, "linked")
    found = stack.soiree(made["id"])
    stack.lagmaster.release()
    wait_until(lambda: len(stack.playlists_of(made["id"])) == 3, 60, "all three are made")
    stack.playlists.stop()  # every message is acked, every link ended
    assert stack.vhost.depth() == (0, 0)
    stack.playlists.start()
    assert stack.soiree(made["id"]) == found
    linked = ok_json(stack.playlists.get("/api/playlists/" + found["playlistId"]))
    assert (found["styleMusical"], linked["stylesMusicaux"]) == ("funk", ["funk"])


def test_a_soiree_deleted_during_the_call_holds_up_nobody(stack):
    stack.lagmaster.control(mode="hang")
    gone = stack.book()
    waiting(stack.lagmaster)
    assert stack.soirees.delete("/api/soirees/" + gone["id"]).status_code == 204
    kept = stack.book()
    stack.lagmaster.control()
    stack.lagmaster.release()
    stack.linked(kept["id"])
    stack.playlists.stop()
    assert stack.vhost.depth() == (0, 0) and stack.vhost.depth(DEAD_QUEUE) == (0, 0)
