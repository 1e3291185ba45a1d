//! Images: the store, and runs of what is in it.

use std::ffi::{c_char, c_int};
use std::path::PathBuf;

use sandcell::Error;
use sandcell::image::{Build, Commit, Format, Load, Owners, Reference, Source};

use crate::command::Command;
use crate::error::{ErrorObject, entry, free};
use crate::policy::{Policy, set};
use crate::text::{empty, hand_out, handle, list, maybe, path, word};

/// A directory of images and volumes. Any number of threads and processes may use one at a time.
#[derive(Debug)]
pub struct Store {
    pub(crate) inner: sandcell::image::Store,
}

fn unknown(option: &str, given: &str, known: &str) -> Error {
    Error::option(option, format!("{given:?} is not one of {known}"))
}

/// Opens a store, and makes it where it is not there. NULL for the user's own, $XDG_DATA_HOME/sandcell/images.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_open(
    store_dir: *const c_char,
    store: *mut *mut Store,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, writable, or a C string by contract.
    unsafe {
        entry(error, || {
            let place = empty(store, "store")?;
            let inner = match store_dir.is_null() {
                true => sandcell::image::Store::open_default()?,
                false => sandcell::image::Store::open(path(store_dir, "store_dir")?)?,
            };
            *place = Box::into_raw(Box::new(Store { inner }));
            Ok(())
        })
    }
}

/// Frees the handle; what is in the store stays. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_free(store: *mut Store) {
    // SAFETY: NULL, or made by `sandcell_store_open` and freed once, by contract.
    unsafe { free(store) }
}

/// Loads images from an archive or a directory. `image_format` is `oci`, `docker`, `rootfs` (a plain root file system),
/// or `detect`, which NULL is too; `image_name` is the image's name instead of the archive's own, or NULL. `json`
/// becomes an array of the names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_load(
    store: *const Store,
    from: *const c_char,
    image_format: *const c_char,
    image_name: *const c_char,
    json: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, writable, or C strings by contract.
    unsafe {
        entry(error, || {
            let place = empty(json, "json")?;
            let (store, from) = (handle(store, "store")?, path(from, "from")?.to_owned());
            let source = match maybe(image_format, "image_format")?.unwrap_or("detect") {
                "detect" => Source::Detect(from),
                "oci" => Source::Oci(from),
                "docker" => Source::Docker(from),
                "rootfs" => Source::RootFs(from),
                other => return Err(unknown("image_format", other, "detect, oci, docker, rootfs").into()),
            };
            let mut how = Load::new();
            if let Some(name) = maybe(image_name, "image_name")? {
                how = how.name(name.parse()?);
            }
            let loaded = store.inner.load(&source, &how)?;
            let names: Vec<&String> = loaded.iter().flat_map(|image| &image.names).collect();
            *place = hand_out(serde_json::to_string(&names).expect("text is always JSON"));
            Ok(())
        })
    }
}

/// What there is to know of a store or an image, as JSON.
///
/// # Safety
/// As for the entries.
unsafe fn told(
    store: *const Store,
    json: *mut *mut c_char,
    error: *mut *mut ErrorObject,
    tell: impl FnOnce(&sandcell::image::Store) -> Result<serde_json::Value, Error>,
) -> c_int {
    // SAFETY: passed on.
    unsafe {
        entry(error, || {
            let place = empty(json, "json")?;
            *place = hand_out(tell(&handle(store, "store")?.inner)?.to_string());
            Ok(())
        })
    }
}

/// The images of the store: an array of `{Id, Names, Created, Size, SharedSize, Layers}`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_images_json(
    store: *const Store,
    json: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live or writable by contract.
    unsafe { told(store, json, error, |store| store.images_json()) }
}

/// All about an image, with the keys of `podman inspect`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_inspect_json(
    store: *const Store,
    image: *const c_char,
    json: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, writable, or a C string by contract.
    unsafe { told(store, json, error, |store| Ok(store.image(word(image, "image")?)?.inspect())) }
}

/// The steps that made an image, the newest first: an array of `{created, createdBy, size, comment, layer}`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_history_json(
    store: *const Store,
    image: *const c_char,
    json: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, writable, or a C string by contract.
    unsafe { told(store, json, error, |store| Ok(store.image(word(image, "image")?)?.history_json())) }
}

/// The volumes of the store: an array of `{Name, Mountpoint, CreatedUnix, InUse}`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_volumes_json(
    store: *const Store,
    json: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live or writable by contract.
    unsafe { told(store, json, error, |store| store.volumes_json()) }
}

