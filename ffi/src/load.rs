//! Images into the store: from archives and directories, and from registries. Without the feature `pull` the library has
//! no TLS in it, and the function for registries says so.

use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sandcell::Error;
use sandcell::image::{Load, Loaded, Source};

use crate::error::{ErrorObject, entry, free, guard};
use crate::image::{Store, unknown};
use crate::text::{BeginsWithSize, Given, Place, Text, empty, hand_out, handle, maybe, path, word};

/// Ends loads, pulls and builds early. Any number of threads may use it at once; so may a signal handler.
#[derive(Debug, Default)]
pub struct Stop {
    pub(crate) stop: Arc<AtomicBool>,
}

/// Makes one. NULL only where sandcell itself is broken.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_stop_new() -> *mut Stop {
    guard(|| Ok(Box::into_raw(Box::default()))).unwrap_or(std::ptr::null_mut())
}

/// Ends all work that it was given to, soon and with an error; the store is as it was before. What is given it from now
/// on ends at once.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_stop_now(stop: Option<&Stop>) {
    if let Some(stop) = stop {
        stop.stop.store(true, Ordering::Relaxed);
    }
}

/// Frees it; work that has it goes on. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_stop_free(stop: Option<Box<Stop>>) {
    free(stop)
}

/// Pulls only: HTTP without TLS, so that whoever is on the way may read the image and the password. A registry on the
/// loopback interface may speak it without being asked.
pub const SANDCELL_LOAD_PLAIN_HTTP: u64 = 1;
/// The call waits until the layers are on the disk.
pub const SANDCELL_LOAD_DURABLE: u64 = 2;

/// Is told how many bytes of the layers have come, and how many there are in all: from threads of the library, one call at
/// a time, before the function returns to which it was given. It may not throw, and calls nothing of sandcell's.
pub type Progress = Option<unsafe extern "C" fn(data: *mut c_void, done: u64, total: u64)>;

/// How to load or pull. Set `size` to `sizeof` and what you do not need to zero, which is the default everywhere. A later version
/// may have more at the end: what this library does not know of is refused where it is not zero.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LoadOptions<'a> {
    /// sizeof(sandcell_load_options_t)
    pub size: usize,
    /// SANDCELL_LOAD_ bits; others are refused.
    pub flags: u64,
    /// The image's name in the store, instead of the archive's or the registry's.
    pub image_name: Text<'a>,
    /// Pulls only: the file with credentials, as Docker's config.json has them, instead of those that are looked for.
    pub auth_file: Text<'a>,
    /// Pulls only, with `password`: who pulls, instead of what a file says.
    pub user: Text<'a>,
    /// With `user`.
    pub password: Text<'a>,
    /// Pulls only: certificates (PEM) of authorities that are trusted besides the system's.
    pub ca_file: Text<'a>,
    /// Is told how far it is.
    pub progress: Progress,
    /// Passed to `progress`.
    pub progress_data: *mut c_void,
    /// Loads only: the date (RFC 3339) of an image that is made of a plain root file system, which has none otherwise.
    pub created: Text<'a>,
    /// Ends it early.
    pub stop: Option<&'a Stop>,
    /// The platform that is meant, such as `linux/arm64`, instead of this host's: to hand the image on, for it cannot run here.
    pub platform: Text<'a>,
}

// SAFETY: as the trait asks; what follows are numbers and pointers of the caller's.
unsafe impl BeginsWithSize for LoadOptions<'_> {}

const DEFAULTS: LoadOptions<'static> = LoadOptions {
    size: size_of::<LoadOptions>(),
    flags: 0,
    image_name: Text::NULL,
    auth_file: Text::NULL,
    user: Text::NULL,
    password: Text::NULL,
    ca_file: Text::NULL,
    progress: None,
    progress_data: std::ptr::null_mut(),
    created: Text::NULL,
    stop: None,
    platform: Text::NULL,
};

/// The caller's function with its argument, for whichever thread has something to tell.
struct Told(Progress, *mut c_void);
// SAFETY: the header says that the function is called from threads of the library.
unsafe impl Send for Told {}

impl LoadOptions<'_> {
    fn tell(&self) -> impl Fn(sandcell::image::Progress) + Sync + use<> {
        let told = Mutex::new(Told(self.progress, self.progress_data));
        move |progress| {
            if let sandcell::image::Progress::Bytes { done, total, .. } = progress {
                let told = told.lock().unwrap_or_else(PoisonError::into_inner);
                if let Told(Some(call), data) = *told {
                    // SAFETY: the caller's function, with what it was given for it.
                    unsafe { call(data, done, total) }
                }
            }
        }
    }

    fn stopped(&self) -> Arc<AtomicBool> {
        self.stop.map(|stop| stop.stop.clone()).unwrap_or_default()
    }
}

/// What is asked for, by a caller who may know of less or of more than we do.
fn read<'a>(options: Given<'a, LoadOptions<'a>>) -> Result<LoadOptions<'a>, Error> {
    let asked = options.over(DEFAULTS, offset_of!(LoadOptions<'_>, image_name));
    let asked = asked.map_err(|message| Error::option("options", message))?;
    if asked.flags & !(SANDCELL_LOAD_PLAIN_HTTP | SANDCELL_LOAD_DURABLE) != 0 {
        return Err(Error::option("options", format!("the flags {:#x} have bits that nobody knows", asked.flags)));
    }
    if asked.user.is_null() != asked.password.is_null() {
        return Err(Error::option("options", "user and password go together"));
    }
    Ok(asked)
}

/// Loads images from an archive or a directory. `image_format` is `oci`, `docker`, `rootfs` (a plain root file system),
/// or `detect`, which NULL is too. `options` may be NULL. `json` becomes an array of the names.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_load(
    store: Option<&Store>,
    from: Text<'_>,
    image_format: Text<'_>,
    options: Given<'_, LoadOptions<'_>>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        let store = handle(store, "store")?;
        let source = source(path(from, "from")?.to_owned(), image_format)?;
        *place = load(options, &mut |how| store.inner.load(&source, how))?;
        Ok(())
    })
}

