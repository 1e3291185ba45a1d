//! Images: the store, and runs of what is in it.

use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use sandcell::Error;
use sandcell::image::{Format, InUse, Reference, Withheld};

use crate::changes::Changes;
use crate::command::Command;
use crate::error::{ErrorObject, entry, free};
use crate::policy::{Policy, set};
use crate::text::{
    Answer, BeginsWithSize, Place, Text, Texts, c_text, empty, hand_out, handle, list, maybe, path, word, words, wrong,
};

/// A directory of images and volumes. Any number of threads and processes may use one at a time.
#[derive(Debug)]
pub struct Store {
    pub(crate) inner: sandcell::image::Store,
}

pub(crate) fn unknown(option: &str, given: &str, known: &str) -> Error {
    Error::option(option, format!("{given:?} is not one of {known}"))
}

/// Opens a store, and makes it where it is not there. NULL for the user's own, $XDG_DATA_HOME/sandcell/images.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_open(
    store_dir: Text<'_>,
    store: Place<'_, *mut Store>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
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

/// Frees the handle; what is in the store stays. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_free(store: Option<Box<Store>>) {
    free(store)
}

/// Changes what an image may at most be that is loaded or pulled with this handle: `layers` (500 by default), `members` of
/// a layer (1,000,000), `layer_bytes` of its uncompressed tar (32 GiB), `ratio`, how many times larger than the compressed
/// layer that may be (250), `time_ms`, milliseconds for a whole load (0, the default, for no end). To be set before other
/// threads use the store.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_set_limit(
    store: Option<&mut Store>,
    limit: Text<'_>,
    number: u64,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let store = store.ok_or_else(|| wrong("store", "is NULL"))?;
        let limits = store.inner.limits_mut();
        match word(limit, "limit")? {
            "layers" => limits.layers = usize::try_from(number).unwrap_or(usize::MAX),
            "members" => limits.members = number,
            "layer_bytes" => limits.layer_bytes = number,
            "ratio" => limits.ratio = number,
            "time_ms" => limits.time = (number > 0).then(|| Duration::from_millis(number)),
            other => {
                return Err(unknown("limit", other, "layers, members, layer_bytes, ratio, time_ms").into());
            }
        }
        Ok(())
    })
}

/// The store's directory.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_dir(
    store: Option<&Store>,
    dir: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(dir, "dir")?;
        *place = hand_out(handle(store, "store")?.inner.dir().as_os_str().as_bytes());
        Ok(())
    })
}

/// What there is to know of a store or an image, as JSON.
fn told(
    store: Option<&Store>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
    tell: impl FnOnce(&sandcell::image::Store) -> Result<String, Error>,
) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        *place = hand_out(tell(&handle(store, "store")?.inner)?);
        Ok(())
    })
}

/// The images of the store: an array of `{Id, Names, Created, Size, SharedSize, Layers}`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_images_json(
    store: Option<&Store>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    told(store, json, error, |store| store.images_json())
}

/// All about an image, with the keys of `podman inspect`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_inspect_json(
    store: Option<&Store>,
    image: Text<'_>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    told(store, json, error, |store| Ok(store.image(word(image, "image")?)?.inspect()))
}

/// The steps that made an image, the newest first: an array of `{created, createdBy, size, comment, layer}`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_history_json(
    store: Option<&Store>,
    image: Text<'_>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    told(store, json, error, |store| Ok(store.image(word(image, "image")?)?.history_json()))
}

/// What the files of a layer are in the image and not on the disk, owners above all: an array of `{path, uid, gid, mode}`,
/// where there is one with `device`, `["c" or "b", major, minor]`, and `xattrs`, an array of `[name, value in hexadecimal]`.
/// In paths what is not printable ASCII, and `%`, is `%XX`. `layer` is one of `RootFS.Layers` of sandcell_store_inspect_json.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_withheld_json(
    store: Option<&Store>,
    layer: Text<'_>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    told(store, json, error, |store| {
        let files = store.withheld(word(layer, "layer")?.parse()?)?;
        files
            .map(|file: Result<Withheld, Error>| Ok(serde_json::json!(file?)))
            .collect::<Result<serde_json::Value, Error>>()
            .map(|all| all.to_string())
    })
}

