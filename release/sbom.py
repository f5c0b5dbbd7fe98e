"""`make sbom`: what is in it, as CycloneDX 1.6, into dist/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from release.parts import PROGRAM, Part, browser_code, libraries

CHECKOUT = Path(__file__).resolve().parents[1]


def sbom(parts: list[Part], version: str) -> str:
    """The bill of materials, as JSON that the format's own schema takes.

    Raises:
        ValueError: it would not be valid.
    """
    licences = LicenseFactory()
    program = Component(
        name=PROGRAM,
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=PROGRAM,
        licenses=[licences.make_from_string("MIT")],
        purl=PackageURL("pypi", name=PROGRAM, version=version),
    )
    bom = Bom()
    bom.metadata.component = program
    components = [_component(part, licences) for part in parts]
    bom.components.update(components)
    bom.register_dependency(program, components)
    text = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    if (wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise ValueError(f"no valid CycloneDX: {wrong}")
    return text


def _component(part: Part, licences: LicenseFactory) -> Component:
    scope, _, name = part.name.rpartition("/")
    purl = PackageURL(part.kind, namespace=scope or None, name=name, version=part.version)
    return Component(
        name=name,
        group=scope or None,
        version=part.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        licenses=[licences.make_from_string(part.licence)] if part.licence else [],
        hashes=[HashType(alg=HashAlgorithm.SHA_512, content=part.sha512)] if part.sha512 else [],
        purl=purl,
    )


def current_version() -> str:
    """What a wheel built now would be called; an installed checkout has the version of that day."""
    argv = [sys.executable, "-m", "hatchling", "version"]
    return subprocess.run(
        argv, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def main() -> None:
    """Writes the file, and says where."""
    version = current_version()
    parts = [*libraries(), *browser_code()]
    target = (
        Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / f"dist/{PROGRAM}-{version}.cdx.json"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(sbom(parts, version), encoding="utf-8")
    print(f"{target}: {len(parts)} components")


if __name__ == "__main__":
    main()
