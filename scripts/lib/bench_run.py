"""Runs the rows of scripts/bench, the forms of each taking turns, and prints what came out."""

import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import bench_sides
from bench_machine import ROOT, BenchError, Others, describe, wait_for_quiet
from bench_rows import ROWS, SIDES
from harness import broker as broker_module
from harness import postgres as postgres_module
from harness import haproxy, tls
from harness.broker import QUEUE
from harness.daemon import binary
from harness.process import Child
from harness.wait import wait_until

BUILD = os.path.join(ROOT, "build", "bench", "release")
LOG = os.path.join(ROOT, "build", "bench", "bench.log")
NOISY = 0.25  # of a core, used by others during a measurement
SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt"
VERDICTS = {True: "met    ", False: "NOT MET", None: "-      "}


def note(text):
    print(text, file=sys.stderr, flush=True)


class Api(Child):
    """The imitation of lagmaster-pro."""

    def __init__(self, folder, latency_ms):
        super().__init__("bench_api", [binary("bench_api"), str(latency_ms)], {"PATH": os.environ["PATH"]},
                         os.path.join(folder, "api.log"))
        self.start()
        self.port = int(wait_until(lambda: self.log().strip(), 10, "the API's port", interval=0.01))
        self.url = "http://127.0.0.1:%d/generate_playlist" % self.port


class TlsFront(haproxy.Front):
    """The same API over TLS; `ca` trusts its certificate, and all that the system does, as who calls the real
    one has to read."""

    def __init__(self, folder, api):
        authority = tls.Authority(os.path.join(folder, "tls"))
        super().__init__(folder, authority.issue("DNS:localhost"), api.port, "http/1.1")
        self.ca = os.path.join(folder, "ca.pem")
        self.url += "/generate_playlist"
        with open(self.ca, "wb") as bundle:
            for path in (SYSTEM_CAS, authority.cert):
                with open(path, "rb") as part:
                    bundle.write(part.read())


class Bench:
    """What the rows measure with; all of one measurement ends with it, but for the filled databases."""

    def __init__(self, args, folder, broker):
        self.folder, self.broker = folder, broker
        self.seconds, self.warm_s, self.quiet_s = args.seconds, 1, args.quiet_wait
        self.cycles, self.singles = (2, 30) if args.quick else (10, 200)
        self.bytes_per_booking, self.others, self._databases, self._postgres = {}, None, {}, None
        self._count, self._open = 0, []

    def _folder(self):
        self._count += 1
        path = os.path.join(self.folder, "run-%d" % self._count)
        os.makedirs(path)
        return path

    def _make(self, form, **more):
        if form == "peer x16":
            more["HTTP_CLIENT"] = "request"
        if form == "ours, PostgreSQL":
            more["postgres"] = self._server()
        return SIDES[form](self.broker, self._folder(), **more)

    def _server(self):
        """The PostgreSQL of this run, on its disk."""
        if not self._postgres:
            note("==> PostgreSQL")
            os.chmod(self.folder, 0o711)  # its user, where we are root, is to get to its own folder
            tempfile.tempdir = self.folder
            self._postgres = postgres_module.Postgres(fsync=True).start()
        return self._postgres

    def close(self):
        if self._postgres:
            self._postgres.close()

    def side(self, form, **more):
        """One side with an empty database and no queue, not started yet."""
        side = self._make(form, **more)
        side.forget_queue()
        self._open.append(side)
        return side

    def filled(self, form, count):
        """One side with a database of so many bookings, made once and kept until the end."""
        if (form, count) not in self._databases:
            note("    filling %s with %d bookings" % (form, count))
            self._databases[form, count] = self._make(form)
            self._databases[form, count].fill(count)
        side = self._databases[form, count]
        side.forget_queue()
        self._open.append(side)
        return side

    def api(self, latency_ms):
        api = Api(self._folder(), latency_ms)
        self._open.append(api)
        return api

    def tls_front(self, api):
        front = TlsFront(self._folder(), api)
        self._open.append(front)
        return front

    def floor(self, api, count):
        """bench_floor's account; the messages are published first."""
        vhost = self.broker.bench_vhost
        if vhost.queue():
            vhost.delete_queue()
        vhost.declare()
        connection = vhost.connect()
        channel = connection.channel()
        channel.confirm_delivery()
        for number in range(1, count + 1):
            body = {"soireeId": "%036d" % number, "clientId": "client123", "style": "disco",
                    "timestamp": "2025-12-02T10:30:00.000Z"}
            channel.basic_publish("", QUEUE, json.dumps(body), bench_sides.persistent(body["soireeId"]))
        connection.close()
        self.quiet()
        result = subprocess.run([binary("bench_floor"), self._folder(), str(self.broker.port), vhost.name,
                                 str(api.port), str(count)], capture_output=True, text=True, timeout=300)
        if result.returncode != 0:
            raise BenchError(result.stderr)
        return json.loads(result.stdout)

    def quiet(self):
        """Waits for a quiet machine, and watches the others from here on."""
        share = wait_for_quiet(self.quiet_s)
        self.others = Others()
        return share

    def measure(self, row, form):
        try:
            figures = row.measure(self, form)
            figures["others"] = 100 * self.others.share() if self.others else 0
            return figures
        finally:
            for thing in reversed(self._open):
                thing.kill()
            self._open.clear()
            self.others = None
            self._sweep()

    def _sweep(self):
        kept = {side.folder for side in self._databases.values()}
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            if name.startswith("run-") and path not in kept:
                shutil.rmtree(path, ignore_errors=True)


# ---- the rounds

