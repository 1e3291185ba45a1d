//! Registries that lie: one clear error each, and the store as before.

use serde_json::{Value, json};

use crate::image_support::*;
use crate::server::*;
use crate::*;

/// What comes of an image whose manifest was changed.
fn with_manifest(scratch: &Scratch, change: impl FnOnce(&mut Content, &mut Value)) -> String {
    let mut content = Content::default();
    let mut manifest = image(&mut content, &tars());
    change(&mut content, &mut manifest);
    let digest = content.put(MANIFEST, manifest.to_string());
    content.tag("1", digest);
    refusal(scratch, content)
}

/// The error of a pull from an honest registry with this content.
fn refusal(scratch: &Scratch, content: Content) -> String {
    let server = Server::new(move |request| content.serve(request));
    refusal_of(scratch, &server)
}

fn refusal_of(scratch: &Scratch, server: &Server) -> String {
    let store = Store::open(scratch.path("lies")).unwrap();
    let error = pull(&store, server, &plain(scratch)).expect_err("the pull should have been refused");
    assert_empty(&store, &error.to_string());
    error.to_string()
}

/// An honest image whose largest layer is answered for like this.
fn with_layer(scratch: &Scratch, answer: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> String {
    let content = honest();
    let layer = largest(&content).0;
    let server = Server::new(move |request| {
        let reply = content.serve(request);
        if request.path.ends_with(&layer) { answer(request, reply) } else { reply }
    });
    refusal_of(scratch, &server)
}

fn assert_has(error: &str, word: &str) {
    assert!(error.contains(word), "{error:?} does not say {word:?}");
}

#[test]
fn the_same_registry_telling_the_truth_is_pulled_from() {
    let scratch = Scratch::new("pull-truth");
    let content = honest();
    let server = Server::new(move |request| content.serve(request));
    let store = scratch.store();
    assert_pulled(&store, &pull(&store, &server, &plain(&scratch)).unwrap());
}

#[test]
fn sizes_that_lie_are_refused() {
    let scratch = Scratch::new("pull-sizes");
    for (size, word) in [(json!(5), "sends"), (json!(1u64 << 40), "sends"), (json!(-1), "does not parse")] {
        let error = with_manifest(&scratch, |_, manifest| manifest["layers"][0]["size"] = size);
        assert_has(&error, word);
    }
    for (size, word) in [(3, "sends more than 3 bytes"), (100_000, "its descriptor says"), (100 << 20, "at most")] {
        let error = with_manifest(&scratch, |_, manifest| manifest["config"]["size"] = json!(size));
        assert_has(&error, word);
    }
    // Without a length, more than announced; and less.
    let error = with_layer(&scratch, |_, mut reply| {
        reply.body.push(0);
        reply.length = None;
        reply
    });
    assert_has(&error, "sends more than the");
    let error = with_layer(&scratch, |request, mut reply| {
        reply.body.truncate(if request.from().is_none() { 1000 } else { 0 });
        reply.length = None;
        reply
    });
    assert_has(&error, "cut off after 1000 of");
    // A length that is right and a connection that never gets that far.
    assert_has(&with_layer(&scratch, |_, reply| reply.cut(0)), "cut off after 0 of");
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    let scratch = Scratch::new("pull-digests");
    let error = with_layer(&scratch, |_, mut reply| {
        let middle = reply.body.len() / 2;
        reply.body[middle] ^= 1;
        reply
    });
    assert_has(&error, "layer");
    // A layer that unpacks well, and is another one of the same length.
    let other = gzip(&tar(&[file("evil", "x")]));
    let error = with_manifest(&scratch, |content, manifest| {
        let layer = manifest["layers"][1]["digest"].as_str().unwrap().to_owned();
        manifest["layers"][1]["size"] = json!(other.len());
        content.0.insert(layer, (String::new(), other.clone()));
    });
    assert_has(&error, "digest");
    let error = with_manifest(&scratch, |content, manifest| {
        let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
        content.0.get_mut(&config).unwrap().1[1] ^= 1;
    });
    assert_has(&error, "a configuration with the digest");
    // The manifest, by digest and by what the registry says of a tag.
    let mut content = honest();
    let other = content.put(MANIFEST, "{}");
    let (good, bytes) = content.0["1"].clone();
    content.0.insert(other.to_string(), (good, bytes));
    let server = Server::new(move |request| content.serve(request));
    let store = Store::open(scratch.path("lies")).unwrap();
    let error = store.pull(&format!("{}/app@{other}", server.host).parse().unwrap(), &plain(&scratch)).unwrap_err();
    assert_has(&error.to_string(), "a manifest with the digest");
    let content = honest();
    let server = Server::new(move |request| {
        content.serve(request).header("Docker-Content-Digest", Digest::of(b"something else").to_string())
    });
    assert_has(&refusal_of(&scratch, &server), "a manifest with the digest");
}

#[test]
fn ranges_that_lie_are_refused() {
    let scratch = Scratch::new("pull-ranges");
    for (range, word) in [("bytes 0-9/10", "asked for"), ("bytes 400-9/12", "asked for"), ("pages 1-2/3", "pages")] {
        let error = with_layer(&scratch, move |request, reply| match request.from() {
            None => reply.cut(400),
            Some(_) => Reply { headers: vec![("Content-Range".into(), range.into())], ..reply },
        });
        assert_has(&error, word);
    }
    // The right range and other bytes.
    let error = with_layer(&scratch, |request, mut reply| match request.from() {
        None => reply.cut(400),
        Some(_) => {
            reply.body[9] ^= 1;
            reply
        }
    });
    assert_has(&error, "layer");
}

#[test]
fn documents_that_are_not_what_they_say_are_refused() {
    let scratch = Scratch::new("pull-documents");
    let change = |key: &str, value: Value| with_manifest(&scratch, |_, manifest| manifest[key] = value);
    assert_has(&change("manifests", json!([])), "at once");
    assert_has(&change("mediaType", json!("text/plain")), "text/plain");
    assert_has(&change("mediaType", json!(INDEX)), "calls itself");
    assert_has(&change("schemaVersion", json!(1)), "schemaVersion 1");
    assert_has(&change("layers", json!([])), "0 layers in the manifest, 2 in the configuration");
    let layers: Vec<Value> =
        (0..10_000).map(|_| json!({"mediaType": LAYER, "digest": Digest::of(b""), "size": 1})).collect();
    assert_has(&change("layers", json!(layers)), "10000 layers");
    for digest in ["sha256:../../../../etc/passwd", "sha512:00", "../x", ""] {
        let error = with_manifest(&scratch, |_, manifest| manifest["layers"][0]["digest"] = json!(digest));
        assert_has(&error, "digest");
    }
    let error = with_manifest(&scratch, |_, manifest| manifest["layers"][0]["mediaType"] = json!("image/png"));
    assert_has(&error, "image/png");
    // gzip by its media type, zstd in truth.
    let error = with_manifest(&scratch, |content, manifest| {
        manifest["layers"][0] = descriptor(content, &format!("{LAYER}+gzip"), &zstd(&tars()[0]));
    });
    assert_has(&error, "its content is Zstd");

    for (media_type, bytes, word) in [
        ("text/html", b"<html>".to_vec(), "does not parse"),
        (MANIFEST, b"{".to_vec(), "does not parse"),
        (MANIFEST, vec![b' '; 5 << 20], "more than 4194304 bytes"),
        ("text/html", br#"{"schemaVersion":2,"manifests":[]}"#.to_vec(), "text/html"),
        (INDEX, br#"{"schemaVersion":2,"manifests":[]}"#.to_vec(), ""),
    ] {
        let mut content = Content::default();
        let digest = content.put(media_type, bytes);
        content.tag("1", digest);
        assert_has(&refusal(&scratch, content), word);
    }
}

#[test]
fn the_image_for_this_host_is_chosen_from_an_index_and_its_absence_is_an_error() {
    let scratch = Scratch::new("pull-index");
    let platform = |content: &mut Content, arch: &str, tars: &[Vec<u8>]| {
        let manifest = image(content, tars);
        let mut entry = descriptor(content, MANIFEST, manifest.to_string().as_bytes());
        entry["platform"] = json!({"os": "linux", "architecture": arch});
        entry
    };
    let index = |content: &mut Content, entries: Vec<Value>| {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        descriptor(content, INDEX, index.to_string().as_bytes())
    };
    let tag = |mut content: Content, entry: &Value| {
        content.tag("1", entry["digest"].as_str().unwrap().parse().unwrap());
        content
    };
    let mut content = Content::default();
    let wrong = platform(&mut content, "s390x", &[tar(&[file("wrong", "x")])]);
    let right = platform(&mut content, "amd64", &tars());
    let chosen = index(&mut content, vec![wrong.clone(), right]);
    let served = tag(content.clone(), &chosen);
    let server = Server::new(move |request| served.serve(request));
    let store = scratch.store();
    assert_pulled(&store, &pull(&store, &server, &plain(&scratch)).unwrap());

    let none = index(&mut content, vec![wrong]);
    assert_has(&refusal(&scratch, tag(content.clone(), &none)), "linux/s390x");
    // Digests make a loop impossible; a long way is not.
    let mut deep = chosen;
    for _ in 0..4 {
        deep = index(&mut content, vec![deep]);
    }
    assert_has(&refusal(&scratch, tag(content, &deep)), "indexes in indexes");
}

#[test]
fn redirects_that_lead_nowhere_are_refused() {
    let scratch = Scratch::new("pull-nowhere");
    for (to, word) in [
        ("/v2/again", "more than 5 redirects"),
        ("file:///etc/passwd", "no address of a server"),
        ("http://u:p@127.0.0.1/", "no address of a server"),
        ("", "no address of a server"),
        ("relative/path", "no address of a server"),
    ] {
        let server = Server::new(move |_| redirect(to));
        assert_has(&refusal_of(&scratch, &server), word);
    }
    for challenge in ["Digest realm=\"x\"", "Bearer", "Bearer realm=\"/here\"", "Bearer realm=\"ftp://x/\"", ""] {
        let server = Server::new(move |_| reply(401, "").header("WWW-Authenticate", challenge));
        assert_has(&refusal_of(&scratch, &server), "wants");
    }
}
