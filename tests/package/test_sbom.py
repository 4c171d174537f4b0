"""Bill of materials and manifest hold to their published schemas, and say what the lock says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edgeprune.package.base import Contents, Model
from edgeprune.package.build import build
from edgeprune.package.facts import memory_facts
from edgeprune.package.manifest import manifest_schema
from edgeprune.package.tar import TarPackager
from edgeprune.records.lock import Lock
from edgeprune.testing.packagers import example_lock
from tests.package.building import contents, model

LICENCE = "Free for all.\n"


def bom(made: Contents) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(build(TarPackager(), made)["sbom.cdx.json"].data)
    return data


def bare(data: bytes) -> Lock:
    """A lock of which nothing is known but the file."""
    return example_lock(
        data, figures={}, device={}, inputs={}, versions={}, params=None, macs=None, activation_bytes=None, budget={}
    )


PACKAGES = {
    "one": contents(model("digits", b"digits")),
    "two, licensed, at a time": contents(
        model("digits", b"digits"), model("words", b"words"), licence=LICENCE, epoch=1_700_000_000
    ),
    "bare": contents(Model("digits", bare(b"digits"), b"digits")),
}


@pytest.mark.parametrize("made", PACKAGES.values(), ids=list(PACKAGES))
def test_the_bill_is_valid_cyclonedx_1_6(made: Contents) -> None:
    text = build(TarPackager(), made)["sbom.cdx.json"].data.decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_validator_would_notice() -> None:
    wrong = bom(PACKAGES["one"])
    wrong["components"][0]["type"] = "neural-network"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(wrong)) is not None


def test_the_bill_says_what_the_lock_says() -> None:
    data = bom(PACKAGES["two, licensed, at a time"])
    first = data["components"][0]
    assert [component["name"] for component in data["components"]] == ["digits", "words"]
    assert first["type"] == "machine-learning-model"
    assert first["hashes"][0]["content"] == PACKAGES["one"].models[0].artifact.sha256
    card = first["modelCard"]
    assert card["modelParameters"]["inputs"] == [
        {"format": "image: int8 batchx1x8x8, scale 0.0039215689, zero point -128"}
    ]
    metrics = {metric["type"]: metric for metric in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert metrics["latency.p50 (ms, measured)"] == {
        "type": "latency.p50 (ms, measured)", "value": "12.5", "confidenceInterval": {"upperBound": "12.75"}
    }  # fmt: skip
    assert not any("energy" in name for name in metrics)  # it was not measured
    properties = {entry["name"]: entry["value"] for entry in first["properties"]}
    assert properties["edgeprune:arena_bytes"] == "4096"
    assert properties["edgeprune:sha256.source/task.py"] == "c" * 64
    assert first["licenses"][0]["license"]["text"]["content"] == LICENCE
    assert first["pedigree"]["ancestors"][0]["hashes"][0]["content"] == "a" * 64
    assert data["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_without_a_given_time_there_is_none_and_the_number_is_of_the_content() -> None:
    one, again = bom(PACKAGES["one"]), bom(PACKAGES["one"])
    assert "timestamp" not in one["metadata"]
    assert one == again
    assert one["serialNumber"] != bom(contents(model("digits", b"other")))["serialNumber"]


@pytest.mark.parametrize("made", PACKAGES.values(), ids=list(PACKAGES))
def test_the_manifest_holds_to_its_schema(made: Contents) -> None:
    schema = manifest_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    data = json.loads(build(TarPackager(), made)["manifest.json"].data)
    jsonschema.Draft202012Validator(schema).validate(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate({**data, "more": 1})


def test_a_quantised_file_says_so_everywhere() -> None:
    lock = example_lock(b"digits")
    artifact = replace(lock.artifact, provenance={"quantised": "int8 per channel"})
    files = build(TarPackager(), contents(Model("digits", replace(lock, artifact=artifact), b"digits")))
    found = json.loads(files["manifest.json"].data)["models"][0]
    assert found["quantised"] == "int8 per channel"
    assert found["memory"]["arena"]["source"].endswith("; in int8 it is less")
    properties = json.loads(files["sbom.cdx.json"].data)["components"][0]["properties"]
    assert {"name": "edgeprune:quantised", "value": "int8 per channel"} in properties
    assert b"- onnx, int8 per channel, 6 B, sha256" in files["README.md"].data


def test_an_arena_that_was_planned_for_the_file_goes_before_an_estimate_of_the_network() -> None:
    lock = example_lock(b"digits")
    artifact = replace(lock.artifact, provenance={"arena_bytes": 3488})
    (_, arena) = memory_facts(replace(lock, artifact=artifact))
    assert (arena.name, arena.value, arena.kind) == ("arena", 3488, "estimated")
    assert arena.source.startswith("estimated: TFLite Micro's plan of the tensors")


def test_the_manifest_says_measured_or_estimated() -> None:
    data = json.loads(build(TarPackager(), PACKAGES["one"])["manifest.json"].data)["models"][0]
    peak, arena = data["memory"]["peak_memory"], data["memory"]["arena"]
    assert (peak["bytes"], peak["kind"]) == (1_048_576, "measured")
    assert peak["source"].startswith("measured on Raspberry Pi 4 Model B by onnxruntime: upper bound")
    assert (arena["bytes"], arena["kind"]) == (4096, "estimated")
    assert data["inputs"][0]["scale"] == 0.0039215689
