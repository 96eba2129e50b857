"""What a pod carries of its control token opens nothing, here or in another namespace."""

from __future__ import annotations

import hashlib

import pytest

from knative_sponge.controller.cluster.control_token import Control, KeyRing, key_named

OLD, NEW = b"o" * 32, b"n" * 32
RING = KeyRing({1_700_000_000: OLD, 1_800_000_000: NEW})
NONCE = "Zm9v_-1"


def minted(namespace: str = "shop", nonce: str = NONCE, ring: KeyRing = RING) -> Control:
    control = ring.mint(namespace, nonce)
    assert control is not None
    return control


def test_the_token_of_a_pod_is_found_from_what_it_carries_and_the_keys() -> None:
    control = minted()
    token = RING.token("shop", control.reference)
    assert token is not None
    assert len(token) >= 43
    assert hashlib.sha256(token.encode()).hexdigest() == control.digest


def test_new_pods_use_the_newest_key_and_old_pods_keep_theirs() -> None:
    before = minted(ring=KeyRing({1_700_000_000: OLD}))
    assert key_named(before.reference) == 1_700_000_000
    assert key_named(minted().reference) == 1_800_000_000
    token = RING.token("shop", before.reference)
    assert token is not None
    assert hashlib.sha256(token.encode()).hexdigest() == before.digest


def test_what_a_pod_carries_has_nothing_of_its_token_or_of_a_key() -> None:
    control = minted()
    token = RING.token("shop", control.reference)
    shown = control.reference + control.digest + repr(RING)
    assert token is not None
    assert not any(secret in shown for secret in (token, OLD.decode(), NEW.decode(), OLD.hex(), NEW.hex()))


def test_a_copied_reference_yields_no_token_that_opens_the_pod_it_was_copied_from() -> None:
    """The controller shows a pod the token of the pod's own namespace, whatever the pod says."""
    victim = minted("shop")
    shown = RING.token("thief", victim.reference)
    assert shown is not None
    assert hashlib.sha256(shown.encode()).hexdigest() != victim.digest


def test_no_two_pods_share_a_token() -> None:
    pods = [("a", "b1"), ("a1", "b"), ("ab", "1"), ("a", "b"), ("b", "a")]
    assert len({minted(*pod).digest for pod in pods}) == len(pods)


@pytest.mark.parametrize(
    "reference",
    ["", "1800000000", "1800000000.", ".x", "x.y", "1800000001.x", "1800000000.a b", "1800000000.\x00", "-1.x",
     "1" * 5000 + ".x", "1800000000." + "x" * 65, "١.x", "1800000000.x\n"],
)  # fmt: skip
def test_what_is_no_reference_has_no_token(reference: str) -> None:
    assert RING.token("shop", reference) is None


def test_without_a_key_nothing_is_minted() -> None:
    assert KeyRing().mint("shop", NONCE) is None
    assert KeyRing().newest is None


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        KeyRing({1: b"short"})
