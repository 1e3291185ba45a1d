//! New images: builds from steps, commits of what runs changed.

use std::ffi::{c_char, c_int, c_void};

use sandcell::Error;
use sandcell::image::{Build as Steps, BuildStep, Commit as Layer, IdRange, Owners};

use crate::error::{ErrorObject, SANDCELL_ERROR_CONFIG, entry, free, guard};
use crate::image::{Store, base_of, unknown};
use crate::load::Stop;
use crate::policy::Policy;
use crate::text::{c_text, empty, hand_out, handle, maybe, path, word, words};

/// What a build or a commit is to be like, with the first setter that was refused.
#[derive(Debug)]
struct Remembering<T> {
    /// Nothing only where a setter panicked.
    what: Option<T>,
    mistake: Option<ErrorObject>,
}

impl<T> Remembering<T> {
    /// Makes one change, or keeps the mistake for later.
    fn set(&mut self, change: impl FnOnce(T) -> Result<T, ErrorObject>) -> c_int
    where
        T: Clone,
    {
        let done = guard(|| self.what.clone().map(change).transpose());
        match done {
            Ok(what) => {
                self.what = what;
                0
            }
            Err(mistake) => {
                let kind = mistake.kind;
                self.mistake.get_or_insert(mistake);
                kind
            }
        }
    }

    fn get(&self) -> Result<&T, ErrorObject> {
        match (&self.mistake, &self.what) {
            (Some(mistake), _) => Err(mistake.clone()),
            (None, what) => what.as_ref().ok_or_else(|| Error::option("build", "is broken").into()),
        }
    }
}

/// Is told of a step that is about to be made: its number from 1 on, how many there are, its text as a Dockerfile has it, and
/// whether its layer was made before. From the thread that builds; it may not throw, and calls nothing of sandcell's but
/// sandcell_stop_now.
pub type BuildProgress =
    Option<unsafe extern "C" fn(data: *mut c_void, number: usize, total: usize, step: *const c_char, cached: bool)>;

/// The steps of an image. To be set up by one thread.
#[derive(Debug)]
pub struct Build {
    steps: Remembering<Steps>,
    progress: BuildProgress,
    data: *mut c_void,
}

fn build(steps: Result<Steps, ErrorObject>) -> *mut Build {
    let (what, mistake) = match steps {
        Ok(steps) => (Some(steps), None),
        Err(mistake) => (None, Some(mistake)),
    };
    let steps = Remembering { what, mistake };
    Box::into_raw(Box::new(Build { steps, progress: None, data: std::ptr::null_mut() }))
}

/// # Safety
/// `build` is NULL or a live handle that no other thread uses now.
unsafe fn step(build: *mut Build, change: impl FnOnce(Steps) -> Result<Steps, ErrorObject>) -> c_int {
    // SAFETY: by this function's contract.
    unsafe { build.as_mut() }.map_or(SANDCELL_ERROR_CONFIG, |build| build.steps.set(change))
}

/// Begins a build on an image of the store, or on nothing: `scratch`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_new(base: *const c_char) -> *mut Build {
    // SAFETY: NULL or a C string by contract.
    guard(|| Ok(build(unsafe { word(base, "base") }.map(Steps::from).map_err(Into::into))))
        .unwrap_or(std::ptr::null_mut())
}

/// Begins a build with the steps of a Dockerfile, which is read now. An instruction that is not supported is an error
/// that names it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_read(
    dockerfile: *const c_char,
    made: *mut *mut Build,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, writable, or a C string by contract.
    unsafe {
        entry(error, || {
            let (place, file) = (empty(made, "made")?, path(dockerfile, "dockerfile")?.display().to_string());
            let text = std::fs::read_to_string(path(dockerfile, "dockerfile")?)
                .map_err(|e| Error::option(format!("dockerfile {file}"), format!("cannot be read: {e}")))?;
            *place = build(Ok(Steps::dockerfile(&text, &file)?));
            Ok(())
        })
    }
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_free(build: *mut Build) {
    // SAFETY: NULL or a handle that is freed once, by contract.
    unsafe { free(build) }
}

