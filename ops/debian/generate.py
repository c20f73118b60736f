"""Writes what a Debian package holds beside the program: man page, env file, changelog, copyright.

    generate.py PROGRAM FOLDER "NAME <ADDRESS>"

Options and settings come from the program's own --help, so that nothing is written down twice.
"""

import email.utils
import gzip
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

OPTION = re.compile(r"^  (--[a-z-]+)((?: [A-Z]+)?)  +(.*)$")
SETTING = re.compile(r"^  ([A-Z][A-Z_]+) +(.*) \[(.*)\]$")
MORE = re.compile(r"^ {10,}(.*)$")


class Help:
    """What --help says: summary, options [(name, argument, [lines])], settings [(name, default, [lines])]."""

    def __init__(self, text):
        head = text.splitlines()[0]
        self.name, self.version, self.summary = re.match(r"^(\S+) (\S+): (.*)$", head).groups()
        self.options, self.settings = [], []
        lines = None
        for line in text.splitlines():
            if option := OPTION.match(line):
                lines = [option.group(3)]
                self.options.append((option.group(1), option.group(2).strip(), lines))
            elif setting := SETTING.match(line):
                lines = [setting.group(2)]
                self.settings.append((setting.group(1), setting.group(3), lines))
            elif (more := MORE.match(line)) and lines is not None:
                lines.append(more.group(1).strip())
        if not self.options or len(self.settings) < 20:
            raise SystemExit("generate.py: does not understand what %s --help says" % self.name)


def roff(text):
    """Text as troff takes it: backslashes, hyphens that are minus signs, no line that is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\\&" + text if text.startswith((".", "\\(aq")) else text


def man_page(about, date):
    page = ['.TH %s 8 %s "Soirées %s" "System Administration"' % (about.name.upper(), date, about.version),
            ".SH NAME", "%s \\- %s" % (about.name, roff(about.summary)),
            ".SH SYNOPSIS", ".B %s" % about.name]
    for name, argument, _ in about.options:
        page += [".br", ".B %s %s%s" % (about.name, roff(name), " \\fI%s\\fR" % argument if argument else "")]
    page += [".SH DESCRIPTION",
             "Without an option it runs in the foreground until SIGTERM or SIGINT, and logs to standard",
             "output.",
             "It takes its settings from the environment, or from KEY=VALUE lines in the file that",
             ".B CONFIG_FILE", "names; the environment wins.",
             ".PP",
             "On SIGHUP it reads them again. What is said to be live counts at once, the rest is named in the",
             "log as needing a restart; with a mistake anywhere nothing changes, and the log names it.",
             ".SH OPTIONS"]
    for name, argument, lines in about.options:
        page += [".TP", "\\fB%s\\fR%s" % (roff(name), " \\fI%s\\fR" % argument if argument else "")]
        page += [roff(line) for line in lines]
    page += [".SH SETTINGS", "With their defaults in brackets."]
    for name, default, lines in about.settings:
        page += [".TP", "\\fB%s\\fR [%s]" % (name, roff(default)), roff(lines[0])]
        for line in lines[1:]:
            page += [".br", roff(line)]
    page += [".SH EXIT STATUS",
             ".TP", "0", "clean stop, or all is well",
             ".TP", "1", "could not start, had to end, or something is wrong",
             ".TP", "2", "bad settings or arguments",
             ".SH FILES",
             ".TP", ".I /etc/soirees/%s.env" % about.name, "settings of the service that systemd runs",
             ".TP", ".I /var/lib/%s" % about.name, "its database",
             ".SH ENVIRONMENT",
             ".TP", "\\fBNOTIFY_SOCKET\\fR, \\fBWATCHDOG_USEC\\fR",
             "set by systemd: told when the service is ready, stopping, and, while all threads turn, alive",
             ".SH EXAMPLES",
             "A backup of the running service:", ".PP", ".nf", ".RS",
             "CONFIG_FILE=/etc/soirees/%s.env %s \\-\\-backup /var/backups/%s.db"
             % (about.name, about.name, about.name),
             ".RE", ".fi",
             ".SH SEE ALSO",
             ".BR %s (8)," % ("playlists" if about.name == "soirees" else "soirees"), ".BR systemctl (1)"]
    return "\n".join(page) + "\n"


def env_file(about):
    lines = ["# Settings of the service %s, as systemd runs it; `man %s` describes them."
             % (about.name, about.name),
             "# What is commented out shows the default. Then: systemctl reload %s; what is not live needs a"
             " restart." % about.name,
             "",
             "DATABASE_PATH=/var/lib/%s/%s.db" % (about.name, about.name)]
    for name, default, help_lines in about.settings:
        if name == "DATABASE_PATH":
            continue
        lines += [""] + ["# " + line for line in help_lines]
        lines.append("#%s=%s" % (name, "" if default == "none" else default))
    return "\n".join(lines) + "\n"


def changelog(about, when, contact):
    """The newest section of CHANGELOG.md as Debian writes it."""
    section = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    items = re.findall(r"^- (.*(?:\n  .*)*)", section, re.MULTILINE)
    lines = ["%s (%s) unstable; urgency=medium" % (about.name, about.version), ""]
    for item in items:
        words, line = item.split(), "  *"
        for word in words:
            if len(line) + 1 + len(word) > 79:
                lines.append(line)
                line = "   "
            line += " " + word
        lines.append(line)
    return "\n".join(lines + ["", " -- %s  %s" % (contact, when), ""])


def copyright_file():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8").strip().splitlines()
    holder = next(line for line in text if line.startswith("Copyright"))
    body = [" " + line if line.strip() else " ." for line in text[text.index(holder) + 2:]]
    return "\n".join([
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
        "Upstream-Name: Soirées", "", "Files: *", holder.replace("Copyright (c)", "Copyright:"),
        "License: Expat"] + body) + "\n"


def compressed(text):
    """The same bytes for the same text: no name, no time."""
    return gzip.compress(text.encode(), 9, mtime=0)


def source_time():
    """When this version of the sources was made: SOURCE_DATE_EPOCH, else the last commit, else now."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    shown = subprocess.run(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True,
                           text=True, check=False)
    return int(shown.stdout) if shown.returncode == 0 and shown.stdout.strip() else int(time.time())


def main():
    program, folder, contact = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True, env={})
    about, seconds = Help(shown.stdout), source_time()
    day = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {
        about.name + ".env": env_file(about).encode(),
        "copyright": copyright_file().encode(),
        "changelog.gz": compressed(changelog(about, email.utils.formatdate(seconds), contact)),
        about.name + ".8.gz": compressed(man_page(about, day)),
    }.items():
        (folder / name).write_bytes(content)


main()
