"""What a pod carries of its control token opens nothing, here or in another namespace."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from knative_sponge.controller.cluster.control_token import Control, KeyRing, key_named, sized_nonce

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


RANDOM = "5-" + "x" * 30
"""A random part that begins as a size does."""


def test_what_a_pod_carries_proves_with_how_many_cores_it_was_admitted() -> None:
    for cores, proven in ((0.25, 0.25), (6.0, 6.0), (0.0, 0.0), (4096.0, 4096.0), (1e300, 99999.999)):
        control = minted(nonce=sized_nonce(cores, RANDOM))
        assert RING.admitted("shop", control.reference, control.digest) == proven


@pytest.mark.parametrize(
    ("namespace", "reference", "digest"),
    [
        pytest.param("shop", lambda text: text.replace(".250-", ".64000-"), None, id="another size"),
        pytest.param("shop", lambda text: text.replace(".250-", ".0250-"), None, id="the size written otherwise"),
        pytest.param("thief", None, None, id="in another namespace"),
        pytest.param("shop", lambda text: text.replace("1800000000", "1700000000"), None, id="with another key"),
        pytest.param("shop", lambda text: text.replace("1800000000", "1900000000"), None, id="with no key"),
        pytest.param("shop", None, "0" * 64, id="another digest"),
        pytest.param("shop", None, "", id="no digest"),
        pytest.param("shop", None, "\udcff\u0661", id="a digest that is no text of ours"),
        pytest.param("shop", lambda _: "", None, id="no reference"),
        pytest.param("shop", lambda _: "1800000000." + "9" * 5000 + "-" + RANDOM, None, id="a giant size"),
    ],
)
def test_what_was_not_minted_so_proves_nothing(namespace: str, reference: Any, digest: str | None) -> None:
    control = minted(nonce=sized_nonce(0.25, RANDOM))
    said = control.reference if reference is None else reference(control.reference)
    assert RING.admitted(namespace, said, control.digest if digest is None else digest) == 0.0


def test_a_nonce_of_a_version_that_put_no_size_into_it_is_read_as_none() -> None:
    control = minted(nonce=RANDOM)
    assert RING.token("shop", control.reference) is not None
    assert RING.admitted("shop", control.reference, control.digest) == 0.0


def test_a_random_part_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 random characters"):
        sized_nonce(1.0, RANDOM + "x")


def test_without_a_key_nothing_is_minted() -> None:
    assert KeyRing().mint("shop", NONCE) is None
    assert KeyRing().newest is None


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        KeyRing({1: b"short"})