/// Adds a step that is one text: `run` (a line of shell), `workdir`, `user`, `expose`, `volume` or
/// `stop_signal`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_add_step(
    build: *mut Build,
    kind: *const c_char,
    argument: *const c_char,
) -> c_int {
    // SAFETY: NULL, live, or C strings by contract.
    unsafe {
        step(build, |steps| {
            let text = word(argument, "argument")?;
            Ok(match word(kind, "kind")? {
                "run" => steps.run(text),
                "workdir" => steps.workdir(text),
                "user" => steps.user(text),
                "expose" => steps.expose(text),
                "volume" => steps.volume(text),
                "stop_signal" => steps.stop_signal(text),
                other => {
                    return Err(unknown("kind", other, "run, workdir, user, expose, volume, stop_signal").into());
                }
            })
        })
    }
}

/// Adds a step that is a list of words (with a NULL at its end): `run` (without a shell), `cmd` or `entrypoint`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_add_words(
    build: *mut Build,
    kind: *const c_char,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: NULL, live, C strings, or a list with a NULL at its end, by contract.
    unsafe {
        step(build, |steps| {
            let argv = words(argv, "argv")?;
            Ok(match word(kind, "kind")? {
                "run" => steps.run_words(argv),
                "cmd" => steps.cmd(argv),
                "entrypoint" => steps.entrypoint(argv),
                other => return Err(unknown("kind", other, "run, cmd, entrypoint").into()),
            })
        })
    }
}

/// Adds a step that sets something: a variable (`env`) or a `label`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_add_pair(
    build: *mut Build,
    kind: *const c_char,
    key: *const c_char,
    content: *const c_char,
) -> c_int {
    // SAFETY: NULL, live, or C strings by contract.
    unsafe {
        step(build, |steps| {
            let (key, value) = (word(key, "key")?, word(content, "content")?);
            Ok(match word(kind, "kind")? {
                "env" => steps.env(key, value),
                "label" => steps.label(key, value),
                other => return Err(unknown("kind", other, "env, label").into()),
            })
        })
    }
}

/// Adds a step that copies files of the context (a list with a NULL at its end; `*`, `?` and `[...]` are patterns) to
/// `place`: a directory where it ends with a slash, is one in the image, or where there are several. `owner` is
/// `USER[:GROUP]`, or NULL for root; `mode` is UINT32_MAX for that of the files.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_add_copy(
    build: *mut Build,
    files: *const *const c_char,
    place: *const c_char,
    owner: *const c_char,
    mode: u32,
) -> c_int {
    // SAFETY: NULL, live, C strings, or a list with a NULL at its end, by contract.
    unsafe {
        step(build, |steps| {
            let owner = maybe(owner, "owner")?.map(str::to_owned);
            let mode = (mode != u32::MAX).then_some(mode);
            Ok(steps.copy_as(words(files, "files")?, word(place, "place")?, owner, mode))
        })
    }
}

/// Where the files to be copied are, with its `.dockerignore`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_set_context(build: *mut Build, dir: *const c_char) -> c_int {
    // SAFETY: NULL, live, or a C string by contract.
    unsafe { step(build, |steps| Ok(steps.context(path(dir, "context")?))) }
}

/// The new image's name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_set_name(build: *mut Build, name: *const c_char) -> c_int {
    // SAFETY: NULL, live, or a C string by contract.
    unsafe { step(build, |steps| Ok(steps.name(word(name, "name")?.parse()?))) }
}

/// The value of an `ARG` of the Dockerfile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_add_arg(
    build: *mut Build,
    key: *const c_char,
    content: *const c_char,
) -> c_int {
    // SAFETY: NULL, live, or C strings by contract.
    unsafe { step(build, |steps| Ok(steps.arg(word(key, "key")?, word(content, "content")?))) }
}

/// What the programs of the steps run in: limits, network, mounts, as the policy has them now. Root, upper, user, working
/// directory and environment are the build's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_set_policy(build: *mut Build, policy: *const Policy) -> c_int {
    // SAFETY: NULL or live by contract.
    unsafe { step(build, |steps| Ok(steps.sandbox(handle(policy, "policy")?.builder()?.clone()))) }
}

/// The image's date, and the latest that a file in a new layer can have, in seconds since 1970 (SOURCE_DATE_EPOCH). An image
/// has no date by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_set_timestamp(build: *mut Build, seconds: i64) -> c_int {
    // SAFETY: NULL or live by contract.
    unsafe { step(build, |steps| Ok(steps.timestamp(seconds))) }
}