/// An image that stays in the store, whoever wants to remove it, until this is freed. It never changes: any number of
/// threads may read it at once.
#[derive(Debug)]
pub struct Image {
    id: CString,
    layers: Vec<CString>,
    _kept: InUse,
}

/// Keeps an image, as a run does, for one who uses its files: sandcell_policy_add_layer, or a program of another kind.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_use_image(
    store: Option<&Store>,
    image: Text<'_>,
    used: Place<'_, *mut Image>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(used, "used")?;
        let kept = handle(store, "store")?.inner.use_image(word(image, "image")?)?;
        let layers = kept.layers.iter().map(|dir| c_text(dir.as_os_str().as_bytes())).collect();
        *place = Box::into_raw(Box::new(Image { id: c_text(kept.image.id.to_string()), layers, _kept: kept }));
        Ok(())
    })
}

/// Its id, which lives as long as the handle; "" for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_image_id(image: Option<&Image>) -> *const c_char {
    image.map_or(c"", |image| &image.id).as_ptr()
}

/// How many directories make its root; 0 for NULL. They may be one more than its layers.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_image_layer_count(image: Option<&Image>) -> usize {
    image.map_or(0, |image| image.layers.len())
}

/// One of them, the lowest first; "" beyond the last. The path lives as long as the handle; nothing may be changed in it.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_image_layer(image: Option<&Image>, index: usize) -> *const c_char {
    image.and_then(|image| image.layers.get(index)).map_or(c"", |layer| layer).as_ptr()
}

/// Lets the image go. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_image_free(image: Option<Box<Image>>) {
    free(image)
}

/// The volumes of the store: an array of `{Name, Mountpoint, CreatedUnix, InUse}`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_volumes_json(
    store: Option<&Store>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    told(store, json, error, |store| store.volumes_json())
}

/// Which files runs on an image changed: `upper` is what sandcell_policy_set_upper_dir got. `base` is the image, or NULL
/// for the one that was run.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_diff(
    store: Option<&Store>,
    upper: Text<'_>,
    base: Text<'_>,
    changes: Place<'_, *mut Changes>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(changes, "changes")?;
        let (store, upper) = (handle(store, "store")?, path(upper, "upper")?);
        let kept = store.inner.use_image(&base_of(upper, maybe(base, "base")?)?)?;
        let list = sandcell::image::changes(upper, &kept.layers)?;
        *place = Box::into_raw(Box::new(list.as_slice().into()));
        Ok(())
    })
}

/// The image that an upper lies on: what was said, or what the run noted in it.
pub(crate) fn base_of(upper: &Path, said: Option<&str>) -> Result<String, Error> {
    match said {
        Some(said) => Ok(said.to_owned()),
        None => sandcell::image::base_of(upper)?
            .ok_or_else(|| Error::option("upper", "nothing in it says which image it lies on")),
    }
}

/// Writes images (a list of names with a NULL at its end) to a new file or directory. `image_format` is `oci-archive`, which NULL is too, `oci-dir` or
/// `docker-archive`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_save(
    store: Option<&Store>,
    images: Texts<'_>,
    image_format: Text<'_>,
    to: Text<'_>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let format = match maybe(image_format, "image_format")?.unwrap_or("oci-archive") {
            "oci-archive" => Format::OciArchive,
            "oci-dir" => Format::OciDir,
            "docker-archive" => Format::DockerArchive,
            other => {
                return Err(unknown("image_format", other, "oci-archive, oci-dir, docker-archive").into());
            }
        };
        let images = words(images, "images")?;
        let names: Vec<&str> = images.iter().map(String::as_str).collect();
        Ok(handle(store, "store")?.inner.export(&names, format, path(to, "to")?)?)
    })
}

