//! Dockerfiles in the shapes of well-known projects, without their networks: each is built and says what it should.

#![cfg(feature = "image")]

mod image_support;

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use image_support::*;
use sandcell::image::{Build, Image, Store};
use sandcell::{Error, Outcome, Root, Sandbox, User};
use serde_json::{Value, json};

/// A Dockerfile, the files beside it, and what a shell in the image says.
struct Case {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    dockerfile: &'static str,
    script: &'static str,
    said: &'static str,
    /// A part of the configuration that must be so.
    config: &'static str,
}

const NONE: Case = Case { name: "", files: &[], dockerfile: "", script: "true", said: "", config: "{}" };

/// Stand-ins for the images that such files begin with have these names; all are busybox.
const IMAGES: [&str; 6] =
    ["golang:1.22", "node:20-alpine", "python:3.12-slim", "alpine:3.20", "debian:bookworm-slim", "base:1"];

const CASES: &[Case] = &[
    Case {
        name: "go: compiled in one stage, alone in the next",
        files: &[("go.mod", "module m"), ("go.sum", ""), ("cmd/main.go", "#!/bin/sh\necho serving $@")],
        dockerfile: "# syntax=docker/dockerfile:1\n\
            ARG GO_VERSION=1.22\n\
            FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS build\n\
            ARG TARGETOS TARGETARCH\n\
            WORKDIR /src\n\
            COPY go.mod go.sum ./\n\
            RUN --mount=type=cache,target=/go/pkg/mod/ cp go.mod /go/pkg/mod/\n\
            COPY . .\n\
            RUN --mount=type=cache,target=/go/pkg/mod/ --mount=type=bind,target=/ctx \
              cat /go/pkg/mod/go.mod >/dev/null && CGO_ENABLED=0 cp cmd/main.go /bin/server && chmod +x /bin/server && echo $TARGETOS/$TARGETARCH > /bin/platform\n\
            FROM alpine:3.20 AS final\n\
            ARG UID=10001\n\
            RUN echo \"appuser:x:${UID}:${UID}::/nonexistent:/sbin/nologin\" >> /etc/passwd\n\
            USER appuser\n\
            COPY --from=build /bin/server /bin/platform /bin/\n\
            EXPOSE 8080\n\
            ENTRYPOINT [ \"/bin/server\" ]\n",
        script: "cat /bin/platform; /bin/server a b; id -u; ls /src /go 2>&1 | wc -l",
        said: "linux/amd64\nserving a b\n10001\n2",
        config: r#"{"User": "appuser", "Entrypoint": ["/bin/server"], "ExposedPorts": {"8080/tcp": {}}}"#,
    },
    Case {
        name: "node: dependencies, build and a runner, as Next.js has it",
        files: &[
            ("package.json", "{}"),
            ("package-lock.json", "lock"),
            ("src/index.js", "hello"),
            ("public/logo", "logo"),
            (".dockerignore", "node_modules\n.git\n*.md\n"),
            ("node_modules/x", "host"),
            ("README.md", "no"),
        ],
        dockerfile: "FROM node:20-alpine AS base\n\
            FROM base AS deps\n\
            WORKDIR /app\n\
            COPY package.json yarn.lock* package-lock.json* pnpm-lock.yaml* ./\n\
            RUN if [ -f package-lock.json ]; then mkdir node_modules && cp package-lock.json node_modules/dep; else exit 1; fi\n\
            FROM base AS builder\n\
            WORKDIR /app\n\
            COPY --from=deps /app/node_modules ./node_modules\n\
            COPY . .\n\
            RUN mkdir -p .next/standalone && cat src/index.js node_modules/dep > .next/standalone/server.js\n\
            FROM base AS runner\n\
            WORKDIR /app\n\
            ENV NODE_ENV=production\n\
            RUN echo nodejs:x:1001: >> /etc/group && echo nextjs:x:1001:1001::/: >> /etc/passwd\n\
            COPY --from=builder /app/public ./public\n\
            COPY --from=builder --chown=nextjs:nodejs /app/.next/standalone ./\n\
            USER nextjs\n\
            ENV PORT=3000 HOSTNAME=\"0.0.0.0\"\n\
            CMD [\"node\", \"server.js\"]\n",
        script: "cat server.js public/logo; ls /app; pwd; ls -a | wc -l",
        said: "hellolocklogopublic\nserver.js\n/app\n4",
        config: r#"{"Cmd": ["node", "server.js"], "WorkingDir": "/app", "User": "nextjs"}"#,
    },
    Case {
        name: "python: a virtual environment copied to the runtime",
        files: &[("requirements.txt", "flask==3"), ("app/main.py", "print(1)")],
        dockerfile: "FROM python:3.12-slim AS builder\n\
            ENV PYTHONUNBUFFERED=1 \\\n    PIP_NO_CACHE_DIR=off\n\
            WORKDIR /app\n\
            COPY requirements.txt .\n\
            RUN mkdir -p /opt/venv/bin && echo 'exec /bin/sh \"$@\"' > /opt/venv/bin/python && chmod 755 /opt/venv/bin/python && cp requirements.txt /opt/venv/done\n\
            FROM python:3.12-slim\n\
            COPY --from=builder /opt/venv /opt/venv\n\
            ENV PATH=\"/opt/venv/bin:$PATH\"\n\
            COPY ./app /code/app\n\
            WORKDIR /code\n\
            HEALTHCHECK --interval=30s --timeout=3s --start-period=5s --retries=3 \\\n  CMD wget -qO- http://localhost/ || exit 1\n\
            CMD [\"python\", \"-c\", \"echo ok\"]\n",
        script: "python -c 'cat /opt/venv/done; echo; cat app/main.py'; echo; echo $PATH",
        said: "flask==3\nprint(1)\n/opt/venv/bin:/usr/local/bin:/usr/bin:/bin",
        config: r#"{"Healthcheck": {"Test": ["CMD-SHELL", "wget -qO- http://localhost/ || exit 1"], "Interval": 30000000000,
            "Timeout": 3000000000, "StartPeriod": 5000000000, "Retries": 3}}"#,
    },
    Case {
        name: "rust: dependencies first, by cargo chef's order",
        files: &[("Cargo.toml", "[package]"), ("src/main.rs", "fn main"), ("rust-toolchain", "1")],
        dockerfile: "FROM base:1 AS chef\nWORKDIR /app\n\
            FROM chef AS planner\nCOPY . .\nRUN cat Cargo.toml > recipe.json\n\
            FROM chef AS builder\n\
            COPY --from=planner /app/recipe.json recipe.json\n\
            RUN --mount=type=cache,id=cargo,target=/usr/local/cargo/registry,sharing=locked cat recipe.json > cooked\n\
            COPY . .\n\
            RUN cat cooked src/main.rs > target-app\n\
            FROM debian:bookworm-slim AS runtime\n\
            COPY --from=builder /app/target-app /usr/local/bin/app\n\
            ENTRYPOINT [\"/usr/local/bin/app\"]\n",
        script: "cat /usr/local/bin/app",
        said: "[package]fn main",
        ..NONE
    },
    Case {
        name: "nginx: a static site over its defaults",
        files: &[("dist/index.html", "<html>"), ("dist/assets/a.js", "js"), ("nginx.conf", "conf")],
        dockerfile: "FROM alpine:3.20\n\
            LABEL maintainer=\"NGINX Docker Maintainers <docker-maint@nginx.com>\"\n\
            ENV NGINX_VERSION   1.27.0\n\
            RUN set -x \\\n\
            # create nginx user/group first\n\
                && echo nginx:x:101:101::/: >> /etc/passwd \\\n\n\
                && mkdir -p /usr/share/nginx/html /docker-entrypoint.d \\\n\
                && ln -sf /dev/stdout /usr/share/nginx/access.log\n\
            COPY dist/ /usr/share/nginx/html/\n\
            COPY --chmod=0644 nginx.conf /etc/nginx/conf.d/default.conf\n\
            EXPOSE 80\n\
            STOPSIGNAL SIGQUIT\n\
            CMD [\"nginx\", \"-g\", \"daemon off;\"]\n",
        script: "cd /usr/share/nginx; cat html/index.html html/assets/a.js; readlink access.log; cat /etc/nginx/conf.d/default.conf; echo $NGINX_VERSION",
        said: "<html>js/dev/stdout\nconf1.27.0",
        config: r#"{"StopSignal": "SIGQUIT", "Cmd": ["nginx", "-g", "daemon off;"]}"#,
    },
    Case {
        name: "postgres: variables from variables, volumes, an entry point",
        files: &[("docker-entrypoint.sh", "#!/bin/sh\necho entry $@"), ("docker-ensure-initdb.sh", "#!/bin/sh\n")],
        dockerfile: "FROM debian:bookworm-slim\n\
            ENV GOSU_VERSION 1.17\nENV LANG en_US.utf8\nENV PG_MAJOR 16\nENV PG_VERSION=$PG_MAJOR.3-1\n\
            ENV PATH $PATH:/usr/lib/postgresql/$PG_MAJOR/bin\n\
            RUN set -eux; dir=\"$(mktemp -d)\"; echo \"${PG_VERSION%%-*}\" > /version; rm -r \"$dir\"\n\
            RUN mkdir -p /var/run/postgresql && chmod 3777 /var/run/postgresql\n\
            ENV PGDATA /var/lib/postgresql/data\n\
            RUN install() { mkdir -p \"$1\"; }; install \"$PGDATA\" && chmod 1777 \"$PGDATA\"\n\
            VOLUME /var/lib/postgresql/data\n\
            COPY docker-entrypoint.sh docker-ensure-initdb.sh /usr/local/bin/\n\
            RUN ln -sT docker-ensure-initdb.sh /usr/local/bin/docker-enforce-initdb.sh || ln -s docker-ensure-initdb.sh /usr/local/bin/docker-enforce-initdb.sh; chmod +x /usr/local/bin/*.sh\n\
            ENTRYPOINT [\"docker-entrypoint.sh\"]\n\
            STOPSIGNAL SIGINT\nEXPOSE 5432\nCMD [\"postgres\"]\n",
        script: "cat /version; echo $PATH | tr : '\\n' | tail -n 1; docker-entrypoint.sh x; stat -c %a $PGDATA; readlink /usr/local/bin/docker-enforce-initdb.sh",
        said: "16.3\n/usr/lib/postgresql/16/bin\nentry x\n1777\ndocker-ensure-initdb.sh",
        config: r#"{"Volumes": {"/var/lib/postgresql/data": {}}, "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["postgres"]}"#,
    },
    Case {
        name: "java: layers of a jar, by ADD and numbered stages",
        files: &[("app.jar/BOOT-INF/lib/x", "lib"), ("app.jar/META-INF/MANIFEST", "m")],
        dockerfile: "FROM base:1\nWORKDIR /workspace\nADD app.jar extracted/\n\
            FROM base:1\nVOLUME /tmp\nARG EXTRACTED=/workspace/extracted\n\
            COPY --from=0 ${EXTRACTED}/BOOT-INF/lib /app/lib\nCOPY --from=0 ${EXTRACTED}/META-INF /app/META-INF\n\
            ENTRYPOINT [\"java\",\"-cp\",\"app:app/lib/*\"]\n",
        script: "cat /app/lib/x /app/META-INF/MANIFEST",
        said: "libm",
        ..NONE
    },
    Case {
        name: "here-documents: scripts, interpreters, files",
        files: &[],
        dockerfile: "# syntax=docker/dockerfile:1.4\nFROM base:1\nARG WHO=world\n\
            RUN <<EOF\nset -e\necho first > /one\necho \"hello $WHO\" >> /one\nEOF\n\
            RUN <<-'END' cat > /two\n\tkept $HOME\n\tEND\n\
            RUN <<SCRIPT\n#!/bin/sh -e\necho \"script $0\" | cut -c1-6 > /three\nSCRIPT\n\
            COPY <<conf.txt <<\"raw.txt\" /etc/app/\nname = ${WHO}\n# 'kept' \\$x\nconf.txt\nname = ${WHO}\nraw.txt\n\
            COPY --chmod=750 <<-EOF /usr/bin/tool\n\t#!/bin/sh\n\techo tool\n\tEOF\n",
        script: "cat /one /two /three /etc/app/conf.txt /etc/app/raw.txt; tool; stat -c %a /usr/bin/tool",
        said: "first\nhello world\nkept $HOME\nscript\nname = world\n# 'kept' $x\nname = ${WHO}\ntool\n750",
        ..NONE
    },
    Case {
        name: "SHELL: another shell for RUN and CMD",
        files: &[],
        dockerfile: "FROM base:1\nSHELL [\"/bin/sh\", \"-eu\", \"-c\"]\nRUN echo $- | tr -dc eu > /flags\n\
            SHELL [\"/bin/busybox\", \"ash\", \"-c\"]\nCMD echo hello\n",
        script: "cat /flags",
        said: "ue",
        config: r#"{"Shell": ["/bin/busybox", "ash", "-c"], "Cmd": ["/bin/busybox", "ash", "-c", "echo hello"]}"#,
    },
    Case {
        name: "arguments: before FROM, in stages, with defaults of defaults",
        files: &[],
        dockerfile: "ARG BASE=base\nARG TAG=1\nARG FULL=${BASE}:${TAG}\nARG X=global\nFROM ${FULL} AS one\n\
            RUN echo \"[$X][${TAG:-unset}][${TAG:+set}]\" > /a\n\
            ARG X\nARG TAG=own\nARG Y=${X:-no}-${Z:-z}\nRUN echo \"[$X][$TAG][$Y]\" >> /a\n\
            FROM one AS two\nRUN echo \"[$X]\" >> /a\nARG X=second\nENV X=${X}-env\nRUN echo \"[$X]\" >> /a\n",
        script: "cat /a; echo $X",
        said: "[][unset][]\n[global][own][global-z]\n[]\n[second-env]\nsecond-env",
        ..NONE
    },
    Case {
        name: "escape: a backtick, and backslashes that mean themselves",
        files: &[("a b", "blank"), ("c", "c")],
        dockerfile: "# escape=`\nFROM base:1\nENV P=C:\\x `\n    Q=\"a`\"b\"\nCOPY a` b c `\n  /d/\nRUN echo `\n  joined \\\\n > /j\n",
        script: "cat '/d/a b' /d/c /j; echo \"$P $Q\" | cat",
        said: "blankcjoined \\n\nC:\\x a\"b",
        ..NONE
    },
    Case {
        name: "windows' editor: a byte order mark and its line ends",
        files: &[("f", "f"), ("secret.key", "secret"), (".dockerignore", "\u{feff}secret.key\r\nf2\r\n")],
        dockerfile: "\u{feff}FROM base:1\r\nCOPY . /c\r\nRUN echo a && \\\r\n  echo b > /b\r\n",
        script: "ls /c; cat /b",
        said: "Dockerfile\nf\nb",
        ..NONE
    },
    Case {
        name: "from nothing: files of an image and of a stage",
        files: &[],
        dockerfile: "FROM base:1 AS certs\nRUN mkdir -p /etc/ssl/certs && echo ca > /etc/ssl/certs/ca.crt && echo root:x:0:0::/: > /etc/passwd\n\
            FROM scratch\nCOPY --from=certs /etc/ssl/certs/ca.crt /etc/ssl/certs/\nCOPY --from=certs /etc/passwd /etc/passwd\n\
            COPY --from=base:1 /bin /bin\nENTRYPOINT [\"/bin/sh\"]\n",
        script: "cat /etc/ssl/certs/ca.crt; ls / | cat",
        said: "ca\nbin\ndev\netc\nhome\nproc\ntmp\nvar",
        ..NONE
    },
    Case {
        name: "bind mounts: the context and another stage, without a trace",
        files: &[("src/in", "in"), ("hidden", "h"), (".dockerignore", "hidden")],
        dockerfile: "FROM base:1 AS other\nRUN mkdir /o && echo other > /o/file\n\
            FROM base:1\nWORKDIR /work\n\
            RUN --mount=type=bind,source=src,target=/mnt/src --mount=type=bind,from=other,source=/o/file,target=/mnt/file,ro \
              --mount=target=.,rw cat /mnt/src/in /mnt/file > /out && ls > /list && echo new > written && ls written > /wrote\n",
        script: "cat /out /list /wrote; ls -A /mnt 2>/dev/null; ls -A /work",
        said: "inother\nDockerfile\nsrc\nwritten",
        ..NONE
    },
    Case {
        name: "tmpfs and no network, flags with variables",
        files: &[],
        dockerfile: "FROM base:1\nARG DIR=/scratch\n\
            RUN --mount=type=tmpfs,target=${DIR},size=1m --network=none cd $DIR && echo x > x && cat x > /seen\n",
        script: "cat /seen; ls -A /scratch 2>/dev/null | cat",
        said: "x",
        ..NONE
    },
    Case {
        name: "copies: patterns, links, into and onto, --link",
        files: &[("a.conf", "a"), ("b.conf", "b"), ("dir/sub/x", "x"), ("one", "1")],
        dockerfile: "FROM base:1\nWORKDIR /w\nCOPY --link *.conf ./\nCOPY dir .\nCOPY one renamed\nCOPY one new/\nCOPY [\"one\", \"with blank\"]\n\
            COPY --chown=33:34 --chmod=600 one /etc/one\nCOPY --from=base:1 /bin/sh /etc/pass* /etc/copied/\n",
        script: "cat a.conf b.conf sub/x renamed new/one 'with blank'; stat -c %a /etc/one; ls /etc/copied | cat",
        said: "abx111600\npasswd\nsh",
        ..NONE
    },
    Case {
        name: "old files: MAINTAINER, ENV and LABEL with blanks, CMD of a shell",
        files: &[],
        dockerfile: "FROM base:1\nMAINTAINER Some Body <some@body.org>\nENV NAME some value with blanks\nLABEL description This text\n\
            RUN [\"/bin/sh\", \"-c\", \"echo json > /json\"]\nONBUILD COPY . /app\nEXPOSE 8000-8002/tcp 53/UDP\nCMD exec top -b\n",
        script: "cat /json; echo $NAME",
        said: "json\nsome value with blanks",
        config: r#"{"Cmd": ["/bin/sh", "-c", "exec top -b"], "OnBuild": ["COPY . /app"], "Labels": {"description": "This text"},
            "ExposedPorts": {"8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}, "53/udp": {}}}"#,
    },
    Case {
        name: "a stage that is never needed is not made",
        files: &[],
        dockerfile: "FROM base:1 AS broken\nRUN exit 7\nFROM base:1 AS good\nRUN echo good > /good\nFROM good\n",
        script: "cat /good",
        said: "good",
        ..NONE
    },
    Case {
        name: "users: names, groups, directories of theirs",
        files: &[("f", "f")],
        dockerfile: "FROM base:1\nRUN echo app:x:1000:1000::/home/app:/bin/sh >> /etc/passwd && echo app:x:1000: >> /etc/group\n\
            RUN mkdir -p /home/app\nWORKDIR /home/app\nCOPY --chown=app:app f .\nUSER app:app\nRUN id -u > /tmp/none; id -u\nENV HOME=/home/app\n",
        script: "id -u; id -g; echo $HOME; cat f",
        said: "1000\n1000\n/home/app\nf",
        ..NONE
    },
    Case {
        name: "long commands with comments, quotes, pipes and continuation",
        files: &[],
        dockerfile: "FROM base:1\nRUN set -ex; \\\n\t# first\n\tfor i in a 'b c' \"d\"; do \\\n\t\techo \"[$i]\"; \\\n\n\tdone | sort -r > /o; \\\n\
            \tcase \"$(uname -s)\" in \\\n\t\tLinux) echo \"lin\\\"ux\" ;; \\\n\tesac >> /o  \\\n\n# the end\n\n",
        script: "cat /o",
        said: "[d]\n[b c]\n[a]\nlin\"ux",
        ..NONE
    },
];