/// Whether layers that were made before by the same step on the same layers are taken as they are; they are by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_set_cache(build: *mut Build, cache: bool) -> c_int {
    // SAFETY: NULL or live by contract.
    unsafe { step(build, |steps| Ok(steps.cache(cache))) }
}

/// Lets programs write to the caller's own standard output and error. Otherwise the end of what they wrote is in the error of
/// a step that fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_set_show_output(build: *mut Build, show: bool) -> c_int {
    // SAFETY: NULL or live by contract.
    unsafe { step(build, |steps| Ok(steps.show_output(show))) }
}

/// Ends the build early: the program that runs is killed, and no further step is made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_set_stop(build: *mut Build, stop: *const Stop) -> c_int {
    // SAFETY: NULL or live by contract.
    unsafe { step(build, |steps| Ok(steps.stop(handle(stop, "stop")?.stop.clone()))) }
}

/// Tells `progress` (NULL for nobody) of every step; `data` is passed to it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_build_set_progress(
    build: *mut Build,
    progress: BuildProgress,
    data: *mut c_void,
) -> c_int {
    // SAFETY: NULL or live by contract.
    let Some(build) = (unsafe { build.as_mut() }) else {
        return SANDCELL_ERROR_CONFIG;
    };
    (build.progress, build.data) = (progress, data);
    0
}

/// Makes an image by its steps. `id` becomes the image's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_build(
    store: *const Store,
    build: *const Build,
    id: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(id, "id")?;
            let (store, build) = (handle(store, "store")?, handle(build, "build")?);
            let tell = |step: &BuildStep| {
                if let Some(call) = build.progress {
                    let text = c_text(step.text.as_str());
                    // The caller's function, with what it was given for it.
                    call(build.data, step.number, step.total, text.as_ptr(), step.cached)
                }
            };
            *place = hand_out(store.inner.build(build.steps.get()?, &tell)?.id.to_string());
            Ok(())
        })
    }
}

/// How to commit. To be set up by one thread.
#[derive(Debug)]
pub struct Commit {
    how: Remembering<How>,
}

/// Base and owners are known only where the upper is.
#[derive(Debug, Clone)]
struct How {
    layer: Layer,
    base: Option<String>,
    owners: Option<Owners>,
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
}

/// # Safety
/// `commit` is NULL or a live handle that no other thread uses now.
unsafe fn with(commit: *mut Commit, change: impl FnOnce(How) -> Result<How, ErrorObject>) -> c_int {
    // SAFETY: by this function's contract.
    unsafe { commit.as_mut() }.map_or(SANDCELL_ERROR_CONFIG, |commit| commit.how.set(change))
}

impl Default for How {
    fn default() -> How {
        How {
            layer: Layer::on("").created_by("sandcell commit"),
            base: None,
            owners: None,
            uids: Vec::new(),
            gids: Vec::new(),
        }
    }
}

/// Begins a commit in which everything has its default. NULL only where sandcell itself is broken.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_commit_new() -> *mut Commit {
    let how = || Remembering { what: Some(How::default()), mistake: None };
    guard(|| Ok(Box::into_raw(Box::new(Commit { how: how() })))).unwrap_or(std::ptr::null_mut())
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_commit_free(commit: *mut Commit) {
    // SAFETY: NULL or a handle that is freed once, by contract.
    unsafe { free(commit) }
}

/// Says something about the commit: `name` (the new image's), `base` (the image that the upper lies on, instead of the one
/// that was run), `created` (a date, RFC 3339; none by default), `created_by` (the command, for the history),
/// `author`, `comment`, or `owners` (whom the files belong to in the image: `noted`, the default: as the run mapped them;
/// `root`; `kept`: as they are on the disk; or see sandcell_commit_add_uids).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_commit_set(commit: *mut Commit, key: *const c_char, content: *const c_char) -> c_int {
    // SAFETY: NULL, live, or C strings by contract.
    unsafe {
        with(commit, |mut how| {
            let text = word(content, "content")?;
            match word(key, "key")? {
                "name" => how.layer = how.layer.name(text.parse()?),
                "base" => how.base = Some(text.to_owned()),
                "created" => how.layer = how.layer.created(text),
                "created_by" => how.layer = how.layer.created_by(text),
                "author" => how.layer = how.layer.author(text),
                "comment" => how.layer = how.layer.comment(text),
                "owners" => {
                    (how.uids, how.gids) = (Vec::new(), Vec::new());
                    how.owners = match text {
                        "noted" => None,
                        "root" => Some(Owners::root()),
                        "kept" => Some(Owners::as_they_are()),
                        other => return Err(unknown("owners", other, "noted, root, kept").into()),
                    }
                }
                other => {
                    let known = "name, base, created, created_by, author, comment, owners";
                    return Err(unknown("key", other, known).into());
                }
            }
            Ok(how)
        })
    }
}

