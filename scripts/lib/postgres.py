"""PostgreSQL through psql: no driver is needed. A URL's password goes by the environment, where only its owner sees
it, and never by the command line."""

import csv
import io
import os
import subprocess
import urllib.parse

NULL = "\\N"


class PostgresError(Exception):
    """psql's own words, or why there is no psql."""


def connection(url):
    """(psql's command line, its environment) for a URL."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise PostgresError("not a postgresql:// URL")
    env = dict(os.environ)
    user, at, hosts = parts.netloc.rpartition("@")
    user, _colon, password = user.partition(":")
    query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    password = urllib.parse.unquote(password) or dict(query).get("password")
    if password:
        env["PGPASSWORD"] = password
    options = [(name, value) for name, value in query if name != "password"]
    shown = urllib.parse.urlunsplit((parts.scheme, user + at + hosts, parts.path, urllib.parse.urlencode(
        options, quote_via=urllib.parse.quote), ""))
    return ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", shown], env


def first_error(text):
    """psql's error, without the line of the input and the hints."""
    for line in text.splitlines():
        for mark in ("ERROR:  ", "FATAL:  ", "error: "):
            if mark in line:
                return line[line.index(mark) + len(mark):]
    return text.strip() or "psql failed"


def rows(url, sql, *values):
    """The rows of a query as tuples of texts, None for NULL; $1, $2, … are its values."""
    argv, env = connection(url)
    for number, value in reversed(list(enumerate(values, 1))):
        argv += ["-v", "p%d=%s" % (number, value)]
        sql = sql.replace("$%d" % number, ":'p%d'" % number)
    try:
        done = subprocess.run(argv + ["--csv", "-t", "-P", "null=" + NULL, "-f", "-"], env=env, input=sql,
                              capture_output=True, text=True, encoding="utf-8")
    except OSError as error:
        raise PostgresError("psql: %s (package postgresql-client)" % error.strerror)
    if done.returncode != 0:
        raise PostgresError(first_error(done.stderr))
    return [tuple(None if field == NULL else field for field in row)
            for row in csv.reader(io.StringIO(done.stdout))]
