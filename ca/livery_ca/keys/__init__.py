"""Where the authorities' private keys live: one Protocol, `KeyStore`, and one module per way to keep them."""

from __future__ import annotations

from livery_ca.keys.key_store import KeyMissing, KeyStore, KeyStoreError, KeyStoreUnavailable, KeyUnreadable

__all__ = ["KeyMissing", "KeyStore", "KeyStoreError", "KeyStoreUnavailable", "KeyUnreadable"]
