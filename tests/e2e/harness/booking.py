"""The specification's example booking, and the whole stack that turns one into a playlist."""

import pika

from .broker import QUEUE
from .wait import wait_until

BOOKING = {"clientId": "client123", "date": "2025-12-25", "lieu": "Paris", "nombreInvites": 50,
           "budget": 1000, "styleMusical": "disco"}


def booking(**changes):
    """The example with other values; None leaves a field out."""
    return {name: value for name, value in {**BOOKING, **changes}.items() if value is not None}


def book(soirees, **changes):
    """POST a booking; returns the created soirée."""
    reply = soirees.post("/api/soirees", booking(**changes))
    assert reply.status_code == 201, "%d %s" % (reply.status_code, reply.text)
    return reply.json()


def soiree(soirees, soiree_id):
    reply = soirees.get("/api/soirees/" + soiree_id)
    assert reply.status_code == 200, "%d %s" % (reply.status_code, reply.text)
    return reply.json()


def message(soiree_id, style="disco", **changes):
    """The body of a message, as the Node.js version and ours write it."""
    return {"soireeId": soiree_id, "clientId": "client123", "style": style,
            "timestamp": "2025-12-02T10:30:00.000Z", **changes}


def request_properties(message_id):
    """The properties that the soirees service sets."""
    return pika.BasicProperties(content_type="application/json", delivery_mode=2, message_id=message_id,
                                type="soiree.reservee", app_id="service-soirees")


def playlists_of(playlists, soiree_id):
    """All playlists made for one soirée."""
    reply = playlists.get("/api/playlists", params={"soireeId": soiree_id, "limit": 1000})
    assert reply.status_code == 200, "%d %s" % (reply.status_code, reply.text)
    return reply.json()


def made_for(playlists, soiree_id, timeout=60):
    """Wait for the playlist of one soirée, and check that it is the only one."""
    found = wait_until(lambda: playlists_of(playlists, soiree_id), timeout, "a playlist for " + soiree_id)
    assert len(found) == 1
    return found[0]


def waiting(lagmaster, number=1):
    """Wait until that many calls of the API are in progress."""
    wait_until(lambda: lagmaster.waiting == number, 60, "%d call(s) of the API in progress" % number)


class Stack:
    """A virtual host, an imitation of the API, and both daemons, not started yet."""

    def __init__(self, daemons, vhost, lagmaster, consul=None, soirees=None, playlists=None):
        self.vhost, self.lagmaster, self.consul = vhost, lagmaster, consul
        shared = {**vhost.settings(), **(consul.settings() if consul else {})}
        self.soirees = daemons.new("soirees", {**shared, **(soirees or {})})
        self.playlists = daemons.new("playlists", {
            **shared, "LAGMASTER_URL": lagmaster.url, "LAGMASTER_RETRY_DELAY_MS": 50,
            "SOIREES_URL": self.soirees.url, **(playlists or {})})

    def start(self):
        self.soirees.launch()
        self.playlists.start()
        wait_until(self.soirees.answers, 60, "soirees answers")
        self.consuming()
        return self

    def consuming(self, workers=None):
        """Wait until the worker (or that many) listens to the queue."""
        def listening():
            found = self.vhost.depth()[1]
            return found == workers if workers else found > 0
        wait_until(listening, 60, "a consumer on " + QUEUE)

    def book(self, **changes):
        return book(self.soirees, **changes)

    def soiree(self, soiree_id):
        return soiree(self.soirees, soiree_id)

    def playlists_of(self, soiree_id):
        return playlists_of(self.playlists, soiree_id)

    def linked(self, soiree_id, timeout=60):
        """Wait until the soirée has its playlist, and check that it is the only one; (soirée, playlist)."""
        def has_playlist():
            found = self.soiree(soiree_id)
            return found["playlistId"] and found
        found = wait_until(has_playlist, timeout, "soirée %s has its playlist" % soiree_id)
        made = self.playlists_of(soiree_id)
        assert [p["id"] for p in made] == [found["playlistId"]]
        return found, made[0]

    def drained(self, timeout=60):
        """Wait until the queue is empty and nothing in it is unacknowledged."""
        wait_until(self.vhost.drained, timeout, "the queue is drained", interval=0.2)
