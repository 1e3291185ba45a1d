"""Images: a store, runs of what is in it, and new ones."""

import io
import json
import os
import stat
import subprocess

import pytest

import sandcell


def shell(line, **options):
    return sandcell.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True, **options).stdout


def test_an_image_is_loaded_run_and_committed(store, tmp_path):
    options = {"image": "app:1", "store": store.path}
    assert int(shell("busybox id -u 2>/dev/null || /bin/sh -c 'echo $$'", **options)) > 0
    shell("echo x >/x", upper=tmp_path / "upper", **options)
    assert store.commit(tmp_path / "upper", "app:2").startswith("sha256:")
    assert shell("read x </x; echo $x", image="app:2", store=store.path) == "x\n"
    assert store.history("app:2")[0]["createdBy"] == "sandcell commit"
    assert [image["Names"] for image in store.images()] == [["app:1"], ["app:2"]]
    assert store.inspect("app:1")["RepoTags"] == ["app:1"]
    assert [(c.kind, c.path) for c in store.diff(tmp_path / "upper")] == [("added", "/x")]
    assert store.diff(tmp_path / "upper", base="app:1") == store.diff(tmp_path / "upper")
    said = {"change": ['CMD ["/bin/sh"]', "ENV WORD=x"], "message": "why", "author": "me", "created": "2024-01-02T03:04:05Z"}
    store.commit(tmp_path / "upper", "app:3", base="app:1", created_by="a hand", **said)
    told = store.inspect("app:3")
    assert (told["Author"], told["Created"], told["Config"]["Cmd"]) == ("me", said["created"], ["/bin/sh"])
    assert (store.history("app:3")[0]["comment"], store.history("app:3")[0]["createdBy"]) == ("why", "a hand")
    store.commit(None, "app:4", base="app:1", change=["ENV ONLY=this"])
    assert "ONLY=this" in store.inspect("app:4")["Config"]["Env"]
    with pytest.raises(sandcell.PolicyError, match="base"):
        store.commit(None, "app:5")
    gone = store.remove("app:4")
    assert (len(gone.images), gone.layers, gone.bytes) == (1, [], 0)
    store.remove("app:3")
    store.tag("app:2", "other")
    store.save(["app:1", "other"], tmp_path / "saved.tar")
    store.remove("other")
    again = sandcell.Store(tmp_path / "again")
    assert sorted(again.load(tmp_path / "saved.tar")) == ["app:1", "other:latest"]
    assert store.prune() == ([], [], 0)
    (both,) = {image["SharedSize"] for image in store.images()}
    assert both == min(image["Size"] for image in store.images())


def test_volumes_outlive_runs(store):
    options = {"image": "app:1", "store": store.path}
    shell("echo kept >/data/x", volumes=["box:/data"], **options)
    assert shell("read x </data/x; echo $x; echo >/data/y || echo no", volumes=["box:/data:ro"], **options) == "kept\nno\n"
    (volume,) = store.volumes()
    assert (volume["Name"], volume["InUse"], os.listdir(volume["Mountpoint"])) == ("box", False, ["x"])
    store.remove_volume("box")
    assert store.volumes() == []
    with pytest.raises(sandcell.PolicyError, match="volumes"):
        shell("true", volumes=["box"], **options)


