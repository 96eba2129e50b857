"""The kind cluster as far as it can be seen without Docker: which commands are run, in which order, and what is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from e2e.cluster import exclusive
from e2e.cluster.kind import provider as kind_provider
from e2e.cluster.kind.provider import FILES_VARIABLE, Kind
from e2e.cluster.kind.steps import FAULTS, FILES, NAME, PORT, steps
from e2e.cluster.places import REPOSITORY, cache
from e2e.cluster.provider import ClusterError, Component
from e2e.cluster.providers import provider
from e2e.cluster.settings import config_maps
from tests.e2e.recorder import Recorder, failing

ENGINE = ("docker", "version", "--format={{.Server.Version}}")
CLUSTERS = ("kind", "get", "clusters")
DELETE = ("kind", "delete", "cluster", f"--name={NAME}")
READY = ("kubectl", "get", "--raw=/readyz", "--request-timeout=10s")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All four programs in PATH, a cache of its own, no release files. Returns the directory of the programs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("docker", "kind", "kubectl", "kn"):
        (programs / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(FILES_VARIABLE, raising=False)
    return programs


def healthy(words: tuple[str, ...]) -> str:
    """A machine with our cluster and one whose name begins like ours."""
    return {READY: "ok", CLUSTERS: f"{NAME}-other\n{NAME}\n"}.get(words, "")


def fresh(words: tuple[str, ...]) -> str:
    """A machine where another's cluster is."""
    return f"{NAME}-other\n" if words == CLUSTERS else ""


def planned() -> list[tuple[str, ...]]:
    return [step.argv for step in steps()]


def test_a_first_up_sees_to_the_engine_and_then_takes_every_step_in_order() -> None:
    runner = Recorder(fresh)
    Kind(runner).up()
    assert runner.words() == [ENGINE, CLUSTERS, *planned()]


def test_every_command_has_its_limit_its_cluster_and_the_repository() -> None:
    runner = Recorder(healthy)
    Kind(runner).up()
    assert {step.argv: step.timeout_s for step in steps()}.items() <= {
        c.words: c.timeout_s for c in runner.calls
    }.items()
    assert {call.env["KUBECONFIG"] for call in runner.calls} == {str(cache() / "kind" / "kubeconfig")}
    assert {call.cwd for call in runner.calls} == {REPOSITORY}
    # What kubectl may wait for ends before its process is ended, so that its own words are what is shown.
    for step in steps():
        own = [float(word[10:-1]) for word in step.argv if word.startswith("--timeout=")]
        assert all(own_s < step.timeout_s for own_s in own)


def test_a_second_up_only_checks() -> None:
    runner = Recorder(healthy)
    first = Kind(runner).up()
    runner.words()
    assert Kind(runner).up() == first
    assert runner.words() == [ENGINE, READY]


