"""The Merkle tree hash agrees with RFC 6962: the known vectors, and the recursive definition of section 2.1."""

from __future__ import annotations

import pytest

from livery_ca.ledger import merkle

# The leaves and roots of the reference implementation's test (certificate-transparency, merkle_tree_test).
LEAVES = [bytes.fromhex(h) for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")] + [
    bytes.fromhex("606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(1, 9))
def test_root_is_the_reference_implementations(size: int) -> None:
    """Each of the first eight trees has the published root."""
    assert merkle.root(merkle.leaf_hash(leaf) for leaf in LEAVES[:size]).hex() == ROOTS[size - 1]


def test_root_of_the_empty_tree_is_the_hash_of_nothing() -> None:
    """RFC 6962 2.1: MTH({}) = SHA-256()."""
    assert merkle.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_root_equals_the_recursive_definition_for_every_small_size() -> None:
    """RFC 6962 2.1: MTH(D[n]) = SHA-256(0x01 || MTH(D[0:k]) || MTH(D[k:n])), k the largest power of two below n."""

    def defined(hashes: list[bytes]) -> bytes:
        if len(hashes) == 1:
            return hashes[0]
        k = 1 << (len(hashes) - 1).bit_length() - 1
        return merkle.node_hash(defined(hashes[:k]), defined(hashes[k:]))

    hashes = [merkle.leaf_hash(bytes([i])) for i in range(70)]
    for size in range(1, 71):
        assert merkle.root(hashes[:size]) == defined(hashes[:size])


def test_a_leaf_cannot_pass_for_a_node() -> None:
    """The same bytes hash differently as a leaf and as a pair of children."""
    left, right = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)
