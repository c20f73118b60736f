"""The two daemons as child processes, and an HTTP client for each."""

import os
import re
import shlex
import signal
import subprocess

import requests

from . import description, postgres
from .consul import ROOT
from .process import Child
from .wait import free_port, unwatch, wait_until, watch

START_TIMEOUT_S = 60
GRACE_S = 30  # for a clean stop with the default SHUTDOWN_GRACE_MS: 10 s + 2 s, and the sanitizers' slowness

REPORTS = re.compile(r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error: |"
                     r"SUMMARY: \w+Sanitizer|ThreadSanitizer:DEADLYSIGNAL|^==\d+== ", re.MULTILINE)


def binary(program):
    return os.path.join(os.environ.get("SOIREES_BIN_DIR") or os.path.join(ROOT, "build", "bin"), program)


def command(program, *arguments):
    """The command line, behind the DAEMON_WRAPPER of the environment ("valgrind -q --error-exitcode=99")."""
    return shlex.split(os.environ.get("DAEMON_WRAPPER", "")) + [binary(program), *arguments]


def environment(settings):
    """An environment that holds the settings and what the sanitizers need, and nothing of the machine's."""
    here = os.path.dirname(os.path.abspath(__file__))
    env = {
        "PATH": os.environ["PATH"],
        "ASAN_OPTIONS": "exitcode=98:detect_leaks=1:detect_stack_use_after_return=1",
        # without it /proc/PID is the superuser's
        "CORE_DUMPS": "no" if os.geteuid() == 0 else "yes",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "exitcode=97:second_deadlock_stack=1:suppressions=" + os.path.join(here, "tsan.supp"),
    }
    env.update({name: str(value) for name, value in settings.items() if value is not None})
    return env


def run(program, *arguments, timeout=60, cwd=None, **settings):
    """Run a program to its end (--help, refused starts); the result has stdout, stderr and returncode."""
    result = subprocess.run(command(program, *arguments), env=environment(settings), stdin=subprocess.DEVNULL,
                            cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert not REPORTS.search(result.stdout + result.stderr), result.stdout + result.stderr
    return result


class Daemon:
    """One daemon. start() after stop() or kill() goes on with the same port and database."""

    def __init__(self, program, folder, settings, number=0):
        self.program = program
        self.name = "%s%s" % (program, number or "")
        self.folder = str(folder)
        self.port = free_port()
        self.database = os.path.join(self.folder, self.name + ".db")
        self.settings = {"SERVICE_PORT": self.port, "SERVICE_BIND": "127.0.0.1",
                         "DATABASE_PATH": self.database, "CONSUL_HOST": ""}
        self.settings.update(settings)
        if self.settings.get("DATABASE_URL"):
            url = self.settings["DATABASE_URL"]
            self.database = "%s%soptions=-csearch_path%%3D%s" % (url, "&" if "?" in url else "?", program)
        self.port = int(self.settings["SERVICE_PORT"])
        self.child = Child(self.name, None, None, os.path.join(self.folder, self.name + ".log"),
                           cwd=self.folder)
        self.meant_to_run = False
        self.session = requests.Session()

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    # ---- the process

    def launch(self):
        """Start without waiting for anything."""
        self.child.argv, self.child.env = command(self.program), environment(self.settings)
        self.session = requests.Session()
        self.session.trust_env = False
        self.child.start()
        self.meant_to_run = True
        watch(self._check_alive)
        return self

    def _check_alive(self):
        if not self.child.running:
            unwatch(self._check_alive)
            raise RuntimeError("%s ended with status %s" % (self.name, self.child.process.returncode))

    def start(self):
        """Start, and wait until it answers HTTP."""
        self.launch()
        wait_until(self.answers, START_TIMEOUT_S, "%s answers /health" % self.name)
        return self

    def answers(self):
        """Whether it does. Where the database is a server, the start does not wait for it: we
        do."""
        reply = self.get("/health")
        return not postgres.chosen() or reply.json()["components"]["database"]["state"] == "ok"

    def begin_stop(self, number=signal.SIGTERM):
        """Ask it to stop, and return at once."""
        unwatch(self._check_alive)
        assert self.running, "%s ended by itself" % self.name
        self.meant_to_run = False
        self.child.send_signal(number)

    def end_stop(self, timeout=GRACE_S):
        """Wait for the end: exit status 0, nothing found by a sanitizer."""
        status = self.child.wait(timeout)
        self.check_reports()
        assert status == 0, "%s: exit status %d" % (self.name, status)

    def stop(self, timeout=GRACE_S, number=signal.SIGTERM):
        """A clean stop."""
        self.begin_stop(number)
        self.end_stop(timeout)

    def kill(self):
        """kill -9."""
        unwatch(self._check_alive)
        self.meant_to_run = False
        self.child.kill()

    def restart(self, **settings):
        """A clean stop and a start, with changed settings where given."""
        self.stop()
        self.settings.update(settings)
        return self.start()

    @property
    def running(self):
        return self.child.running

    @property
    def pid(self):
        return self.child.pid

    def log(self):
        return self.child.log()

    def log_has(self, text):
        return text in self.log()

    def check_reports(self):
        found = REPORTS.search(self.log())
        assert not found, "%s: %s (see its log)" % (self.name, found.group(0))

    # ---- HTTP

    def request(self, method, path, **options):
        options.setdefault("timeout", 30)
        reply = self.session.request(method, self.url + path, **options)
        description.judge(self.program, reply)
        return reply

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, json=None, **options):
        return self.request("POST", path, json=json, **options)

    def put(self, path, json=None, **options):
        return self.request("PUT", path, json=json, **options)

    def patch(self, path, json=None, **options):
        return self.request("PATCH", path, json=json, **options)

    def delete(self, path, **options):
        return self.request("DELETE", path, **options)

    def health(self):
        return self.get("/health").json()


class Daemons:
    """Makes daemons for one test, and ends and checks them all at its end."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.all, self._urls = [], {}

    def new(self, program, settings=None, **more):
        """A daemon that is not started yet."""
        number = sum(1 for daemon in self.all if daemon.program == program)
        settings = {**(settings or {}), **more}
        if postgres.chosen() and not {"DATABASE_URL", "DATABASE_PATH"} & settings.keys():
            settings["DATABASE_URL"] = self.database_url(number)
        daemon = Daemon(program, self.folder, settings, number)
        self.all.append(daemon)
        return daemon

    def database_url(self, number=0):
        """A database in PostgreSQL, one for each number; both services may share one."""
        if number not in self._urls:
            self._urls[number] = postgres.new_database()
        return self._urls[number]

    def start(self, program, settings=None, **more):
        return self.new(program, settings, **more).start()

    def close(self):
        """Stop cleanly what still runs; none may have ended by itself or with a sanitizer's report."""
        problems = []
        for daemon in reversed(self.all):
            try:
                if daemon.meant_to_run:
                    daemon.stop()
                daemon.check_reports()
            except AssertionError as error:
                problems.append(str(error))
            finally:
                daemon.kill()
        assert not problems, "; ".join(problems)
