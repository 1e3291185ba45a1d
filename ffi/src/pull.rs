//! Images from registries. Without the feature `pull` the library has no TLS in it, and the one function says so.

use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;
use std::ptr::null;

use sandcell::Error;

use crate::error::{ErrorObject, entry};
use crate::image::Store;
use crate::text::{empty, handle, word};

/// Whoever is on the way may read the image and the password: HTTP without TLS. A registry on the loopback interface may
/// speak it without being asked.
pub const SANDCELL_PULL_PLAIN_HTTP: u64 = 1;
/// The call waits until the layers are on the disk.
pub const SANDCELL_PULL_DURABLE: u64 = 2;

/// Is told how many bytes of the layers have come, and how many there are in all: from threads of the library, one call at
/// a time, before the function returns to which it was given. It may not throw, and calls nothing of sandcell's.
pub type Progress = Option<unsafe extern "C" fn(data: *mut c_void, done: u64, total: u64)>;

/// How to pull. Set `size` to `sizeof` and what you do not need to zero, which is the default everywhere. A later version
/// may have more at the end: what this library does not know of is refused where it is not zero.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct PullOptions {
    /// sizeof(sandcell_pull_options_t)
    pub size: usize,
    /// SANDCELL_PULL_ bits; others are refused.
    pub flags: u64,
    /// The image's name in the store, instead of the registry's.
    pub image_name: *const c_char,
    /// The file with credentials, as Docker's config.json has them, instead of those that are looked for.
    pub auth_file: *const c_char,
    /// With `password`: who pulls, instead of what a file says.
    pub user: *const c_char,
    /// With `user`.
    pub password: *const c_char,
    /// Certificates (PEM) of authorities that are trusted besides the system's.
    pub ca_file: *const c_char,
    /// Is told how far it is.
    pub progress: Progress,
    /// Passed to `progress`.
    pub progress_data: *mut c_void,
}

const DEFAULTS: PullOptions = PullOptions {
    size: size_of::<PullOptions>(),
    flags: 0,
    image_name: null(),
    auth_file: null(),
    user: null(),
    password: null(),
    ca_file: null(),
    progress: None,
    progress_data: std::ptr::null_mut(),
};

/// What is asked for, by a caller who may know of less or of more than we do.
///
/// # Safety
/// `options` is NULL, or its size can be read, and as many bytes.
unsafe fn read(options: *const PullOptions) -> Result<PullOptions, Error> {
    let mut asked = DEFAULTS;
    if options.is_null() {
        return Ok(asked);
    }
    // SAFETY: not NULL; readable by this function's contract.
    let size = unsafe { (&raw const (*options).size).read() };
    if size < offset_of!(PullOptions, image_name) {
        return Err(Error::option("options", "its size is not set"));
    }
    let known = size.min(size_of::<PullOptions>());
    // SAFETY: `size` bytes can be read by this function's contract; every pattern of bytes is a value of each field.
    let rest = unsafe {
        (&raw mut asked).cast::<u8>().copy_from_nonoverlapping(options.cast(), known);
        std::slice::from_raw_parts(options.cast::<u8>().add(known), size - known)
    };
    if rest.iter().any(|&byte| byte != 0) {
        return Err(Error::option("options", "asks for something that this version does not know"));
    }
    if asked.flags & !(SANDCELL_PULL_PLAIN_HTTP | SANDCELL_PULL_DURABLE) != 0 {
        return Err(Error::option("options", format!("the flags {:#x} have bits that nobody knows", asked.flags)));
    }
    if asked.user.is_null() != asked.password.is_null() {
        return Err(Error::option("options", "user and password go together"));
    }
    Ok(asked)
}

/// Gets an image from its registry: `image` is a name such as `debian:12`, also with a registry before it and a digest
/// behind it. `options` may be NULL. `id` becomes the image's. SANDCELL_ERROR_CONFIG where the library was built without
/// registries (`ffi/install --with-pull` builds it with them).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_pull(
    store: *const Store,
    image: *const c_char,
    options: *const PullOptions,
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
/// The texts of `asked` are NULL or C strings.
#[cfg(feature = "pull")]
unsafe fn pull(store: &Store, image: &str, asked: &PullOptions) -> Result<*mut c_char, Error> {
    use std::sync::{Mutex, PoisonError};

    use crate::text::{hand_out, maybe, path};

    /// The caller's function with its argument, for whichever thread has something to tell.
    struct Told(Progress, *mut c_void);
    // SAFETY: the header says that the function is called from threads of the library.
    unsafe impl Send for Told {}

    let told = Mutex::new(Told(asked.progress, asked.progress_data));
    let tell = |progress| {
        if let sandcell::image::Progress::Bytes { done, total, .. } = progress {
            let told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if let Told(Some(call), data) = *told {
                // SAFETY: the caller's function, with what it was given for it.
                unsafe { call(data, done, total) }
            }
        }
    };
    let mut how = sandcell::image::Pull::new().progress(&tell);
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
    if asked.flags & SANDCELL_PULL_PLAIN_HTTP != 0 {
        how = how.plain_http();
    }
    if asked.flags & SANDCELL_PULL_DURABLE != 0 {
        how = how.durable();
    }
    Ok(hand_out(store.inner.pull(&image.parse()?, &how)?.id.to_string()))
}

/// # Safety
/// None needed; it has to look like the other.
#[cfg(not(feature = "pull"))]
unsafe fn pull(_: &Store, _: &str, _: &PullOptions) -> Result<*mut c_char, Error> {
    Err(Error::option(
        "pull",
        "this library was built without registries (`ffi/install --with-pull` builds it with them)",
    ))
}
