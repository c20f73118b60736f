"""The Debian packages: what is in them, how the programs were built, their life on a machine of their own.

The machine is a container of the distribution that the packages were built on. Where there is no engine, those
tests are skipped.
"""

import contextlib
import fcntl
import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import uuid

import pytest
from harness.booking import booking
from harness.daemon import environment
from harness.wait import wait_until
from test_compose import docker, why_not

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("soirees", "playlists")
PORTS = {"soirees": 3003, "playlists": 3002}
BOTH = pytest.mark.parametrize("program", PROGRAMS)
BUILD_TIMEOUT_S = 900
MOST_EXPOSED = 20  # tenths, of 100: systemd-analyze security

pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(not shutil.which("dpkg-shlibdeps"), reason="no dpkg-shlibdeps (dpkg-dev)")]


def output(*args, check=True, **options):
    """stderr and stdout of a command, which must not fail."""
    done = subprocess.run([str(arg) for arg in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=BUILD_TIMEOUT_S, check=False, **options)
    assert not check or done.returncode == 0, "%s: %s" % (args[0], done.stdout)
    return done.stdout


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """{program: .deb}; built once for all test processes, which share the build folder."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    with open(folder / "packages.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "packages"
        if not made.is_dir():
            output(ROOT / "scripts" / "package", folder / "packages.part")
            (folder / "packages.part").rename(made)
    found = {program: list(made.glob(program + "_*.deb")) for program in PROGRAMS}
    assert [len(files) for files in found.values()] == [1, 1]
    return {program: files[0] for program, files in found.items()}


@pytest.fixture(scope="session")
def trees(packages, tmp_path_factory):
    """{program: folder with the package's files, its control files in DEBIAN}"""
    folder = tmp_path_factory.mktemp("trees")
    for program, package in packages.items():
        output("dpkg-deb", "-R", package, folder / program)
    return {program: folder / program for program in PROGRAMS}


# ---- what is in them

@BOTH
def test_a_package_holds_what_belongs_to_its_service(program, packages, trees):
    files = {str(path.relative_to(trees[program])) for path in trees[program].rglob("*") if not path.is_dir()}
    assert {file for file in files if not file.startswith("DEBIAN/")} == {
        "etc/soirees/%s.env" % program, "usr/bin/" + program, "usr/lib/systemd/system/%s.service" % program,
        "usr/share/bash-completion/completions/" + program, "usr/share/doc/%s/changelog.gz" % program,
        "usr/share/doc/%s/copyright" % program, "usr/share/lintian/overrides/" + program,
        "usr/share/man/man8/%s.8.gz" % program}
    assert (trees[program] / "DEBIAN/conffiles").read_text() == "/etc/soirees/%s.env\n" % program
    control = output("dpkg-deb", "-f", packages[program])
    version = output(trees[program] / "usr/bin" / program, "--version").split()[1]
    assert re.search(r"^Package: %s$" % program, control, re.MULTILINE)
    assert re.search(r"^Version: %s$" % re.escape(version), control, re.MULTILINE)
    for needed in "libc6 librabbitmq4 libmicrohttpd12 libcurl4 libcjson1 libsqlite3-0 libpq5 adduser".split():
        assert re.search(r"^Depends: .*\b%s" % needed, control, re.MULTILINE), control
    for line in output("dpkg-deb", "-c", packages[program]).splitlines():
        mode, owner = line.split()[:2]
        assert owner == "root/root"
        expected = ["-rw-------"] if line.endswith(".env") else ["drwxr-xr-x", "-rwxr-xr-x", "-rw-r--r--"]
        assert mode in expected, line


def test_lintian_has_nothing_against_them(packages):
    if not shutil.which("lintian"):
        pytest.skip("no lintian here: run scripts/bootstrap --tests")
    root = ["--allow-root"] if os.geteuid() == 0 else []
    assert output("lintian", *root, "--fail-on", "error,warning", *packages.values()) == ""


@BOTH
def test_the_env_file_is_fine_as_it_is_and_with_every_default_spelled_out(program, trees, tmp_path):
    shipped = (trees[program] / "etc/soirees" / (program + ".env")).read_text(encoding="utf-8")
    spelled = re.sub(r"^#([A-Z_]+=)", r"\1", shipped, flags=re.MULTILINE)
    assert shipped.count("\nDATABASE_PATH=/var/lib/%s/%s.db\n" % (program, program)) == 1
    shown = output(trees[program] / "usr/bin" / program, "--help")
    names = set(re.findall(r"^  ([A-Z][A-Z_]+) ", shown, re.MULTILINE))
    assert set(re.findall(r"^([A-Z_]+)=", spelled, re.MULTILINE)) == names
    for text in (shipped, spelled):
        (tmp_path / "env").write_text(text, encoding="utf-8")
        assert "OK" in output(trees[program] / "usr/bin" / program, "--check-config",
                              env=environment({"CONFIG_FILE": tmp_path / "env"}))


@BOTH
def test_the_man_page_has_every_option_and_setting(program, trees, tmp_path):
    page = trees[program] / "usr/share/man/man8" / (program + ".8.gz")
    source = gzip.decompress(page.read_bytes()).decode()
    shown = output(trees[program] / "usr/bin" / program, "--help")
    for option in re.findall(r"^  (--[a-z-]+)", shown, re.MULTILINE):
        assert "\\fB%s\\fR" % option.replace("-", "\\-") in source
    for name in re.findall(r"^  ([A-Z][A-Z_]+) ", shown, re.MULTILINE):
        assert "\\fB%s\\fR [" % name in source
    if not shutil.which("man") or not shutil.which("groff"):
        pytest.skip("no man and groff here to format it")
    (tmp_path / "page.8").write_text(source, encoding="utf-8")
    formatted = subprocess.run(["man", "--warnings=w", "-E", "UTF-8", "-l", str(tmp_path / "page.8")],
                               capture_output=True, text=True, timeout=60, check=True,
                               env={**os.environ, "MANPAGER": "cat", "LC_ALL": "C.UTF-8", "MANWIDTH": "120"})
    assert formatted.stderr == ""
    assert "--backup FILE" in formatted.stdout


@BOTH
@pytest.mark.parametrize("words, expected", [
    (["--ch"], ["--check", "--check-config"]),
    (["--ba"], ["--backup"]),
    (["--backup", "some"], ["some-file.db"]),
    (["--check", ""], []),
])
def test_the_shell_completes_options_and_the_backups_file(program, words, expected, trees, tmp_path):
    (tmp_path / "some-file.db").touch()
    script = trees[program] / "usr/share/bash-completion/completions" / program
    binary = trees[program] / "usr/bin" / program
    done = output("bash", "-c", '. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
                  '"_%s" "$1"; printf "%%s\\n" "${COMPREPLY[@]}"' % program, "bash", script, binary, *words,
                  cwd=tmp_path)
    assert sorted(done.split()) == expected


# ---- how they were built

@BOTH
def test_the_programs_are_hardened(program, trees):
    binary = trees[program] / "usr/bin" / program
    shown = output("readelf", "-hldW", binary)
    symbols = output("readelf", "-sW", "--dyn-syms", binary)
    assert re.search(r"Type: +DYN", shown) and re.search(r"FLAGS_1\).*\bPIE\b", shown), "PIE"
    assert "GNU_RELRO" in shown and re.search(r"\(FLAGS\) +BIND_NOW", shown), "full RELRO"
    assert re.search(r"GNU_STACK .* RW +0x", shown), "a stack that is not executable"
    assert not re.search(r"TEXTREL|RPATH|RUNPATH", shown)
    assert "__stack_chk_fail" in symbols, "stack protector"
    assert len(set(re.findall(r"\b__\w+_chk\b", symbols)) - {"__stack_chk_fail"}) >= 5, "FORTIFY_SOURCE"
    if re.search(r"Machine: .*X86-64", shown):
        code = output("objdump", "-d", "--no-show-raw-insn", "-j", ".text", binary)
        assert code.count("endbr64") > 200, "control-flow enforcement"
        assert re.search(r"orq +\$0x0,\(%rsp\)|sub +\$0x1000,%rsp", code), "stack clash protection"


# ---- the units

@BOTH
def test_the_unit_is_valid_and_little_exposed(program, trees, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here (Debian's package systemd)")
    unit = trees[program] / "usr/lib/systemd/system" / (program + ".service")
    output("systemd-analyze", "security", "--offline=true", "--threshold=%d" % MOST_EXPOSED, unit)
    text = unit.read_text(encoding="utf-8")
    here = tmp_path / unit.name  # the program is not installed here
    here.write_text(text.replace("ExecStart=/usr/bin", "ExecStart=%s" % (trees[program] / "usr/bin")))
    assert output("systemd-analyze", "verify", "--man=no", here) == ""
    for line in ("Type=notify", "User=" + program, "StateDirectory=" + program, "WatchdogSec=2min",
                 "ExecReload=/bin/sh -c 'kill -HUP $MAINPID'"):
        assert line in text.splitlines()


# ---- their life

def image():
    """The image of this distribution, where the packages can be installed."""
    lines = pathlib.Path("/etc/os-release").read_text(encoding="utf-8")
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', lines, re.MULTILINE))
    if release["ID"] == "debian":
        return "debian:%s-slim" % release["VERSION_CODENAME"]
    return "%s:%s" % (release["ID"], release["VERSION_ID"])


class Machine:
    """A container; `booted` with systemd as its init."""

    def __init__(self, packages, trees, folder, booted):
        self.name = "soirees-package-test-" + uuid.uuid4().hex[:12]
        self.booted = booted
        self.versions = {}
        options, init = [], "exec sleep infinity"
        if booted:
            # as little as systemd can do with; its control groups are those that Docker gives the container
            options = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--cgroupns=private",
                       "--tmpfs", "/run", "--tmpfs", "/tmp", "-e", "container=docker"]
            init = "apt-get install -y --no-install-recommends systemd dbus && exec /lib/systemd/systemd"
        done = subprocess.run(["docker", "run", "-d", "--name", self.name, *options, image(), "bash", "-c",
                               "export DEBIAN_FRONTEND=noninteractive; apt-get update && touch /ready && "
                               + init],
                              capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            self.close()
            pytest.skip("cannot run %s: %s" % (image(), done.stderr.strip()))
        self.run("mkdir", "-p", "/packages")
        for program, package in packages.items():
            self.copy(package)
            self.versions[program] = package.name.split("_")[1]
            newer = folder / program
            shutil.copytree(trees[program], newer)
            control = newer / "DEBIAN/control"
            control.write_text(re.sub(r"(?m)^Version: .*$", r"Version: 99.0", control.read_text()))
            output("dpkg-deb", "--root-owner-group", "-b", newer, folder / ("%s_99.0_all.deb" % program))
            self.copy(folder / ("%s_99.0_all.deb" % program))

    def copy(self, file):
        docker("cp", str(file), "%s:/packages/" % self.name)

    def run(self, *args, check=True):
        done = subprocess.run(["docker", "exec", self.name, *args], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=600, check=False)
        assert not check or done.returncode == 0, "%s: %s" % (" ".join(args), done.stdout)
        return done.stdout if check else done.returncode

    def sh(self, script, check=True):
        return self.run("sh", "-c", script, check=check)

    def has(self, path):
        return self.run("test", "-e", path, check=False) == 0

    def apt(self, *args):
        return self.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "--no-install-recommends",
                        "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confdef",
                        "-o", "Dpkg::Options::=--force-confold", *args)

    def install(self, version=None):
        self.apt("install", "--allow-downgrades",
                 *("/packages/%s_%s" % (program, "99.0_all.deb" if version else self.file(program))
                   for program in PROGRAMS))

    def file(self, program):
        name = self.sh("cd /packages; ls %s_%s_*" % (program, self.versions[program])).strip()
        return name[len(program) + 1:]

    def shows(self, program, what):
        return self.run("systemctl", "show", "-P", what, program).strip()

    def active(self, program):
        return self.run("systemctl", "is-active", "-q", program, check=False) == 0

    def healthy(self, program):
        return self.run(program, "--healthcheck", check=False) == 0

    def close(self):
        subprocess.run(["docker", "rm", "-f", "-v", self.name], capture_output=True, timeout=120, check=False)


@contextlib.contextmanager
def machine(packages, trees, folder, booted):
    reason = why_not(["docker"])
    if reason:
        pytest.skip(reason)
    made = Machine(packages, trees, folder, booted)
    try:
        yield made
    finally:
        made.close()


def ready_for_apt(machine_):
    """The container's first command has read the package lists."""
    wait_until(lambda: machine_.has("/ready"), 300, "the package lists")


def test_install_upgrade_remove_and_purge(packages, trees, tmp_path):
    """Without systemd at work, as in a container."""
    with machine(packages, trees, tmp_path, booted=False) as box:
        ready_for_apt(box)
        box.install()
        for program in PROGRAMS:
            assert box.run(program, "--version") == "%s %s\n" % (program, box.versions[program])
            assert box.sh("stat -c '%%U:%%G %%a' /etc/soirees/%s.env" % program) == "root:%s 640\n" % program
            assert program in box.run("getent", "passwd", program)
            box.sh("echo SERVICE_NAME=mine >>/etc/soirees/%s.env" % program)
            box.sh("chmod 600 /etc/soirees/%s.env" % program)
            box.sh("install -d -o {0} /var/lib/{0} && touch /var/lib/{0}/x.db".format(program))
        box.install("99.0")
        for program in PROGRAMS:
            assert box.sh("dpkg-query -W -f '${Version}' " + program) == "99.0"
            assert "SERVICE_NAME=mine" in box.run("cat", "/etc/soirees/%s.env" % program)
            assert box.sh("stat -c '%%a' /etc/soirees/%s.env" % program) == "600\n"  # as it was made
        box.apt("remove", *PROGRAMS)
        for program in PROGRAMS:
            assert not box.has("/usr/bin/" + program)
            assert box.has("/var/lib/%s/x.db" % program) and box.has("/etc/soirees/%s.env" % program)
        box.apt("purge", "soirees")
        assert not box.has("/var/lib/soirees") and not box.has("/etc/soirees/soirees.env")
        assert box.has("/var/lib/playlists/x.db") and box.has("/etc/soirees/playlists.env")
        box.apt("purge", "playlists")
        assert not box.has("/var/lib/playlists") and not box.has("/etc/soirees")
        assert box.sh("find / -xdev -name '*soirees*' -not -path '/packages/*' -not -path '/var/lib/dpkg/*'"
                      " -not -path '/proc/*'") == ""


def ask(box, method, body=""):
    """What the soirees in the box answer; by bash alone, for there is no curl."""
    request = "\r\n".join(["%s /api/soirees HTTP/1.1" % method, "Host: x", "Connection: close",
                           "Content-Type: application/json", "Content-Length: %d" % len(body), "", body])
    return box.run("bash", "-c", 'exec 3<>/dev/tcp/127.0.0.1/3003; printf %s "$1" >&3; cat <&3', "bash",
                   request)


def book(box):
    answer = ask(box, "POST", json.dumps(booking()))
    assert answer.startswith("HTTP/1.1 201"), answer


def rows(box):
    return ask(box, "GET").count('"clientId"')


def boots(box):
    """Whether systemd has come up; False when it has not after some minutes, or the container has ended."""
    def booted():
        if docker("inspect", "-f", "{{.State.Running}}", box.name).strip() != "true":
            return "ended"
        up = box.sh("systemctl is-system-running | grep -qE 'running|degraded'", check=False) == 0
        return "up" if up else None
    try:
        return wait_until(booted, 180, "systemd") == "up"
    except AssertionError:
        return False


def test_the_services_under_systemd(packages, trees, tmp_path):
    """Started, restarted by an upgrade and by the watchdog, backed up, stopped, gone."""
    with machine(packages, trees, tmp_path, booted=True) as box:
        if not boots(box):
            pytest.skip("systemd does not start in a container here")
        box.install()
        for program in PROGRAMS:
            wait_until(lambda program=program: box.active(program), 60, program + " is active")  # READY=1
            assert box.healthy(program)
            assert box.sh("systemctl is-enabled " + program) == "enabled\n"
            assert box.shows(program, "WatchdogUSec") == "2min"
            assert box.sh("stat -c '%%U %%a' /var/lib/%s" % program) == "%s 750\n" % program
            assert box.run("systemd-analyze", "verify", "--man=no", program + ".service") == ""
            seen = box.sh("cd /proc/%s && cat limits status" % box.shows(program, "MainPID"))
            assert re.search(r"core file size +0 +0", seen)
            assert re.search(r"^NoNewPrivs:\s+1$", seen, re.MULTILINE)

        book(box)
        settings = "CONFIG_FILE=/etc/soirees/soirees.env"
        box.run("env", settings, "soirees", "--backup", "/root/copy.db")
        box.run("env", settings, "soirees", "--check")
        box.run("env", "DATABASE_PATH=/root/copy.db", "soirees", "--check")

        first = box.shows("soirees", "MainPID")
        box.sh("echo LOG_LEVEL=debug >>/etc/soirees/soirees.env && systemctl reload soirees")
        wait_until(lambda: "LOG_LEVEL (info → debug)" in box.run("journalctl", "-u", "soirees", "--no-pager"), 60,
                   "the reload")
        wait_until(lambda: box.active("soirees"), 60, "its end")
        assert box.shows("soirees", "MainPID") == first
        box.install("99.0")
        wait_until(lambda: box.active("soirees") and box.shows("soirees", "MainPID") not in ("0", first), 60,
                   "a restart by the upgrade")
        assert rows(box) == 1
        newer = box.shows("soirees", "MainPID")
        box.install()  # and back
        assert box.sh("dpkg-query -W -f '${Version}' soirees") == box.versions["soirees"]
        wait_until(lambda: box.active("soirees") and box.shows("soirees", "MainPID") not in ("0", newer), 60,
                   "a restart by the downgrade")
        assert rows(box) == 1

        # a stuck process: systemd ends it and starts another
        box.sh("mkdir -p /run/systemd/system/soirees.service.d && cd /run/systemd/system/soirees.service.d"
               " && printf '[Service]\\nWatchdogSec=2\\n' >test.conf"
               " && systemctl daemon-reload && systemctl restart soirees")
        stuck = box.shows("soirees", "MainPID")
        box.sh("kill -STOP " + stuck)
        wait_until(lambda: box.active("soirees") and box.shows("soirees", "MainPID") not in ("0", stuck), 120,
                   "a restart by the watchdog")
        assert box.shows("soirees", "NRestarts") == "1"
        wait_until(lambda: box.healthy("soirees"), 60, "health")
        assert rows(box) == 1

        # while it is stopped, a check by root leaves nothing that the service cannot open
        box.run("systemctl", "stop", "soirees")
        assert box.shows("soirees", "Result") == "success"
        box.run("env", settings, "soirees", "--check")
        box.run("env", settings, "soirees", "--backup", "/root/copy.db")
        box.run("systemctl", "start", "soirees")
        book(box)
        assert rows(box) == 2

        # bad settings are said, and not tried for ever
        box.sh("echo SERVICE_PORT=none >>/etc/soirees/playlists.env")
        box.run("systemctl", "restart", "playlists", check=False)
        wait_until(lambda: box.shows("playlists", "ActiveState") == "failed", 60, "the end of playlists")
        assert "SERVICE_PORT" in box.run("journalctl", "-u", "playlists", "--no-pager")

        # put back from the backup, as the README says
        box.run("systemctl", "stop", "soirees")
        box.sh("cd /var/lib/soirees && rm -f soirees.db soirees.db-wal soirees.db-shm"
               " && install -o soirees -g soirees -m 600 /root/copy.db soirees.db")
        box.run("systemctl", "start", "soirees")
        assert rows(box) == 1

        box.apt("remove", *PROGRAMS)
        assert not box.active("soirees")
        assert box.has("/var/lib/soirees/soirees.db")
        box.apt("purge", *PROGRAMS)
        assert not box.has("/var/lib/soirees") and not box.has("/etc/soirees")
        assert box.sh("systemctl list-unit-files 'soirees*' 'playlists*' --no-legend || true") == ""