def test_a_dockerfile_is_built(store, tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    (context / "f").write_text("from the context\n")
    lines = ["FROM app:1", "ARG WORD", "COPY f /f", "RUN echo $WORD >/made", 'CMD ["/bin/sh", "-c", "read x </made; echo $x"]']
    (context / "Dockerfile").write_text("\n".join(lines))
    first = store.build(context, name="built", args={"WORD": "given"}, timestamp=1_700_000_000)
    steps = []
    again = store.build(
        context, args={"WORD": "given"}, timestamp=1_700_000_000, progress=lambda *step: steps.append(step)
    )
    assert again == first
    assert steps[0] == (1, 5, "FROM app:1", False) and steps[3] == (4, 5, "RUN echo $WORD >/made", True)
    sandbox = sandcell.Sandbox(image="built", store=store.path)
    assert sandbox.run(sandbox.image_argv(), capture_output=True).stdout == b"given\n"
    assert sandbox.image_argv(["/bin/other", "x"]) == ["/bin/other", "x"]
    (context / "Dockerfile").write_text("FROM app:1\nRUN --mount=type=ssh,required true\n")
    with pytest.raises(sandcell.PolicyError, match="Dockerfile:2"):
        store.build(context)


def test_an_image_is_built_by_calls(store, tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    (context / "f").write_text("copied\n")
    build = sandcell.Build("app:1").run("echo line >/made").run(["/bin/sh", "-c", "echo words >/words"])
    build.copy(["f"], "/f", owner="7:8", mode=0o640).env("A", "b c").label("k", "v").workdir("/etc").expose("80")
    build.volume("/kept").stop_signal("SIGINT").entrypoint(["/bin/sh", "-c"]).cmd(["read x </made; read y </words; echo $x $y $A; pwd"])
    steps = []
    how = {"context": context, "name": "calls", "timestamp": 1_700_000_000, "pids": 64, "best_effort": ["pids"]}
    first = store.build(build, progress=lambda *step: steps.append(step), **how)
    assert [step[0] for step in steps] == list(range(1, 13)) and steps[1][2] == "RUN echo line >/made"
    assert store.build(build, **how) == first
    config = store.inspect("calls")["Config"]
    assert (config["StopSignal"], config["Labels"], list(config["ExposedPorts"])) == ("SIGINT", {"k": "v"}, ["80/tcp"])
    sandbox = sandcell.Sandbox(image="calls", store=store.path)
    assert sandbox.run(sandbox.image_argv(), capture_output=True).stdout == b"line words b c\n/etc\n"
    for mistake in (
        lambda: store.build(sandcell.Build("app:1").run(7)),
        lambda: store.build(sandcell.Build("nowhere:1")),
        lambda: store.build(sandcell.Build("app:1"), args={"A": "b"}),
        lambda: store.build(sandcell.Build("app:1"), network="everywhere"),
        lambda: store.build(),
    ):
        with pytest.raises((sandcell.PolicyError, TypeError)):
            mistake()
    with pytest.raises(sandcell.SandboxError, match="exit"):
        store.build(sandcell.Build("app:1").run("exit 3"))


def test_stages_secrets_and_agents_are_those_of_the_call(store, tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    (context / "secret").write_text("file\n")
    mounts = "--mount=type=secret,id=a --mount=type=secret,id=b --mount=type=ssh"
    script = "read x </run/secrets/a; read y </run/secrets/b; echo $x $y $SSH_AUTH_SOCK >/seen"
    (context / "Dockerfile").write_text(f"FROM app:1 AS first\nRUN {mounts} {script}\nFROM app:1\nRUN exit 9\n")
    secrets = {"a": b"bytes\n", "b": context / "secret"}
    store.build(context, name="made:1", target="first", secrets=secrets, ssh={"default": context / "secret"})
    seen = shell("read x </seen; echo $x", image="made:1", store=store.path)
    assert seen == "bytes file /run/buildkit/ssh_agent.2\n"
    with pytest.raises(sandcell.PolicyError, match="nowhere"):
        store.build(context, target="nowhere")
    with pytest.raises(sandcell.SetupError, match="status 9"):
        store.build(context)


def test_an_archive_is_loaded_from_a_pipe_and_from_memory(store, tmp_path):
    store.save(["app:1"], tmp_path / "saved.tar", format="docker-archive")
    again = sandcell.Store(tmp_path / "again")
    with subprocess.Popen(["cat", tmp_path / "saved.tar"], stdout=subprocess.PIPE, bufsize=0) as cat:
        assert again.load(cat.stdout) == ["app:1"]
    assert again.load(io.BytesIO((tmp_path / "saved.tar").read_bytes()), name="memory:1") == ["memory:1"]
    with open(tmp_path / "saved.tar", "rb") as file:
        assert again.load(file, name="file:1") == ["file:1"]
        assert not file.closed
    with pytest.raises(sandcell.SetupError):
        again.load(io.BytesIO(b"nothing"))


def test_a_user_of_the_image_is_named(store):
    commit = ['ENTRYPOINT ["/bin/sh", "-c"]', 'CMD ["echo $USER of the image"]']
    store.build(sandcell.Build("app:1").run("echo web:x:33:34::/:/bin/sh >>/etc/passwd"), name="users:1")
    store.commit(None, "own:1", base="users:1", change=commit)
    box = sandcell.Sandbox(image="own:1", store=store.path, user="web")
    assert box.run(box.image_argv(), capture_output=True, text=True).stdout == "web of the image\n"


def test_a_store_loads_nothing_beyond_its_limits(store, tmp_path):
    root = tmp_path / "root"
    small = sandcell.Store(store.path, limits={"members": 2, "time": "60s", "layer_bytes": "1G", "layers": 9, "ratio": 9})
    with pytest.raises(sandcell.SetupError, match="members"):
        small.load(root, name="app:2", format="rootfs")
    assert [image["Names"] for image in store.images()] == [["app:1"]]
    store.load(root, name="app:2", format="rootfs", created="2024-01-02T03:04:05Z")
    assert store.inspect("app:2")["Created"] == "2024-01-02T03:04:05Z"
    for limits in ({"size": 1}, {"members": 0}, {"layer_bytes": "much"}):
        with pytest.raises(sandcell.PolicyError):
            sandcell.Store(store.path, limits=limits)


def test_mistakes_about_images_are_policy_errors(store, tmp_path):
    for mistake in (
        lambda: sandcell.Sandbox(image="nowhere", store=store.path),
        lambda: sandcell.Sandbox(image=7, store=store.path),
        lambda: store.inspect("a b"),
        lambda: store.load(tmp_path, format="tar"),
        lambda: store.commit(tmp_path, "x"),
        lambda: store.save("app:1", tmp_path / "x", format="zip"),
        lambda: sandcell.Sandbox().image_argv(),
    ):
        with pytest.raises(sandcell.PolicyError):
            mistake()
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o700
    assert json.dumps(store.images())
