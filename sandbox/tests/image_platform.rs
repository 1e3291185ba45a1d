//! Images of several architectures: which one is meant, and that programs of another one do not run.

#![cfg(feature = "image")]

mod image_support;

use image_support::*;
use sandcell::image::{Build, Load, Platform, Source, Store};
use sandcell::{Error, Outcome, Root, Sandbox};
use serde_json::{Value, json};

/// This host's and the other's.
fn platforms() -> [Platform; 2] {
    let other = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
    [Platform::host(), other.parse().unwrap()]
}

/// A layout with one name for an image of either platform, the other's first.
fn layout(scratch: &Scratch) -> Source {
    let layout = Layout::new(scratch.path("layout"));
    let tars = [tar(&busybox())];
    let mut entries: Vec<Value> = platforms()
        .iter()
        .map(|platform| {
            let mut config = layout.config(&tars);
            config["architecture"] = json!(platform.architecture);
            let layer = layout.descriptor("application/vnd.oci.image.layer.v1.tar", &tars[0]);
            let mut entry = layout.entry(&layout.manifest(&config, vec![layer]), "app:1");
            entry["platform"] = json!({"os": "linux", "architecture": platform.architecture, "variant": "v8"});
            entry
        })
        .collect();
    entries.reverse();
    layout.index(entries);
    Source::Oci(scratch.path("layout"))
}

fn architecture(store: &Store, image: &str) -> String {
    store.image(image).unwrap().config.architecture.clone()
}

fn run(store: &Store, image: &str) -> Result<Outcome, Error> {
    let sandbox = Sandbox::builder().store(store.dir()).root(Root::image(image)).build()?;
    Ok(sandbox.command("/bin/sh").args(["-c", ":"]).output()?.outcome.clone())
}

#[test]
fn the_image_of_the_platform_is_loaded_and_programs_of_another_one_are_refused() {
    let scratch = Scratch::new("platform-load");
    let (store, source, [host, other]) = (scratch.store(), layout(&scratch), platforms());
    store.load(&source, &Load::new()).unwrap();
    assert_eq!(architecture(&store, "app:1"), host.architecture);
    assert_eq!(run(&store, "app:1").unwrap(), Outcome::Exited(0));

    store.load(&source, &Load::new().platform(other.clone())).unwrap();
    assert_eq!(architecture(&store, "app:1"), other.architecture);
    let error = run(&store, "app:1").unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
    assert_eq!((error.stage(), error.subject()), ("image-platform", "app:1"));
    let said = error.to_string();
    assert!(said.contains(&other.to_string()) && said.contains(&host.to_string()), "{said}");

    let error = store.load(&source, &Load::new().platform("linux/s390x".parse().unwrap())).unwrap_err();
    assert!(
        matches!(error, Error::Unsupported(_)) && error.to_string().contains("no image for linux/s390x"),
        "{error}"
    );
}

#[test]
fn a_root_file_system_becomes_an_image_of_the_platform() {
    let scratch = Scratch::new("platform-rootfs");
    let (store, [host, other]) = (scratch.store(), platforms());
    std::fs::write(scratch.path("root.tar"), tar(&busybox())).unwrap();
    let source = Source::RootFs(scratch.path("root.tar"));
    for platform in [&other, &host] {
        store.load(&source, &Load::new().name("plain:1".parse().unwrap()).platform(platform.clone())).unwrap();
        assert_eq!(architecture(&store, "plain:1"), platform.architecture);
    }
    assert_eq!(run(&store, "plain:1").unwrap(), Outcome::Exited(0));
}

#[test]
fn a_build_for_another_platform_copies_what_a_stage_of_this_host_made() {
    let scratch = Scratch::new("platform-build");
    let (store, source, [host, other]) = (scratch.store(), layout(&scratch), platforms());
    store.load(&source, &Load::new().name("here:1".parse().unwrap())).unwrap();
    store.load(&source, &Load::new().name("there:1".parse().unwrap()).platform(other.clone())).unwrap();
    let build = |text: &str| {
        let build = Build::dockerfile(text, "Dockerfile").unwrap().name("made:1".parse().unwrap());
        store.build(&build.platform(other.clone()), &|_| {})
    };
    let tool = "FROM --platform=$BUILDPLATFORM here:1 AS tool\nARG TARGETPLATFORM BUILDARCH\n\
                RUN echo $TARGETPLATFORM $BUILDARCH > /said\n";
    for base in ["there:1", "scratch"] {
        build(&format!("{tool}FROM {base}\nCOPY --from=tool /said /said\n")).unwrap();
        assert_eq!(architecture(&store, "made:1"), other.architecture, "{base}");
        let image = store.use_image("made:1").unwrap();
        let said = std::fs::read_to_string(image.layers.last().unwrap().join("said")).unwrap();
        assert_eq!(said, format!("{other} {}\n", host.architecture));
    }
    // Programs of the other one are refused, and so is a base of another than is meant.
    let error = build("FROM there:1\nRUN true\n").unwrap_err().to_string();
    assert!(error.contains("this host runs"), "{error}");
    for text in ["FROM here:1\n", &format!("FROM --platform={host} there:1\n")] {
        let error = build(text).unwrap_err();
        assert!(matches!(error, Error::Config(_)) && error.to_string().contains("and this stage for"), "{error}");
    }
}
