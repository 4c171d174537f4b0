"""Names that C compilers, package managers and file systems accept, made of any name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from edgeprune.errors import UsageError

__all__ = ["c_identifier", "c_string", "check_prefix", "check_version", "package_name", "unique"]

# C23 and C++23: what is a keyword in one of them cannot be shared by both.
_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
        alignas alignof and and_eq asm atomic_cancel atomic_commit atomic_noexcept auto bitand bitor bool break case
        catch char char16_t char32_t char8_t class co_await co_return co_yield compl concept const const_cast
        consteval constexpr constinit continue decltype default delete do double dynamic_cast else enum explicit
        export extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq
        nullptr operator or or_eq private protected public register reinterpret_cast requires restrict return short
        signed sizeof static static_assert static_cast struct switch template this thread_local throw true try
        typedef typeid typename typeof typeof_unqual union unsigned using virtual void volatile wchar_t while xor
        xor_eq main linux unix
        """,
    )
)
_LONGEST = 48  # C guarantees 63 significant characters for names that a suffix is still added to
_VERSION = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})")


def c_identifier(name: str) -> str:
    """A valid identifier in C and C++, lower case: "Spoken digits (v2)" becomes "spoken_digits_v2"."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    found = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:_LONGEST].rstrip("_") or "model"
    return f"model_{found}" if found[0].isdigit() or found in _RESERVED else found


def package_name(name: str) -> str:
    """A name that Debian, CMake, Yocto and pkg-config take: lower-case letters, digits and single hyphens."""
    return c_identifier(name).replace("_", "-")


def unique(identifiers: Sequence[str]) -> tuple[str, ...]:
    """The same identifiers, where one comes again with the first number that is free: "digits", "digits_2"."""
    taken = set(identifiers)
    found: list[str] = []
    for identifier in identifiers:
        chosen, number = identifier, 1
        while chosen in found or (number > 1 and chosen in taken):
            number += 1
            chosen = f"{identifier}_{number}"
        found.append(chosen)
    return tuple(found)


def check_prefix(prefix: str) -> str:
    """The prefix, which identifiers may begin with; raises UsageError."""
    if prefix and not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,30}", prefix):
        raise UsageError(
            f"the prefix {prefix!r} cannot begin a C identifier",
            hint="a letter, then letters, digits and underscores, at most 31: acme_",
        )
    return prefix


def check_version(version: str) -> str:
    """The version, which all package managers can compare; raises UsageError."""
    if not _VERSION.fullmatch(version):
        raise UsageError(f"the version {version!r} is not of the form 1.2.3", hint="three numbers with dots between")
    return version


def c_string(value: str) -> str:
    """A string literal in C: ASCII alone, no trigraphs, no escape that takes in what follows."""
    escaped = "".join(_escaped(byte) for byte in value.encode())
    return f'"{escaped}"'


def _escaped(byte: int) -> str:
    character = chr(byte)
    if character in '"\\?':
        return f"\\{character}"
    return character if 32 <= byte < 127 else f"\\{byte:03o}"
