//! What goes where: credentials, tokens, redirects, ranges, and what is tried again.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use sandcell::image::{Limits, Progress, Pull};

use crate::image_support::*;
use crate::server::*;
use crate::{assert_empty, assert_pulled, honest, largest, plain, pull};

fn basic(text: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

#[test]
fn a_connection_that_breaks_goes_on_where_it_was() {
    let scratch = Scratch::new("pull-resume");
    let content = honest();
    let (layer, length) = largest(&content);
    let server = Server::new(move |request| {
        let reply = content.serve(request);
        // A third of the layer each time.
        if request.path.ends_with(&layer) { reply.cut(length / 3) } else { reply }
    });
    let store = scratch.store();
    let most = std::sync::Mutex::new((0, 0));
    let told = |progress: Progress| {
        if let Progress::Bytes { done, total, .. } = progress {
            *most.lock().unwrap() = (done, total);
        }
    };
    assert_pulled(&store, &pull(&store, &server, &plain(&scratch).progress(&told)).unwrap());
    let most = most.into_inner().unwrap();
    assert!(most.0 == most.1 && most.0 > 100_000, "{most:?}");
    let third = length / 3;
    let seen = server.seen.lock().unwrap();
    let ranges: Vec<usize> = seen.iter().filter_map(Request::from).collect();
    assert_eq!(&ranges[..2], [third, 2 * third]);
}

#[test]
fn a_registry_that_knows_no_ranges_begins_anew_and_nothing_is_hashed_twice() {
    let scratch = Scratch::new("pull-anew");
    let content = honest();
    let (layer, length) = largest(&content);
    let first = AtomicUsize::new(0);
    let server = Server::new(move |request| {
        if !request.path.ends_with(&layer) {
            return content.serve(request);
        }
        let whole = reply(200, &content.0[&layer].1[..]);
        if first.fetch_add(1, Ordering::Relaxed) == 0 { whole.cut(length / 2) } else { whole }
    });
    let store = scratch.store();
    assert_pulled(&store, &pull(&store, &server, &plain(&scratch)).unwrap());
    assert_eq!(server.seen.lock().unwrap().iter().filter_map(Request::from).collect::<Vec<_>>(), [length / 2]);
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_server() {
    let scratch = Scratch::new("pull-redirect");
    let content = honest();
    let elsewhere = content.clone();
    let storage = Server::new(move |request| elsewhere.serve(request));
    let (to, layer) = (storage.host.clone(), largest(&content).0);
    let server = Server::new(move |request| match request.header("authorization") {
        None => reply(401, "").header("WWW-Authenticate", r#"Basic realm="here""#),
        Some(_) if request.path.ends_with(&layer) => redirect(format!("http://{to}{}", request.path)),
        Some(said) if said == basic("u:p") => content.serve(request),
        Some(_) => reply(403, ""),
    });
    let store = scratch.store();
    assert_pulled(&store, &pull(&store, &server, &Pull::new().credentials("u", "p")).unwrap());
    let seen = storage.seen.lock().unwrap();
    assert!(seen.len() == 1 && seen[0].header("authorization").is_none(), "the storage was shown a password");
}

#[test]
fn a_storage_server_cannot_ask_for_the_registrys_credentials() {
    let scratch = Scratch::new("pull-foreign");
    let thief = Server::new(|request| match request.path.starts_with("/token") {
        true => reply(200, r#"{"token": "x"}"#),
        false => {
            let realm = format!(r#"Bearer realm="http://{}/token""#, request.header("host").unwrap());
            reply(401, "").header("WWW-Authenticate", realm)
        }
    });
    let (content, to) = (honest(), thief.host.clone());
    let layer = largest(&content).0;
    let server = Server::new(move |request| match request.path.ends_with(&layer) {
        true => redirect(format!("http://{to}{}", request.path)),
        false => content.serve(request),
    });
    let store = scratch.store();
    let error = pull(&store, &server, &Pull::new().credentials("u", "p")).unwrap_err();
    assert!(error.to_string().contains("refuses"), "{error}");
    assert_eq!((thief.asked("/v2/"), thief.asked("/token")), (1, 0));
    assert_empty(&store, "foreign");
}

#[test]
fn a_token_is_fetched_where_the_registry_says_and_for_this_repository_only() {
    let scratch = Scratch::new("pull-token");
    let content = honest();
    let server = Server::new(move |request| {
        if request.path.starts_with("/token") {
            let password = request.header("authorization") == Some(&basic("u:p"));
            let refresh = request.method == "POST" && request.body.contains("refresh_token=kept");
            return if password || refresh { reply(200, r#"{"access_token":"good"}"#) } else { reply(403, "") };
        }
        match request.header("authorization") {
            Some("Bearer good") => content.serve(request),
            _ => {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                let challenge = format!(r#"Bearer realm="{realm}",service="a b",scope="repository:other:push""#);
                reply(401, "").header("WWW-Authenticate", challenge)
            }
        }
    });
    let store = scratch.store();
    let error = pull(&store, &server, &Pull::new().credentials("u", "wrong")).unwrap_err();
    assert!(error.to_string().contains("no token"), "{error}");
    assert_pulled(&store, &pull(&store, &server, &Pull::new().credentials("u", "p")).unwrap());
    let last = {
        let seen = server.seen.lock().unwrap();
        seen.iter().rfind(|request| request.path.starts_with("/token")).unwrap().path.clone()
    };
    assert!(last.contains("scope=repository%3Aapp%3Apull") || last.contains("scope=repository:app:pull"), "{last}");
    assert!(last.contains("service=a%20b") || last.contains("service=a+b"), "{last}");
    assert!(!last.contains("push"), "{last}");
    // What `docker login` keeps instead of a password.
    let file = scratch.path("config.json");
    let kept = serde_json::json!({"auths": {server.host.clone(): {"identitytoken": "kept"}}});
    std::fs::write(&file, kept.to_string()).unwrap();
    assert_eq!(pull(&store, &server, &Pull::new().auth_file(file)).unwrap().new_layers, 0);
}

#[test]
fn nothing_leads_from_tls_to_plain_http() {
    if !installed("openssl") {
        return;
    }
    let scratch = Scratch::new("pull-downgrade");
    certificates(&scratch.0);
    let elsewhere = honest();
    let plain_server = Server::new(move |request| match request.path.starts_with("/token") {
        true => reply(200, r#"{"token": "x"}"#),
        false => elsewhere.serve(request),
    });
    let store = scratch.store();
    let how = || Pull::new().credentials("u", "p").ca_file(scratch.path("ca.pem"));
    let (content, to) = (honest(), plain_server.host.clone());
    let layer = largest(&content).0;
    let server = Server::start("127.0.0.1", Some(tls(&scratch.0)), move |request| {
        if request.path.ends_with(&layer) { redirect(format!("http://{to}/x")) } else { content.serve(request) }
    });
    let error = pull(&store, &server, &how()).unwrap_err();
    assert!(error.to_string().contains("without TLS"), "{error}");
    let realm = format!(r#"Bearer realm="http://{}/token""#, plain_server.host);
    let server = Server::start("127.0.0.1", Some(tls(&scratch.0)), move |_| {
        reply(401, "").header("WWW-Authenticate", realm.clone())
    });
    let error = pull(&store, &server, &how()).unwrap_err();
    assert!(error.to_string().contains("wants a token from"), "{error}");
    assert!(plain_server.seen.lock().unwrap().is_empty(), "the plain server was spoken to");
    assert_empty(&store, "downgrade");
    // The twin: the same server, without the redirect.
    let content = honest();
    let server = Server::start("127.0.0.1", Some(tls(&scratch.0)), move |request| content.serve(request));
    assert_pulled(&store, &pull(&store, &server, &how()).unwrap());
}

/// An address of this machine that others can reach too, where it has one. No packet is sent.
fn outer_address() -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

#[test]
fn plain_http_beyond_this_host_must_be_asked_for() {
    let Some(address) = outer_address() else {
        eprintln!("SKIPPED: this machine has no address but the loopback's");
        return;
    };
    let scratch = Scratch::new("pull-outer");
    let content = honest();
    let server = Server::start(&address, None, move |request| content.serve(request));
    let store = scratch.store();
    let error = pull(&store, &server, &plain(&scratch)).unwrap_err();
    assert!(error.hint().contains("plain HTTP"), "{error} {}", error.hint());
    assert!(server.seen.lock().unwrap().is_empty(), "something was said in clear");
    assert_pulled(&store, &pull(&store, &server, &plain(&scratch).plain_http()).unwrap());
}

#[test]
fn a_registry_in_trouble_is_asked_again_and_not_for_ever() {
    let scratch = Scratch::new("pull-trouble");
    let content = honest();
    let asked = std::sync::Mutex::new(std::collections::BTreeMap::new());
    let server = Server::new(move |request| {
        let mut asked = asked.lock().unwrap();
        let times = asked.entry(request.path.clone()).or_insert(0);
        *times += 1;
        // The third time it works, for each document and layer.
        if *times < 3 { reply(503, "") } else { content.serve(request) }
    });
    let store = scratch.store();
    assert_pulled(&store, &pull(&store, &server, &plain(&scratch)).unwrap());
    let down = Server::new(|_| reply(503, ""));
    let other = sandcell::image::Store::open(scratch.path("other")).unwrap();
    let error = pull(&other, &down, &plain(&scratch)).unwrap_err();
    assert!(error.to_string().contains("in trouble: status 503"), "{error}");
    assert_eq!(down.asked("/manifests/"), 3);
    for (status, word) in [(404, "not in the registry"), (429, "too many pulls"), (418, "status 418")] {
        let server = Server::new(move |_| reply(status, ""));
        let error = pull(&other, &server, &plain(&scratch)).unwrap_err();
        assert!(format!("{error} {}", error.hint()).contains(word), "{error}");
        assert_eq!(server.asked("/manifests/"), 1);
    }
    assert_empty(&other, "in trouble");
}

#[test]
fn a_registry_that_says_nothing_ends_with_the_time_limit() {
    let scratch = Scratch::new("pull-silent");
    let server = Server::new(|_| {
        loop {
            std::thread::park();
        }
    });
    let mut limits = Limits::default();
    limits.time = Some(std::time::Duration::from_millis(300));
    let store = scratch.store().with_limits(limits);
    let error = pull(&store, &server, &plain(&scratch).plain_http()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("timeout") || text.contains("time limit"), "{text}");
    assert_empty(&store, "silent");
}