@pytest.mark.parametrize("trouble", ["readyz refused", "readyz not ok", "other steps"])
def test_a_cluster_that_does_not_answer_or_was_made_otherwise_is_made_anew(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Recorder(healthy)
    Kind(runner).up()
    runner.words()
    if trouble == "other steps":
        monkeypatch.setenv(FILES_VARIABLE, str(release_files(tmp_path / "yaml")))
        checks: list[tuple[str, ...]] = [ENGINE]
    else:
        answer = failing(READY[2]) if trouble == "readyz refused" else lambda _: "not ready"
        runner.answer = lambda words: answer(words) if words == READY else healthy(words)
        checks = [ENGINE, READY]
    Kind(runner).up()
    assert runner.words() == [*checks, CLUSTERS, DELETE, *(step.argv for step in Kind().steps())]


def test_a_cluster_left_half_made_is_made_anew() -> None:
    runner = Recorder(failing("rollout"))
    with pytest.raises(ClusterError):
        Kind(runner).up()
    runner.words()
    runner.answer = healthy
    Kind(runner).up()
    assert runner.words() == [ENGINE, CLUSTERS, DELETE, *planned()]


@pytest.mark.parametrize("number", range(1, len(steps()) + 1))
def test_a_step_that_fails_is_named_and_nothing_comes_after_it(number: int) -> None:
    step = steps()[number - 1]
    turns = [index for index, each in enumerate(steps(), 1) if each.argv == step.argv]
    seen = 0

    def answer(words: tuple[str, ...]) -> str:
        nonlocal seen
        if words == step.argv:
            seen += 1
            if turns[seen - 1] == number:
                raise ClusterError("exit status 1: the program's own words")
        return "the pods" if words[:3] == ("kubectl", "get", "pods") else ""

    runner = Recorder(answer)
    with pytest.raises(ClusterError) as caught:
        Kind(runner).up()
    message = str(caught.value)
    assert message.startswith(f"step {number} of {len(steps())}, {step.title}: ")
    assert "the program's own words" in message
    assert "the pods" in message
    assert runner.words()[2:-1] == planned()[:number]


def test_the_message_of_a_failed_step_survives_a_cluster_that_cannot_be_asked() -> None:
    def answer(words: tuple[str, ...]) -> str:
        if words[:2] in (("kubectl", "get"), ("kind", "create")):
            raise ClusterError(f"{words[1]} failed")
        return ""

    with pytest.raises(ClusterError, match=r"step 1 of \d+, a cluster of one node: create failed$"):
        Kind(Recorder(answer)).up()


def test_missing_programs_are_named_with_where_to_get_them_before_anything_is_run(machine: Path) -> None:
    (machine / "kind").unlink()
    (machine / "kn").unlink()
    runner = Recorder()
    with pytest.raises(ClusterError) as caught:
        Kind(runner).up()
    assert re.findall(r"^(\w+): https://\S+", str(caught.value), re.MULTILINE) == ["kind", "kn"]
    assert runner.words() == []


def test_an_engine_that_does_not_answer_is_the_first_thing_said() -> None:
    runner = Recorder(failing("docker", "Cannot connect to the Docker daemon"))
    with pytest.raises(ClusterError, match="Cannot connect to the Docker daemon"):
        Kind(runner).up()
    assert runner.words() == [ENGINE]


def test_down_deletes_the_cluster_and_what_was_kept_of_it_and_may_be_repeated() -> None:
    runner = Recorder(healthy)
    Kind(runner).up()
    runner.words()
    Kind(runner).down()
    assert runner.words() == [CLUSTERS, DELETE]
    assert not (cache() / "kind").exists()
    runner.answer = fresh
    Kind(runner).down()
    assert runner.words() == [CLUSTERS]


def test_an_image_is_copied_into_the_cluster_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = Recorder()
    Kind(runner).load(Path("image.tar"))
    assert runner.words() == [("kind", "load", "image-archive", str(tmp_path / "image.tar"), f"--name={NAME}")]


def test_two_do_not_make_a_cluster_at_once() -> None:
    runner = Recorder(healthy)
    with exclusive.alone(cache() / "kind.lock"), pytest.raises(ClusterError, match="another process"):
        Kind(runner).up()
    assert runner.words() == [ENGINE]
    Kind(runner).up()


def release_files(directory: Path) -> Path:
    directory.mkdir()
    for name in FILES:
        (directory / name).touch()
    return directory


def test_release_files_of_the_users_own_take_the_place_of_githubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = release_files(tmp_path / "yaml")
    monkeypatch.setenv(FILES_VARIABLE, str(directory))
    words = [word for step in Kind().steps() for word in step.argv]
    assert [word for word in words if word.endswith(".yaml") and word.startswith("/")] == [
        str(directory / name) for name in FILES
    ]
    assert not any("https:" in word for word in words)
    published = [word for argv in planned() for word in argv if word.startswith("https:")]
    assert [url.rsplit("/", 1)[1] for url in published] == list(FILES)


def test_release_files_that_are_missing_are_named_before_a_cluster_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = release_files(tmp_path / "yaml")
    (directory / "kourier.yaml").unlink()
    monkeypatch.setenv(FILES_VARIABLE, str(directory))
    runner = Recorder(healthy)
    with pytest.raises(ClusterError, match=r"lacks kourier\.yaml"):
        Kind(runner).up()
    assert runner.words() == [ENGINE]


def test_definitions_are_established_before_anything_that_uses_them() -> None:
    order = [" ".join(argv) for argv in planned()]
    for what in ("serving", "eventing"):
        defined = next(index for index, words in enumerate(order) if f"{what}-crds.yaml" in words)
        used = next(index for index, words in enumerate(order) if f"{what}-core.yaml" in words)
        assert any("condition=Established" in words for words in order[defined + 1 : used])


def test_the_ingress_is_where_the_cluster_file_and_the_service_put_it() -> None:
    config = yaml.safe_load((Path(kind_provider.__file__).parent / "cluster.yaml").read_text())
    # The name is told on the command line, where no variable of the environment changes it.
    assert "name" not in config
    assert f"--name={NAME}" in planned()[0]
    (node,) = config["nodes"]
    (mapping,) = node["extraPortMappings"]
    assert (mapping["containerPort"], mapping["hostPort"], mapping["listenAddress"]) == (PORT, PORT, "127.0.0.1")
    assert re.match(r"kindest/node:v1\.34\.\d+@sha256:[0-9a-f]{64}$", node["image"])
    (patch,) = [argv for argv in planned() if argv[1:4] == ("patch", "service", "kourier")]
    (data,) = [yaml.safe_load(word.removeprefix("--patch=")) for word in patch if word.startswith("--patch=")]
    assert data["spec"]["ports"] == [{"port": 80, "nodePort": mapping["containerPort"]}]
    assert Kind(Recorder(healthy)).up().ingress == f"http://127.0.0.1:{mapping['hostPort']}"


def test_knative_gets_the_settings_that_every_cluster_gets() -> None:
    ours = {}
    for argv in planned():
        if argv[1:3] == ("patch", "configmap"):
            assert "--namespace=knative-serving" in argv
            (data,) = [yaml.safe_load(word.removeprefix("--patch=")) for word in argv if word.startswith("--patch=")]
            ours[argv[3]] = data["data"]
    assert ours == config_maps("kourier.ingress.networking.knative.dev")
    assert Kind(Recorder(healthy)).up().domain in ours["config-domain"]


def test_the_programs_of_the_cluster_are_those_in_path(machine: Path) -> None:
    cluster = Kind(Recorder(healthy)).up()
    assert (cluster.kubectl, cluster.kn) == (machine / "kubectl", machine / "kn")


def test_kind_is_among_the_providers() -> None:
    assert provider("kind").name == "kind"


@pytest.mark.parametrize("component", ["kubelet", "kube-apiserver"])
def test_a_component_is_taken_away_and_brought_back_inside_the_node(component: Component) -> None:
    runner = Recorder(healthy)
    Kind(runner).stop(component)
    Kind(runner).start(component)
    away, back = FAULTS[component]
    inside = ("docker", "exec", f"{NAME}-control-plane")
    assert runner.words() == [(*inside, *away), (*inside, *back)]