/// # Safety
/// As for [`with`].
unsafe fn add_ids(
    commit: *mut Commit,
    (inside, host, count): (u32, u32, u32),
    ranges: impl FnOnce(&mut How) -> &mut Vec<IdRange>,
) -> c_int {
    // SAFETY: passed on.
    unsafe {
        with(commit, |mut how| {
            if count == 0 || [inside, host].iter().any(|first| first.checked_add(count).is_none()) {
                return Err(Error::option("count", "is none, or more than there are ids from there on").into());
            }
            ranges(&mut how).push(IdRange { inside, host, count });
            how.owners = Some(Owners::mapped(how.uids.clone(), how.gids.clone()));
            Ok(how)
        })
    }
}

/// Says whose the files of UIDs on the disk are in the image: `count` UIDs from `host` on belong to those from `inside` on.
/// A file of an id that is in no range is root's. This is for what a run wrote that noted no ids, and is instead of `owners`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_commit_add_uids(commit: *mut Commit, inside: u32, host: u32, count: u32) -> c_int {
    // SAFETY: NULL or live by contract.
    unsafe { add_ids(commit, (inside, host, count), |how| &mut how.uids) }
}

/// The same for groups.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_commit_add_gids(commit: *mut Commit, inside: u32, host: u32, count: u32) -> c_int {
    // SAFETY: NULL or live by contract.
    unsafe { add_ids(commit, (inside, host, count), |how| &mut how.gids) }
}

/// Changes the configuration as an instruction of a Dockerfile does: `CMD ["app"]`, `ENV A=b`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_commit_add_change(commit: *mut Commit, line: *const c_char) -> c_int {
    // SAFETY: NULL, live, or a C string by contract.
    unsafe {
        with(commit, |how| {
            let layer = how.layer.change(word(line, "line")?)?;
            Ok(How { layer, ..how })
        })
    }
}

/// Sets a key of the image's `config` object (`Env`, `Cmd`, `User`, `Labels`) to a value in JSON; `null` takes it away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_commit_set_config(
    commit: *mut Commit,
    key: *const c_char,
    json: *const c_char,
) -> c_int {
    // SAFETY: NULL, live, or C strings by contract.
    unsafe {
        with(commit, |how| {
            let value = serde_json::from_str(word(json, "json")?)
                .map_err(|e| Error::option("json", format!("is no JSON: {e}")))?;
            let layer = how.layer.set(word(key, "key")?, value);
            Ok(How { layer, ..how })
        })
    }
}

/// Makes an image of what runs on an image changed: `upper` is what sandcell_policy_set_upper_dir got, or NULL to change
/// the configuration alone, for which `commit` names the base. `commit` may be NULL otherwise. `id` becomes the new image's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_store_commit(
    store: *const Store,
    upper: *const c_char,
    commit: *const Commit,
    id: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, writable, or C strings by contract.
    unsafe {
        entry(error, || {
            let place = empty(id, "id")?;
            let store = handle(store, "store")?;
            let How { layer, base, owners, .. } = match commit.as_ref() {
                Some(commit) => commit.how.get()?.clone(),
                None => How::default(),
            };
            let image = if upper.is_null() && base.is_some() {
                store.inner.commit(None, &layer.base(base.unwrap_or_default()))?
            } else {
                let upper = path(upper, "upper")?;
                let owners = owners.map_or_else(|| Owners::of_upper(upper), Ok)?;
                let layer = layer.base(base_of(upper, base.as_deref())?).owners(owners);
                store.inner.commit(Some(&upper.join("upper")), &layer)?
            };
            *place = hand_out(image.id.to_string());
            Ok(())
        })
    }
}
