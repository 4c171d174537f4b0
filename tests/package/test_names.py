from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import UsageError
from edgeprune.package.names import c_identifier, c_string, check_prefix, check_version, package_name, unique


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("Digits", "digits"),
        ("Spoken digits (v2)", "spoken_digits_v2"),
        ("Größe-ÄÖ", "groe_ao"),
        ("3d-net", "model_3d_net"),
        ("class", "model_class"),
        ("main", "model_main"),
        ("__x__", "x"),
        ("モデル", "model"),
        ("", "model"),
        ("a" * 100, "a" * 48),
    ],
)
def test_identifiers_are_readable(name: str, identifier: str) -> None:
    assert c_identifier(name) == identifier


@settings(deadline=None)
@given(st.text())
def test_any_name_gives_an_identifier_that_is_its_own(name: str) -> None:
    identifier = c_identifier(name)
    assert identifier.isidentifier()
    assert identifier.isascii()
    assert not identifier.startswith("_")
    assert c_identifier(identifier) == identifier
    assert package_name(name).replace("-", "_") == identifier


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "a_2", "b", "a_3", "a_2_2"])))
def test_identifiers_become_unique_and_stay_what_they_are_where_they_are(names: list[str]) -> None:
    found = unique(names)
    assert len(set(found)) == len(found) == len(names)
    for index, (name, identifier) in enumerate(zip(names, found, strict=True)):
        assert identifier == name if name not in names[:index] else identifier.startswith(f"{name}_")


def test_the_first_free_number_is_taken() -> None:
    assert unique(["net", "net", "net_2", "net"]) == ("net", "net_3", "net_2", "net_4")


@pytest.mark.parametrize("prefix", ["1a", "a-b", "_a", "ä", "a" * 32, " "])
def test_a_prefix_that_c_does_not_take_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError, match="cannot begin a C identifier"):
        check_prefix(prefix)


@pytest.mark.parametrize("version", ["1", "1.2", "1.2.3.4", "01.2.3", "v1.2.3", "1.2.3-rc1", ""])
def test_a_version_that_package_managers_cannot_compare_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match=r"is not of the form 1\.2\.3"):
        check_version(version)


def test_good_ones_are_given_back() -> None:
    assert (check_prefix("acme_"), check_prefix(""), check_version("10.0.1")) == ("acme_", "", "10.0.1")


def test_strings_of_c() -> None:
    assert c_string('a"b\\??/é\n1') == r'"a\"b\\\?\?/\303\251\0121"'
