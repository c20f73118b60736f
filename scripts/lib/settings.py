"""Settings as the daemons read them: the environment, then the file that CONFIG_FILE names, the default."""

import os
import re

FILE_MAX_BYTES = 64 * 1024


class SettingsError(Exception):
    """A setting is wrong; the text names it, and no secret."""


def _read(name, path):
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read(FILE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SettingsError("%s: %s: %s" % (name, path, getattr(error, "strerror", None) or error))


_KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t\r\v\f]*=")
_JOIN = re.compile(r"\\\r?\n")
_BLANK = " \t\r\v\f"


def _value(text, at):
    """The value that begins there, as common/config_file.h has it, and where it ends."""
    value, kept, quote, bare = "", 0, "", False
    while at < len(text) and (quote or text[at] != "\n"):
        joined = quote != "'" and _JOIN.match(text, at)
        if joined:
            at, bare = joined.end(), not quote
            continue
        c, escaped = text[at], False
        at += 1
        if c == quote:
            quote = ""
        elif not quote and not bare and c in "'\"":
            quote = c
        elif quote or bare or c not in _BLANK:
            bare = not quote
            if c == "\\" and (bare or quote == '"' and text[at:at + 1] in tuple("\"\\`$")):
                c, escaped, at = text[at:at + 1], True, at + 1
            value += c
            kept = len(value) if quote or escaped or c not in _BLANK else kept
    if quote:
        raise SettingsError("CONFIG_FILE: a quote without an end")
    return value[:kept], at


def _from_file(name):
    """The last line NAME=VALUE of CONFIG_FILE; "" when there is none."""
    path, found, at = os.environ.get("CONFIG_FILE"), "", 0
    text = _read("CONFIG_FILE", path) if path else ""
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] in "#;":
            at = text.find("\n", at) % (len(text) + 1)
        else:
            key = _KEY.match(text, at)
            if not key:
                raise SettingsError("CONFIG_FILE: %s: line %d is not KEY=VALUE" % (path, text.count("\n", 0, at) + 1))
            value, at = _value(text, key.end())
            found = value if key.group(1) == name else found
    return found


def setting(name, default=""):
    """The environment, then CONFIG_FILE, then the default."""
    return os.environ.get(name) or _from_file(name) or default


def secret(name, default=""):
    """As setting; NAME_FILE, a file whose first line is the value, comes before the default."""
    value = setting(name)
    path = setting(name + "_FILE")
    if value or not path:
        return value or default
    return re.split("[\r\n]", _read(name + "_FILE", path))[0] or default
