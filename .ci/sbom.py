"""List of what the image holds, Python's and Debian's packages, as CycloneDX 1.5.

Run by ``.ci/build-image`` in the image itself, with nothing but the standard library.
The same image gives the same bytes.
"""

import json
import platform
import re
import sys
import sysconfig
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import quote

APP = "pkg:pypi/bids-roi@"


def describe_package(package: Distribution) -> dict[str, object]:
    """A Python package: name, version, address in the terms of package-url, licence."""
    name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
    reference = f"pkg:pypi/{name}@{package.version}"
    component: dict[str, object] = {
        "type": "library",
        "bom-ref": reference,
        "name": package.metadata["Name"],
        "version": package.version,
        "purl": reference,
    }
    expression = package.metadata.get("License-Expression")
    said = [
        line.rpartition(" :: ")[2]
        for line in package.metadata.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    if expression:
        component["licenses"] = [{"expression": expression}]
    elif said:
        component["licenses"] = [{"license": {"name": name}} for name in said]
    return component


def describe_debian(status: Path, distribution: str) -> list[dict[str, object]]:
    """The installed packages in dpkg's list; none where there is none."""
    components: list[dict[str, object]] = []
    text = status.read_text(encoding="utf-8") if status.is_file() else ""
    for paragraph in text.split("\n\n"):
        found = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if found.get("Status", "").endswith(" installed"):
            name, version, kind = (
                found[key] for key in ("Package", "Version", "Architecture")
            )
            package = f"{quote(name)}@{quote(version)}?arch={kind}"
            reference = f"pkg:deb/{distribution}/{package}"
            components.append(
                {
                    "type": "library",
                    "bom-ref": reference,
                    "name": name,
                    "version": version,
                    "purl": reference,
                }
            )
    return components


def main() -> None:
    """Print the document."""
    # The environment, and the Python below it, which has a pip of its own.
    below = {"base": sys.base_prefix, "installed_base": sys.base_prefix}
    places = [*sys.path, sysconfig.get_path("purelib", "posix_prefix", below)]
    packages = {
        str(described["bom-ref"]): described
        for described in map(describe_package, distributions(path=places))
    }
    app = packages.pop(next(n for n in packages if n.startswith(APP)))
    debian = describe_debian(
        Path("/var/lib/dpkg/status"), platform.freedesktop_os_release()["ID"]
    )
    python = platform.python_version()
    interpreter = {
        "type": "platform",
        "bom-ref": f"pkg:generic/python@{python}",
        "name": "python",
        "version": python,
        "purl": f"pkg:generic/python@{python}",
    }
    components = [*packages.values(), *debian, interpreter]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**app, "type": "application"}},
        "components": sorted(components, key=lambda one: str(one["bom-ref"])),
    }
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