struct Site {
    scratch: Scratch,
    store: Store,
}

impl Site {
    fn new(name: &str) -> Site {
        let scratch = Scratch::new(name);
        let store = scratch.store();
        let mut members = busybox();
        let more =
            ["tr", "tail", "wc", "sort", "cut", "mktemp", "ln", "readlink", "uname", "test", "[", "top", "sed", "find"];
        members.extend(more.iter().map(|name| symlink(format!("bin/{name}"), "busybox")));
        members.push(dir("usr"));
        members.push(dir("usr/bin"));
        members.push(dir("usr/local"));
        members.push(dir("usr/local/bin"));
        for image in IMAGES {
            let path = "PATH=/usr/local/bin:/usr/bin:/bin";
            store_image(&store, image, &[tar(&members)], json!({"Env": [path], "Cmd": ["sh"]}));
        }
        Site { scratch, store }
    }

    fn context(&self, files: &[(&str, &str)], dockerfile: &str) -> PathBuf {
        let context = self.scratch.path("context");
        let _ = fs::remove_dir_all(&context);
        fs::create_dir(&context).unwrap();
        for (path, content) in files {
            let path = context.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        context
    }

    fn build(&self, files: &[(&str, &str)], dockerfile: &str) -> Build {
        let context = self.context(files, dockerfile);
        let build = Build::dockerfile_at(context.join("Dockerfile"));
        build.unwrap_or_else(|e| panic!("{e} ({})", e.hint())).context(context).name("made".parse().unwrap())
    }

    fn made(&self, build: &Build) -> Result<Image, Error> {
        self.store.build(build, &|_| {})
    }

    fn told(&self, script: &str) -> String {
        let builder = Sandbox::builder().store(self.store.dir()).root(Root::image("made"));
        let output = builder.build().unwrap().command("/bin/sh").args(["-c", script]).output().unwrap();
        assert_eq!(output.outcome, Outcome::Exited(0), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

#[test]
fn dockerfiles_of_well_known_shapes_make_the_images_that_they_describe() {
    let site = Site::new("dockerfiles");
    assert!(CASES.len() >= 20);
    let mut failures = Vec::new();
    for case in CASES {
        let run = std::panic::AssertUnwindSafe(|| {
            let image =
                site.made(&site.build(case.files, case.dockerfile)).unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
            assert_eq!(site.told(case.script), case.said);
            let config = &inspected(&image)["Config"];
            let wanted: Value = serde_json::from_str(case.config).unwrap();
            for (key, value) in wanted.as_object().unwrap() {
                assert_eq!(&config[key], value, "{key}");
            }
            assert_eq!(
                fs::read_dir(site.store.dir().join("builds")).map_or(0, Iterator::count),
                0,
                "builds/ is not empty"
            );
        });
        if std::panic::catch_unwind(run).is_err() {
            failures.push(case.name);
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn a_target_is_the_image_and_what_it_does_not_need_is_not_made() {
    let site = Site::new("dockerfiles-target");
    let text = "FROM base:1 AS First\nRUN echo 1 > /f\nFROM base:1 AS second\nCOPY --from=first /f /g\nFROM second AS third\nRUN exit 9\n";
    for (target, has) in [("first", "/f"), ("FIRST", "/f"), ("0", "/f"), ("second", "/g"), ("1", "/g")] {
        site.made(&site.build(&[], text).target(target)).unwrap_or_else(|e| panic!("{target}: {e}"));
        assert_eq!(site.told(&format!("cat {has}")), "1", "{target}");
    }
    let error = site.made(&site.build(&[], text).target("fourth")).expect_err("no such stage");
    assert!(matches!(error, Error::Config(_)) && error.to_string().contains("fourth"), "{error}");
    assert!(site.made(&site.build(&[], text)).expect_err("the last fails").to_string().contains("status 9"));
}

#[test]
fn secrets_are_seen_by_their_step_and_are_in_no_layer() {
    let site = Site::new("dockerfiles-secret");
    let text = "FROM base:1\n\
        RUN --mount=type=secret,id=token cat /run/secrets/token | tr a-z A-Z > /seen\n\
        RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token,target=/root/.netrc,mode=0444 echo ${#TOKEN} >> /seen; stat -c %a /root/.netrc >> /seen\n\
        RUN --mount=type=secret,id=none ls /run/secrets 2>/dev/null | wc -l >> /seen\n";
    fs::write(site.scratch.path("token"), "hunter").unwrap();
    let image = site.made(&site.build(&[], text).secret_file("token", site.scratch.path("token"))).unwrap();
    assert_eq!(site.told("cat /seen; ls -A /run/secrets /root 2>/dev/null | cat"), "HUNTER6\n444\n0\n/root:");
    let kept = site.store.use_image(&image.id.to_string()).unwrap();
    for layer in &kept.layers {
        let found = Command::new("grep").args(["-r", "hunter"]).arg(layer).output().unwrap();
        assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    }
    assert!(!format!("{:?}", site.build(&[], text).secret("token", "hunter")).contains("hunter"));
    let required = "FROM base:1\nRUN --mount=type=secret,id=key,required=true cat /run/secrets/key\n";
    let error = site.made(&site.build(&[], required)).expect_err("it is not given");
    assert!(
        error.to_string().contains("Dockerfile:2") && error.hint().contains("--secret"),
        "{error} {}",
        error.hint()
    );
    site.made(&site.build(&[], required).secret("key", "k")).unwrap();
}

#[test]
fn a_cache_outlives_builds_and_is_in_no_image() {
    let site = Site::new("dockerfiles-cache");
    let text = |n: u32| {
        format!(
            "FROM base:1\nRUN --mount=type=cache,target=/c echo {n} >> /c/log; cat /c/log > /seen\nRUN ls -A /c 2>/dev/null | wc -l >> /seen\n"
        )
    };
    site.made(&site.build(&[], &text(1))).unwrap();
    site.made(&site.build(&[], &text(2))).unwrap();
    assert_eq!(site.told("cat /seen"), "1\n2\n0");
    let volumes = site.store.volumes().unwrap();
    assert!(volumes.len() == 1 && volumes[0].name.starts_with("build-cache-"), "{volumes:?}");
}

#[test]
fn steps_with_mounts_are_found_again_until_what_is_mounted_changes() {
    let site = Site::new("dockerfiles-again");
    let text = "FROM base:1 AS other\nCOPY f /f\nFROM base:1\n\
        RUN --mount=type=bind,target=/ctx cat /ctx/f > /seen\nRUN --mount=type=bind,from=other,target=/o cat /o/f > /seen2\n";
    let cached = |content: &str| {
        let told = RefCell::new(Vec::new());
        let build = site.build(&[("f", content)], text);
        site.store.build(&build, &|step| told.borrow_mut().push(step.cached)).unwrap();
        told.into_inner()
    };
    assert_eq!(cached("1"), [false; 5]);
    assert_eq!(cached("1"), [false, false, false, true, true]);
    assert_eq!(cached("2"), [false; 5]);
    assert_eq!(site.told("cat /seen /seen2"), "22");
}

#[test]
fn what_an_image_asks_for_on_build_is_done_first_and_once() {
    let site = Site::new("dockerfiles-onbuild");
    let text = "FROM base:1\nONBUILD ARG NAME=x\nONBUILD COPY f /app/\nONBUILD RUN echo $NAME $(cat /app/f) > /built\n";
    site.made(&site.build(&[("f", "1")], text).name("onbuild:1".parse().unwrap())).unwrap();
    let image =
        site.made(&site.build(&[("f", "content")], "FROM onbuild:1\nARG NAME\nRUN echo then >> /built\n")).unwrap();
    assert_eq!(site.told("cat /built"), "x content\nthen");
    assert_eq!(inspected(&image)["Config"]["OnBuild"], Value::Null);
    site.store.tag("made", &"plain:1".parse().unwrap()).unwrap();
    site.made(&site.build(&[], "FROM plain:1\nRUN cat /built > /again\n")).unwrap();
    assert_eq!(site.told("cat /again"), "x content\nthen");
}

#[test]
fn add_unpacks_archives_and_copies_everything_else() {
    let site = Site::new("dockerfiles-add");
    let context = site.context(&[("plain.tar.gz", "no archive at all"), ("dir/x", "x")], "");
    let archive = tar(&[
        dir("top").mode(0o751).owner(33, 34),
        file("top/f", "packed").mode(0o640).owner(33, 34),
        symlink("top/l", "f"),
        hard("top/h", "top/f"),
        file("bin/added", "through").mode(0o755),
    ]);
    fs::write(context.join("a.tar"), &archive).unwrap();
    fs::write(context.join("a.tgz"), gzip(&archive)).unwrap();
    fs::write(context.join("a.zst"), zstd(&archive)).unwrap();
    for (program, name) in [("xz", "a.tar.xz"), ("bzip2", "a.tar.bz2")] {
        if installed(program) {
            let output = Command::new(program).arg("-c").arg(context.join("a.tar")).output().unwrap();
            fs::write(context.join(name), output.stdout).unwrap();
        } else {
            fs::write(context.join(name), &archive).unwrap();
        }
    }
    let text = "FROM base:1\nRUN ln -s /srv /lnk\nWORKDIR /w\nADD a.tar /one\nADD a.tgz two\nADD a.zst /three/\nADD a.tar.xz /four\n\
        ADD a.tar.bz2 /five\nADD plain.tar.gz /plain/\nADD dir /d\nADD --chown=5:6 a.tar /lnk\nADD a.tar /\nCOPY a.tar /copied\n";
    let build = Build::dockerfile(text, "Dockerfile").unwrap().context(&context).name("made".parse().unwrap());
    site.made(&build).unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    let script = "for d in /one /w/two /three /four /five /srv /lnk ''; do cat $d/top/f $d/top/l $d/top/h; echo; done; \
        stat -c %a /one/top /one/top/f; cat /plain/plain.tar.gz /d/x; test -L /lnk && test -f /copied; cat /bin/added; /bin/echo; test -L /bin/sh";
    let packed = "packedpackedpacked\n".repeat(8);
    assert_eq!(site.told(script), format!("{packed}751\n640\nno archive at allxthrough"));
    // Owners are the archive's, whatever the step says of files.
    let many = Sandbox::builder().store(site.store.dir()).root(Root::image("made")).user(User::Root).id_count(65536);
    match many.wait_for_ids(std::time::Duration::from_secs(100)).build() {
        Ok(sandbox) => {
            let output = sandbox
                .command("/bin/stat")
                .args(["-c", "%u:%g", "/one/top/f", "/srv/top/f", "/d/x"])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "33:34\n33:34\n0:0\n");
        }
        Err(error) => eprintln!("SKIPPED: no range of ids for this user: {error}"),
    }
    for (name, members) in [
        ("up", vec![file("../../etc/passwd", "x")]),
        ("whiteout", vec![file("etc/.wh.passwd", "")]),
        ("device", vec![file("sda", "").kind(b'4')]),
        ("bomb", vec![file("s", "").pax("GNU.sparse.map", "").pax("GNU.sparse.size", "900000000")]),
    ] {
        // The first member makes it an archive.
        let bad: Vec<Member> = [vec![file("good", "x")], members].concat();
        fs::write(context.join("bad.tar"), tar(&bad)).unwrap();
        let build = Build::dockerfile("FROM base:1\nADD bad.tar /x/\n", "Dockerfile").unwrap().context(&context);
        let error = site.made(&build).expect_err(name);
        assert!(error.to_string().contains("Dockerfile:2"), "{name}: {error}");
    }
    fs::write(context.join(".wh.etc"), "").unwrap();
    let build = Build::dockerfile("FROM base:1\nCOPY . /\n", "Dockerfile").unwrap().context(&context);
    assert!(site.made(&build).expect_err("it would remove /etc").to_string().contains(".wh.etc"));
}

#[test]
fn owners_of_files_from_other_stages_are_kept() {
    let site = Site::new("dockerfiles-owners");
    let many = Sandbox::builder().store(site.store.dir()).root(Root::image("base:1")).user(User::Root).id_count(65536);
    if let Err(error) = many.build() {
        eprintln!("SKIPPED: no range of ids for this user: {error}");
        return;
    }
    let text = "FROM base:1 AS a\nRUN mkdir /o /o/closed && echo x > /o/x && chown -R 33:34 /o && chmod 700 /o/closed && echo s > /o/closed/s && chmod 000 /o/closed/s && ln /o/x /o/y\n\
        FROM base:1\nCOPY --from=a /o /p\nCOPY --from=a --chown=5 /o/x /q\nRUN stat -c %u:%g:%a /p /p/x /p/y /p/closed /p/closed/s /q > /said\n";
    site.made(&site.build(&[], text)).unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    assert_eq!(site.told("cat /said"), "33:34:755\n33:34:644\n33:34:644\n33:34:700\n0:0:0\n5:5:644");
}

#[test]
fn an_ignore_file_of_the_dockerfiles_name_counts_instead_of_the_other() {
    let site = Site::new("dockerfiles-ignore");
    let files = [
        ("a", "a"),
        ("b", "b"),
        (".dockerignore", "a\n"),
        ("Dockerfile.dockerignore", "\u{feff}b\nDocker*\n.docker*\n"),
    ];
    site.made(&site.build(&files, "FROM base:1\nCOPY . /c\n")).unwrap();
    assert_eq!(site.told("ls -A /c | cat"), "a");
    site.made(&site.build(&files[..3], "FROM base:1\nCOPY . /c\n")).unwrap();
    assert_eq!(site.told("ls -A /c | cat"), ".dockerignore\nDockerfile\nb");
}

#[test]
fn the_program_ends_with_the_status_of_the_step_that_failed() {
    let Some(program) = std::env::var_os("SANDCELL_BIN").or(option_env!("CARGO_BIN_EXE_sandcell").map(Into::into))
    else {
        eprintln!("SKIPPED: the program sandcell was not built");
        return;
    };
    let site = Site::new("dockerfiles-status");
    let run = |text: &str, args: &[&str]| {
        let context = site.context(&[], text);
        let mut command = Command::new(&program);
        command.arg("build").arg("--store").arg(site.store.dir()).args(args).arg(&context).env("FROM_ENV", "value");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run("FROM base:1\nRUN exit 3\n", &[]).0, Some(3));
    assert_eq!(run("FROM base:1\nRUN exit 3\n", &["--quiet"]).0, Some(3));
    assert_eq!(run("FROM base:1\nRUN kill -9 $$\n", &[]).0, Some(137));
    assert_eq!(run("FROM base:1\nRUN nosuchprogram\n", &[]).0, Some(127));
    assert_eq!(run("FROM nowhere:1\n", &[]).0, Some(125));
    assert_eq!(run("FROM base:1\nFETCH x\n", &[]).0, Some(125));
    let text = "FROM base:1 AS a\nARG WHO\nRUN --mount=type=secret,id=FROM_ENV --mount=type=secret,id=f \
        test \"$(cat /run/secrets/FROM_ENV) $(cat /run/secrets/f) $WHO\" = \"value file me\"\nFROM a\nRUN exit 4\n";
    let secret = site.scratch.path("secret");
    fs::write(&secret, "file").unwrap();
    let secret = format!("id=f,src={}", secret.display());
    let args = ["--target", "a", "--secret", "id=FROM_ENV", "--secret", &secret, "--build-arg", "WHO=me", "-t", "made"];
    let (status, said) = run(text, &args);
    assert_eq!(status, Some(0), "{said}");
    for bad in [["--secret", "src=x"], ["--secret", "id=NOT_SET_ANYWHERE"], ["--secret", "x"], ["--target", "none"]] {
        assert_eq!(run(text, &bad).0, Some(125), "{bad:?}");
    }
}