/// Makes an image of what runs on an image changed: `upper` is what sandcell_policy_set_upper_dir got. `id` becomes
/// the new image's; `image_name` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_commit(
    store: *const Store,
    upper: *const c_char,
    image_name: *const c_char,
    id: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, writable, or C strings by contract.
    unsafe {
        entry(error, || {
            let place = empty(id, "id")?;
            let (store, upper) = (handle(store, "store")?, path(upper, "upper")?);
            let base = sandcell::image::base_of(upper)?
                .ok_or_else(|| Error::option("upper", "nothing in it says which image it lies on"))?;
            let mut commit = Commit::on(base).owners(Owners::of_upper(upper)?).created_by("sandcell commit");
            if let Some(name) = maybe(image_name, "image_name")? {
                commit = commit.name(name.parse()?);
            }
            *place = hand_out(store.inner.commit(Some(&upper.join("upper")), &commit)?.id.to_string());
            Ok(())
        })
    }
}

/// Writes an image to a new file or directory. `image_format` is `oci-archive`, which NULL is too, `oci-dir` or
/// `docker-archive`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_save(
    store: *const Store,
    image: *const c_char,
    image_format: *const c_char,
    to: *const c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or C strings by contract.
    unsafe {
        entry(error, || {
            let format = match maybe(image_format, "image_format")?.unwrap_or("oci-archive") {
                "oci-archive" => Format::OciArchive,
                "oci-dir" => Format::OciDir,
                "docker-archive" => Format::DockerArchive,
                other => {
                    return Err(unknown("image_format", other, "oci-archive, oci-dir, docker-archive").into());
                }
            };
            Ok(handle(store, "store")?.inner.export(&[word(image, "image")?], format, path(to, "to")?)?)
        })
    }
}

/// Gives an image another name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_tag(
    store: *const Store,
    image: *const c_char,
    new_name: *const c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or C strings by contract.
    unsafe {
        entry(error, || {
            let name: Reference = word(new_name, "new_name")?.parse()?;
            Ok(handle(store, "store")?.inner.tag(word(image, "image")?, &name)?)
        })
    }
}

/// Takes a name away; an image without any goes, with the layers that no other image has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_remove(
    store: *const Store,
    image: *const c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or a C string by contract.
    unsafe { entry(error, || Ok(handle(store, "store")?.inner.remove(word(image, "image")?).map(drop)?)) }
}

/// Removes a volume with all that is in it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_remove_volume(
    store: *const Store,
    volume: *const c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or a C string by contract.
    unsafe { entry(error, || Ok(handle(store, "store")?.inner.remove_volume(word(volume, "volume")?)?)) }
}

/// Removes images without a name, layers without an image, and what killed processes left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_prune(store: *const Store, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL or live by contract.
    unsafe { entry(error, || Ok(handle(store, "store")?.inner.prune().map(drop)?)) }
}

/// Makes an image by the steps of a Dockerfile, which copy from the directory `context`. `id` becomes the image's;
/// `image_name` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_build(
    store: *const Store,
    dockerfile: *const c_char,
    context: *const c_char,
    image_name: *const c_char,
    id: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, writable, or C strings by contract.
    unsafe {
        entry(error, || {
            let place = empty(id, "id")?;
            let (store, file) = (handle(store, "store")?, path(dockerfile, "dockerfile")?);
            let context: PathBuf = path(context, "context")?.to_owned();
            let text = std::fs::read_to_string(file)
                .map_err(|e| Error::option(format!("dockerfile {}", file.display()), format!("cannot be read: {e}")))?;
            let mut build = Build::dockerfile(&text, &file.display().to_string())?.context(context);
            if let Some(name) = maybe(image_name, "image_name")? {
                build = build.name(name.parse()?);
            }
            *place = hand_out(store.inner.build(&build, &|_| {})?.id.to_string());
            Ok(())
        })
    }
}

/// The root is an image of the store, by its name or id. What it says of its user, environment and working directory
/// is the default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_root_image(policy: *mut Policy, image: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.root(sandcell::Root::image(word(image, "image")?)))) }
}

/// The store of images and volumes, instead of the user's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_set_store(policy: *mut Policy, dir: *const c_char) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.store(path(dir, "store")?))) }
}

/// Adds a named directory of the store at `dest`, which outlives runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_policy_add_volume(
    policy: *mut Policy,
    volume: *const c_char,
    place: *const c_char,
    writable: bool,
) -> c_int {
    // SAFETY: handles and texts are what the contract says.
    unsafe { set(policy, |b| Ok(b.volume(word(volume, "volume")?, path(place, "place")?, writable))) }
}

/// A command of the program that the image of the policy names: its entry point with `words` (a list with a NULL at its
/// end, or NULL), or with the image's own arguments where there are none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_image_command(
    policy: *const Policy,
    words: *const *const c_char,
    command: *mut *mut Command,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, writable, or a list with a NULL at its end, by contract.
    unsafe {
        entry(error, || {
            let place = empty(command, "command")?;
            let words = if words.is_null() { Vec::new() } else { list(words)? };
            let argv = handle(policy, "policy")?.sandbox()?.image_argv(words)?;
            *place = Box::into_raw(Box::new(Command::new(argv)));
            Ok(())
        })
    }
}
