//! Images from a registry as small as can be, which serves what this library exports.
#![cfg(feature = "image")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Link, Scratch, compile, holds, is_release};
use sandcell::image::{Format, Load, Source, Store};
use serde_json::Value;

/// An image in the form of a directory.
fn image(scratch: &Scratch) -> PathBuf {
    let (root, layout) = (scratch.path("root"), scratch.path("layout"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "content").unwrap();
    let store = Store::open(scratch.path("source")).unwrap();
    store.load(&Source::RootFs(root), &Load::new().name("app:1".parse().unwrap())).unwrap();
    store.export(&["app:1"], Format::OciDir, &layout).unwrap();
    store.remove("app:1").unwrap();
    store.prune().unwrap();
    layout
}

/// Serves it as `app:1`, on the loopback, until the test's process ends.
fn registry(layout: PathBuf) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let layout = layout.clone();
            std::thread::spawn(move || serve(BufReader::new(stream.unwrap()), &layout));
        }
    });
    host
}

fn serve(mut stream: BufReader<TcpStream>, layout: &Path) {
    let mut line = String::new();
    while stream.read_line(&mut line).is_ok_and(|length| length > 0) {
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let manifest = &index["manifests"][0];
        let blob = |digest: &str| fs::read(layout.join("blobs").join(digest.replace(':', "/")));
        let (status, kind, body) = match path.strip_prefix("/v2/app/") {
            _ if path == "/v2/" => (200, "text/plain", Vec::new()),
            Some("manifests/1") => {
                (200, manifest["mediaType"].as_str().unwrap(), blob(manifest["digest"].as_str().unwrap()).unwrap())
            }
            Some(name) if name.starts_with("blobs/") => match blob(&name[6..]) {
                Ok(body) => (200, "application/octet-stream", body),
                Err(_) => (404, "text/plain", Vec::new()),
            },
            _ => (404, "text/plain", Vec::new()),
        };
        let head = format!("HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.get_mut().write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
        line.clear();
    }
}

fn pulls(source: &str, flags: &[&str], link: Link, with: bool) {
    let scratch = Scratch::new(&format!("pull {source} {link:?}"));
    let program = scratch.path("program");
    let compiler = if source.ends_with("cpp") { "c++" } else { "cc" };
    compile(compiler, flags, &Path::new("tests/c").join(source), link, &program);
    fs::write(scratch.path("no-credentials.json"), "{}").unwrap();
    let mut run = Command::new(program);
    run.arg(&scratch.0);
    if with {
        run.arg(registry(image(&scratch)));
    }
    holds(&mut run);
}

#[test]
fn an_image_is_pulled_as_the_options_say_and_what_is_no_option_is_refused() {
    let sanitizers = ["-std=gnu11", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    pulls("pull.c", &sanitizers, Link::Beside, cfg!(feature = "pull"));
    pulls("pull.cpp", &["-std=c++17"], Link::Beside, cfg!(feature = "pull"));
}

#[test]
fn a_library_without_registries_says_so() {
    if is_release() || cfg!(not(feature = "pull")) {
        pulls("pull.c", &["-std=gnu11"], Link::Shared, false);
    } else {
        println!("SKIPPED: the library beside this test has registries: set SANDCELL_C_PREFIX");
    }
}
