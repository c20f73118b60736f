"""The clients of scripts/chaos: they book, change their minds, delete, and remember the answers."""

import collections
import random
import threading
import time

import requests

# What a client does next, and how often.
ACTIONS = {"book": 70, "restyle": 13, "choose": 6, "ask again": 5, "delete": 6}
PAUSE_S = 0.2  # before an unanswered request is repeated
PATIENCE_S = 90  # for one request, and once more after the end of the faults


class Booking:
    """What one client knows of its soirée: what it was answered last holds."""

    def __init__(self, number):
        self.number, self.id, self.styles = number, None, 0
        self.style, self.chosen, self.deleted = None, None, False
        self.next_style()

    @property
    def client(self):
        return "client-%d" % self.number

    def next_style(self):
        """Each request for a playlist has a style of its own: the API's calls can be told apart."""
        self.style = "style %d.%d" % (self.number, self.styles)
        self.styles += 1

    def next_choice(self):
        self.chosen = "mine-%d-%d" % (self.number, self.styles)
        self.styles += 1


class Load:
    """Threads that send so many requests a second to soirees, each until it is answered."""

    def __init__(self, url, seed, rate, threads=6):
        self.url, self.rate = url, rate
        self.counts = collections.Counter()
        self.asked = collections.Counter()  # style -> requests that may have been made for it
        self.chosen = set()  # every playlistId that a client may have set
        self.bookings, self.wrong = [], []
        self._idle = []  # bookings that nobody is changing
        self._lock, self._stop, self._begun = threading.Lock(), threading.Event(), 0
        self._give_up_at = float("inf")
        self._threads = [threading.Thread(target=self._run, args=(random.Random("%s/client/%d" % (seed, n)),))
                         for n in range(threads)]

    def start(self):
        self._started_at = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self):
        """No new requests; those without an answer are repeated until they have one."""
        self._give_up_at = time.monotonic() + PATIENCE_S
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def abort(self):
        self._give_up_at = 0
        self._stop.set()

    def _run(self, rng):
        with requests.Session() as session:
            session.trust_env = False
            while self._wait_for_turn():
                try:
                    self._act(session, rng)
                except Unanswered as error:
                    self.note(str(error))
                except Exception as error:
                    self.note("client: %r" % error)

    def _wait_for_turn(self):
        with self._lock:
            self._begun += 1
            at = self._started_at + self._begun / self.rate
        return not self._stop.wait(max(0, at - time.monotonic()))

    def note(self, text):
        with self._lock:
            self.wrong.append(text)

    # ---- one action

    def _act(self, session, rng):
        action = rng.choices(list(ACTIONS), ACTIONS.values())[0]
        if action == "book":
            booking = self._book(session, rng)
        else:
            booking = self._take(rng)
            if booking is None:
                return
            {"restyle": self._restyle, "choose": self._choose, "ask again": self._ask_again,
             "delete": self._delete}[action](session, booking)
        with self._lock:
            self.counts[action] += 1
            if not booking.deleted:
                self._idle.append(booking)

    def _take(self, rng):
        with self._lock:
            if not self._idle:
                return None
            # rather a young one, whose playlist is in the making
            index = max(0, len(self._idle) - 1 - int(rng.expovariate(1 / 30)))
            return self._idle.pop(index)

    def _send(self, session, method, path, expected, style=None, **options):
        """Repeats until there is an answer that does not say "later"; returns it. With a style, each try may
        make a request for a playlist."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with self._lock:
                self.asked[style] += style is not None
            try:
                reply = session.request(method, self.url + "/api/soirees" + path, timeout=10, **options)
                if reply.status_code in expected:
                    return reply
                if reply.status_code != 503:
                    raise Unanswered("%s %s: %d %s" % (method, path, reply.status_code, reply.text))
                what = "refused for a while"
            except requests.RequestException:
                what = "repeated"
            with self._lock:
                self.counts[what] += 1
            now = time.monotonic()
            if now > self._give_up_at or (now > deadline and self._give_up_at == float("inf")):
                raise Unanswered("%s %s: no answer for %d s" % (method, path, PATIENCE_S))
            time.sleep(PAUSE_S)

    def _book(self, session, rng):
        with self._lock:
            booking = Booking(len(self.bookings) + 1)
            self.bookings.append(booking)
        body = {"clientId": booking.client, "date": "2025-12-25", "lieu": "Lieu %d" % booking.number,
                "nombreInvites": 50, "budget": 1000, "styleMusical": booking.style}
        if rng.random() < 0.04:
            booking.next_choice()
            with self._lock:
                self.chosen.add(booking.chosen)
            body["playlistId"] = booking.chosen
        else:
            self._asks(booking.style)
        options = {"json": body, "headers": {"Idempotency-Key": booking.client}}
        booking.id = self._send(session, "POST", "", (201,), **options).json()["id"]
        if rng.random() < 0.05:
            again = self._send(session, "POST", "", (201,), **options).json()["id"]
            if again != booking.id:
                self.note("one Idempotency-Key made %s and %s" % (booking.id, again))
        return booking

    def _asks(self, style):
        with self._lock:
            self.asked[style] += 1

    def _change(self, session, booking, change, style=None):
        reply = self._send(session, "PATCH", "/" + booking.id, (200, 404), style, json=change)
        if reply.status_code == 404:
            self.note("%s is not there, and nobody deleted it" % booking.id)

    def _restyle(self, session, booking):
        booking.next_style()
        booking.chosen = None
        self._asks(booking.style)
        self._change(session, booking, {"styleMusical": booking.style})

    def _choose(self, session, booking):
        booking.next_choice()
        with self._lock:
            self.chosen.add(booking.chosen)
        self._change(session, booking, {"playlistId": booking.chosen})

    def _ask_again(self, session, booking):
        """Each try may find another playlist to take away."""
        booking.chosen = None
        self._change(session, booking, {"playlistId": None}, booking.style)

    def _delete(self, session, booking):
        booking.deleted = True
        self._send(session, "DELETE", "/" + booking.id, (204, 404))

    # ---- afterwards

    def check(self, soirees):
        """Compares what was answered with all soirées that there are now (an iterable); adds to `wrong`."""
        by_client = collections.defaultdict(list)
        for soiree in soirees:
            by_client[soiree["clientId"]].append(soiree)
        for booking in self.bookings:
            found = by_client.pop(booking.client, [])
            if len(found) > 1:
                self.note("%s was booked %d times" % (booking.client, len(found)))
            elif booking.id is None:
                self.note("%s never got an answer" % booking.client)
            elif booking.deleted and found:
                self.note("%s is there again, after its deletion" % booking.id)
            elif not booking.deleted:
                self._compare(booking, found[0] if found else None)
        for client in by_client:
            self.note("%s: nobody booked that" % client)

    def _compare(self, booking, soiree):
        if soiree is None or soiree["id"] != booking.id:
            self.note("%s was answered with 201 and is not there" % booking.id)
        elif soiree["styleMusical"] != booking.style:
            self.note("%s: the style is %r, and was answered as %r"
                      % (booking.id, soiree["styleMusical"], booking.style))
        elif booking.chosen and soiree["playlistId"] != booking.chosen:
            self.note("%s: the client's playlist %s gave way to %s"
                      % (booking.id, booking.chosen, soiree["playlistId"]))
        elif not booking.chosen and soiree["playlistId"] in self.chosen:
            self.note("%s: a choice came back that was taken away: %s" % (booking.id, soiree["playlistId"]))


class Unanswered(Exception):
    """An answer that no client should get, or none at all."""