/// The same of an archive that comes from a descriptor, such as a pipe or a socket: it is read to its end and stays the
/// caller's.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_load_from(
    store: Option<&Store>,
    descriptor: c_int,
    image_format: Text<'_>,
    options: Given<'_, LoadOptions<'_>>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        let store = handle(store, "store")?;
        if descriptor < 0 {
            return Err(Error::option("descriptor", "is negative").into());
        }
        let source = source("-".into(), image_format)?;
        // SAFETY: not -1, and used for this call only; where it is not open the call says so.
        let own = unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned();
        let own = own.map_err(|e| Error::option("descriptor", format!("cannot be used: {e}")))?;
        let mut input = File::from(own);
        *place = load(options, &mut |how| store.inner.load_from(&mut input, &source, how))?;
        Ok(())
    })
}

fn source(from: PathBuf, image_format: Text<'_>) -> Result<Source, Error> {
    Ok(match maybe(image_format, "image_format")?.unwrap_or("detect") {
        "detect" => Source::Detect(from),
        "oci" => Source::Oci(from),
        "docker" => Source::Docker(from),
        "rootfs" => Source::RootFs(from),
        other => return Err(unknown("image_format", other, "detect, oci, docker, rootfs")),
    })
}

/// The names of what was loaded, as JSON.
fn load(
    options: Given<'_, LoadOptions<'_>>,
    loads: &mut dyn FnMut(&Load<'_>) -> Result<Vec<Loaded>, Error>,
) -> Result<*mut c_char, Error> {
    let asked = read(options)?;
    let plain = asked.flags & SANDCELL_LOAD_PLAIN_HTTP != 0;
    if plain || [asked.auth_file, asked.user, asked.ca_file].iter().any(|text| !text.is_null()) {
        return Err(Error::option("options", "says something of a registry, and this is no pull"));
    }
    let tell = asked.tell();
    let mut how = Load::new().progress(&tell).stop(asked.stopped());
    if let Some(name) = maybe(asked.image_name, "image_name")? {
        how = how.name(name.parse()?);
    }
    if let Some(date) = maybe(asked.created, "created")? {
        how = how.created(date);
    }
    if let Some(platform) = maybe(asked.platform, "platform")? {
        how = how.platform(platform.parse()?);
    }
    if asked.flags & SANDCELL_LOAD_DURABLE != 0 {
        how = how.durable();
    }
    let loaded = loads(&how)?;
    let names: Vec<&String> = loaded.iter().flat_map(|image| &image.names).collect();
    Ok(hand_out(serde_json::to_string(&names).expect("text is always JSON")))
}

/// Gets an image from its registry: `image` is a name such as `debian:12`, also with a registry before it and a digest
/// behind it. `options` may be NULL. `id` becomes the image's. SANDCELL_ERROR_CONFIG where the library was built without
/// registries (`ffi/install --with-pull` builds it with them).
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_pull(
    store: Option<&Store>,
    image: Text<'_>,
    options: Given<'_, LoadOptions<'_>>,
    id: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(id, "id")?;
        let (store, image) = (handle(store, "store")?, word(image, "image")?);
        *place = pull(store, image, &read(options)?)?;
        Ok(())
    })
}

#[cfg(feature = "pull")]
fn pull(store: &Store, image: &str, asked: &LoadOptions<'_>) -> Result<*mut c_char, Error> {
    if !asked.created.is_null() {
        return Err(Error::option("options", "gives a date, which a pulled image has"));
    }
    let tell = asked.tell();
    let mut how = sandcell::image::Pull::new().progress(&tell).stop(asked.stopped());
    if let Some(name) = maybe(asked.image_name, "image_name")? {
        how = how.name(name.parse()?);
    }
    if let Some(platform) = maybe(asked.platform, "platform")? {
        how = how.platform(platform.parse()?);
    }
    if !asked.auth_file.is_null() {
        how = how.auth_file(path(asked.auth_file, "auth_file")?);
    }
    if let (Some(user), Some(password)) = (maybe(asked.user, "user")?, maybe(asked.password, "password")?) {
        how = how.credentials(user, password);
    }
    if !asked.ca_file.is_null() {
        how = how.ca_file(path(asked.ca_file, "ca_file")?);
    }
    if asked.flags & SANDCELL_LOAD_PLAIN_HTTP != 0 {
        how = how.plain_http();
    }
    if asked.flags & SANDCELL_LOAD_DURABLE != 0 {
        how = how.durable();
    }
    Ok(hand_out(store.inner.pull(&image.parse()?, &how)?.id.to_string()))
}

#[cfg(not(feature = "pull"))]
fn pull(_: &Store, _: &str, _: &LoadOptions<'_>) -> Result<*mut c_char, Error> {
    Err(Error::option(
        "pull",
        "this library was built without registries (`ffi/install --with-pull` builds it with them)",
    ))
}
