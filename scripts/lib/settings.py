"""Settings as the daemons read them: the environment, then the file that CONFIG_FILE names, the default."""

import os

FILE_MAX_BYTES = 64 * 1024


class SettingsError(Exception):
    """A setting is wrong; the text names it, and no secret."""


def _read(name, path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(FILE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SettingsError("%s: %s: %s" % (name, path, getattr(error, "strerror", None) or error))


def _from_file(name):
    """The last line NAME=VALUE of CONFIG_FILE; "" when there is none."""
    path, found = os.environ.get("CONFIG_FILE"), ""
    for line in _read("CONFIG_FILE", path).splitlines() if path else []:
        key, equals, value = line.strip().partition("=")
        if not equals or key.startswith("#") or key.strip() != name:
            continue
        found = value.strip()
        if len(found) >= 2 and found[0] in "'\"" and found[-1] == found[0]:
            found = found[1:-1]
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
    return (_read(name + "_FILE", path).splitlines() or [""])[0] or default
