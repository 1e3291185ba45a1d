//! Images into the store: from archives and directories, and from registries. Without the feature `pull` the library has
//! no TLS in it, and the function for registries says so.

use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;
use std::ptr::null;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sandcell::Error;
use sandcell::image::{Load, Source};

use crate::error::{ErrorObject, entry, free, guard};
use crate::image::{Store, unknown};
use crate::text::{empty, hand_out, handle, maybe, path, word};

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
pub unsafe extern "C" fn sandcell_stop_now(stop: *const Stop) {
    // SAFETY: NULL or a live handle by contract.
    if let Some(stop) = unsafe { stop.as_ref() } {
        stop.stop.store(true, Ordering::Relaxed);
    }
}

/// Frees it; work that has it goes on. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_stop_free(stop: *mut Stop) {
    // SAFETY: NULL or a handle that is freed once, by contract.
    unsafe { free(stop) }
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
pub struct LoadOptions {
    /// sizeof(sandcell_load_options_t)
    pub size: usize,
    /// SANDCELL_LOAD_ bits; others are refused.
    pub flags: u64,
    /// The image's name in the store, instead of the archive's or the registry's.
    pub image_name: *const c_char,
    /// Pulls only: the file with credentials, as Docker's config.json has them, instead of those that are looked for.
    pub auth_file: *const c_char,
    /// Pulls only, with `password`: who pulls, instead of what a file says.
    pub user: *const c_char,
    /// With `user`.
    pub password: *const c_char,
    /// Pulls only: certificates (PEM) of authorities that are trusted besides the system's.
    pub ca_file: *const c_char,
    /// Is told how far it is.
    pub progress: Progress,
    /// Passed to `progress`.
    pub progress_data: *mut c_void,
    /// Loads only: the date (RFC 3339) of an image that is made of a plain root file system, which has none otherwise.
    pub created: *const c_char,
    /// Ends it early.
    pub stop: *const Stop,
}

const DEFAULTS: LoadOptions = LoadOptions {
    size: size_of::<LoadOptions>(),
    flags: 0,
    image_name: null(),
    auth_file: null(),
    user: null(),
    password: null(),
    ca_file: null(),
    progress: None,
    progress_data: std::ptr::null_mut(),
    created: null(),
    stop: null(),
};

/// The caller's function with its argument, for whichever thread has something to tell.
struct Told(Progress, *mut c_void);
// SAFETY: the header says that the function is called from threads of the library.
unsafe impl Send for Told {}

impl LoadOptions {
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

    /// # Safety
    /// `stop` is NULL or live.
    unsafe fn stopped(&self) -> Arc<AtomicBool> {
        // SAFETY: by this function's contract.
        unsafe { self.stop.as_ref() }.map(|stop| stop.stop.clone()).unwrap_or_default()
    }
}

/// What is asked for, by a caller who may know of less or of more than we do.
///
/// # Safety
/// `options` is NULL, or its size can be read, and as many bytes.
unsafe fn read(options: *const LoadOptions) -> Result<LoadOptions, Error> {
    let mut asked = DEFAULTS;
    if options.is_null() {
        return Ok(asked);
    }
    // SAFETY: not NULL; readable by this function's contract.
    let size = unsafe { (&raw const (*options).size).read() };
    if size < offset_of!(LoadOptions, image_name) {
        return Err(Error::option("options", "its size is not set"));
    }
    let known = size.min(size_of::<LoadOptions>());
    // SAFETY: `size` bytes can be read by this function's contract; every pattern of bytes is a value of each field.
    let rest = unsafe {
        (&raw mut asked).cast::<u8>().copy_from_nonoverlapping(options.cast(), known);
        std::slice::from_raw_parts(options.cast::<u8>().add(known), size - known)
    };
    if rest.iter().any(|&byte| byte != 0) {
        return Err(Error::option("options", "asks for something that this version does not know"));
    }
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
pub unsafe extern "C" fn sandcell_store_load(
    store: *const Store,
    from: *const c_char,
    image_format: *const c_char,
    options: *const LoadOptions,
    json: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, writable, C strings, or readable as far as it says itself, by contract.
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
            let asked = read(options)?;
            let plain = asked.flags & SANDCELL_LOAD_PLAIN_HTTP != 0;
            if plain || [asked.auth_file, asked.user, asked.ca_file].iter().any(|text| !text.is_null()) {
                return Err(Error::option("options", "says something of a registry, and this is no pull").into());
            }
            let tell = asked.tell();
            let mut how = Load::new().progress(&tell).stop(asked.stopped());
            if let Some(name) = maybe(asked.image_name, "image_name")? {
                how = how.name(name.parse()?);
            }
            if let Some(date) = maybe(asked.created, "created")? {
                how = how.created(date);
            }
            if asked.flags & SANDCELL_LOAD_DURABLE != 0 {
                how = how.durable();
            }
            let loaded = store.inner.load(&source, &how)?;
            let names: Vec<&String> = loaded.iter().flat_map(|image| &image.names).collect();
            *place = hand_out(serde_json::to_string(&names).expect("text is always JSON"));
            Ok(())
        })
    }
}

/// Gets an image from its registry: `image` is a name such as `debian:12`, also with a registry before it and a digest
/// behind it. `options` may be NULL. `id` becomes the image's. SANDCELL_ERROR_CONFIG where the library was built without
/// registries (`ffi/install --with-pull` builds it with them).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_pull(
    store: *const Store,
    image: *const c_char,
    options: *const LoadOptions,
    id: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, writable, C strings, or readable as far as it says itself, by contract.
    unsafe {
        entry(error, || {
            let place = empty(id, "id")?;
            let (store, image) = (handle(store, "store")?, word(image, "image")?);
            *place = pull(store, image, &read(options)?)?;
            Ok(())
        })
    }
}

/// # Safety
/// The texts of `asked` are NULL or C strings, its `stop` is NULL or live.
#[cfg(feature = "pull")]
unsafe fn pull(store: &Store, image: &str, asked: &LoadOptions) -> Result<*mut c_char, Error> {
    if !asked.created.is_null() {
        return Err(Error::option("options", "gives a date, which a pulled image has"));
    }
    let tell = asked.tell();
    // SAFETY: by this function's contract.
    let mut how = sandcell::image::Pull::new().progress(&tell).stop(unsafe { asked.stopped() });
    // SAFETY: by this function's contract.
    unsafe {
        if let Some(name) = maybe(asked.image_name, "image_name")? {
            how = how.name(name.parse()?);
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
    }
    if asked.flags & SANDCELL_LOAD_PLAIN_HTTP != 0 {
        how = how.plain_http();
    }
    if asked.flags & SANDCELL_LOAD_DURABLE != 0 {
        how = how.durable();
    }
    Ok(hand_out(store.inner.pull(&image.parse()?, &how)?.id.to_string()))
}

/// # Safety
/// None needed; it has to look like the other.
#[cfg(not(feature = "pull"))]
unsafe fn pull(_: &Store, _: &str, _: &LoadOptions) -> Result<*mut c_char, Error> {
    Err(Error::option(
        "pull",
        "this library was built without registries (`ffi/install --with-pull` builds it with them)",
    ))
}