/// Gives an image another name.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_tag(
    store: Option<&Store>,
    image: Text<'_>,
    new_name: Text<'_>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let name: Reference = word(new_name, "new_name")?.parse()?;
        Ok(handle(store, "store")?.inner.tag(word(image, "image")?, &name)?)
    })
}

/// What was removed. Set `size` to `sizeof` before you pass it: as many bytes are written.
#[derive(Debug)]
#[repr(C)]
pub struct Pruned {
    /// sizeof(sandcell_pruned_t)
    pub size: usize,
    /// Images.
    pub images: u64,
    /// Layers that no image has any more.
    pub layers: u64,
    /// Bytes of their files and blobs.
    pub bytes: u64,
}

// SAFETY: as the trait asks.
unsafe impl BeginsWithSize for Pruned {}

fn tell(
    place: Answer<'_, Pruned>,
    remove: impl FnOnce() -> Result<sandcell::image::Pruned, ErrorObject>,
) -> Result<(), ErrorObject> {
    let size = place.size();
    if size.is_some_and(|size| size < size_of::<Pruned>()) {
        return Err(wrong("pruned", "its size is not set"));
    }
    let gone = remove()?;
    let (images, layers, bytes) = (gone.images.len() as u64, gone.layers.len() as u64, gone.bytes);
    if size.is_some() {
        place.fill(size_of::<Pruned>(), |size| Pruned { size, images, layers, bytes });
    }
    Ok(())
}

/// Takes a name away; an image without any goes, with the layers that no other image has. `*pruned` (may be NULL) tells
/// what went.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_remove(
    store: Option<&Store>,
    image: Text<'_>,
    pruned: Answer<'_, Pruned>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || tell(pruned, || Ok(handle(store, "store")?.inner.remove(word(image, "image")?)?)))
}

/// Removes a volume with all that is in it.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_remove_volume(
    store: Option<&Store>,
    volume: Text<'_>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || Ok(handle(store, "store")?.inner.remove_volume(word(volume, "volume")?)?))
}

/// Removes images without a name, layers without an image, and what killed processes left. `*pruned` (may be NULL) tells
/// what went.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_prune(
    store: Option<&Store>,
    pruned: Answer<'_, Pruned>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || tell(pruned, || Ok(handle(store, "store")?.inner.prune()?)))
}

/// The root is an image of the store, by its name or id. What it says of its user, environment and working directory
/// is the default.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_root_image(policy: Option<&mut Policy>, image: Text<'_>) -> c_int {
    set(policy, |b| Ok(b.root(sandcell::Root::image(word(image, "image")?))))
}

/// The store of images and volumes, instead of the user's own.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_store(policy: Option<&mut Policy>, dir: Text<'_>) -> c_int {
    set(policy, |b| Ok(b.store(path(dir, "store")?)))
}

/// Adds a named directory of the store at `dest`, which outlives runs.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_volume(
    policy: Option<&mut Policy>,
    volume: Text<'_>,
    dest: Text<'_>,
    writable: bool,
) -> c_int {
    set(policy, |b| Ok(b.volume(word(volume, "volume")?, path(dest, "dest")?, writable)))
}

/// A command of the program that the image of the policy names: its entry point with `words` (a list with a NULL at its
/// end, or NULL), or with the image's own arguments where there are none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_image_command(
    policy: Option<&Policy>,
    words: Texts<'_>,
    command: Place<'_, *mut Command>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(command, "command")?;
        let words = if words.is_null() { Vec::new() } else { list(words, "argv")? };
        let argv = handle(policy, "policy")?.sandbox()?.image_argv(words)?;
        *place = Box::into_raw(Box::new(Command::new(argv)));
        Ok(())
    })
}