def run_row(bench, row, forms, rounds):
    """{form: [figures, one a round]}."""
    samples = {form: [] for form in forms}
    for number in range(rounds):
        for form in forms:
            figures = bench.measure(row, form)
            samples[form].append(figures)
            name, (what, decimals) = next(iter(row.figures.items()))
            noisy = ""
            if figures["others"] >= 100 * NOISY:
                noisy = "   (others used %d %% of a core)" % figures["others"]
            note("    %-12s %d/%d  %-16s %12.*f %s%s"
                 % (row.name, number + 1, rounds, form, decimals, figures[name], what, noisy))
    return samples


def medians_of(samples):
    def median(form, figure):
        return statistics.median(one[figure] for one in samples[form])
    return median


def judge(row, samples):
    """[(check, value or None, met or None)]."""
    verdicts = []
    for check in row.checks:
        try:
            value = check.value(medians_of(samples))
            met = value >= check.least if check.least is not None else value <= check.most
        except (LookupError, ZeroDivisionError):
            value = met = None
        verdicts.append((check, value, met))
    return verdicts


# ---- what came out

def number(value, decimals):
    return format(value, ",.%df" % decimals)


def show_row(row, samples, verdicts):
    """The text of one row: a line a figure, a column a form; then the targets."""
    lines = ["", "%s: %s" % (row.name, row.title)]
    width = 34
    lines.append("  %-*s" % (width, "") + "".join("%36s" % form for form in samples))
    for figure, (what, decimals) in row.figures.items():
        cells = []
        for runs in samples.values():
            values = [run[figure] for run in runs]
            cells.append("%s [%s–%s]" % tuple(number(v, decimals) for v in
                                              (statistics.median(values), min(values), max(values))))
        lines.append("  %-*s" % (width, what) + "".join("%36s" % cell for cell in cells))
    others = max(run["others"] for runs in samples.values() for run in runs)
    if others >= 100 * NOISY:
        lines.append("  noisy: others used up to %d %% of a core meanwhile" % others)
    for check, value, met in verdicts:
        sign, target = ("≥", check.least) if check.least is not None else ("≤", check.most)
        shown = "not measured" if value is None else "%.3g%s" % (value, check.unit)
        lines.append("  %s %-*s %14s   target %s %.3g%s"
                     % (VERDICTS[met], width - 2, check.what, shown, sign, target, check.unit))
    return "\n".join(lines)


def as_json(results, about):
    rows = {}
    for row, samples, verdicts in results:
        rows[row.name] = {
            "title": row.title, "samples": samples,
            "medians": {form: {figure: medians_of(samples)(form, figure) for figure in runs[0]}
                        for form, runs in samples.items()},
            "targets": [{"what": check.what, "value": value, "least": check.least, "most": check.most,
                         "met": met}
                        for check, value, met in verdicts]}
    return {**about, "rows": rows}


# ---- preparations

def build(bin_dir):
    """The folder with the programs."""
    if bin_dir:
        return os.path.abspath(bin_dir)
    os.makedirs(BUILD, exist_ok=True)
    note("==> building (Release)")
    with open(LOG, "ab") as log:
        for command in (["cmake", "-G", "Ninja", "-S", ROOT, "-B", BUILD, "-DCMAKE_BUILD_TYPE=Release"],
                        ["cmake", "--build", BUILD, "--target", "bench_tools"]):
            if subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL).returncode != 0:
                raise BenchError("the build failed, see %s" % LOG)
    return os.path.join(BUILD, "bin")


def prepare_peer(args):
    """Why the opponent does not take part, None when it does."""
    if args.no_peer:
        return "left out (--no-peer)"
    reason = bench_sides.peer_missing()
    if reason:
        return reason
    note("==> the opponent's packages")
    try:
        bench_sides.install_peer(LOG)
    except BenchError as error:
        return str(error)
    return None


def run_rows(args, bench, without_peer):
    results = []
    for row in ROWS:
        if args.rows and row.name not in args.rows:
            continue
        forms = [form for form in row.forms if not (without_peer and form.startswith("peer"))]
        note("==> %s: %s" % (row.name, row.title))
        samples = run_row(bench, row, forms, args.rounds)
        results.append((row, samples, judge(row, samples)))
    return results


def run(args):
    """Exit status: 0 all targets met, 1 not all."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    os.makedirs(os.path.dirname(LOG), exist_ok=True)
    os.environ["SOIREES_BIN_DIR"] = build(args.bin_dir)
    problem = (broker_module.missing() or postgres_module.missing() or
               (None if shutil.which("wrk") else "wrk is not installed"))
    if problem:
        raise BenchError(problem)
    without_peer = prepare_peer(args)
    about = {"machine": describe(), "rounds": args.rounds, "seconds": args.seconds, "quick": args.quick,
             "without_opponent": without_peer, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    folder = tempfile.mkdtemp(prefix="run-", dir=args.folder or os.path.dirname(LOG))
    broker = broker_module.Broker(os.path.join(folder, "broker"))
    bench = Bench(args, folder, broker)
    try:
        note("==> RabbitMQ")
        broker.start()
        broker.bench_vhost = broker.vhost("bench")
        results = run_rows(args, bench, without_peer)
    finally:
        bench.close()
        broker.close()
        shutil.rmtree(folder, ignore_errors=True)
    text = "%s\n%s; medians of %d rounds [least–most]" % (about["machine"], about["at"], args.rounds)
    if without_peer:
        text += "\nwithout the opponent: " + without_peer
    print("\n".join([text] + [show_row(*result) for result in results]), flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(as_json(results, about), file, indent=1)
    return 0 if all(met for _row, _samples, verdicts in results for _check, _value, met in verdicts) else 1
