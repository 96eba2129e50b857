"""`python -m e2e.cluster`: what it prints can be evaluated by a shell, and a failure is one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster import __main__ as cli
from e2e.cluster import exclusive
from e2e.cluster.provider import Cluster, ClusterError


class Fake:
    """A Provider that remembers what was asked of it."""

    name = "fake"
    trouble = ""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def prepare(self) -> None:
        pass

    def up(self) -> Cluster:
        print("    3/20 a step that takes long")
        if self.trouble:
            raise ClusterError(self.trouble)
        return Cluster(Path("/run/kubeconfig"), "http://127.0.0.1:1", "example.test", Path("/a/kubectl"), Path("/b/kn"))

    def down(self) -> None:
        self.asked.append("down")

    def load(self, archive: Path) -> None:
        self.asked.append(f"load {archive}")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setattr(cli, "provider", lambda name: made)
    return made


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["e2e.cluster", *words])
    return cli.main()


def test_up_prints_nothing_but_what_a_shell_may_evaluate(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "up") == 0
    printed = capsys.readouterr()
    export, path, comment = printed.out.splitlines()
    assert export == "export KUBECONFIG=/run/kubeconfig"
    assert path == "export PATH=/a:/b:$PATH"
    assert comment.startswith("# ")
    assert "a step that takes long" in printed.err


def test_a_failure_is_said_and_is_the_exit_status(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.trouble = "step 3 of 20, Serving: refused"
    assert call(monkeypatch, "--provider", "kind", "up") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("error: step 3 of 20, Serving: refused\n")


def test_down_and_load_are_passed_on(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "load", "image.tar") == 0
    assert call(monkeypatch, "down") == 0
    assert fake.asked == ["load image.tar", "down"]


def test_a_provider_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, "--provider", "minikube", "up")
    assert "bare" in capsys.readouterr().err


def test_a_lock_is_free_again_after_a_failure(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "lock"
    with pytest.raises(ZeroDivisionError), exclusive.alone(lock):
        raise ZeroDivisionError
    with exclusive.alone(lock):
        with pytest.raises(ClusterError, match="another process"), exclusive.alone(lock):
            pass
        with exclusive.alone(tmp_path / "other"):
            pass
